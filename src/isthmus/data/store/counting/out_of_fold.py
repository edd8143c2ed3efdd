"""Value statistics of encoded train rows: counted by fold, fitted, and written out of fold.

A train row's numbers come from the rows of the other folds (`isthmus.data.encoding.counted.statistics`).
Memory follows the distinct (value, domain) pairs of the columns, and the distinct pairs of values of
crosses.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8, UInt16

from isthmus.data.encoding.counted.cells import FoldCells, PairCounter
from isthmus.data.encoding.counted.counted_columns import NO_KEYS, CountedColumn, CountedCross, Ids
from isthmus.data.encoding.counted.statistics import (
    FOLDS,
    ColumnStatistics,
    Counts,
    Effects,
    Statistics,
    domain_rates,
    expected_rates,
    log_count,
    pair_effect,
    row_means,
    value_effect,
)
from isthmus.data.encoding.lookup.index import Index
from isthmus.data.encoding.taught import Taught
from isthmus.data.store.arrays import Arrays
from isthmus.data.store.rows import Rows
from isthmus.schema import STATISTICS_WIDTH

BLOCK = 1 << 18  # rows that are counted or filled at once
WORKERS = 2  # columns that are counted, and blocks that are written, at once


@dataclass(frozen=True, slots=True, eq=False)
class ToldNumbers:
    """What train rows are told of one column: four scaled numbers for each cell."""

    column: CountedColumn | CountedCross
    index: Index  # of pairs
    domains: int
    folds: UInt16[np.ndarray, " pairs"]  # which folds have a cell, as bits
    start: Int64[np.ndarray, " pairs"]
    by_cell: Float32[np.ndarray, "cells 4"]

    def find(
        self, ids: Ids, domain: Int32[np.ndarray, " items"], fold: UInt8[np.ndarray, " items"]
    ) -> Float32[np.ndarray, "items 4"]:
        """The numbers of train rows, or of the items of their lists; 0 for an unknown value."""
        out = np.zeros((len(ids), STATISTICS_WIDTH), dtype=np.float32)
        place = self.index.find(ids.astype(np.int64) * self.domains + domain)
        hit = np.flatnonzero(place)
        pair = place[hit] - 1
        before = (np.uint16(1) << fold[hit].astype(np.uint16)) - np.uint16(1)
        cell = self.start[pair] + np.bitwise_count(self.folds[pair] & before)
        out[hit] = self.by_cell.take(cell, axis=0)
        return out

    def numbers(
        self,
        ids: Ids,
        offsets: Int64[np.ndarray, " ends"] | None,
        domain: Int32[np.ndarray, " rows"],
        fold: UInt8[np.ndarray, " rows"],
    ) -> Float32[np.ndarray, "rows 4"]:
        """The numbers of some train rows; of a list column, the mean over the row's items."""
        if offsets is None:
            return self.find(ids, domain, fold)
        lengths = np.diff(offsets)
        items = self.find(ids, np.repeat(domain, lengths), np.repeat(fold, lengths))
        return row_means(items, offsets)


@dataclass(frozen=True, slots=True, eq=False)
class SplitRows:
    """Encoded rows of one split. ``fold``: of each train row; None for other rows. ``group``: whose.

    ``arrays.domain``: above ``n_domains`` for a domain that is not trained. ``row``: the number of
    each row in the table.
    """

    arrays: Arrays
    n_domains: int
    row: Int64[np.ndarray, " rows"]
    fold: UInt8[np.ndarray, " rows"] | None = None
    group: Int64[np.ndarray, " rows"] | None = None

    @classmethod
    def of(cls, rows: Rows, n_domains: int) -> "SplitRows":
        """The rows of a split, or some of them, whose numbers can be written."""
        return cls(rows.arrays, n_domains, rows.row, rows.fold, rows.group)

    def take(self, at: Int64[np.ndarray, " chosen"]) -> "SplitRows":
        """A copy of the rows at these positions."""
        fold, group = (
            None if one is None else np.asarray(one[at]) for one in (self.fold, self.group)
        )
        row = np.asarray(self.row[at])
        return SplitRows(self.arrays.take(at), self.n_domains, row, fold, group)

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
NOISE = 1e-6  # of sums of 32-bit weights


