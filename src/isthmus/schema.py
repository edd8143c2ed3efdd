"""What a table's columns mean: the ``data`` section of a config, and the fields a model sees.

No torch here, no files: a schema is read from YAML, checked, and carried from fit to serve.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

EMBEDDING_DIM = 16
STATISTICS_WIDTH = 4  # effect and log count of a value, then both within the row's domain
TREES = "trees"  # the field that holds the forest's score
TREES_WIDTH = 2  # columns of a batch: the score, and for train rows the score without the domain

Pooling = Literal["mean", "sum", "max"]
Scale = Literal["standard", "log", "min_max", "none"]
NotANumber = Literal["refuse", "missing"]


class Section(BaseModel):
    """A frozen part of a config; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Categorical(Section):
    """One value of any dtype a row, looked up in a table of embeddings.

    ``min_count``: values with fewer train rows fold into the unknown (id 0).
    ``hash_buckets``: hash the values into this many ids instead of keeping a vocabulary.
    ``shares``: use the vocabulary and the table of this other column. ``statistics``: four numbers
    more, which say how often the train rows hold the value and how often they are positive then,
    in all domains and in the row's domain (`isthmus.data.encoding.counted.statistics`).
    """

    kind: Literal["categorical"] = "categorical"
    dim: int = Field(default=EMBEDDING_DIM, ge=1)
    min_count: int = Field(default=1, ge=1)
    hash_buckets: int | None = Field(default=None, ge=1)
    shares: str | None = None
    statistics: bool = False


class CategoricalList(Section):
    """Any number of values a row, pooled into one embedding; the last ``max_length`` are kept.

    ``statistics``: as of `Categorical`, and then the mean over the row's values.
    """

    kind: Literal["categorical_list"] = "categorical_list"
    dim: int = Field(default=EMBEDDING_DIM, ge=1)
    min_count: int = Field(default=1, ge=1)
    hash_buckets: int | None = Field(default=None, ge=1)
    shares: str | None = None
    statistics: bool = False
    max_length: int = Field(default=50, ge=1)
    pooling: Pooling = "mean"


class Numeric(Section):
    """One number a row. ``log`` is sign(x) log(1 + |x|), then standardised; nulls take the mean.

    ``nan``: what a float NaN is, an error or a null.
    """

    kind: Literal["numeric"] = "numeric"
    scale: Scale = "standard"
    nan: NotANumber = "refuse"


class NumericList(Section):
    """Any number of numbers a row, scaled one by one and pooled into one; empty gives 0."""

    kind: Literal["numeric_list"] = "numeric_list"
    scale: Scale = "standard"
    nan: NotANumber = "refuse"
    max_length: int = Field(default=50, ge=1)
    pooling: Pooling = "mean"


class Vector(Section):
    """A given embedding: a list of exactly ``width`` floats a row, used as it is."""

    kind: Literal["vector"] = "vector"
    width: int = Field(ge=1)


def _domain_name(name: int | float | date) -> str:
    """The name of a domain that YAML read as a number or a date: 3.0 is ``3``."""
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)


def _kind(value: Any) -> str | None:
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)


Feature = Annotated[
    Annotated[Categorical, Tag("categorical")]
    | Annotated[CategoricalList, Tag("categorical_list")]
    | Annotated[Numeric, Tag("numeric")]
    | Annotated[NumericList, Tag("numeric_list")]
    | Annotated[Vector, Tag("vector")],
    Discriminator(_kind),
]


class Label(Section):
    """The label column: 0 and 1, or the rule that makes a row positive.

    ``above``: a row is positive when its value exceeds this number. ``equals``: when its value is
    this text, number or truth value, whatever type carries it; every other value is negative.
    """

    column: str
    above: float | None = None
    equals: bool | int | float | datetime | date | str | None = None

    @model_validator(mode="after")
    def _check(self) -> "Label":
        if self.above is not None and self.equals is not None:
            raise ValueError(
                "data.label must have above or equals, not both, got"
                f" above={self.above:g} and equals={self.equals!r}"
            )
        return self


