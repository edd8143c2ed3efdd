"""Opening a table: which files there are, of what kind each is, or which frame was given."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from isthmus.data.tables.csv.csv_file import csv_parts
from isthmus.data.tables.frames import FRAME, frame_part
from isthmus.data.tables.hive import partitions, with_partitions
from isthmus.data.tables.parquet_file import parquet_part
from isthmus.data.tables.places.access import each, opened
from isthmus.data.tables.places.listing import Place, files_of, named_kind
from isthmus.data.tables.table import Table
from isthmus.errors import SchemaError
from isthmus.schema.address import Address

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    Source: TypeAlias = (
        str | Path | pa.Table | pa.RecordBatchReader | pd.DataFrame | pl.DataFrame | pl.LazyFrame
    )
else:
    Source: TypeAlias = Any


def open_table(source: "Source | Table") -> Table:
    """Open a table.

    ``source``: a Parquet or CSV file, a glob, a folder, the address of one of them on an object
    store (``s3://bucket/clicks/*.parquet``), a pandas or polars frame, or whatever gives an Arrow
    stream. The ``key=value`` folders of a hive tree become columns. The last suffix of a
    file's name says what the file is, in upper or lower case. Where the suffix says nothing, the
    first bytes of the file do. Raises ``SchemaError`` for no file, a damaged file, or a column name that
    occurs twice, and ``RunError`` for an object store out of reach.
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
    files = files_of(source)
    names = list(files)
    is_remote = Address.of(source) is not None
    kinds = each(lambda name: _kind(files[name], name), names, remote=is_remote)
    if len(set(kinds)) > 1:
        raise SchemaError(f"a table must be all Parquet or all CSV, got both in {source}")
    if kinds[0] == "csv":
        parts = csv_parts(list(files.values()), names)
    else:
        parts = each(lambda name: parquet_part(files[name], name), names, remote=is_remote)
    given = partitions(names)
    return Table([with_partitions(*pair) for pair in zip(parts, given, strict=True)], source)


def _kind(place: Place, name: str) -> str:
    named = named_kind(place)
    if named is not None:
        return named
    with opened(place) as file:
        start = file.read(4096)
    if start.startswith(b"PAR1"):
        return "parquet"
    if b"\0" in start:
        raise SchemaError(f"{name} must be a Parquet or a CSV file, got one that begins as neither")
    return "csv"