class FoldCounts:
    """The counts of train rows by fold: what the rows of some folds tell those of another.

    ``rows.fold`` must be there.
    """

    def __init__(
        self,
        rows: SplitRows,
        columns: Sequence[CountedColumn | CountedCross],
        negative_rate: float,
    ) -> None:
        self.negative_rate = negative_rate
        self.domains = _domains(rows)
        with ThreadPoolExecutor(WORKERS) as workers:
            self.columns = tuple(workers.map(partial(_with_pairs, rows), columns))
            self.cells = list(workers.map(partial(counted_cells, rows), self.columns))

    def rates(self, folds: Bool[np.ndarray, " folds"]) -> Float64[np.ndarray, " domains"]:
        """The rates of the domains by the rows of some folds."""
        return domain_rates(*self.domains[:, :, folds].sum(2))

    def statistics(self) -> Statistics:
        """The statistics by all train rows, for rows that are none of them."""
        totals = [cells.total(~NO_FOLD) for cells in self.cells]
        columns = list(zip(self.columns, totals, strict=True))
        return Statistics.of(columns, self.rates(~NO_FOLD), self.negative_rate)

    def told(
        self, statistics: Statistics, left_out: Bool[np.ndarray, " folds"] = NO_FOLD
    ) -> Iterator[ToldNumbers]:
        """Column by column: what a row of each fold is told by the rows of the other folds.

        ``left_out``: folds whose rows tell nothing to anybody. ``statistics``: of all train rows; they
        give the strengths and the units.
        """
        columns = zip(self.cells, statistics.columns, strict=True)
        with ThreadPoolExecutor(WORKERS) as workers:
            while some := list(islice(columns, WORKERS)):
                yield from workers.map(
                    lambda of: self._told(of[0], of[1], statistics, left_out), some
                )

    def _told(
        self,
        cells: FoldCells,
        whole: ColumnStatistics,
        statistics: Statistics,
        left_out: Bool[np.ndarray, " folds"],
    ) -> ToldNumbers:
        keys = cells.value.astype(np.int64) * self.domains.shape[1] + cells.domain
        bits = np.left_shift(1, cells.fold, dtype=np.uint16)
        by_cell = self._numbers(cells, whole, statistics, left_out)
        by_cell /= np.tile(whole.spread, 2)
        return ToldNumbers(
            column=whole.column,
            index=Index(keys),
            domains=self.domains.shape[1],
            folds=np.bitwise_or.reduceat(bits, cells.start[:-1]) if len(bits) else bits,
            start=cells.start[:-1],
            by_cell=by_cell,
        )

    def _numbers(
        self,
        cells: FoldCells,
        whole: ColumnStatistics,
        statistics: Statistics,
        left_out: Bool[np.ndarray, " folds"],
    ) -> Float32[np.ndarray, "cells 4"]:
        """The numbers of every cell, not scaled."""
        total, pair = cells.total(~left_out), cells.pair
        value, domain, ids = total.value, total.domain, whole.column.rows
        n_all, k_all = (
            np.bincount(value, of, minlength=ids) for of in (total.rows, total.positives)
        )
        of_values, of_pairs = whole.effects.strengths
        found = np.zeros((len(pair), STATISTICS_WIDTH), dtype=np.float32)
        for fold in range(FOLDS):
            others = ~left_out & (np.arange(FOLDS) != fold)
            scale, rate = FOLDS / others.sum(), self.rates(others)
            at = np.flatnonzero(cells.fold == fold)
            mine, of = pair[at], value[pair[at]]
            # Rows of a fold that is left out were not counted, so they need not be taken away.
            own_n, own_k = (
                np.where(left_out[fold], 0.0, part[at]) for part in (cells.rows, cells.positives)
            )
            rows, positives = _left(
                total.rows[mine], total.positives[mine], own_n=own_n, own_k=own_k
            )
            n, k = _left(
                n_all[of],
                k_all[of],
                own_n=np.bincount(of, own_n, minlength=ids)[of],
                own_k=np.bincount(of, own_k, minlength=ids)[of],
            )
            found[at, 1] = log_count(n, k, self.negative_rate, scale)
            found[at, 3] = log_count(rows, positives, self.negative_rate, scale)
            if np.isnan(rate[0]):
                continue
            base = rate[domain]
            if isinstance(whole.column, CountedCross):
                self._expect(base, whole.column, total, of, others, statistics)
            expected = np.bincount(value, total.rows * base, minlength=ids)[of]
            expected -= np.bincount(of, own_n * base[mine], minlength=ids)[of]
            mean = np.full(len(at), rate[0])
            np.divide(expected, n, out=mean, where=n > 0)
            # It lies between the rates that it is a mean of, but for rounding.
            mean = np.clip(mean, base.min(initial=rate[0]), base.max(initial=rate[0]))
            effect = value_effect(n, k, mean, of_values)
            found[at, 0] = effect
            found[at, 2] = pair_effect(rows, positives, base[mine], effect, of_pairs)
        nowhere = domain[pair] == 0
        found[nowhere, 2], found[nowhere, 3] = found[nowhere, 0], 0
        return found

    def _expect(
        self,
        base: Float64[np.ndarray, " pairs"],
        cross: CountedCross,
        total: Counts,
        wanted: Ids,
        others: Bool[np.ndarray, " folds"],
        statistics: Statistics,
    ) -> None:
        """Write what some pairs of values should give, by the rows of the other folds, into ``base``.

        ``wanted``: the pairs of values; what stands there of other pairs is not read.
        """
        rate, sides = self.rates(others), []
        names = [column.name for column in self.columns]
        for number in map(names.index, cross.sides):
            whole = statistics.columns[number]
            effects = Effects.of(
                self.cells[number].total(others),
                rate,
                ids=whole.column.rows,
                negative_rate=self.negative_rate,
                strengths=whole.effects.strengths,
            )
            sides.append(effects)
        is_wanted = np.zeros(cross.rows, dtype=bool)
        is_wanted[wanted] = True
        at = np.flatnonzero(is_wanted[total.value])
        base[at] = expected_rates(cross, total.value[at], total.domain[at], rate, sides)


