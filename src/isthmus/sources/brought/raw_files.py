"""Files of a download, read in blocks of bounded size, every value as a text until it is checked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.json as json

from isthmus.data.tables.csv.spelling import NULLS
from isthmus.data.tables.faults import bad_value, missing_column
from isthmus.errors import SchemaError

_BLOCK_BYTES = 1 << 23


@dataclass(frozen=True, slots=True)
class BroughtFile:
    """One file of a download. ``name``: within the user's folder, for errors."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Layout:
    """How a text file is laid out. ``names``: of its columns, where it has no header line."""

    delimiter: str = ","
    names: tuple[str, ...] = ()
    quoted: bool = True


@dataclass(frozen=True, slots=True)
class RawBlock:
    """Consecutive rows of a file: ``frame`` with their columns, the first of them row ``first``."""

    frame: pl.DataFrame
    file: BroughtFile
    first: int

    def whole(self, *columns: str, required: bool = True) -> "RawBlock":
        """Read columns of texts as whole numbers, int64; ``7.0`` is one too.

        Raises SchemaError with file, column and row for another text, and, where ``required``, for
        a null.
        """
        texts = self.frame.select(columns)
        numbers = texts.select(pl.all().cast(pl.Float64, strict=False))
        # Of 0.5, nan and inf no whole number is left.
        wholes = numbers.select(pl.all().cast(pl.Int64, strict=False))
        for column in columns:
            wrong = wholes[column].is_null() | (wholes[column] != numbers[column])
            if not required:
                wrong &= texts[column].is_not_null()
            self.refuse(column, "hold a whole number", wrong.fill_null(True))
        return RawBlock(self.frame.with_columns(wholes), self.file, self.first)

    def zero_or_one(self, column: str) -> "RawBlock":
        """Read a column of texts as a label, int8. Raises SchemaError for all but 0 and 1."""
        block = self.whole(column)
        label = block.frame[column]
        self.refuse(column, "be 0 or 1", ~label.is_in([0, 1]))
        frame = block.frame.with_columns(label.cast(pl.Int8))
        return RawBlock(frame, self.file, self.first)

    def refuse(self, column: str, rule: str, wrong: pl.Series) -> None:
        """Raise SchemaError for the first row where ``wrong``, bool (rows,), is true."""
        if wrong.any():
            row = int(wrong.arg_max() or 0)
            raise self.fault(column, rule, row, self.frame[column][row])

    def fault(self, column: str, rule: str, row: int, value: object) -> SchemaError:
        """The error for a value at ``row`` of the block."""
        got = "null" if value is None else repr(value)
        return bad_value(column, rule, got, self.file.name, self.first + row)


def text_blocks(
    file: BroughtFile, columns: Sequence[str], layout: Layout | None = None
) -> Iterator[RawBlock]:
    """Blocks of the columns asked for, every value a text; an empty field is a null.

    Raises SchemaError for a column that is missing, for a row with too few or too many fields, and
    for a file that cannot be read.
    """
    layout = layout or Layout()
    names = list(layout.names)
    ragged: list[csv.InvalidRow] = []
    first = 0
    try:
        if not names:
            with _opened(file, layout, ragged) as rows:
                names = rows.schema.names
        for column in columns:
            if column not in names:
                raise missing_column(column, names, file.name)
        with _opened(file, layout, ragged, columns) as rows:
            for batch in rows:
                yield RawBlock(_frame(batch), file, first)
                first += batch.num_rows
    except (pa.ArrowException, OSError) as fault:
        if ragged:
            # pyarrow counts rows from 1, and a header is a row to it.
            row = (ragged[0].number or 0) - (1 if layout.names else 2)
            raise SchemaError(
                f"{file.name} must have {ragged[0].expected_columns} fields in every row, got"
                f" {ragged[0].actual_columns} in row {row}"
            ) from fault
        raise _unreadable(file, first, fault) from fault


@contextmanager
def _opened(
    file: BroughtFile,
    layout: Layout,
    ragged: list[csv.InvalidRow],
    columns: Sequence[str] | None = None,
) -> Iterator[csv.CSVStreamingReader]:
    """A reader of these columns as texts, or of all. ``ragged`` gets the first row of other length."""

    def note(row: csv.InvalidRow) -> str:
        ragged.append(row)
        return "error"

    parse = csv.ParseOptions(
        delimiter=layout.delimiter,
        quote_char='"' if layout.quoted else False,
        newlines_in_values=layout.quoted,
        invalid_row_handler=note,
    )
    # On one thread pyarrow knows the number of a row.
    read = csv.ReadOptions(
        block_size=_BLOCK_BYTES, column_names=list(layout.names) or None, use_threads=False
    )
    convert = csv.ConvertOptions(
        include_columns=None if columns is None else list(columns),
        column_types=dict.fromkeys(columns or (), pa.string()),
        null_values=list(NULLS),
        strings_can_be_null=True,
    )
    with (
        pa.input_stream(str(file.path), compression="detect") as stream,
        csv.open_csv(stream, read, parse, convert) as rows,
    ):
        yield rows


def json_blocks(file: BroughtFile, schema: pa.Schema) -> Iterator[RawBlock]:
    """Blocks of the fields of ``schema``, from a file with one JSON object a line.

    A field that a line lacks is a null; other fields are passed over. Raises SchemaError for lines
    that are no such objects and for a file that cannot be read.
    """
    first = 0
    parse = json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        with (
            pa.input_stream(str(file.path), compression="detect") as stream,
            json.open_json(
                stream, json.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False), parse
            ) as rows,
        ):
            for batch in rows:
                yield RawBlock(_frame(batch), file, first)
                first += batch.num_rows
    except (pa.ArrowException, OSError) as fault:
        raise _unreadable(file, first, fault) from fault


def _frame(batch: pa.RecordBatch) -> pl.DataFrame:
    return pl.DataFrame(pa.Table.from_batches([batch]))


def _unreadable(file: BroughtFile, first: int, fault: Exception) -> SchemaError:
    return SchemaError(f"{file.name} cannot be read from row {first} on: {fault}")
