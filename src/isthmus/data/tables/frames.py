"""Frames and streams as parts of a table: whatever speaks Arrow, and pandas.

A stream can be read once only, so it is first written to a temporary file without a name, in
bounded memory; a lazy frame of polars is run in its streaming engine.
"""

import tempfile
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.data.tables.faults import check_once, column_types
from isthmus.data.tables.kinds import plain_type
from isthmus.data.tables.plain import decode, plain
from isthmus.data.tables.table import BLOCK_ROWS, TablePart
from isthmus.disk import room_for
from isthmus.errors import SchemaError

FRAME = "the frame"
TAKEN = (
    "a path, a frame of pandas or polars (eager or lazy), an Arrow table or batch, or anything with"
    " the Arrow stream interface (__arrow_c_stream__)"
)


def frame_part(source: Any) -> TablePart:
    """A frame, a lazy frame or a stream as the one part of a table.

    Raises ``SchemaError`` for anything else, and for a column name that occurs twice.
    """
    module, name = type(source).__module__.split(".")[0], type(source).__name__
    if isinstance(source, pa.Table):
        return _table_part(source)
    if isinstance(source, pa.RecordBatch):
        return _table_part(pa.Table.from_batches([source]))
    if module == "pandas" and name in ("DataFrame", "Series"):
        return _pandas_part(source.to_frame() if name == "Series" else source)
    if module == "polars" and name in ("DataFrame", "Series"):
        return _polars_part(source.to_frame() if name == "Series" else source)
    if module == "polars" and name == "LazyFrame":
        return _stream_part(_lazy_batches(source))
    if hasattr(source, "__arrow_c_stream__"):
        try:
            return _stream_part(pa.RecordBatchReader.from_stream(source))
        except (pa.ArrowException, TypeError) as fault:
            raise SchemaError(f"a stream must give record batches, got {fault}") from fault
    raise SchemaError(f"a table must be {TAKEN}, got {name}")


