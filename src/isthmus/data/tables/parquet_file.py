"""Parquet files as parts of a table."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from isthmus.data.tables.faults import column_types
from isthmus.data.tables.kinds import is_text
from isthmus.data.tables.table import TablePart
from isthmus.errors import SchemaError

_READ_BUFFER = 1 << 20
_MAGIC = b"PAR1"
_DICTIONARIES = {"PLAIN_DICTIONARY", "RLE_DICTIONARY"}
# What stands beside them in a chunk whose values are dictionaries, and plain pages when one is full.
_BESIDE = {"PLAIN", "RLE", "BIT_PACKED"}


def parquet_part(path: Path, name: str) -> TablePart:
    """Open a Parquet file; ``SchemaError`` where it is none, is damaged, or names a column twice."""
    try:
        with pq.ParquetFile(path) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
            coded = _coded(file.metadata)
    except (pa.ArrowException, OSError) as fault:
        raise _refused(path, name, fault) from fault
    types = column_types(schema, name)

    def read(columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        # Text comes as dictionaries: each value is then looked up once a block, not once a row.
        text = [column for column in columns if is_text(types[column]) and column in coded]
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
            raise _refused(path, name, fault) from fault

    return TablePart(name, rows, types, read, path)


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


def _refused(path: Path, name: str, fault: Exception) -> SchemaError:
    """Damage is said only of what is damaged; a layout that pyarrow cannot read is sound."""
    reason = (str(fault).strip().splitlines() or [type(fault).__name__])[0]
    if isinstance(fault, pa.ArrowNotImplementedError):
        return SchemaError(f"{name} must be a Parquet file that pyarrow reads, got: {reason}")
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            return SchemaError(
                f"{name} must be a whole Parquet file, got one that does not begin with PAR1"
            )
    return SchemaError(
        f"{name} must be a whole Parquet file, got one that is cut off or damaged ({reason})"
    )
