"""Some numbers of a column, drawn by a hash of their row: the same ones whatever the block size.

A table of 20 million rows leaves `MOST` numbers a column, and a table of 20 thousand leaves them all.
The numbers with the smallest hashes stay (bottom-k sampling: Cohen and Kaplan, PODC 2007).
"""

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64, UInt64

from isthmus.data.tables import values as v

MOST = 100_000
_SEED = 0x6E756D62657273  # far from the seeds of splits, whose hashes it must not follow


def hashes(row: Int64[np.ndarray, " rows"]) -> UInt64[np.ndarray, " rows"]:
    """One hash for each row, by its number in the table."""
    return v.mix(row, seed=_SEED)


def item_hashes(
    of_row: UInt64[np.ndarray, " rows"], lengths: Int64[np.ndarray, " rows"]
) -> UInt64[np.ndarray, " items"]:
    """One hash for each item of the rows' lists, by its row and its place in the list."""
    starts = np.cumsum(lengths) - lengths
    place = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
    return v.mix(np.repeat(of_row, lengths) + place.astype(np.uint64), seed=_SEED)


class Drawn:
    """The numbers with the `MOST` smallest hashes, gathered block by block."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._numbers = np.empty(0)
        self._hashes = np.empty(0, dtype=np.uint64)
        self._bound: np.uint64 | None = None  # a hash above it comes too late

    def add(self, x: Float64[np.ndarray, " rows"], hashed: UInt64[np.ndarray, " rows"]) -> None:
        """Take in numbers and their hashes."""
        if self._bound is not None:
            early = hashed < self._bound
            x, hashed = x[early], hashed[early]
        self._numbers = np.concatenate([self._numbers, x])
        self._hashes = np.concatenate([self._hashes, hashed])
        if len(self._hashes) > self._most:
            kept = np.argpartition(self._hashes, self._most - 1)[: self._most]
            self._numbers, self._hashes = self._numbers[kept], self._hashes[kept]
            self._bound = self._hashes.max()

    def table(self) -> pa.Table:
        """What was drawn, for `take_in` of another process."""
        return pa.table({"number": self._numbers, "hash": self._hashes})

    def take_in(self, table: pa.Table) -> None:
        """Add what was drawn from other rows."""
        self.add(table["number"].to_numpy(), table["hash"].to_numpy())

    def numbers(self) -> Float64[np.ndarray, " drawn"]:
        """The drawn numbers, in rising order."""
        return np.sort(self._numbers)
