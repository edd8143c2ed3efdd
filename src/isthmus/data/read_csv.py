"""CSV files: types found over all rows, then read as record batches in bounded memory."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from isthmus.errors import SchemaError

_BLOCK_BYTES = 8 << 20

# From narrow to wide: a column has the first type that every value in all files can be.
_LADDER = (pa.int64(), pa.float64(), pa.bool_(), pa.date32(), pa.timestamp("us"), pa.string())


@dataclass(frozen=True, slots=True)
class Survey:
    """What reading a CSV file once has told."""

    rows: int
    types: dict[str, pa.DataType]


def join(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The narrowest type that holds the values of both: text where nothing else does."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    for pair, wider in (
        ({pa.int64(), pa.float64()}, pa.float64()),
        ({pa.date32(), pa.timestamp("us")}, pa.timestamp("us")),
    ):
        if {one, other} == pair:
            return wider
    return pa.string()


def survey(path: Path, name: str) -> Survey:
    """Read a file as text once: how many rows, and the type of each column over all of them.

    Only an empty field is a null. Raises ``SchemaError`` for a column named twice, a row with too
    few or too many fields, or bytes that are not UTF-8.
    """
    columns = _header(path, name)
    types: dict[str, pa.DataType] = dict.fromkeys(columns, pa.null())
    rows = 0
    for batch in _stream(path, name, dict.fromkeys(columns, pa.string())):
        rows += batch.num_rows
        for column in columns:
            if types[column] != pa.string():
                types[column] = join(types[column], _narrowest(batch.column(column), types[column]))
    return Survey(rows, types)


def reader(
    path: Path, name: str, types: Mapping[str, pa.DataType]
) -> Callable[[list[str], int], Iterator[pa.RecordBatch]]:
    """The function that reads chosen columns with the types that were found."""

    def read(columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        del rows  # the blocks are cut to size by who reads them
        chosen = {column: types[column] for column in columns}
        for batch in _stream(path, name, chosen):
            yield batch.select(columns)

    return read


def _header(path: Path, name: str) -> list[str]:
    try:
        with csv.open_csv(path, parse_options=_parse(path)) as file:
            columns = file.schema.names
    except (pa.ArrowException, OSError) as fault:
        raise _refused(name, fault) from fault
    for column in columns:
        if columns.count(column) > 1:
            raise SchemaError(f"column {column!r} must occur once, got it twice in {name}")
    return columns


def _parse(path: Path) -> csv.ParseOptions:
    tabs = any(suffix == ".tsv" for suffix in path.suffixes)
    return csv.ParseOptions(delimiter="\t" if tabs else ",", newlines_in_values=True)


def _stream(path: Path, name: str, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    convert = csv.ConvertOptions(
        column_types=dict(types),
        include_columns=list(types),
        null_values=[""],
        strings_can_be_null=True,
        true_values=["true", "True"],
        false_values=["false", "False"],
    )
    options = csv.ReadOptions(block_size=_BLOCK_BYTES)
    try:
        with csv.open_csv(
            path, read_options=options, parse_options=_parse(path), convert_options=convert
        ) as file:
            yield from file
    except (pa.ArrowException, OSError) as fault:
        raise _refused(name, fault) from fault


def _refused(name: str, fault: Exception) -> SchemaError:
    return SchemaError(f"{name} must be a CSV file with a header, got {fault}")


def _narrowest(text: pa.Array, known: pa.DataType) -> pa.DataType:
    """The narrowest type from ``known`` upwards that all values of a block can be."""
    if text.null_count == len(text):
        return pa.null()
    start = _LADDER.index(known) if known in _LADDER else 0
    for dtype in _LADDER[start:-1]:
        try:
            pc.cast(text, dtype)
        except pa.ArrowException:
            continue
        if pa.types.is_boolean(dtype) and not _says_true_or_false(text):
            continue
        return dtype
    return pa.string()


def _says_true_or_false(text: pa.Array) -> bool:
    """Casting takes 0, 1 and t for truth values too; a file means them only when it spells them."""
    return set(text.drop_null().unique().to_pylist()) <= {"true", "True", "false", "False"}
