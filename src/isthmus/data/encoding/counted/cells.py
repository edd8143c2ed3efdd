"""Train rows of one column, counted by (value, domain, fold), block by block."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from isthmus.data.encoding.counted.counted_columns import Ids
from isthmus.data.encoding.counted.statistics import FOLDS, Counts

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
        if weight is None:
            self._parts.append(_counted_keys(key, label))
        else:
            self._parts.append(_summed(key, np.stack([weight, weight * label]).astype(np.float64)))
        self._waiting += len(self._parts[-1][0])
        # Merging only when as much waits as was merged keeps the work linear in the rows.
        if self._waiting > max(1 << 20, len(self._parts[0][0])):
            self._merge()

    def _merge(self) -> None:
        if len(self._parts) > 1:
            keys, sums = zip(*self._parts, strict=True)
            self._parts = [_summed(np.concatenate(keys), np.concatenate(sums, axis=1))]
        self._waiting = 0

    def cells(self) -> "FoldCells":
        """What was counted."""
        if self._dense is not None:
            key = np.flatnonzero(self._dense[0])
            sums = self._dense[:, key]
        else:
            self._merge()
            key, sums = self._parts[0] if self._parts else (np.empty(0, np.int64), np.empty((2, 0)))
        known = int(np.searchsorted(key, self.domains * FOLDS))
        key, sums = key[known:], sums[:, known:]
        pair, fold = np.divmod(key, FOLDS)
        first = np.flatnonzero(np.diff(pair, prepend=-1))
        value, domain = np.divmod(pair[first], self.domains)
        return FoldCells(
            value=value.astype(np.int32),
            domain=domain.astype(np.int32),
            start=np.append(first, len(key)),
            fold=fold.astype(np.uint8),
            rows=sums[0].astype(np.float32),
            positives=sums[1].astype(np.float32),
        )


def _counted_keys(
    key: Int64[np.ndarray, " items"], label: Float32[np.ndarray, " items"]
) -> tuple[np.ndarray, np.ndarray]:
    """`_summed` of rows of weight 1: sorting keys with the label in their last bit is faster."""
    packed = key * 2 + (label > 0)
    packed.sort()
    first = np.flatnonzero(np.diff(packed, prepend=-1))
    count = np.diff(first, append=len(packed)).astype(np.float64)
    found = packed[first]
    return _summed(found >> 1, np.stack([count, count * (found & 1)]), ordered=True)


def _summed(
    key: np.ndarray, sums: np.ndarray, *, ordered: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Keys ascending, each once, and the sums (2, keys) of their entries."""
    if not len(key):
        return key, sums
    if not ordered:
        order = np.argsort(key, kind="stable")
        key, sums = key[order], sums[:, order]
    first = np.flatnonzero(np.diff(key, prepend=key[0] - 1))
    return key[first], np.add.reduceat(sums, first, axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class FoldCells:
    """Train rows of one column by (value, domain, fold): pairs ascending, and in each its folds.

    ``start``: where the cells of each pair begin, and where the last ends. ``fold``, ``rows``,
    ``positives``: by cell.
    """

    value: Int32[np.ndarray, " pairs"]
    domain: Int32[np.ndarray, " pairs"]
    start: Int64[np.ndarray, " ends"]
    fold: UInt8[np.ndarray, " cells"]
    rows: Float32[np.ndarray, " cells"]
    positives: Float32[np.ndarray, " cells"]

    @property
    def pair(self) -> Int32[np.ndarray, " cells"]:
        """The pair of each cell."""
        return np.repeat(np.arange(len(self.value), dtype=np.int32), np.diff(self.start))

    def total(self, folds: Bool[np.ndarray, " folds"]) -> Counts:
        """The rows of some folds by (value, domain)."""
        wanted, pair = folds[self.fold], self.pair
        rows, positives = (
            np.bincount(pair, np.where(wanted, of, 0), minlength=len(self.value))
            for of in (self.rows, self.positives)
        )
        return Counts(self.value, self.domain, rows, positives)
