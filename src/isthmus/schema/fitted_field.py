"""What a model must know of each feature once the encoder is fitted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from isthmus.schema.features import NumberEmbedding, Pooling, TimePart

STATISTICS_WIDTH = 4
"""Numbers of a value with statistics: effect and log count, then both within the row's domain."""
TREES = "trees"
"""The field that holds the forest's score."""
HOURS, WEEKDAYS = 25, 8  # ids of the parts of a time, with the missing time's id 0
TREES_WIDTH = 2
"""Columns of that field: the score, and for train rows the score without the domain."""


@dataclass(frozen=True, slots=True)
class FittedField:
    """What a model must know of one feature once its vocabulary is fitted.

    ``table``: name of the embedding table, shared by features with one vocabulary; ``""`` for
    numbers. ``table_rows``: ids run from 0 (unknown) to ``table_rows - 1``; 0 for numbers.
    ``width``: columns of the model's input that it fills. ``is_domain``: the feature is the domain
    column itself, so whoever hides the domain of a row must set this id to 0 too. ``source``: of
    statistics and of the parts of a time, the feature that they are of. ``crossed``: of the statistics
    of a pair, the other feature. ``embedding``: of a number, what the model makes of it. ``bins``: the
    edges of a piecewise embedding's bins, in scaled numbers. ``query``: of a list with target attention,
    the feature that its items are weighted by; ``pooling`` is then how a linear part pools. ``places``:
    how many places of such a list's items have a meaning, counted from the end; 0 for none. ``grown``: how
    many of the table's ids, its last ones, came after the fit (`isthmus.data.encoding.growth`).
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
    embedding: NumberEmbedding = "none"
    bins: tuple[float, ...] = ()
    query: str = ""
    places: int = 0
    grown: int = 0

    @property
    def fitted_rows(self) -> int:
        """Ids of the table at the fit."""
        return self.table_rows - self.grown

    @property
    def numbers(self) -> int:
        """Columns of ``Batch.numeric`` that it fills; a forest's second score is not counted."""
        if self.kind == "numeric":
            return 1
        return self.width if self.kind in ("vector", "statistics", "trees") else 0


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


def part_fields(name: str, parts: Sequence[TimePart], dim: int) -> tuple[FittedField, ...]:
    """The fields of a time's parts, in their order; the day of the year has two.

    >>> [field.name for field in part_fields("at", ("weekday", "day"), 16)]
    ['at:weekday', 'at:day_sin', 'at:day_cos']
    """
    fields = {
        "hour": (_part_category(f"{name}:hour", name, HOURS, dim),),
        "weekday": (_part_category(f"{name}:weekday", name, WEEKDAYS, dim),),
        "day": tuple(
            FittedField(f"{name}:day_{side}", "numeric", 1, source=name) for side in ("sin", "cos")
        ),
        "age": (FittedField(f"{name}:age", "numeric", 1, source=name),),
    }
    return tuple(field for part in parts for field in fields[part])


def _part_category(own: str, name: str, rows: int, dim: int) -> FittedField:
    return FittedField(own, "categorical", dim, table=own, table_rows=rows, source=name)
