"""Value statistics of encoded train rows: counted, fitted, and written out of fold.

A train row's numbers come from the rows of the other folds (`isthmus.data.encoding.statistics`). One
column is counted at a time, so memory follows the distinct (value, domain) pairs of one column.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from isthmus.data.encoding.statistics import (
    FOLDS,
    ColumnStatistics,
    CountedColumn,
    Counts,
    Effects,
    Ids,
    Statistics,
    domain_rates,
    fold_of,
)
from isthmus.data.encoding.taught import Taught
from isthmus.data.store.arrays import Arrays
from isthmus.data.store.rows import Rows
from isthmus.schema import DataConfig

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
        table = np.zeros((2, len(first), FOLDS))
        table[:, pair, fold] = sums
        value, domain = np.divmod(cell[first], self.domains)
        return Counts(value.astype(np.int32), domain.astype(np.int32), table[0], table[1])


def _summed(key: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys ascending, each once, and the sums (2, keys) of their entries."""
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=key[0] - 1)) if len(key) else np.empty(0, np.int64)
    return key[first], np.add.reduceat(sums[:, order], first, axis=1) if len(key) else sums


def spread_of(effects: Effects, counts: Counts) -> Float32[np.ndarray, " 2"]:
    """Root mean squares of effects, and of logs of counts, over the train rows as these see them.

    1 where all are 0. ``effects``: one table for each fold of ``counts``.
    """
    squares, rows = np.zeros(2), 0.0
    of_value = [
        np.bincount(counts.value, one, minlength=effects.by_value.shape[1]) for one in counts.rows.T
    ]
    of_pair = list(counts.rows[counts.domain > 0].T)
    for seen, numbers in ((of_value, effects.by_value), (of_pair, effects.by_pair)):
        for fold in range(FOLDS):
            squares += seen[fold] @ np.square(numbers[fold], dtype=np.float64)
            rows += seen[fold].sum()
    spread = np.sqrt(squares / max(rows, 1.0))
    return np.where(spread > 0, spread, 1.0).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class SplitRows:
    """Encoded rows of one split. ``keys``: what the folds of train rows are drawn by.

    ``arrays.domain``: above ``n_domains`` for a domain that is not trained.
    """

    arrays: Arrays
    keys: Int64[np.ndarray, " rows"]
    n_domains: int

    def folds(self) -> UInt8[np.ndarray, " rows"]:
        """The fold of every row."""
        fold = np.empty(len(self.keys), dtype=np.uint8)
        for some in slices(len(fold)):
            fold[some] = fold_of(self.keys[some])
        return fold

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


def fold_keys(rows: Rows, config: DataConfig) -> Int64[np.ndarray, " rows"]:
    """What the folds of train rows are drawn by: the number of the row in the table.

    By group where the split is by user: there a test row's group is new, so a train row's group
    must be new to what the train row is told.
    """
    if config.split.by != "user":
        return rows.row
    assert rows.group is not None  # the config was refused without
    return rows.group


def teach(rows: SplitRows, columns: Sequence[CountedColumn], *, negative_rate: float) -> Statistics:
    """Fit the statistics of train rows, and write the rows' own numbers out of fold.

    ``rows.arrays.numeric`` is written.
    """
    folds = rows.folds()
    numeric = rows.arrays.numeric
    rates, of_all = _rates(rows, folds)
    made = []
    for column in columns:
        counts = _counted(rows, folds, column)
        given = {"ids": column.rows, "negative_rate": negative_rate}
        each = [counts.without(fold) for fold in range(FOLDS)]
        unseen = Effects.of(each, rates, scale=FOLDS / (FOLDS - 1), **given)
        del each
        spread = spread_of(unseen, counts)
        one = ColumnStatistics(column, unseen, spread, counts)
        for some in slices(len(folds)):
            ids, offsets = column.items(rows.arrays.categorical[some], lists_of(rows.arrays, some))
            numeric[some, column.numbers] = one.numbers(
                ids, offsets, rows.domains(some), folds[some]
            )
        total = counts.total()
        made.append(ColumnStatistics(column, Effects.of([total], [of_all], **given), spread, total))
    return Statistics(tuple(made), of_all, negative_rate)


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


def _rates(
    rows: SplitRows, folds: UInt8[np.ndarray, " rows"]
) -> tuple[list[np.ndarray], np.ndarray]:
    """The rates of the domains by the rows of all folds but one, and by all rows."""
    cells = (rows.n_domains + 1) * FOLDS
    sums = np.zeros((2, cells))
    arrays = rows.arrays
    for some in slices(len(folds)):
        key = rows.domains(some).astype(np.int64) * FOLDS + folds[some]
        label = np.asarray(arrays.label[some])
        weight = None if arrays.weight is None else np.asarray(arrays.weight[some])
        sums[0] += np.bincount(key, weight, minlength=cells)
        sums[1] += np.bincount(key, label if weight is None else label * weight, minlength=cells)
    table = sums.reshape(2, -1, FOLDS)
    total = table.sum(2)
    return [domain_rates(*(total - table[:, :, fold])) for fold in range(FOLDS)], domain_rates(
        *total
    )


def _counted(rows: SplitRows, folds: UInt8[np.ndarray, " rows"], column: CountedColumn) -> Counts:
    """Count the rows of one column, or the items of its lists."""
    counter = PairCounter(column.rows, rows.n_domains)
    arrays = rows.arrays
    for some in slices(len(folds)):
        lists = lists_of(arrays, some) if column.listed else ()
        ids, offsets = column.items(arrays.categorical[some], lists)
        of_rows = [
            rows.domains(some),
            folds[some],
            np.asarray(arrays.label[some]),
            None if arrays.weight is None else np.asarray(arrays.weight[some]),
        ]
        if offsets is not None:
            lengths = np.diff(offsets)
            of_rows = [None if one is None else np.repeat(one, lengths) for one in of_rows]
        counter.add(ids, *of_rows)
    return counter.counts()
