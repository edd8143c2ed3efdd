"""Counts of the values of a column, from which its vocabulary follows."""

from collections.abc import Iterable, Iterator

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.data.encoding.gathering.spilled import SpilledPairs, summed
from isthmus.data.encoding.lookup.index import DENSE_RANGE
from isthmus.data.encoding.vocabulary import Vocabulary
from isthmus.data.tables import values as v
from isthmus.data.tables.plain import null_mask, numpy_of

# Pairs of (value, count) that wait until they are merged into the total.
PENDING = 1 << 19
# Distinct values in memory. Where there are more, their counts go to a file.
IN_MEMORY = 1 << 22


class Counter:
    """Count the values of a column block by block, in bounded memory.

    The memory of `counts` follows all distinct values, and that of `vocabulary` those that are kept.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._low = 0
        self._dense: np.ndarray | None = None if v.is_named(kind) else np.zeros(0, np.int64)
        self._pending: list[pl.DataFrame] = []
        self._waiting = 0
        self._total: pl.DataFrame | None = None
        self._spilled: SpilledPairs | None = None

    def add(self, array: pa.Array, rows: np.ndarray | None = None) -> None:
        """Count the values of ``array`` at ``rows`` (n,) int64, or all; nulls are not counted."""
        if isinstance(array, pa.DictionaryArray):
            codes = numpy_of(array.indices, len(array.dictionary))
            codes = codes if rows is None else codes.take(rows)
            counts = np.bincount(codes, minlength=len(array.dictionary))[: len(array.dictionary)]
            self.add_counts(v.canonical(array.dictionary, self.kind), counts)
            return
        keys = v.canonical(array, self.kind)
        if v.is_named(self.kind):
            self.add(keys.dictionary_encode(), rows)
            return
        if keys.null_count:
            present = ~null_mask(keys)
            rows = np.flatnonzero(present) if rows is None else rows[present[rows]]
        plain = numpy_of(keys, 0)
        self._add_keys(plain if rows is None else plain.take(rows))

    def _add_keys(self, keys: np.ndarray) -> None:
        if not len(keys):
            return
        low, high = int(keys.min()), int(keys.max())
        if self._fits(low, high):
            assert self._dense is not None
            counts = np.bincount(keys - low, minlength=1)
            self._dense[low - self._low : high - self._low + 1] += counts
            return
        pairs = (
            pl.DataFrame({"value": keys})
            .group_by("value")
            .agg(pl.len().cast(pl.Int64).alias("count"))
        )
        self._wait(pairs)

    def _fits(self, low: int, high: int) -> bool:
        """Make the plain array of counts cover low..high, or give it up for good."""
        if self._dense is None:
            return False
        if len(self._dense):
            low = min(low, self._low)
            high = max(high, self._low + len(self._dense) - 1)
        if high - low >= DENSE_RANGE:
            self._wait(self._dense_pairs())
            self._dense = None
            return False
        if high - low + 1 > len(self._dense):
            grown = np.zeros(high - low + 1, dtype=np.int64)
            offset = self._low - low if len(self._dense) else 0
            grown[offset : offset + len(self._dense)] = self._dense
            self._low, self._dense = low, grown
        return True

    def _dense_pairs(self) -> pl.DataFrame:
        assert self._dense is not None
        seen = np.flatnonzero(self._dense)
        return pl.DataFrame({"value": seen + self._low, "count": self._dense[seen]})

    def add_counts(self, keys: pa.Array, counts: np.ndarray) -> None:
        """Add (value, count) pairs whose values may repeat or be null."""
        seen = counts > 0
        if keys.null_count:
            seen &= ~null_mask(keys)
        if not seen.any():
            return
        keys = keys.filter(pa.array(seen))
        self._wait(pl.DataFrame({"value": pl.Series(keys), "count": counts[seen].astype(np.int64)}))

    def _wait(self, pairs: pl.DataFrame) -> None:
        self._pending.append(pairs)
        self._waiting += pairs.height
        # Merging only when as much waits as was merged keeps the work linear in the rows.
        if self._waiting > max(PENDING, 0 if self._total is None else self._total.height):
            self._merge()

    def _merge(self) -> None:
        parts = [*([] if self._total is None else [self._total]), *self._pending]
        if parts:
            self._total = summed(parts)
        self._pending, self._waiting = [], 0
        if self._total is not None and self._total.height > IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        if self._spilled is None:
            self._spilled = SpilledPairs(named=v.is_named(self.kind))
        if self._total is not None:
            self._spilled.put(self._total)
            self._total = None

    def take_in(self, pairs: Iterable[pa.Table]) -> None:
        """Add what another counter of the same kind gave as `pairs`."""
        for table in pairs:
            frame = pl.from_arrow(table)
            assert isinstance(frame, pl.DataFrame)
            if frame.height:
                self._wait(frame)

    def pairs(self) -> Iterator[pa.Table]:
        """Tables of columns ``value`` and ``count``, each value once in all, in no order; one at least."""
        for part in self._parts():
            yield part.to_arrow(compat_level=pl.CompatLevel.oldest())

    def counts(self, least: int = 1) -> pl.DataFrame:
        """Columns ``value`` and ``count``, most frequent first, ties by value.

        ``least``: without the values that were counted less often.
        """
        kept = [part.filter(pl.col("count") >= least) for part in self._parts()]
        return pl.concat(kept).sort(["count", "value"], descending=[True, False])

    def _parts(self) -> Iterator[pl.DataFrame]:
        if self._dense is not None:
            self._wait(self._dense_pairs())
            self._dense = None
        self._merge()
        if self._spilled is not None:
            self._spill()
            yield from self._spilled.parts()
        elif self._total is not None:
            yield self._total
        else:
            dtype = {"string": pl.String, "binary": pl.Binary}.get(self.kind, pl.Int64)
            yield pl.DataFrame(schema={"value": dtype, "count": pl.Int64})

    def vocabulary(self, min_count: int) -> Vocabulary:
        """The values counted at least ``min_count`` times."""
        kept = self.counts(min_count)["value"]
        return Vocabulary(self.kind, pc.cast(kept.to_arrow(), v.stored_type(self.kind)))
