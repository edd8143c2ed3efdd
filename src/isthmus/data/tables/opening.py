"""Opening a table: which files there are, of what kind each is, or which frame was given."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from isthmus.data.tables.csv.csv_file import csv_parts
from isthmus.data.tables.frames import FRAME, frame_part
from isthmus.data.tables.hive import partitions, with_partitions
from isthmus.data.tables.parquet_file import parquet_part
from isthmus.data.tables.table import Table, TablePart
from isthmus.errors import SchemaError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    Source: TypeAlias = (
        str | Path | pa.Table | pa.RecordBatchReader | pd.DataFrame | pl.DataFrame | pl.LazyFrame
    )
else:
    Source: TypeAlias = Any

PARQUET = (".parquet", ".pq", ".parq")
CSV = (".csv", ".tsv")
PACKED = (".gz", ".bz2", ".zst")


def open_table(source: "Source | Table") -> Table:
    """Open a table.

    ``source``: a Parquet or CSV file, a glob, a folder, a pandas or polars frame, or whatever gives
    an Arrow stream. The ``key=value`` folders of a hive tree become columns. The last suffix of a
    file's name says what the file is, in upper or lower case. Where the suffix says nothing, the
    first bytes of the file do. Raises ``SchemaError`` for no file, a damaged file, or a column name that occurs twice.
    """
    if isinstance(source, Table):
        return source
    if isinstance(source, str | Path):
        return _open_files(str(source))
    return Table([frame_part(source)], FRAME)


def refuse_empty(table: Table) -> None:
    """Raise ``SchemaError`` for a table without a row, where rows are to be learnt from."""
    if not table.rows:
        raise SchemaError(f"a table must have at least one row, got none in {table.source}")


def _open_files(source: str) -> Table:
    path = Path(source).expanduser()
    if path.is_dir():
        base, paths = path, _files_below(path)
    elif path.is_file():
        base, paths = path.parent, [path]
    elif re.search(r"[*?\[]", source):
        fixed = Path(*_before_wildcard(path.parts))
        pattern = str(path.relative_to(fixed)) if path.parts else source
        base, paths = fixed, []
        for found in sorted(fixed.glob(pattern)):
            paths += _files_below(found) if found.is_dir() else [found]
    else:
        raise SchemaError(f"a table must be a file, a folder or a glob that exists, got {source}")
    if not paths:
        raise SchemaError(
            f"a table must have at least one Parquet or CSV file, got none in {source}"
        )
    paths.sort(key=lambda p: p.relative_to(base).as_posix())
    names = [p.relative_to(base).as_posix() for p in paths]
    parts = _parts(paths, names, source)
    given = partitions(names)
    return Table([with_partitions(*pair) for pair in zip(parts, given, strict=True)], source)


def _parts(paths: Sequence[Path], names: Sequence[str], source: str) -> list[TablePart]:
    kinds = {_kind(path, name) for path, name in zip(paths, names, strict=True)}
    if len(kinds) > 1:
        raise SchemaError(f"a table must be all Parquet or all CSV, got both in {source}")
    if kinds == {"csv"}:
        return csv_parts(paths, names)
    return [parquet_part(path, name) for path, name in zip(paths, names, strict=True)]


def _before_wildcard(parts: tuple[str, ...]) -> list[str]:
    fixed = []
    for part in parts[:-1]:
        if re.search(r"[*?\[]", part):
            break
        fixed.append(part)
    return fixed or ["."]


def _named_kind(path: Path) -> str | None:
    """What the name says that a file is: its last suffix, or the one before a packer's."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
        return "csv" if suffixes and suffixes[-1] in CSV else None
    last = suffixes[-1] if suffixes else ""
    return "parquet" if last in PARQUET else "csv" if last in CSV else None


def _kind(path: Path, name: str) -> str:
    named = _named_kind(path)
    if named is not None:
        return named
    with path.open("rb") as file:
        start = file.read(4096)
    if start.startswith(b"PAR1"):
        return "parquet"
    if b"\0" in start:
        raise SchemaError(f"{name} must be a Parquet or a CSV file, got one that begins as neither")
    return "csv"


def _files_below(folder: Path) -> list[Path]:
    """Parquet files under a folder, or CSV files where there are none; hidden ones are left out."""
    found = [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    ]
    parquet = [path for path in found if _named_kind(path) == "parquet"]
    return parquet or [path for path in found if _named_kind(path) == "csv"]
