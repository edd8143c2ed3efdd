"""Tables: Parquet files, globs, folders, hive trees, CSV and frames, all as record batches."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from isthmus.data import read_csv
from isthmus.data import values as v
from isthmus.data.faults import missing_column, wrong_type
from isthmus.errors import SchemaError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    Source: TypeAlias = str | Path | pa.Table | pd.DataFrame | pl.DataFrame
else:
    Source: TypeAlias = Any

# Rows that are read at once: the setting that bounds the memory of reading and encoding.
BLOCK_ROWS = 1 << 18

_FRAME = "the frame"
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_READ_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of one file in order."""

    file: str
    first_row: int  # number of the first row in the table
    file_row: int  # number of the first row in the file
    batch: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class _Part:
    """One file, or a frame."""

    name: str
    rows: int
    types: Mapping[str, pa.DataType]
    read: Callable[[list[str], int], Iterator[pa.RecordBatch]]
    path: Path | None = None


class Table:
    """Rows somewhere, numbered through the files in the order of their names.

    Made by ``open_table``. Nothing is held in memory but what was given as a frame.
    """

    def __init__(self, parts: Sequence[_Part], source: str) -> None:
        self._parts = tuple(parts)
        self.source = source

    def __repr__(self) -> str:
        return f"Table({self.source!r}, rows={self.rows}, columns={len(self.columns)})"

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Columns and types, as in the first file."""
        return dict(self._parts[0].types)

    @property
    def rows(self) -> int:
        """Number of rows in all files."""
        return sum(part.rows for part in self._parts)

    @property
    def schemas(self) -> list[tuple[str, Mapping[str, pa.DataType]]]:
        """Name and column types of every file."""
        return [(part.name, part.types) for part in self._parts]

    @property
    def files(self) -> tuple[dict[str, Any], ...]:
        """What identifies each file without reading it all: see ``fingerprint``."""
        return self.fingerprint()

    def fingerprint(self, *, verify_content: bool = False) -> tuple[dict[str, Any], ...]:
        """Path, size, time and footer hash of each file; for a frame the hash of its content.

        ``verify_content``: hash every byte of every file too.
        """
        return tuple(_fingerprint(part, verify_content) for part in self._parts)

    def check(self, columns: Sequence[str]) -> None:
        """Raise ``SchemaError`` where a file lacks a column or has it with other values."""
        first = self._parts[0]
        for part in self._parts:
            for column in columns:
                if column not in part.types:
                    raise missing_column(column, part.types, part.name)
                one, other = first.types[column], part.types[column]
                same = v.is_list(one) == v.is_list(other) or pa.types.is_null(one)
                kinds = v.kind(v.item_type(one)), v.kind(v.item_type(other))
                if not (same or pa.types.is_null(other)) or not v.comparable(*kinds):
                    rule = f"be {v.decoded_name(one)} as in {first.name}"
                    raise wrong_type(column, rule, v.decoded_name(other), part.name)

    def blocks(self, columns: Sequence[str], rows: int = BLOCK_ROWS) -> Iterator[Block]:
        """Blocks of at most ``rows`` rows in table order, with these columns in this order."""
        self.check(columns)
        first_row = 0
        for part in self._parts:
            file_row = 0
            for batch in part.read(list(columns), rows):
                for start in range(0, batch.num_rows, rows):
                    piece = batch.slice(start, rows)
                    yield Block(part.name, first_row + file_row, file_row, piece)
                    file_row += piece.num_rows
            if file_row != part.rows:
                raise SchemaError(
                    f"{part.name} must hold {part.rows} rows as when it was opened, got {file_row}"
                )
            first_row += file_row

    def batches(
        self, columns: Sequence[str] | None = None, rows: int = BLOCK_ROWS
    ) -> Iterator[tuple[str, int, pa.RecordBatch]]:
        """``(file, number of the first row in the table, record batch)`` in table order."""
        for block in self.blocks(list(self.columns) if columns is None else columns, rows):
            yield block.file, block.first_row, block.batch


def open_table(source: "Source | Table") -> Table:
    """Open a table.

    ``source``: a Parquet or CSV file, a glob, a folder (a hive tree's ``key=value`` folders
    become columns), an Arrow table, or a pandas or polars frame. Raises ``SchemaError`` for no
    file, no row, a damaged file, or a column name that occurs twice.
    """
    if isinstance(source, Table):
        return source
    if isinstance(source, str | Path):
        table = _open_files(str(source))
    else:
        table = Table([_frame_part(_arrow(source))], _FRAME)
    if not table.rows:
        raise SchemaError(f"a table must have at least one row, got none in {table.source}")
    return table


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
    csv = [p for p in paths if _is_csv(p)]
    if csv and len(csv) != len(paths):
        raise SchemaError(f"a table must be all Parquet or all CSV, got both in {source}")
    names = [p.relative_to(base).as_posix() for p in paths]
    keys = _partition_keys(names)
    if csv:
        parts = _csv_parts(paths, names)
    else:
        parts = [_parquet_part(p, name) for p, name in zip(paths, names, strict=True)]
    return Table([_with_partitions(part, keys) for part in parts], source)


def _before_wildcard(parts: tuple[str, ...]) -> list[str]:
    fixed = []
    for part in parts[:-1]:
        if re.search(r"[*?\[]", part):
            break
        fixed.append(part)
    return fixed or ["."]


def _is_csv(path: Path) -> bool:
    return any(suffix in (".csv", ".tsv") for suffix in path.suffixes)


def _files_below(folder: Path) -> list[Path]:
    """Parquet files under a folder, or CSV files where there are none; hidden ones are left out."""
    found = [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    ]
    parquet = [path for path in found if path.suffix in (".parquet", ".pq", ".parq")]
    return parquet or [path for path in found if _is_csv(path)]


def _types(schema: pa.Schema, file: str) -> dict[str, pa.DataType]:
    seen: dict[str, pa.DataType] = {}
    for field in schema:
        if field.name in seen:
            raise SchemaError(f"column {field.name!r} must occur once, got it twice in {file}")
        seen[field.name] = field.type
    return seen


def _damaged(name: str, fault: Exception) -> SchemaError:
    reason = str(fault).strip().splitlines()
    return SchemaError(
        f"{name} must be a whole Parquet file, got one that is cut off or damaged"
        f" ({reason[0] if reason else type(fault).__name__})"
    )


def _parquet_part(path: Path, name: str) -> _Part:
    try:
        with pq.ParquetFile(path) as file:
            rows, types = file.metadata.num_rows, _types(file.schema_arrow, name)
    except (pa.ArrowException, OSError) as fault:
        raise _damaged(name, fault) from fault

    def read(columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        # Text comes as dictionaries: each value is then looked up once a block, not once a row.
        text = [column for column in columns if v.is_text(types[column])]
        try:
            with pq.ParquetFile(
                path,
                read_dictionary=text,
                # Streamed in small pieces: pre-buffering keeps every row group it has read.
                buffer_size=_READ_BUFFER,
                pre_buffer=False,
                page_checksum_verification=True,
            ) as file:
                for batch in file.iter_batches(batch_size=rows, columns=columns):
                    yield batch.select(columns)
        except (pa.ArrowException, OSError) as fault:
            raise _damaged(name, fault) from fault

    return _Part(name, rows, types, read, path)


def _csv_parts(paths: list[Path], names: list[str]) -> list[_Part]:
    """All CSV files with one type for each column, found by reading every row of them."""
    surveys = [read_csv.survey(path, name) for path, name in zip(paths, names, strict=True)]
    merged: dict[str, pa.DataType] = {}
    for survey in surveys:
        for column, dtype in survey.types.items():
            merged[column] = read_csv.join(merged.get(column, pa.null()), dtype)
    return [
        _Part(
            name,
            survey.rows,
            {column: merged[column] for column in survey.types},
            read_csv.reader(path, name, merged),
            path,
        )
        for path, name, survey in zip(paths, names, surveys, strict=True)
    ]


def _partition_keys(names: list[str]) -> dict[str, pa.DataType]:
    """Columns that a hive tree's folders hold; integers where every value is one."""
    found: dict[str, list[str]] = {}
    for name in names:
        for key, value in _partitions(name).items():
            found.setdefault(key, []).append(value)
    types: dict[str, pa.DataType] = {}
    for key, given in found.items():
        if len(given) != len(names):
            raise SchemaError(f"column {key!r} must be in the path of every file, got some without")
        plain = [value for value in given if value != _NO_PARTITION]
        whole = bool(plain) and all(re.fullmatch(r"-?(0|[1-9]\d{0,17})", x) for x in plain)
        types[key] = pa.int64() if whole else pa.string()
    return types


