"""The arrays of one split: NumPy files that grow block by block, are then mapped, and give rows.

Chosen rows are copied, into memory or, an array above `MAPPED_BYTES`, into a file without a name,
among the temporary files, that is gone when the process ends.
"""

import io
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isthmus.data.batch import Batch
from isthmus.data.tables.plain import offsets_of, ragged
from isthmus.disk import room_for

MAPPED_BYTES = 1 << 29
CHUNK = 1 << 20  # rows that are copied at once

Column = np.ndarray  # (rows,) or (rows, width)
Lists = tuple[np.ndarray, np.ndarray]  # values (items,); offsets int64 (rows + 1,)


@dataclass(frozen=True, slots=True)
class Arrays:
    """The arrays of one split that a model reads, in memory or mapped."""

    categorical: np.ndarray  # (rows, n_categorical) int32
    numeric: np.ndarray  # (rows, n_numeric) float32
    lists: tuple[Lists, ...]
    domain: np.ndarray  # (rows,) int32 report ids, from 1
    label: np.ndarray  # (rows,) float32
    weight: np.ndarray | None  # (rows,) float32

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, lists by their mean length."""
        rows = max(1, len(self.domain))
        items = sum(values.nbytes for values, _ in self.lists) // rows
        fixed = 4 * (self.categorical.shape[1] + self.numeric.shape[1] + 3) + 8 * len(self.lists)
        return fixed + items

    def gather(self, runs: list[tuple[int, int]]) -> "Arrays":
        """Copy runs of rows ``start .. stop`` into memory, one after another."""

        def join(array: Column) -> Column:
            return np.concatenate([array[start:stop] for start, stop in runs])

        def joined(lists: Lists) -> Lists:
            values, offsets = lists
            ends = [offsets[start : stop + 1] for start, stop in runs]
            items = np.concatenate([values[each[0] : each[-1]] for each in ends])
            return items, offsets_of(np.concatenate([np.diff(each) for each in ends]))

        return self._made(join, joined)

    def take(self, at: np.ndarray) -> "Arrays":
        """Copy the rows at positions ``at`` int64 (chosen,). IsthmusError: no room."""
        return self._made(lambda array: chosen(array, at), lambda lists: chosen_lists(*lists, at))

    def _made(
        self, column: Callable[[Column], Column], lists: Callable[[Lists], Lists]
    ) -> "Arrays":
        return Arrays(
            categorical=column(self.categorical),
            numeric=column(self.numeric),
            lists=tuple(lists(each) for each in self.lists),
            domain=column(self.domain),
            label=column(self.label),
            weight=None if self.weight is None else column(self.weight),
        )

    def tensors(self, n_domains: int) -> Batch:
        """The rows, which are in memory, as a batch; a domain above ``n_domains`` is unknown."""
        domain = self.domain.astype(np.int64)
        domain[domain > n_domains] = 0
        return Batch.of_arrays(
            categorical=self.categorical,
            numeric=self.numeric,
            lists=self.lists,
            domain=domain,
            label=self.label,
            weight=self.weight,
        )

    def batch(self, at: np.ndarray, n_domains: int) -> Batch:
        """The rows at positions ``at`` as tensors of their own."""
        return self.take(at).tensors(n_domains)


def chosen(array: Column, at: np.ndarray) -> Column:
    """A copy of chosen rows."""
    shape = (len(at), *array.shape[1:])
    return _copied(lambda some: array.take(at[some], axis=0), len(at), shape, array.dtype)


def chosen_lists(values: np.ndarray, offsets: np.ndarray, at: np.ndarray) -> Lists:
    """A copy of the lists of chosen rows."""
    starts = offsets.take(at)
    lengths = offsets.take(at + 1) - starts
    ends = offsets_of(lengths)

    def part(some: slice) -> np.ndarray:
        return values.take(ragged(starts[some], lengths[some]))

    return _copied(part, len(at), (int(ends[-1]),), values.dtype), ends


def _copied(
    part: Callable[[slice], np.ndarray], rows: int, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    """What ``part`` gives for all rows, in memory or in a file without a name."""
    size = math.prod(shape) * dtype.itemsize
    if size <= MAPPED_BYTES and rows <= CHUNK:
        return part(slice(None))
    parts = (part(slice(start, start + CHUNK)) for start in range(0, rows, CHUNK))
    if size <= MAPPED_BYTES:
        out, done = np.empty(shape, dtype=dtype), 0
        for copy in parts:
            out[done : done + len(copy)] = copy
            done += len(copy)
        return out
    with room_for(f"a copy of chosen rows, {size:,} bytes"), tempfile.TemporaryFile() as file:
        for copy in parts:  # written, not mapped: a full disk is then an error, not a crash
            file.write(copy.data)
        file.flush()
        return np.memmap(file, dtype=dtype, mode="r+", shape=shape)


class ArrayWriter:
    """Write an ``.npy`` file whose number of rows is known only at the end.

    ``like``: an array (rows,) or (rows, width) of the kind that is written. `behind` goes on with a file.
    """

    def __init__(self, path: Path, like: np.ndarray) -> None:
        self._begin(path.open("wb", buffering=0), like)
        self._put(self._header)

    @classmethod
    def behind(cls, path: Path) -> "ArrayWriter":
        """Write more rows behind those of a whole file."""
        writer, array = cls.__new__(cls), read_array(path)
        writer._begin(path.open("r+b", buffering=0), array)
        writer.rows = len(array)
        writer._file.seek(0, io.SEEK_END)
        return writer

    def _begin(self, file: io.RawIOBase, like: np.ndarray) -> None:
        self._dtype = like.dtype.newbyteorder("<")
        self._width = like.shape[1:]
        self.rows = 0
        self._file = file
        self._header = self._make_header()

    def _make_header(self) -> bytes:
        header = io.BytesIO()
        shape = (self.rows, *self._width)
        entry = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, entry)
        return header.getvalue()

    def _put(self, content: bytes | memoryview) -> None:
        # An unbuffered file may write less than it was given.
        view = memoryview(content).cast("B") if len(content) else memoryview(b"")
        while len(view):
            view = view[self._file.write(view) :]

    def write(self, rows: np.ndarray) -> None:
        """Append rows (n,) or (n, width)."""
        rows = np.ascontiguousarray(rows, dtype=self._dtype)
        if rows.size:
            self._put(rows.reshape(-1).data)
        self.rows += len(rows)

    def close(self) -> None:
        """Write the header with the number of rows, and close the file."""
        header = self._make_header()
        # NumPy pads the header so that the number of rows can grow in place.
        assert len(header) == len(self._header)
        self._file.seek(0)
        self._put(header)
        self._file.close()

    def abandon(self) -> None:
        """Close the file as it is."""
        self._file.close()


def read_array(path: Path) -> np.ndarray:
    """Memory-map an array, read-only."""
    return np.load(path, mmap_mode="r", allow_pickle=False)
