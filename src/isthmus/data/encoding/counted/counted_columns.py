"""The columns of a batch whose values are counted: single columns, lists, and pairs of single columns."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from jaxtyping import Int32, Int64

from isthmus.data.batch import DomainPlaces
from isthmus.data.encoding.lookup.index import Index
from isthmus.schema import STATISTICS_WIDTH, FittedField, cross_name

Ids = Int32[np.ndarray, " items"]
Lists = Sequence[tuple[np.ndarray, np.ndarray]]
NO_KEYS = np.empty(0, dtype=np.int64)


class Counted(Protocol):
    """What can be counted. ``rows``: ids run from 0 (unknown) to ``rows - 1``.

    ``numbers``: where its own numbers stand in ``Batch.numeric``.
    """

    @property
    def name(self) -> str:
        """The name of the column, or of the pair."""
        ...

    @property
    def listed(self) -> bool:
        """Whether a row holds any number of values."""
        ...

    @property
    def rows(self) -> int:
        """The number of ids."""
        ...

    @property
    def numbers(self) -> slice:
        """Where its own numbers stand in ``Batch.numeric``."""
        ...

    def items(
        self, categorical: Int32[np.ndarray, "rows columns"], lists: Lists
    ) -> tuple[Ids, Int64[np.ndarray, " ends"] | None]:
        """The ids of some rows, and the offsets of each row's ids in a list column."""
        ...


@dataclass(frozen=True, slots=True)
class CountedColumn:
    """A column with statistics. ``place``: among the single columns, or the lists."""

    name: str
    place: int
    listed: bool
    rows: int
    numbers: slice

    def items(
        self, categorical: Int32[np.ndarray, "rows columns"], lists: Lists
    ) -> tuple[Ids, Int64[np.ndarray, " ends"] | None]:
        """The ids of some rows, and the offsets of each row's ids in a list column."""
        if not self.listed:
            return np.ascontiguousarray(categorical[:, self.place]), None
        values, offsets = lists[self.place]
        return values, offsets


@dataclass(frozen=True, slots=True, eq=False)
class CountedCross:
    """A pair of single columns with statistics. A pair of values has an id, as a value has.

    The key of the values i and j is ``i * width + j``. Pair ``keys[n]`` has id n + 1. Id 0 is the
    unknown: a pair that ``keys`` does not hold, or of which either value is unknown. ``sides``: the
    names of the two columns. ``places``: theirs among the single columns. ``width``: the number of
    ids of the second one.
    """

    name: str
    sides: tuple[str, str]
    places: tuple[int, int]
    width: int
    numbers: slice
    keys: Int64[np.ndarray, " pairs"] = field(default_factory=lambda: NO_KEYS)
    index: Index = field(default_factory=lambda: Index(NO_KEYS))

    def of_pairs(self, keys: Int64[np.ndarray, " pairs"]) -> "CountedCross":
        """The same of these pairs, ascending. Raises ValueError for other keys."""
        if len(keys) and (keys[0] <= self.width or np.any(np.diff(keys) <= 0)):
            raise ValueError(f"the pairs of {self.name!r} must be known values, ascending")
        return replace(self, keys=keys, index=Index(keys))

    @property
    def listed(self) -> bool:
        """A row holds one pair."""
        return False

    @property
    def rows(self) -> int:
        """The number of ids."""
        return len(self.keys) + 1

    def row_keys(
        self, categorical: Int32[np.ndarray, "rows columns"]
    ) -> Int64[np.ndarray, " rows"]:
        """The key of each row; 0 where either value is unknown."""
        left, right = (categorical[:, place].astype(np.int64) for place in self.places)
        return np.where((left > 0) & (right > 0), left * self.width + right, 0)

    def items(
        self,
        categorical: Int32[np.ndarray, "rows columns"],
        lists: Lists,  # noqa: ARG002
    ) -> tuple[Ids, Int64[np.ndarray, " ends"] | None]:
        """The ids of some rows, one a row."""
        return self.index.find(self.row_keys(categorical)), None

    def values(self, pairs: Ids) -> tuple[Ids, Ids]:
        """The ids of both values of each pair; ``pairs`` from 1."""
        left, right = np.divmod(self.keys[pairs - 1], self.width)
        return left.astype(np.int32), right.astype(np.int32)


def columns_of(fields: Sequence[FittedField]) -> tuple[CountedColumn | CountedCross, ...]:
    """The columns and pairs whose statistics are inputs, in the order of their numbers in a batch.

    Pairs have no keys yet.
    """
    single = [one for one in fields if one.kind == "categorical"]
    listed = [one for one in fields if one.kind.endswith("_list")]
    named = {one.name: one for one in fields}
    found = []
    starts = iter(DomainPlaces.of(fields).statistics)
    for one in fields:
        if one.kind != "statistics":
            continue
        source, start = named[one.source], next(starts)
        numbers = slice(start, start + STATISTICS_WIDTH)
        if one.crossed:
            sides = (one.source, one.crossed)
            other = named[one.crossed]
            places = (single.index(source), single.index(other))
            name = cross_name(*sides)
            found.append(CountedCross(name, sides, places, other.table_rows, numbers))
        else:
            is_list = source.kind != "categorical"
            place = (listed if is_list else single).index(source)
            found.append(CountedColumn(source.name, place, is_list, source.table_rows, numbers))
    return tuple(found)
