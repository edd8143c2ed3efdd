"""CSV files as parts of a table: one pass finds what each column spells, others read columns.

A column has the type that it spells, or is read as it is asked for. A pass holds a few blocks of a
file in memory, never all of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import pyarrow as pa
from pyarrow import csv

from isthmus.data.tables.csv import spelling
from isthmus.data.tables.csv.dialect import Dialect, find_dialect, lone_header, refused, slow_fault
from isthmus.data.tables.csv.spelling import Spelled
from isthmus.data.tables.faults import bad_value, check_once
from isthmus.data.tables.kinds import MOMENTS, NUMBERS, family, kind
from isthmus.data.tables.places.access import unpacked
from isthmus.data.tables.places.listing import Place
from isthmus.data.tables.places.remote_file import store_fault
from isthmus.data.tables.table import TablePart, Way, ahead

_BLOCK_BYTES = 8 << 20

_FAULTS = (pa.ArrowException, OSError, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class KnownMoment:
    """Read a column whose values were moments of type ``dtype`` when a model was fitted."""

    dtype: pa.DataType


# An Arrow type: one that the file spells, or a wider one. "text": as it is written. "number": every usual
# spelling, as float64. "known_number" and `KnownMoment`: exact spellings, all else null.
Reading: TypeAlias = pa.DataType | KnownMoment | Literal["text", "number", "known_number"]


@dataclass(frozen=True, slots=True)
class CsvColumn:
    """What the values of a column of one file are."""

    spelled: Spelled = field(default_factory=Spelled)
    # Row (from 0, among the data rows) and text of the first value that is no number however
    # loosely spelled; None where there is none.
    odd: tuple[int, str] | None = None

    @property
    def number(self) -> bool:
        """Whether every value that is not null is a number, however loosely spelled."""
        return self.odd is None


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A CSV file whose every row was seen once. Made by `open_csv`."""

    place: Place
    name: str
    dialect: Dialect
    rows: int
    columns: dict[str, CsvColumn]


def open_csv(place: Place, name: str) -> CsvFile:
    """Read a file once: its dialect, its rows, and what each column spells over all of them.

    ``name``: of the file, for errors. Raises ``SchemaError`` for a file without a header, a column
    named twice, a row with too few or too many fields, and bytes that are not UTF-8.
    """
    dialect = find_dialect(place, name)
    names, has_end = _header(place, name, dialect)
    columns = dict.fromkeys(names, CsvColumn())
    rows = 0
    if not has_end:
        return CsvFile(place, name, dialect, rows, columns)
    for batch in ahead(_stream(place, name, dialect, dict.fromkeys(names, pa.string()))):
        for column, text in zip(names, batch.columns, strict=True):
            columns[column] = _seen(columns[column], text, rows)
        rows += batch.num_rows
    return CsvFile(place, name, dialect, rows, columns)


def read(file: CsvFile, columns: Mapping[str, Reading]) -> Iterator[pa.RecordBatch]:
    """Record batches with exactly these columns in this order, each read as it says.

    The 9 texts of `isthmus.data.tables.csv.spelling.NULLS` are nulls in every reading. The type of a
    "known_number" follows the values of a batch, and may differ between batches.
    """
    if not file.rows:
        return
    types = {
        name: reading if isinstance(reading, pa.DataType) else pa.string()
        for name, reading in columns.items()
    }
    # A batch without columns would not know its rows.
    types = types or dict.fromkeys(list(file.columns)[:1], pa.string())
    for batch in _stream(file.place, file.name, file.dialect, types):
        batch = batch.select(list(columns))
        for place, (name, reading) in enumerate(columns.items()):
            if not isinstance(reading, pa.DataType) and reading != "text":
                batch = batch.set_column(place, name, _converted(batch.column(place), reading))
        yield batch


def _converted(text: pa.Array, reading: Reading) -> pa.Array:
    if isinstance(reading, KnownMoment):
        return spelling.known_moments(text, reading.dtype)
    return spelling.numbers(text) if reading == "number" else spelling.known_numbers(text)