def _table_part(table: pa.Table, unusable: dict[str, str] | None = None) -> TablePart:
    types = column_types(table.schema, FRAME)

    def read(columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        for start in range(0, table.num_rows, rows):
            # Chunks of a frame can be tiny: join those of a block, never the whole table.
            piece = table.slice(start, rows)
            arrays = [_joined(piece.column(column)) for column in columns]
            yield pa.RecordBatch.from_arrays(arrays, names=columns)

    return TablePart(FRAME, table.num_rows, types, read, unusable=unusable or {})


def _joined(column: pa.ChunkedArray) -> pa.Array:
    """The chunks as one array; dictionaries may need wider indices together than each alone."""
    dtype = column.type
    if column.num_chunks == 1:
        return column.chunk(0)
    if pa.types.is_dictionary(dtype):
        column = column.cast(pa.dictionary(pa.int64(), dtype.value_type))
    elif pa.types.is_run_end_encoded(dtype):
        chunks = [pc.call_function("run_end_decode", [chunk]) for chunk in column.chunks]
        column = pa.chunked_array(chunks, dtype.value_type)
    joined = column.combine_chunks()
    assert isinstance(joined, pa.Array)
    return joined


def _pandas_part(frame: Any) -> TablePart:
    check_once(map(str, frame.columns), FRAME)
    try:
        return _table_part(pa.Table.from_pandas(frame, preserve_index=False))
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass  # some column holds values of several types: look at each
    columns: dict[str, Any] = {}
    unusable: dict[str, str] = {}
    for name in frame.columns:
        series = frame[name]
        try:
            columns[str(name)] = pa.Array.from_pandas(series)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as fault:
            columns[str(name)] = _as_text(series)
            unusable[str(name)] = _mixed(str(name), series, fault)
    return _table_part(pa.table(columns), unusable)


def _polars_part(frame: Any) -> TablePart:
    columns: dict[str, Any] = {}
    unusable: dict[str, str] = {}
    for series in frame:
        name = series.name
        try:
            # An object column gives the addresses of its values, which are no values.
            if series.dtype == pl.Object:
                raise TypeError("Python objects")
            if str(series.dtype) in ("Int128", "UInt128"):  # polars 1.30 knows the first alone
                series = series.cast(pl.Decimal(38, 0))
            columns[name] = series.to_frame().to_arrow().column(0)
        except (pa.ArrowException, pl.exceptions.PolarsError, TypeError) as fault:
            columns[name] = _as_text(series)
            unusable[name] = _mixed(name, series, fault)
    return _table_part(pa.table(columns), unusable)


def _as_text(series: Any) -> pa.Array:
    """Values of several types, so that an unused column can be carried along."""
    return pa.array([None if x is None or x != x else str(x) for x in series], pa.string())


def _mixed(name: str, series: Any, fault: BaseException) -> str:
    """What to say of whoever uses the column: one row of each of two types."""
    first: dict[str, tuple[int, Any]] = {}
    for row, value in enumerate(series):
        if value is not None and value == value:
            first.setdefault(type(value).__name__, (row, value))
        if len(first) == 2:
            break
    if len(first) < 2:
        return f"column {name!r} must hold values that Arrow takes, got {fault} in {FRAME}"
    told = " and ".join(f"{value!r} ({kind}) in row {row}" for kind, (row, value) in first.items())
    return f"column {name!r} must hold values of one type, got {told} of {FRAME}"


def _lazy_batches(frame: Any) -> pa.RecordBatchReader:
    """Run a lazy frame piece by piece."""
    pieces = frame.collect_batches(chunk_size=BLOCK_ROWS, maintain_order=True)
    empty = frame.collect_schema().to_frame(eager=True).to_arrow()

    def batches() -> Iterator[pa.RecordBatch]:
        for piece in pieces:
            yield from piece.to_arrow().cast(empty.schema).to_batches()

    return pa.RecordBatchReader.from_batches(empty.schema, batches())


def _stream_part(stream: pa.RecordBatchReader) -> TablePart:
    """Write a stream aside, then read it as often as it is needed."""
    schema = pa.schema([pa.field(f.name, _written_type(f.type)) for f in stream.schema])
    types = column_types(schema, FRAME)
    with room_for("the rows of a stream"), ExitStack() as opened:
        file = opened.enter_context(tempfile.TemporaryFile())
        rows = _write_aside(stream, schema, file)
        close = opened.pop_all().close  # the file lives as long as the part that reads it

    def read(columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        del rows  # the blocks are cut to size by who reads them
        reader = _reader(file)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number).select(columns)

    weakref.finalize(read, close)
    return TablePart(FRAME, rows, types, read)


def _write_aside(stream: pa.RecordBatchReader, schema: pa.Schema, file: IO[bytes]) -> int:
    rows = 0
    with pa.ipc.new_file(file, schema) as writer:
        for batches in _gathered(stream):
            arrays = [
                _joined(
                    pa.chunked_array([_written(batch.column(i), item.type) for batch in batches])
                )
                for i, item in enumerate(schema)
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            rows += sum(batch.num_rows for batch in batches)
    file.flush()
    return rows


def _gathered(stream: pa.RecordBatchReader) -> Iterator[list[pa.RecordBatch]]:
    """Batches together until they are a block: a stream of tiny ones is read as fast as others."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in stream:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= BLOCK_ROWS:
            yield waiting
            waiting, rows = [], 0
    if waiting:
        yield waiting


def _reader(file: IO[bytes]) -> pa.RecordBatchFileReader:
    file.seek(0)
    return pa.ipc.open_file(file)


def _written_type(dtype: pa.DataType) -> pa.DataType:
    """Dictionaries differ from batch to batch, and run ends cannot be joined: both are decoded."""
    coded = pa.types.is_dictionary(dtype) or pa.types.is_run_end_encoded(dtype)
    return plain_type(dtype.value_type) if coded else dtype


def _written(array: pa.Array, to: pa.DataType) -> pa.Array:
    return array if array.type == to else decode(plain(array))
