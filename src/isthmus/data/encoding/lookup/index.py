"""The index of 64-bit keys: numbers, or hashes of text."""

from collections.abc import Mapping
from typing import Self

import numpy as np

from isthmus.data.tables import values as v

# Integers within a range this wide are counted and looked up in a plain array.
DENSE_RANGE = 1 << 22


class Index:
    """Find 64-bit keys: a plain array where their range is narrow, else a bucketed table.

    ``keys`` (n,) int64, distinct; key ``i`` has id ``i + 1`` and every other number has id 0.
    """

    def __init__(self, keys: np.ndarray) -> None:
        self._keys = np.empty(0, dtype=np.int64)
        self._ids = self._starts = self._table = np.empty(0, dtype=np.int32)
        self._low, self._shift = np.int64(0), np.uint64(0)
        low, high = (int(keys.min()), int(keys.max())) if len(keys) else (0, 0)
        self._dense = high - low < max(DENSE_RANGE // 4, 16 * len(keys))
        ids = np.arange(1, len(keys) + 1, dtype=np.int32)
        if self._dense:
            self._low = np.int64(low)
            # One more slot at the end answers 0 for every key out of range.
            self._table = np.zeros(high - low + 2, dtype=np.int32)
            self._table[keys - low] = ids
            return
        bits = max(1, (2 * len(keys) - 1).bit_length())
        self._shift = np.uint64(64 - bits)
        bucket = self._bucket(keys)
        order = np.argsort(bucket, kind="stable")
        self._keys, self._ids = keys[order], ids[order]
        self._starts = np.zeros((1 << bits) + 1, dtype=np.int32)
        np.cumsum(np.bincount(bucket, minlength=1 << bits), out=self._starts[1:])

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What the index is made of, by name; `of_arrays` makes it again."""
        if self._dense:
            return {"table": self._table}
        return {"keys": self._keys, "ids": self._ids, "starts": self._starts}

    @property
    def low(self) -> int:
        """The smallest key, where the index is a plain array; else 0."""
        return int(self._low)

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], low: int, size: int) -> Self:
        """An index of ``size`` keys on these arrays, which may be mapped and are not read whole.

        Raises ValueError or KeyError where they are none of `arrays`.
        """
        index = cls(np.empty(0, dtype=np.int64))
        index._dense = "table" in arrays
        index._low = np.int64(low)
        kinds = {name: (one.dtype, one.ndim) for name, one in arrays.items()}
        if index._dense:
            right = kinds == {"table": (np.int32, 1)} and len(arrays["table"]) > size
            index._table = arrays["table"]
        else:
            index._keys, index._ids, index._starts = (arrays[n] for n in ("keys", "ids", "starts"))
            bits = (len(index._starts) - 1).bit_length() - 1
            right = (
                kinds == {"keys": (np.int64, 1), "ids": (np.int32, 1), "starts": (np.int32, 1)}
                and len(index._keys) == len(index._ids) == size
                and len(index._starts) == (1 << bits) + 1
                and index._starts[-1] == size
            )
            index._shift = np.uint64(64 - bits)
        if not right:
            raise ValueError(f"the arrays of an index must be those of {size} keys, got {kinds}")
        return index

    def _bucket(self, keys: np.ndarray) -> np.ndarray:
        return (v.mix(keys) >> self._shift).view(np.int64)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Ids int32 (n,) of keys int64 (n,)."""
        if self._dense:
            with np.errstate(over="ignore"):
                # As unsigned numbers, keys below the range are huge and end in the last slot.
                place = (keys - self._low).view(np.uint64)
            np.minimum(place, np.uint64(len(self._table) - 1), out=place)
            return self._table.take(place.view(np.int64))
        bucket = self._bucket(keys)
        place, stop = self._starts.take(bucket), self._starts.take(bucket + 1)
        ids = np.zeros(len(keys), dtype=np.int32)
        rest = np.flatnonzero(place < stop)
        while len(rest):
            here = place[rest]
            hit = self._keys.take(here) == keys[rest]
            ids[rest[hit]] = self._ids.take(here[hit])
            rest = rest[~hit]
            place[rest] += 1
            rest = rest[place[rest] < stop[rest]]
        return ids