def _seen(column: CsvColumn, text: pa.Array, first_row: int) -> CsvColumn:
    """The column after one more block of its texts."""
    if column.odd and column.spelled.type == pa.string():
        return column
    spelled = Spelled.of(text, column.spelled)
    # Exact numbers are loose ones too.
    if column.odd is None and not _is_number(spelled.type):
        place = spelling.first_no_number(text)
        if place is not None:
            return CsvColumn(spelled, (first_row + place, text[place].as_py()))
    return CsvColumn(spelled, column.odd)


def _is_number(dtype: pa.DataType) -> bool:
    test = pa.types
    return test.is_null(dtype) or test.is_integer(dtype) or test.is_floating(dtype)


def _header(place: Place, name: str, dialect: Dialect) -> tuple[list[str], bool]:
    """Names of the columns, and whether the line of the header has an end."""
    has_end = True
    try:
        with (
            unpacked(place, dialect.compression) as source,
            csv.open_csv(source, parse_options=_parse(dialect)) as file,
        ):
            columns = file.schema.names
    except _FAULTS as fault:
        if (of_store := store_fault(place, fault)) is not None:
            raise of_store from None
        # To pyarrow a header without an end of line is an empty file.
        columns = lone_header(place, dialect)
        has_end = False
        if columns is None:
            raise slow_fault(place, name, dialect) or refused(name, fault) from fault
    check_once(columns, name)
    return columns, has_end


def _parse(dialect: Dialect) -> csv.ParseOptions:
    return csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True)


def _stream(
    place: Place, name: str, dialect: Dialect, types: Mapping[str, pa.DataType]
) -> Iterator[pa.RecordBatch]:
    convert = csv.ConvertOptions(
        column_types=dict(types),
        include_columns=list(types),
        null_values=list(spelling.NULLS),
        strings_can_be_null=True,
        true_values=list(spelling.TRUE),
        false_values=list(spelling.FALSE),
    )
    options = csv.ReadOptions(block_size=_BLOCK_BYTES)
    try:
        with (
            unpacked(place, dialect.compression) as source,
            csv.open_csv(
                source, read_options=options, parse_options=_parse(dialect), convert_options=convert
            ) as file,
        ):
            yield from file
    except _FAULTS as fault:
        if (of_store := store_fault(place, fault)) is not None:
            raise of_store from None
        raise slow_fault(place, name, dialect) or refused(name, fault) from fault


def csv_parts(places: Sequence[Place], names: Sequence[str]) -> list[TablePart]:
    """All CSV files, every row of which is read once to find the types of the columns.

    A column is text in all files where it spells values of two families, such as numbers and text.
    """
    files = [open_csv(place, name) for place, name in zip(places, names, strict=True)]
    families: dict[str, set[str]] = {}
    for file in files:
        for name, column in file.columns.items():
            families.setdefault(name, set()).add(family(kind(column.spelled.type)))
    mixed = {name for name, found in families.items() if len(found - {"null"}) > 1}
    return [_csv_part(file, dict.fromkeys(mixed, "text")) for file in files]


def _csv_part(file: CsvFile, ways: Mapping[str, Way]) -> TablePart:
    types = {name: column.spelled.type for name, column in file.columns.items()}
    odd = {name: column.odd for name, column in file.columns.items() if column.odd is not None}
    readings: dict[str, Reading] = dict(types)
    unusable: dict[str, str] = {}
    for name in types.keys() & ways.keys():
        way, have = ways[name], kind(types[name])
        if way == "text":
            types[name], readings[name] = pa.string(), "text"
        elif way == "number" and have not in (*NUMBERS, "null"):
            if name in odd:
                row, text = odd[name]
                unusable[name] = str(bad_value(name, "be numeric", repr(text), file.name, row))
            types[name], readings[name] = pa.float64(), "number"
        elif way == "known_number" and have not in (*NUMBERS, "null"):
            types[name], readings[name] = pa.float64(), "known_number"
        elif way == "known_moment" and have not in (*MOMENTS, "null"):
            types[name] = pa.timestamp("us")
            readings[name] = KnownMoment(pa.timestamp("us"))

    def rows_of(columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        del rows  # the blocks are cut to size by who reads them
        yield from read(file, {column: readings[column] for column in columns})

    def reread(more: Mapping[str, Way]) -> TablePart:
        return _csv_part(file, {**ways, **more})

    return TablePart(file.name, file.rows, types, rows_of, file.place, unusable, reread, odd)
