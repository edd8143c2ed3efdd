"""Value statistics of encoded train rows: counted by fold, fitted, and written out of fold.

A train row's numbers come from the rows of the other folds (`isthmus.data.encoding.statistics`).
Memory follows the distinct (value, domain) pairs of the columns.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8

from isthmus.data.encoding.statistics import (
    FOLDS,
    ColumnStatistics,
    CountedColumn,
    Counts,
    Effects,
    Ids,
    Statistics,
    domain_rates,
    spread_of,
)
from isthmus.data.encoding.taught import Taught
from isthmus.data.store.arrays import Arrays
from isthmus.data.store.rows import Rows

BLOCK = 1 << 18  # rows that are counted or filled at once
DENSE_CELLS = 1 << 21  # cells that are counted in a plain array


class PairCounter:
    """Count the train rows of one column by (value, domain, fold), block by block.

    Memory follows the distinct triples. The unknown value, id 0, is not counted.
    """

    def __init__(self, ids: int, n_domains: int) -> None:
        self.domains = n_domains + 1
        cells = ids * self.domains * FOLDS
        self._dense = np.zeros((2, cells)) if cells <= DENSE_CELLS else None
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self._waiting = 0

    def add(
        self,
        ids: Ids,
        domain: Int32[np.ndarray, " items"],
        fold: UInt8[np.ndarray, " items"],
        label: Float32[np.ndarray, " items"],
        weight: Float32[np.ndarray, " items"] | None,
    ) -> None:
        """Take in some rows, or the items of their lists."""
        key = (ids.astype(np.int64) * self.domains + domain) * FOLDS + fold
        if self._dense is not None:
            size = self._dense.shape[1]
            self._dense[0] += np.bincount(key, weight, minlength=size)
            positive = label if weight is None else label * weight
            self._dense[1] += np.bincount(key, positive, minlength=size)
            return
        rows = np.ones(len(ids)) if weight is None else weight.astype(np.float64)
        self._parts.append(_summed(key, np.stack([rows, rows * label])))
        self._waiting += len(self._parts[-1][0])
        # Merging only when as much waits as was merged keeps the work linear in the rows.
        if self._waiting > max(1 << 20, len(self._parts[0][0])):
            self._merge()

    def _merge(self) -> None:
        if len(self._parts) > 1:
            keys, sums = zip(*self._parts, strict=True)
            self._parts = [_summed(np.concatenate(keys), np.concatenate(sums, axis=1))]
        self._waiting = 0

    def counts(self) -> Counts:
        """What was counted."""
        if self._dense is not None:
            key = np.flatnonzero(self._dense[0])
            sums = self._dense[:, key]
        else:
            self._merge()
            key, sums = self._parts[0] if self._parts else (np.empty(0, np.int64), np.empty((2, 0)))
        known = key >= self.domains * FOLDS
        key, sums = key[known], sums[:, known]
        cell, fold = np.divmod(key, FOLDS)
        first = np.flatnonzero(np.diff(cell, prepend=-1))
        pair = np.repeat(np.arange(len(first)), np.diff(first, append=len(cell)))
        table = np.zeros((2, len(first), FOLDS), dtype=np.float32)
        table[:, pair, fold] = sums
        value, domain = np.divmod(cell[first], self.domains)
        return Counts(value.astype(np.int32), domain.astype(np.int32), table[0], table[1])


def _summed(key: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys ascending, each once, and the sums (2, keys) of their entries."""
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=key[0] - 1)) if len(key) else np.empty(0, np.int64)
    return key[first], np.add.reduceat(sums[:, order], first, axis=1) if len(key) else sums


@dataclass(frozen=True, slots=True, eq=False)
class SplitRows:
    """Encoded rows of one split. ``fold``: of each train row; None for other rows.

    ``arrays.domain``: above ``n_domains`` for a domain that is not trained. ``row``: the number of
    each row in the table.
    """

    arrays: Arrays
    n_domains: int
    row: Int64[np.ndarray, " rows"]
    fold: UInt8[np.ndarray, " rows"] | None = None

    @classmethod
    def of(cls, rows: Rows, n_domains: int) -> "SplitRows":
        """The rows of a split, or some of them, whose numbers can be written."""
        return cls(rows.arrays, n_domains, rows.row, rows.fold)

    def take(self, at: Int64[np.ndarray, " chosen"]) -> "SplitRows":
        """A copy of the rows at these positions."""
        fold = None if self.fold is None else np.asarray(self.fold[at])
        return SplitRows(self.arrays.take(at), self.n_domains, np.asarray(self.row[at]), fold)

    def domains(self, some: slice) -> Int32[np.ndarray, " rows"]:
        """Model ids of some rows: 0 for a domain that is not trained."""
        domain = np.asarray(self.arrays.domain[some])
        return np.where(domain <= self.n_domains, domain, 0).astype(np.int32)


def slices(rows: int) -> Iterator[slice]:
    """Stretches of rows, one after another."""
    for start in range(0, rows, BLOCK):
        yield slice(start, min(start + BLOCK, rows))


