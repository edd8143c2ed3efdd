"""Parquet files as parts of a table."""

from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from isthmus.data.tables.faults import column_types
from isthmus.data.tables.kinds import is_text
from isthmus.data.tables.places.access import opened, readable
from isthmus.data.tables.places.listing import Place
from isthmus.data.tables.places.remote_file import RemoteFile, store_fault
from isthmus.data.tables.table import Stretch, TablePart
from isthmus.errors import IsthmusError, SchemaError

_READ_BUFFER = 1 << 20  # bytes for a column
_REMOTE_BUFFER = 1 << 22  # a request to a store costs the time of some MB
_MAGIC = b"PAR1"
STRETCH_ROWS = 1 << 20  # row groups that hold so many together are read by themselves
_DICTIONARIES = {"PLAIN_DICTIONARY", "RLE_DICTIONARY"}
# What stands beside them in a chunk whose values are dictionaries, and plain pages when one is full.
_BESIDE = {"PLAIN", "RLE", "BIT_PACKED"}


def parquet_part(place: Place, name: str) -> TablePart:
    """Open a Parquet file; ``SchemaError`` where it is none, is damaged, or names a column twice."""
    try:
        with readable(place) as source, pq.ParquetFile(source) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
            coded = _coded(file.metadata)
            groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    except (pa.ArrowException, OSError) as fault:
        raise _refused(place, name, fault) from _cause(place, fault)
    types = column_types(schema, name)

    def read(
        columns: list[str], rows: int, groups: list[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        # Text comes as dictionaries: each value is then looked up once a block, not once a row.
        text = [column for column in columns if is_text(types[column]) and column in coded]
        try:
            with (
                readable(place) as source,
                pq.ParquetFile(
                    source,
                    read_dictionary=text,
                    # Streamed in small pieces: pre-buffering keeps every row group it has read.
                    buffer_size=_REMOTE_BUFFER if isinstance(place, RemoteFile) else _READ_BUFFER,
                    pre_buffer=False,
                    page_checksum_verification=True,
                ) as file,
            ):
                for batch in file.iter_batches(rows, groups, columns):
                    yield batch.select(columns)
        except (pa.ArrowException, OSError) as fault:
            raise _refused(place, name, fault) from _cause(place, fault)

    cut = tuple(
        Stretch(first, count, partial(read, groups=list(numbers)))
        for first, count, numbers in _stretches(groups)
    )
    return TablePart(name, rows, types, read, place, cut=cut)


def _stretches(groups: Sequence[int]) -> list[tuple[int, int, range]]:
    """Row groups with so many rows each, gathered until they hold `STRETCH_ROWS`.

    Gives first row, number of rows, and row groups of each stretch; nothing where one holds all.
    """
    found, start, first, rows = [], 0, 0, 0
    for number, count in enumerate(groups):
        rows += count
        if rows >= STRETCH_ROWS or number == len(groups) - 1:
            found.append((first, rows, range(start, number + 1)))
            start, first, rows = number + 1, first + rows, 0
    return found if len(found) > 1 else []


def _coded(metadata: pq.FileMetaData) -> set[str]:
    """Columns stored as dictionaries throughout: no other encoding can be read as dictionaries."""
    found = {metadata.schema.column(i).path for i in range(metadata.num_columns)}
    for group in range(metadata.num_row_groups):
        for i in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(i)
            encodings = set(chunk.encodings)
            if not encodings & _DICTIONARIES or encodings - _DICTIONARIES - _BESIDE:
                found.discard(chunk.path_in_schema)
    return found


def _refused(place: Place, name: str, fault: Exception) -> IsthmusError:
    """Damage is said only of what is damaged; a layout that pyarrow cannot read is sound."""
    if (of_store := store_fault(place, fault)) is not None:
        return of_store
    if isinstance(place, RemoteFile):
        name = str(place)
    reason = (str(fault).strip().splitlines() or [type(fault).__name__])[0]
    if isinstance(fault, pa.ArrowNotImplementedError):
        return SchemaError(f"{name} must be a Parquet file that pyarrow reads, got: {reason}")
    with opened(place) as file:
        if file.read(4) != _MAGIC:
            return SchemaError(
                f"{name} must be a whole Parquet file, got one that does not begin with PAR1"
            )
    return SchemaError(
        f"{name} must be a whole Parquet file, got one that is cut off or damaged ({reason})"
    )


def _cause(place: Place, fault: Exception) -> Exception | None:
    """The cause to show below a refusal: the words of a store may hold what is secret."""
    return None if isinstance(place, RemoteFile) else fault
