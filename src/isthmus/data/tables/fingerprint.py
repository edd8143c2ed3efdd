"""What tells one file or frame from another."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa


def of_content(
    types: Mapping[str, pa.DataType], rows: int, batches: Iterable[pa.RecordBatch]
) -> dict[str, Any]:
    """Hash of a frame's column types and of all its values."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr([(name, str(dtype)) for name, dtype in types.items()]).encode())
    for batch in batches:
        for column in batch.columns:
            # Joining copies what is in the slice and nothing else: equal rows, equal bytes.
            tight = pa.concat_arrays([column, column.slice(0, 0)])
            digest.update(pa.record_batch([tight], names=["column"]).serialize())
    return {"path": None, "rows": rows, "content": digest.hexdigest()}


def of_file(path: Path, *, is_csv: bool, whole: bool) -> dict[str, Any]:
    """Path, size, time and footer of a file; with ``whole`` the hash of every byte too."""
    state = path.stat()
    found: dict[str, Any] = {
        "path": str(path.resolve()),
        "size": state.st_size,
        "time": state.st_mtime_ns,
        "footer": _footer(path, state.st_size, is_csv),
    }
    if whole:
        found["content"] = blake2(path)
    return found


def blake2(path: Path) -> str:
    """Hexadecimal BLAKE2b of a file's content, 16 bytes of it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _footer(path: Path, size: int, is_csv: bool) -> str:
    """Hash of a Parquet footer, or of the last 64 KiB of a CSV file."""
    with path.open("rb") as file:
        length = 1 << 16
        if not is_csv:
            file.seek(max(0, size - 8))
            length = int.from_bytes(file.read(4), "little") + 8
        file.seek(-min(length, size), os.SEEK_END)
        return hashlib.blake2b(file.read(), digest_size=16).hexdigest()