def lists_of(arrays: Arrays, some: slice) -> list[tuple[np.ndarray, np.ndarray]]:
    """The lists of some rows, their offsets from 0."""
    found = []
    for values, offsets in arrays.lists:
        ends = np.asarray(offsets[some.start : some.stop + 1])
        found.append((np.asarray(values[ends[0] : ends[-1]]), ends - ends[0]))
    return found


NO_FOLD = np.zeros(FOLDS, dtype=bool)


class FoldCounts:
    """The counts of train rows by fold: what the rows of some folds tell those of another.

    ``rows.fold`` must be there.
    """

    def __init__(
        self, rows: SplitRows, columns: Sequence[CountedColumn], negative_rate: float
    ) -> None:
        self.columns = tuple(columns)
        self.negative_rate = negative_rate
        self.domains = _domains(rows)
        self.counts = [_counted(rows, column) for column in columns]

    def rates(self, folds: Bool[np.ndarray, " folds"]) -> Float64[np.ndarray, " domains"]:
        """The rates of the domains by the rows of some folds."""
        return domain_rates(*self.domains[:, :, folds].sum(2))

    def statistics(self) -> Statistics:
        """The statistics by all train rows, for rows that are none of them."""
        rates, made = self.rates(~NO_FOLD), []
        for column, counts in zip(self.columns, self.counts, strict=True):
            total = counts.of(~NO_FOLD)
            given = {"ids": column.rows, "negative_rate": self.negative_rate}
            effects = Effects.of([total], [rates], **given)
            spread = spread_of(effects, total)
            made.append(ColumnStatistics(column, effects, spread, total))
        return Statistics(tuple(made), rates, self.negative_rate)

    def told(
        self, statistics: Statistics, left_out: Bool[np.ndarray, " folds"] = NO_FOLD
    ) -> Iterator[ColumnStatistics]:
        """Column by column: what a row of each fold is told by the rows of the other folds.

        One table a fold. ``left_out``: folds whose rows tell nothing to anybody. ``statistics``: in
        whose units.
        """
        teachers = [~left_out & (np.arange(FOLDS) != fold) for fold in range(FOLDS)]
        rates = [self.rates(folds) for folds in teachers]
        scales = [FOLDS / folds.sum() for folds in teachers]
        for column, counts, whole in zip(
            self.columns, self.counts, statistics.columns, strict=True
        ):
            effects = Effects.of(
                [counts.of(folds) for folds in teachers],
                rates,
                scales=scales,
                ids=column.rows,
                negative_rate=self.negative_rate,
            )
            yield replace(whole, effects=effects)


def write_told(rows: SplitRows, columns: Iterable[ColumnStatistics]) -> None:
    """Write the numbers of train rows. ``columns``: with one table a fold."""
    arrays, fold = rows.arrays, rows.fold
    assert fold is not None
    for one in columns:
        for some in slices(len(fold)):
            ids, offsets = one.column.items(arrays.categorical[some], lists_of(arrays, some))
            numbers = one.numbers(ids, offsets, rows.domains(some), fold[some])
            arrays.numeric[some, one.column.numbers] = numbers


def fill(taught: Taught, rows: SplitRows) -> None:
    """Write the numbers of rows that are not train rows."""
    arrays = rows.arrays
    for some in slices(len(arrays.domain)):
        taught.fill(
            arrays.numeric[some],
            arrays.categorical[some],
            lists_of(arrays, some),
            rows.domains(some),
        )


def _domains(rows: SplitRows) -> Float64[np.ndarray, "2 domains folds"]:
    """Rows, and positive ones, of each domain in each fold."""
    arrays, fold = rows.arrays, rows.fold
    assert fold is not None
    cells = (rows.n_domains + 1) * FOLDS
    sums = np.zeros((2, cells))
    for some in slices(len(fold)):
        key = rows.domains(some).astype(np.int64) * FOLDS + fold[some]
        label = np.asarray(arrays.label[some])
        weight = None if arrays.weight is None else np.asarray(arrays.weight[some])
        sums[0] += np.bincount(key, weight, minlength=cells)
        sums[1] += np.bincount(key, label if weight is None else label * weight, minlength=cells)
    return sums.reshape(2, -1, FOLDS)


def _counted(rows: SplitRows, column: CountedColumn) -> Counts:
    """Count the rows of one column, or the items of its lists."""
    counter = PairCounter(column.rows, rows.n_domains)
    arrays, fold = rows.arrays, rows.fold
    assert fold is not None
    for some in slices(len(fold)):
        lists = lists_of(arrays, some) if column.listed else ()
        ids, offsets = column.items(arrays.categorical[some], lists)
        of_rows = [
            rows.domains(some),
            fold[some],
            np.asarray(arrays.label[some]),
            None if arrays.weight is None else np.asarray(arrays.weight[some]),
        ]
        if offsets is not None:
            lengths = np.diff(offsets)
            of_rows = [None if one is None else np.repeat(one, lengths) for one in of_rows]
        counter.add(ids, *of_rows)
    return counter.counts()