def _left(
    rows: np.ndarray, positives: np.ndarray, *, own_n: np.ndarray, own_k: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What is left of counts without some rows of their own: 0 where it is but rounding."""
    n = rows - own_n
    n[n <= NOISE * rows] = 0
    return n, np.clip(positives - own_k, 0, n)


def write_told(rows: SplitRows, columns: Iterable[ToldNumbers]) -> None:
    """Write the numbers of train rows."""
    with ThreadPoolExecutor(WORKERS) as workers:
        for told in columns:
            for _ in workers.map(partial(_write, rows, told), slices(len(rows.row))):
                pass  # an error of a worker comes up here


def _write(rows: SplitRows, told: ToldNumbers, some: slice) -> None:
    arrays, fold = rows.arrays, rows.fold
    assert fold is not None
    lists = lists_of(arrays, some) if told.column.listed else ()
    ids, offsets = told.column.items(arrays.categorical[some], lists)
    numbers = told.numbers(ids, offsets, rows.domains(some), fold[some])
    arrays.numeric[some, told.column.numbers] = numbers


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


def _with_pairs(
    rows: SplitRows, column: CountedColumn | CountedCross
) -> CountedColumn | CountedCross:
    """The column; a cross with the pairs of values that some rows hold."""
    if not isinstance(column, CountedCross):
        return column
    keys, waiting = NO_KEYS, [NO_KEYS]
    for some in slices(len(rows.row)):
        waiting.append(np.unique(column.row_keys(rows.arrays.categorical[some])))
        # Merging only when as much waits as was merged keeps the work linear in the rows.
        if sum(map(len, waiting)) > max(BLOCK, len(keys)):
            keys, waiting = np.unique(np.concatenate([keys, *waiting])), []
    keys = np.unique(np.concatenate([keys, *waiting]))
    return column.of_pairs(keys[keys > 0])


def counted_cells(rows: SplitRows, column: CountedColumn | CountedCross) -> FoldCells:
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
    return counter.cells()
