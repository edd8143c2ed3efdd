"""Rows as an Arrow IPC stream: read within limits, and answered with a column ``score``.

A small body can unpack to a large one: compressed buffers, texts that many rows point to, runs. So the size
that each message declares is read from its header before the message is unpacked, and columns are of plain
types only.
"""

import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from isthmus.data.tables.kinds import is_plain_list
from isthmus.data.tables.moments import is_zone
from isthmus.serving.doors.refusal import Refusal

MEDIA = "application/vnd.apache.arrow.stream"
_SCHEMA, _DICTIONARY, _ROWS = 1, 2, 3


def read_stream(body: bytes, *, max_rows: int, max_bytes: int, max_items: int) -> pa.Table:
    """The rows of a stream. Raises `Refusal`: 400 for what is no stream, 413 beyond a limit."""
    try:
        _check_unpacked(body, max_bytes)
        with pa.ipc.open_stream(pa.BufferReader(body)) as reader:
            for field in reader.schema:
                _check_type(field.name, field.type)
            blocks, rows = [], 0
            for block in reader:
                block.validate(full=True)
                rows += block.num_rows
                if rows > max_rows:
                    raise Refusal(413, f"a request must have at most {max_rows:,} rows, got more")
                _check_lists(block, max_items)
                blocks.append(block)
            return pa.Table.from_batches(blocks, reader.schema)
    except (pa.ArrowException, OSError, ValueError, struct.error, IndexError) as fault:
        first = str(fault).partition("\n")[0]
        raise Refusal(400, f"a body must be an Arrow IPC stream: {first}") from None


def write_scores(scores: np.ndarray) -> bytes:
    """A stream with one column ``score``, float64."""
    block = pa.record_batch({"score": pa.array(scores)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, block.schema) as writer:
        writer.write_batch(block)
    return sink.getvalue().to_pybytes()


def _check_type(name: str, dtype: pa.DataType) -> None:
    """Views and runs can stand for far more than they hold; so can a dictionary of lists."""
    test, inner = pa.types, dtype
    while is_plain_list(inner) or test.is_dictionary(inner):
        inner = inner.value_type
    if test.is_timestamp(inner) and inner.tz is not None and not is_zone(inner.tz):
        raise Refusal(
            422,
            f"column {name!r} must have a time zone that is known here, got {inner.tz!r}",
            column=name,
        )
    nested = test.is_nested(inner) or isinstance(inner, pa.BaseExtensionType)
    folded = test.is_dictionary(dtype) and test.is_nested(dtype.value_type)
    viewed = test.is_string_view(inner) or test.is_binary_view(inner)
    if nested or folded or viewed or test.is_run_end_encoded(inner):
        raise Refusal(
            422,
            f"column {name!r} must be of a plain type or a list of one, got {dtype}",
            column=name,
        )


def _check_lists(block: pa.RecordBatch, max_items: int) -> None:
    for name, column in zip(block.schema.names, block.columns, strict=True):
        if not is_plain_list(column.type):
            continue
        if pa.types.is_fixed_size_list(column.type):
            longest = column.type.list_size if len(column) else 0
        else:
            offsets = column.offsets.to_numpy()
            longest = int(np.diff(offsets).max(initial=0))
        if longest > max_items:
            raise Refusal(
                413,
                f"a list must have at most {max_items:,} items, got {longest:,} in column {name!r}",
                column=name,
            )


def _check_unpacked(body: bytes, most: int) -> None:
    """Add up what the buffers of all messages unpack to, as each compressed one declares."""
    total = 0
    for header, at, size in _messages(body):
        rows = _rows_of(header)
        if rows is None:
            continue
        total += size
        if _field(header, rows, 3) is not None:  # compressed
            for offset, length in _buffers(header, rows):
                if length >= 8:
                    (unpacked,) = struct.unpack_from("<q", body, at + offset)
                    total += max(0, unpacked)  # -1: this one is not compressed after all
        if total > most:
            raise Refusal(413, f"a body must unpack to at most {most:,} bytes, got more")


def _messages(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Header, place and size of the body of each message of a stream."""
    at = 0
    while at + 4 <= len(body):
        (length,) = struct.unpack_from("<I", body, at)
        at += 4
        if length == 0xFFFFFFFF:  # the marker of today's streams; older ones begin with the length
            (length,) = struct.unpack_from("<I", body, at)
            at += 4
        if length == 0:
            return
        header = body[at : at + length]
        at += length
        (size,) = _scalar(header, _root(header), 3, "<q")
        if size < 0:
            raise ValueError(f"a message must have a length, got {size}")
        yield header, at, size
        at += size


def _root(header: bytes) -> int:
    return struct.unpack_from("<I", header, 0)[0]


def _field(header: bytes, table: int, number: int) -> int | None:
    """The place of a field of a flatbuffer's table; None where the table leaves the field out."""
    (back,) = struct.unpack_from("<i", header, table)
    listed = table - back
    if listed < 0:
        raise ValueError("a message must have a sound header")
    (size,) = struct.unpack_from("<H", header, listed)
    place = 4 + 2 * number
    if place >= size:
        return None
    (offset,) = struct.unpack_from("<H", header, listed + place)
    return table + offset if offset else None


def _scalar(header: bytes, table: int, number: int, form: str) -> tuple[int]:
    at = _field(header, table, number)
    return (0,) if at is None else struct.unpack_from(form, header, at)


def _below(header: bytes, at: int) -> int:
    """The table or the vector that a place points to."""
    return at + struct.unpack_from("<I", header, at)[0]


def _rows_of(header: bytes) -> int | None:
    """The record batch of a message, of a dictionary too; None for a message without rows."""
    root = _root(header)
    (kind,) = _scalar(header, root, 1, "<B")
    at = _field(header, root, 2)
    if at is None or kind not in (_DICTIONARY, _ROWS):
        return None
    table = _below(header, at)
    if kind == _ROWS:
        return table
    data = _field(header, table, 1)
    return None if data is None else _below(header, data)


def _buffers(header: bytes, rows: int) -> Iterator[tuple[int, int]]:
    """Offset and length of each buffer, from the beginning of the message's body."""
    at = _field(header, rows, 2)
    if at is None:
        return
    vector = _below(header, at)
    (count,) = struct.unpack_from("<I", header, vector)
    yield from struct.iter_unpack("<qq", header[vector + 4 : vector + 4 + 16 * count])
