"""The ``data`` section of a config."""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_serializer, model_validator

from isthmus.errors import SchemaError
from isthmus.schema.address import Address
from isthmus.schema.agreement import (
    check_attention,
    check_crosses,
    check_dim,
    check_parts,
    check_shares,
)
from isthmus.schema.features import Categorical, CategoricalList, Feature, NumericList, Section
from isthmus.schema.fitted_field import TREES, statistics_name
from isthmus.schema.forest import Forest, TreesKey

REFUSED = ("null_label", "refuse")


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
    or train and are scored as the unknown domain. ``null_label``: rows whose label is null are an
    error, or unlabelled train rows, of which only objectives that read such rows learn
    (`isthmus.objectives`). ``trees``: fit a boosted forest on the same
    features, and let its score be an input (`isthmus.data.encoding.trees`); a section has the
    forest's settings. ``crosses``: pairs of single columns with statistics; the pair's own statistics are inputs where validation rows confirm
    them (`isthmus.data.store.counting.confirming`).
    """

    table: str | None = None
    domain: str
    domains: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    null_domain: Literal["refuse", "unknown"] = "refuse"
    label: Label
    null_label: Literal["refuse", "unlabelled"] = "refuse"
    time: str | None = None
    group: str | None = None
    weight: str | None = None
    negative_rate: float = Field(default=1.0, gt=0, le=1)
    features: dict[str, Feature]
    crosses: tuple[tuple[str, str], ...] = ()
    trees: TreesKey = False
    split: Split = Split()

    @field_validator("table")
    @classmethod
    def _check_table(cls, table: str | None) -> str | None:
        """Refuse an address that holds a credential, before a file repeats it."""
        try:
            Address.of(table or "")
        except SchemaError as fault:
            raise ValueError(str(fault)) from None
        return table

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

    @model_serializer(mode="wrap")
    def _written(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Leave out ``null_label`` where it refuses: what was encoded before there was one is found."""
        return {key: value for key, value in handler(self).items() if (key, value) != REFUSED}

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        return self._checked()

    def _checked(self) -> "DataConfig":
        if not self.features:
            raise ValueError("data.features must name at least one column, got none")
        twice = [name for name in self.domains or () if (self.domains or ()).count(name) > 1]
        if twice:
            raise ValueError(f"data.domains must name each domain once, got {twice[0]!r} twice")
        for role, column in {"label": self.label.column, "weight": self.weight}.items():
            if column is not None and column in self.features:
                raise ValueError(f"column {column!r} is the {role} and must not be a feature too")
        for name, feature in self.features.items():
            check_attention(name, feature, self.features)
            if name == self.domain and feature.kind != "categorical":
                raise ValueError(
                    f"feature {name!r} is the domain and must be categorical, got {feature.kind!r}:"
                    " a domain that is a number cannot be hidden to train the unknown domain"
                )
            check_dim(name, feature)
            check_shares(name, feature, self.features)
            check_parts(name, feature, self.features)
        for name in self.with_statistics:
            if statistics_name(name) in self.features:
                raise ValueError(
                    f"feature {name!r} has statistics, which are called {statistics_name(name)!r}:"
                    " no other feature must have that name"
                )
        check_crosses(self.crosses, self.features, self.domain)
        if self.trees and TREES in self.features:
            raise ValueError(
                f"data.trees gives an input that is called {TREES!r}: no feature must have that name"
            )
        if self.split.by == "time" and self.time is None:
            raise ValueError("split.by is 'time', so data.time must name a column")
        if self.split.by == "user" and self.group is None:
            raise ValueError("split.by is 'user', so data.group must name a column")
        return self

    def for_trees(self) -> "DataConfig":
        """The section as a model of trees needs it.

        There is a forest, and each categorical feature and list but the domain has statistics, unless
        it says otherwise: by them a forest reads what has many values. Raises ValueError where
        ``trees`` is said to be false, and for a list that a forest cannot read.
        """
        for name, feature in self.features.items():
            said = (
                getattr(feature, "statistics", False)
                or "statistics" not in feature.model_fields_set
            )
            if isinstance(feature, NumericList) or (
                isinstance(feature, CategoricalList) and not said
            ):
                got = "a list of numbers" if feature.kind == "numeric_list" else "statistics false"
                raise ValueError(
                    f"feature {name!r} must be no list, or one with statistics, where model.name is"
                    f" 'trees', got {got}"
                )
        if not self.trees and "trees" in self.model_fields_set:
            raise ValueError("data.trees must be true where model.name is 'trees', got false")
        features = dict(self.features)
        for name, feature in features.items():
            if name == self.domain or not isinstance(feature, Categorical | CategoricalList):
                continue
            if "statistics" not in feature.model_fields_set:
                features[name] = feature.model_copy(update={"statistics": True})
        made = self.model_copy(update={"trees": self.trees or True, "features": features})
        return made._checked()

    @property
    def with_statistics(self) -> tuple[str, ...]:
        """The features whose statistics are inputs too."""
        return tuple(
            name for name, feature in self.features.items() if getattr(feature, "statistics", False)
        )

    @property
    def taught(self) -> bool:
        """Whether train rows teach numbers of rows: statistics, or the score of a forest."""
        return bool(self.trees or self.with_statistics)

    @property
    def keeps_unlabelled(self) -> bool:
        """Whether rows without a label are kept, for objectives that read such rows."""
        return self.null_label == "unlabelled"

    @property
    def forest(self) -> Forest:
        """The settings of the forest, where there is one."""
        return self.trees if isinstance(self.trees, Forest) else Forest()

    def content(self) -> dict[str, Any]:
        """Plain values of all that decides which rows there are and how they are encoded.

        Leaves out where the table is.
        """
        return self.model_dump(mode="json", exclude={"table"})


def _domain_name(name: int | float | date) -> str:
    """The name of a domain that YAML read as a number or a date: 3.0 is ``3``."""
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)
