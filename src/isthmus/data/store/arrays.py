"""Arrays on disk: ``.npy`` files that grow block by block and are then memory-mapped."""

import io
from pathlib import Path

import numpy as np


class ArrayWriter:
    """Write an ``.npy`` file whose number of rows is known only at the end."""

    def __init__(self, path: Path, dtype: str, width: int | None = None) -> None:
        self._dtype = np.dtype(dtype)
        self._width = width
        self.rows = 0
        self._file = path.open("wb", buffering=0)
        self._header = self._make_header()
        self._put(self._header)

    def _make_header(self) -> bytes:
        shape = (self.rows,) if self._width is None else (self.rows, self._width)
        header = io.BytesIO()
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
