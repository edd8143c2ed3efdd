"""Counts that do not fit into memory: (value, count) pairs in a file, dealt into parts by a hash of the value.

A value is always in the same part, so a part can be summed by itself. The file has no name and is gone when
the process ends.
"""

import tempfile
import weakref
from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow as pa

from isthmus.data.tables import values as v
from isthmus.disk import room_for

PARTS_BITS = 6
_SEED = 0x5B111ED  # far from the seeds of splits and indexes


class SpilledPairs:
    """Pairs of (value, count) on disk. ``named``: the values are text or bytes."""

    def __init__(self, *, named: bool) -> None:
        self._named = named
        self._file = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as the pairs
        weakref.finalize(self, self._file.close)
        self._spans: list[list[tuple[int, int]]] = [[] for _ in range(1 << PARTS_BITS)]

    def put(self, pairs: pl.DataFrame) -> None:
        """Add pairs, whose values may repeat those of before. Raises IsthmusError where there is no room."""
        values = pairs["value"].to_arrow(compat_level=pl.CompatLevel.oldest())
        keys = v.hash_text(values) if self._named else values.to_numpy()
        part = (v.mix(keys, seed=_SEED) >> np.uint64(64 - PARTS_BITS)).astype(np.uint8)
        order = np.argsort(part, kind="stable")
        ends = np.searchsorted(part[order], np.arange(len(self._spans) + 1))
        dealt = pairs[order].to_arrow(compat_level=pl.CompatLevel.oldest())
        with room_for("the counts of a column's values"):
            for number, spans in enumerate(self._spans):
                some = dealt.slice(ends[number], ends[number + 1] - ends[number])
                if not some.num_rows:
                    continue
                start = self._file.seek(0, 2)
                with pa.ipc.new_stream(self._file, some.schema) as writer:
                    writer.write_table(some)
                self._file.flush()
                spans.append((start, self._file.tell() - start))

    def parts(self) -> Iterator[pl.DataFrame]:
        """The sums, part by part: each value once in all."""
        for spans in self._spans:
            found = []
            for start, length in spans:
                self._file.seek(start)
                table = pa.ipc.open_stream(self._file.read(length)).read_all()
                found.append(pl.from_arrow(table))
            if found:
                yield summed(found)


def summed(pairs: list[pl.DataFrame]) -> pl.DataFrame:
    """One count for each value."""
    return pl.concat(pairs).group_by("value").agg(pl.col("count").sum())
