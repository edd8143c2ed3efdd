"""A vocabulary on disk: a Parquet file of its values, or, of a large one, files that are mapped.

A vocabulary of more than `LARGE_VALUES` values is written as an Arrow file of the values and an ``.npy`` file for
each array of its index. Neither is read into memory: a lookup reads the pages that it needs, and all
processes of a machine share them. Nothing is built anew when an encoder is opened.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from isthmus.data.encoding.lookup.index import Index
from isthmus.data.encoding.vocabulary import Vocabulary
from isthmus.data.tables.fingerprint import blake2
from isthmus.errors import BundleError

LARGE_VALUES = 1 << 20


def is_large(vocabulary: Vocabulary) -> bool:
    """Whether `save_values` writes files that are mapped."""
    return vocabulary.index is not None and len(vocabulary.values) > LARGE_VALUES


def save_values(folder: Path, stem: str, vocabulary: Vocabulary) -> dict[str, Any]:
    """Write the values below ``folder`` in files named from ``stem``; give how to find them again."""
    values, index = vocabulary.values, vocabulary.index
    if index is None or not is_large(vocabulary):
        path = folder / f"{stem}.parquet"
        pq.write_table(pa.table({"value": values}), path, compression="zstd")
        return {"file": path.name, "digest": blake2(path)}
    path = _fresh(folder / f"{stem}.arrow")
    batch = pa.record_batch({"value": values})
    with pa.ipc.new_file(str(path), batch.schema) as writer:
        writer.write_batch(batch)
    arrays = {}
    for name, array in index.arrays.items():
        file = _fresh(folder / f"{stem}.{name}.npy")
        np.save(file, array, allow_pickle=False)
        arrays[name] = {"file": file.name, "digest": blake2(file)}
    found = {"file": path.name, "digest": blake2(path)}
    return {**found, "index": {"low": index.low, "arrays": arrays}}


def _fresh(path: Path) -> Path:
    """The path, with nothing there: who has an old file mapped keeps it, and may be who writes."""
    path.unlink(missing_ok=True)
    return path


def load_values(folder: Path, entry: Mapping[str, Any]) -> tuple[pa.Array, Index | None]:
    """The values, and their index where it was written, too.

    Raises ``BundleError`` for a file that changed since, OSError, KeyError or ValueError for other damage.
    """
    path = _checked(folder, entry)
    if "index" not in entry:
        values = pq.read_table(path, use_threads=False)["value"].combine_chunks()
        return values, None
    with pa.memory_map(str(path)) as source:
        values = pa.ipc.open_file(source).get_batch(0).column("value")
    arrays = {
        name: np.load(_checked(folder, one), mmap_mode="r", allow_pickle=False)
        for name, one in entry["index"]["arrays"].items()
    }
    return values, Index.of_arrays(arrays, entry["index"]["low"], len(values))


def _checked(folder: Path, entry: Mapping[str, Any]) -> Path:
    """A file that the entry names, which must lie in the folder and be what was written."""
    path = inside(folder, entry["file"])
    if blake2(path) != entry["digest"]:
        raise BundleError(f"vocabulary must be unchanged since it was written, got other in {path}")
    return path


def inside(folder: Path, name: str) -> Path:
    """A file that an encoder names; it must lie beside it."""
    if Path(name).name != name:
        raise BundleError(
            f"encoder must name files beside it, got {name!r} in {folder / 'encoder.json'}"
        )
    return folder / name