class Split(Section):
    """How rows are divided into train, validation and test.

    ``rotation`` turns the circle of hashes behind ``random`` and ``user`` by so many turns: with
    fractions (1 - 1/K - v, v, 1/K), the K splits of rotation 0, 1/K .. (K - 1)/K test every row
    once.
    """

    by: Literal["random", "time", "user"] = "random"
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = Field(default=0, ge=0)
    rotation: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> "Split":
        if min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"split.fractions must be positive and sum to 1, got {self.fractions}")
        if self.rotation and self.by == "time":
            raise ValueError(
                f"split.rotation must be 0 where split.by is 'time', got {self.rotation}"
            )
        return self


class DataConfig(Section):
    """The ``data`` section: where the rows are and what each column means.

    ``domains``: names of the domains whose rows are kept; every other row of the table is left out
    before anything is split, fitted or checked. ``null_domain``: rows without a domain are an error,
    or train and are scored as the unknown domain. ``trees``: fit a boosted forest on the same
    features, and let its score be an input (`isthmus.data.encoding.trees`). ``crosses``: pairs of
    single columns with statistics; the pair's own statistics are inputs where validation rows confirm
    them (`isthmus.data.store.counting.confirming`).
    """

    table: str | None = None
    domain: str
    domains: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    null_domain: Literal["refuse", "unknown"] = "refuse"
    label: Label
    time: str | None = None
    group: str | None = None
    weight: str | None = None
    negative_rate: float = Field(default=1.0, gt=0, le=1)
    features: dict[str, Feature]
    crosses: tuple[tuple[str, str], ...] = ()
    trees: bool = False
    split: Split = Split()

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, data: Any) -> Any:
        """Let a bare kind stand for a feature, a bare column name for the label, 3 for '3'."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if isinstance(data.get("domains"), Sequence) and not isinstance(data["domains"], str):
            # YAML reads the names of numbered domains as numbers, and those of days as dates.
            data["domains"] = [
                _domain_name(name) if isinstance(name, int | float | date) else name
                for name in data["domains"]
            ]
        if isinstance(data.get("label"), str):
            data["label"] = {"column": data["label"]}
        if isinstance(data.get("features"), dict):
            data["features"] = {
                name: {"kind": feature} if isinstance(feature, str) else feature
                for name, feature in data["features"].items()
            }
        return data

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        if not self.features:
            raise ValueError("data.features must name at least one column, got none")
        twice = [name for name in self.domains or () if (self.domains or ()).count(name) > 1]
        if twice:
            raise ValueError(f"data.domains must name each domain once, got {twice[0]!r} twice")
        for role, column in {"label": self.label.column, "weight": self.weight}.items():
            if column is not None and column in self.features:
                raise ValueError(f"column {column!r} is the {role} and must not be a feature too")
        for name, feature in self.features.items():
            if name == self.domain and feature.kind != "categorical":
                raise ValueError(
                    f"feature {name!r} is the domain and must be categorical, got {feature.kind!r}:"
                    " a domain that is a number cannot be hidden to train the unknown domain"
                )
            if not isinstance(feature, Categorical | CategoricalList) or feature.shares is None:
                continue
            shared = feature.shares
            if feature.min_count > 1 or feature.hash_buckets is not None:
                raise ValueError(
                    f"feature {name!r} shares the vocabulary of {shared!r}, so min_count and"
                    " hash_buckets must stand there, not here"
                )
            other = self.features.get(shared)
            if not isinstance(other, Categorical | CategoricalList) or other.shares is not None:
                raise ValueError(
                    f"feature {name!r} shares {shared!r}, which must be a categorical feature"
                    " with a vocabulary of its own"
                )
            if other.dim != feature.dim:
                raise ValueError(
                    f"feature {name!r} has dim {feature.dim} but shares the table of {shared!r},"
                    f" whose dim is {other.dim}"
                )
        for name in self.with_statistics:
            if statistics_name(name) in self.features:
                raise ValueError(
                    f"feature {name!r} has statistics, which are called {statistics_name(name)!r}:"
                    " no other feature must have that name"
                )
        _check_crosses(self)
        if self.trees and TREES in self.features:
            raise ValueError(
                f"data.trees gives an input that is called {TREES!r}: no feature must have that name"
            )
        if self.split.by == "time" and self.time is None:
            raise ValueError("split.by is 'time', so data.time must name a column")
        if self.split.by == "user" and self.group is None:
            raise ValueError("split.by is 'user', so data.group must name a column")
        return self

    @property
    def with_statistics(self) -> tuple[str, ...]:
        """The features whose statistics are inputs too."""
        return tuple(
            name for name, feature in self.features.items() if getattr(feature, "statistics", False)
        )

    @property
    def taught(self) -> bool:
        """Whether train rows teach numbers of rows: statistics, or the score of a forest."""
        return self.trees or bool(self.with_statistics)

    def content(self) -> dict[str, Any]:
        """Plain values of all that decides which rows there are and how they are encoded.

        Leaves out where the table is.
        """
        return self.model_dump(mode="json", exclude={"table"})


def _check_crosses(config: DataConfig) -> None:
    """Raise ValueError for a pair of columns that has no statistics of its own, or is there twice."""
    seen: set[frozenset[str]] = set()
    for left, right in config.crosses:
        pair = f"data.crosses pairs {left!r} with {right!r}"
        for name in (left, right):
            feature = config.features.get(name)
            if feature is None:
                raise ValueError(f"{pair}, which both must be features, got no feature {name!r}")
            if name == config.domain:
                raise ValueError(
                    f"{pair}, but a pair must not hold the domain {name!r}: statistics within the"
                    " domain are those of the pair"
                )
            if not isinstance(feature, Categorical):
                raise ValueError(
                    f"{pair}, which both must be categorical, got {feature.kind!r} for {name!r}"
                )
            if not feature.statistics:
                raise ValueError(
                    f"{pair}, which both must have statistics: true, got none for {name!r}"
                )
        if left == right:
            raise ValueError(f"{pair}, but a pair must be of two columns, got one twice")
        if frozenset((left, right)) in seen:
            raise ValueError(f"{pair}, but each pair must be there once, got it twice")
        seen.add(frozenset((left, right)))
        if (name := statistics_name(cross_name(left, right))) in config.features:
            raise ValueError(
                f"{pair}, whose statistics are called {name!r}: no feature must have that name"
            )


@dataclass(frozen=True, slots=True)
class FittedField:
    """What a model must know of one feature once its vocabulary is fitted.

    ``table``: name of the embedding table, shared by features with one vocabulary; ``""`` for
    numbers. ``table_rows``: ids run from 0 (unknown) to ``table_rows - 1``; 0 for numbers.
    ``width``: columns of the model's input that it fills. ``is_domain``: the feature is the domain
    column itself, so whoever hides the domain of a row must set this id to 0 too. ``source``: of
    statistics, the feature that they are of. ``crossed``: of the statistics of a pair, the other
    feature.
    """

    name: str
    kind: Literal[
        "categorical",
        "categorical_list",
        "numeric",
        "numeric_list",
        "vector",
        "statistics",
        "trees",
    ]
    width: int
    table: str = ""
    table_rows: int = 0
    pooling: Pooling = "mean"
    is_domain: bool = False
    source: str = ""
    crossed: str = ""


def statistics_name(feature: str) -> str:
    """The name of the field that holds a feature's statistics."""
    return f"{feature}:statistics"


def cross_name(left: str, right: str) -> str:
    """What a pair of features is called."""
    return f"{left} x {right}"


def statistics_field(name: str, crossed: str = "") -> FittedField:
    """The field that holds the statistics of a feature, or of a pair of features."""
    named = statistics_name(cross_name(name, crossed) if crossed else name)
    return FittedField(named, "statistics", STATISTICS_WIDTH, source=name, crossed=crossed)