def _partitions(name: str) -> dict[str, str]:
    pairs = (part.split("=", 1) for part in name.split("/")[:-1] if "=" in part)
    return {unquote(key): unquote(value) for key, value in pairs}


def _with_partitions(part: _Part, keys: Mapping[str, pa.DataType]) -> _Part:
    """Add the columns of a file's path; a column that the file holds itself stays as it is."""
    added: dict[str, pa.Scalar] = {}
    given = _partitions(part.name)
    for key, dtype in keys.items():
        if key not in part.types:
            value: int | str | None = given[key]
            if value == _NO_PARTITION:
                value = None
            elif dtype == pa.int64():
                value = int(given[key])
            added[key] = pa.scalar(value, dtype)
    if not added:
        return part
    types = dict(part.types) | {key: keys[key] for key in added}

    def read(columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        stored = [column for column in columns if column not in added]
        # With no stored column asked for, any one of them still tells how many rows there are.
        for batch in part.read(stored or [next(iter(part.types))], rows):
            arrays = [
                pa.repeat(added[column], batch.num_rows)
                if column in added
                else batch.column(column)
                for column in columns
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=columns)

    return _Part(part.name, part.rows, types, read, part.path)


def _arrow(frame: Any) -> pa.Table:
    if isinstance(frame, pa.Table):
        return frame
    module = type(frame).__module__.split(".")[0]
    try:
        if module == "polars":
            return frame.to_arrow()
        if module == "pandas":
            doubled = frame.columns[frame.columns.duplicated()]
            if len(doubled):
                column = str(doubled[0])
                raise SchemaError(f"column {column!r} must occur once, got it twice in {_FRAME}")
            return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError) as fault:
        raise SchemaError(f"a frame must have one type for each column, got {fault}") from fault
    raise TypeError(
        "a table must be a path, an Arrow table, or a pandas or polars frame,"
        f" got {type(frame).__name__}"
    )


