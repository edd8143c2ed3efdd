"""The kinds of column that a feature can be."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

EMBEDDING_DIM = 16
"""The width of an embedding, where the config names none."""

Pooling = Literal["mean", "sum", "max"]
"""How the items of a list of numbers become one."""
ListPooling = Literal["mean", "sum", "max", "attention"]
"""How the items of a categorical list become one vector."""
Scale = Literal["standard", "log", "min_max", "quantile", "none"]
"""How numbers are scaled, by what the train rows say."""
NumberEmbedding = Literal["none", "piecewise", "periodic"]
"""How a number becomes a vector, if it does."""
NotANumber = Literal["refuse", "missing"]
"""What a NaN in a numeric column means."""
TimePart = Literal["hour", "weekday", "day", "age"]
"""What a model reads of a time."""
TimeUnit = Literal["s", "ms", "us", "ns"]
"""The unit of a time that is a whole number."""


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

    ``statistics``: as of `Categorical`, and then the mean over the row's values. ``pooling``
    ``attention``: each value counts by what it has to do with the row's ``query``, a categorical
    feature of the same ``dim`` (`isthmus.layers.inputs.attention`); ``positions``: and by its place.
    """

    kind: Literal["categorical_list"] = "categorical_list"
    dim: int = Field(default=EMBEDDING_DIM, ge=1)
    min_count: int = Field(default=1, ge=1)
    hash_buckets: int | None = Field(default=None, ge=1)
    shares: str | None = None
    statistics: bool = False
    max_length: int = Field(default=50, ge=1)
    pooling: ListPooling = "mean"
    query: str | None = None
    positions: bool = False


class Numeric(Section):
    """One number a row. ``log`` is sign(x) log(1 + |x|), then standardised; nulls take the mean.

    ``quantile``: the train quantile, as the standard normal has it; nulls become 0. ``nan``: what a
    float NaN is, an error or a null. ``embedding``: what the model makes of the scaled number, ``dim``
    learned numbers (`isthmus.layers.inputs.numbers`).
    """

    kind: Literal["numeric"] = "numeric"
    scale: Scale = "standard"
    nan: NotANumber = "refuse"
    embedding: NumberEmbedding = "none"
    dim: int | None = Field(default=None, ge=1)

    @property
    def width(self) -> int:
        """Columns of a model's input that it fills."""
        return 1 if self.embedding == "none" else self.dim or EMBEDDING_DIM


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


class Time(Section):
    """A date, a timestamp, or integers since 1970, taken apart (`isthmus.data.tables.moments`).

    ``parts``: ``hour`` 0 to 23 and ``weekday`` are categories, ``day`` is the day of the year as sine
    and cosine, ``age`` is the days before the newest train row's time. None is all that the column has:
    a date has no hour. ``unit``: what integers count. ``dim``: of the embeddings of hour and weekday.
    """

    kind: Literal["time"] = "time"
    parts: Annotated[tuple[TimePart, ...], Field(min_length=1)] | None = None
    unit: TimeUnit | None = None
    dim: int = Field(default=EMBEDDING_DIM, ge=1)

    @field_validator("parts")
    @classmethod
    def _once(cls, parts: tuple[TimePart, ...] | None) -> tuple[TimePart, ...] | None:
        twice = [part for part in parts or () if (parts or ()).count(part) > 1]
        if twice:
            raise ValueError(f"parts must name each part once, got {twice[0]!r} twice")
        return parts


def _kind(value: Any) -> str | None:
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)


Feature = Annotated[
    Annotated[Categorical, Tag("categorical")]
    | Annotated[CategoricalList, Tag("categorical_list")]
    | Annotated[Numeric, Tag("numeric")]
    | Annotated[NumericList, Tag("numeric_list")]
    | Annotated[Vector, Tag("vector")]
    | Annotated[Time, Tag("time")],
    Discriminator(_kind),
]
"""The config of any feature, told apart by its ``kind``."""
