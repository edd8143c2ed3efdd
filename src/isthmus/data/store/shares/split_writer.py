"""The files of the encoded rows of one split, written block by block, and joined from several processes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from isthmus.data.encoding.encoder import EncodedRows
from isthmus.data.store.arrays import CHUNK, ArrayWriter, read_array
from isthmus.data.tables.plain import ragged

_ENDS = "-offsets"  # how the name of a list's offsets ends, which count from the first row


class SplitWriter:
    """The files of one split: one for each array, two for each list."""

    def __init__(self, folder: Path, n_names: int) -> None:
        folder.mkdir()
        self._folder = folder
        self._files: dict[str, ArrayWriter] = {}
        self.counts = np.zeros(n_names + 1, dtype=np.int64)
        self.positives = np.zeros(n_names + 1, dtype=np.int64)

    @property
    def rows(self) -> int:
        """Rows that were written."""
        return int(self.counts.sum())

    def add(self, name: str, rows: np.ndarray) -> None:
        """Append to one array."""
        if name not in self._files:
            self._files[name] = ArrayWriter(self._folder / f"{name}.npy", rows)
        self._files[name].write(rows)

    def write(self, rows: EncodedRows, domain: np.ndarray, at: np.ndarray) -> None:
        """Append the rows at positions ``at``; ``domain`` are the report ids of the block."""
        assert rows.label is not None
        domain, label = domain.take(at), rows.label.take(at)
        self.add("domain", domain)
        self.add("label", label)
        for name in ("categorical", "numeric", "row", "weight", "group"):
            array = getattr(rows, name)
            if array is not None:
                self.add(name, array.take(at, axis=0))
        for i, (values, offsets) in enumerate(rows.lists):
            lengths = np.diff(offsets).take(at)
            of_items, of_ends = f"list-{i}-values", f"list-{i}{_ENDS}"
            if of_ends not in self._files:
                self.add(of_ends, np.zeros(1, dtype=np.int64))
            base = self._files[of_items].rows if of_items in self._files else 0
            self.add(of_items, values.take(ragged(offsets[:-1].take(at), lengths)))
            self.add(of_ends, np.cumsum(lengths) + base)
        self.counts += np.bincount(domain, minlength=len(self.counts))
        self.positives += np.bincount(domain[label > 0], minlength=len(self.counts))

    def close(self) -> None:
        """Make the files whole."""
        for file in self._files.values():
            file.close()

    def abandon(self) -> None:
        """Close the files as they are."""
        for file in self._files.values():
            file.abandon()


def join(parts: Sequence[Path], into: Path) -> None:
    """Make one array of what several processes wrote, in this order. The parts are gone then.

    The first part becomes the array, and the others are copied behind it.
    """
    first, *others = parts
    first.replace(into)
    are_ends = into.stem.endswith(_ENDS)
    base = int(read_array(into)[-1]) if are_ends else 0
    writer = ArrayWriter.behind(into)
    try:
        for part in others:
            rows = read_array(part)[are_ends:]
            for start in range(0, len(rows), CHUNK):
                some = rows[start : start + CHUNK]
                writer.write(some + base if base else some)
            if are_ends and len(rows):
                base += int(rows[-1])
            part.unlink()
        writer.close()
    finally:
        writer.abandon()