def _frame_part(table: pa.Table) -> _Part:
    types = _types(table.schema, _FRAME)

    def read(columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        for start in range(0, table.num_rows, rows):
            # Chunks of a frame can be tiny: join those of a block, never the whole table.
            piece = table.slice(start, rows).select(columns).combine_chunks()
            yield from piece.to_batches()

    return _Part(_FRAME, table.num_rows, types, read)


def _fingerprint(part: _Part, verify_content: bool) -> dict[str, Any]:
    if part.path is None:
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr([(name, str(dtype)) for name, dtype in part.types.items()]).encode())
        for batch in part.read(list(part.types), BLOCK_ROWS):
            for column in batch.columns:
                # Joining copies what is in the slice and nothing else: equal rows, equal bytes.
                tight = pa.concat_arrays([column, column.slice(0, 0)])
                digest.update(pa.record_batch([tight], names=["column"]).serialize())
        return {"path": None, "rows": part.rows, "content": digest.hexdigest()}
    state = part.path.stat()
    found: dict[str, Any] = {
        "path": str(part.path.resolve()),
        "size": state.st_size,
        "time": state.st_mtime_ns,
        "footer": _footer(part.path, state.st_size),
    }
    if verify_content:
        with part.path.open("rb") as file:
            whole = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
        found["content"] = whole.hexdigest()
    return found


def _footer(path: Path, size: int) -> str:
    """Hash of a Parquet footer, or of the last 64 KiB of any other file."""
    with path.open("rb") as file:
        length = 1 << 16
        if not _is_csv(path):
            file.seek(max(0, size - 8))
            length = int.from_bytes(file.read(4), "little") + 8
        file.seek(-min(length, size), os.SEEK_END)
        return hashlib.blake2b(file.read(), digest_size=16).hexdigest()
