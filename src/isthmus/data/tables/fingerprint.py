"""What tells one file or frame from another."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from isthmus.data.tables.places.access import opened
from isthmus.data.tables.places.listing import Place
from isthmus.data.tables.places.remote_file import RemoteFile, store_faults


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


def of_file(place: Place, *, is_csv: bool, whole: bool) -> dict[str, Any]:
    """Path, size, time and footer of a file; with ``whole`` the hash of every byte too.

    Of an object on a store the path is its address, and the ETag is given where the store gives one.
    """
    if isinstance(place, RemoteFile):
        with store_faults(place.address):
            return _found(place, {"path": str(place), **place.state()}, is_csv, whole)
    state = place.stat()
    told = {"path": str(place.resolve()), "size": state.st_size, "time": state.st_mtime_ns}
    return _found(place, told, is_csv, whole)


def _found(place: Place, told: dict[str, Any], is_csv: bool, whole: bool) -> dict[str, Any]:
    found = told | {"footer": _footer(place, told["size"], is_csv)}
    return found | {"content": blake2(place)} if whole else found


def blake2(place: Place) -> str:
    """Hexadecimal BLAKE2b of a file's content, 16 bytes of it."""
    with opened(place) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _footer(place: Place, size: int, is_csv: bool) -> str:
    """Hash of a Parquet footer, or of the last 64 KiB of a CSV file."""
    with opened(place) as file:
        length = 1 << 16
        if not is_csv:
            file.seek(max(0, size - 8))
            length = int.from_bytes(file.read(4), "little") + 8
        file.seek(size - min(length, size))
        return hashlib.blake2b(file.read(), digest_size=16).hexdigest()
