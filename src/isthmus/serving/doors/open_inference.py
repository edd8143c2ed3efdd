"""The Open Inference Protocol, version 2, as KServe, Triton and MLServer speak it.

Source: kserve/open-inference-protocol, ``inference_rest.md``; the binary extension of Triton, whose clients
send numbers and texts behind the JSON. A table's row is spread over the inputs: one input a column.

    texts           BYTES
    numbers         any number type; nan stands for a missing one
    lists           BYTES, each a JSON text; or numbers of shape [rows, items]

Departures: an output is always JSON, which the protocol leaves to the server. Errors are 400, as the protocol
has it, and 404, 413 and 415 as elsewhere.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from starlette.requests import Request

from isthmus.data.requests import RowEncoder
from isthmus.schema import Time, Vector
from isthmus.serving.doors.columns_of_request import (
    check_counts,
    check_items,
    in_order,
    is_listed,
    is_number,
    parsed_lists,
)
from isthmus.serving.doors.refusal import Refusal, read_body
from isthmus.serving.edition import Edition

HEADER = "inference-header-content-length"
OUTPUTS = ("score",)
PLATFORM = "isthmus"
VERSION_LETTERS = 12  # of the checksum
_DTYPES = {
    "BOOL": "?",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


class GivenInput(msgspec.Struct):
    """One input: a column. ``data``: flat or nested, None where it stands behind the JSON."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class AskedOutput(msgspec.Struct):
    """One output that is asked for."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct):
    """A request of version 2."""

    inputs: list[GivenInput]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[AskedOutput] | None = None


_decoder = msgspec.json.Decoder(InferRequest)


def version_of(checksum: str) -> str:
    """The version by which a model is called: the first letters of the bundle's checksum."""
    return checksum[:VERSION_LETTERS]


def metadata(name: str, edition: Edition) -> dict[str, Any]:
    """What ``GET /v2/models/NAME`` tells."""
    encoder = edition.engine.encoder
    return {
        "name": name,
        "versions": [version_of(edition.engine.checksum)],
        "platform": PLATFORM,
        "inputs": [_described(encoder, column) for column in encoder.columns],
        "outputs": [{"name": "score", "datatype": "FP64", "shape": [-1]}],
        "parameters": {"bundle": edition.engine.checksum},
    }


def _described(encoder: RowEncoder, column: str) -> dict[str, Any]:
    feature = encoder.encoder.config.features.get(column)
    if isinstance(feature, Vector):
        return {"name": column, "datatype": "FP32", "shape": [-1, feature.width]}
    if is_listed(encoder, column):
        told = {"content_type": "json"}
        return {"name": column, "datatype": "BYTES", "shape": [-1], "parameters": told}
    if isinstance(feature, Time):  # with a unit it counts, and a count is whole
        datatype = "BYTES" if feature.unit is None else "INT64"
        return {"name": column, "datatype": datatype, "shape": [-1]}
    if is_number(encoder, column):
        return {"name": column, "datatype": "FP64", "shape": [-1]}
    return {
        "name": column,
        "datatype": "BYTES",
        "shape": [-1],
        "parameters": {"content_type": "str"},
    }


async def infer(request: Request, edition: Edition, name: str) -> dict[str, Any]:
    """Answer an inference request. Raises `Refusal`."""
    settings, encoder = edition.settings, edition.engine.encoder
    body = await read_body(request.scope["head"], request.receive, settings.max_bytes)
    asked, behind = _read(body, request.headers.get(HEADER))
    wanted = [one.name for one in asked.outputs or ()]
    for one in wanted:
        if one not in OUTPUTS:
            raise Refusal(400, f"an output must be one of {', '.join(OUTPUTS)}, got {one!r}")
    given: dict[str, Sequence[Any]] = {}
    for one in asked.inputs:
        if one.name in given:
            raise Refusal(400, f"an input must stand once, got {one.name!r} twice")
        values = _values(one, behind)
        given[one.name] = parsed_lists(one.name, values) if is_listed(encoder, one.name) else values
    if next(behind, None) is not None:
        raise Refusal(400, "a body must end behind the last input, got more")
    rows = check_counts(given, settings.max_rows)
    columns = in_order(encoder, given)
    check_items(encoder, given, settings.max_items)
    scores = await edition.score_columns("infer", columns, rows, asked.id)
    told: dict[str, Any] = {
        "model_name": name,
        "model_version": version_of(edition.engine.checksum),
        "outputs": [
            {"name": "score", "shape": [rows], "datatype": "FP64", "data": scores.tolist()}
        ],
    }
    return told if asked.id is None else {**told, "id": asked.id}


class _Behind:
    """What stands behind the JSON, taken from its front."""

    def __init__(self, content: memoryview) -> None:
        self._content = content

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if not len(self._content):
            raise StopIteration
        return len(self._content)

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self._content):
            raise Refusal(400, f"an input must have its {size} bytes, got {len(self._content)}")
        found, self._content = bytes(self._content[:size]), self._content[size:]
        return found


def _read(body: bytes, header: str | None) -> tuple[InferRequest, _Behind]:
    length = len(body)
    if header is not None:
        if not header.isdecimal() or int(header) > length:
            raise Refusal(400, f"{HEADER} must be at most the body's length, got {header!r}")
        length = int(header)
    try:
        asked = _decoder.decode(memoryview(body)[:length])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise Refusal(400, f"a body must be a request of version 2: {fault}") from None
    return asked, _Behind(memoryview(body)[length:])


def _values(one: GivenInput, behind: _Behind) -> list[Any]:
    """The values of an input, one a row; lists where the shape has two sizes."""
    shape = one.shape
    if len(shape) not in (1, 2) or min(shape) < 0:
        raise Refusal(
            400, f"an input must have the shape [rows] or [rows, n], got {shape} of {one.name!r}"
        )
    size = (one.parameters or {}).get("binary_data_size")
    if size is None:
        flat = _flat(one)
    elif isinstance(size, int):
        flat = _unpacked(one, behind.take(size))
    else:
        raise Refusal(400, f"binary_data_size must be an integer, got {size!r} of {one.name!r}")
    count = shape[0] * (shape[1] if len(shape) == 2 else 1)
    if len(flat) != count:
        raise Refusal(
            400, f"an input must have {count} values, as its shape, got {len(flat)} of {one.name!r}"
        )
    if len(shape) == 1 or shape[1] == 1:
        return flat
    width = shape[1]
    return [flat[at : at + width] for at in range(0, count, width)] if width else [[]] * shape[0]


def _flat(one: GivenInput) -> list[Any]:
    """Values from JSON, flat or nested a row; nan becomes None, as null is."""
    if one.datatype not in (*_DTYPES, "BYTES"):
        raise Refusal(400, f"a datatype must be one of the protocol's, got {one.datatype!r}")
    data = one.data
    if data is None:
        raise Refusal(400, f"an input must have data, got none of {one.name!r}")
    nested = len(one.shape) == 2 and any(isinstance(value, list) for value in data)
    if not nested:
        return data
    if not all(isinstance(value, list) and len(value) == one.shape[1] for value in data):
        raise Refusal(
            400, f"an input must be nested as its shape has it, got other of {one.name!r}"
        )
    return [value for row in data for value in row]


def _unpacked(one: GivenInput, content: bytes) -> list[Any]:
    """Values from behind the JSON; nan becomes None."""
    if one.datatype == "BYTES":
        return list(_texts(one.name, content))
    dtype = _DTYPES.get(one.datatype)
    if dtype is None:
        raise Refusal(400, f"a datatype must be one of the protocol's, got {one.datatype!r}")
    if len(content) % np.dtype(dtype).itemsize:
        raise Refusal(
            400, f"an input must have whole values, got {len(content)} bytes of {one.name!r}"
        )
    found = np.frombuffer(content, dtype=dtype)
    if dtype.startswith("<f"):
        return [None if value != value else value for value in found.tolist()]
    return found.tolist()


def _texts(name: str, content: bytes) -> Iterator[str]:
    at = 0
    while at < len(content):
        try:
            (length,) = struct.unpack_from("<I", content, at)
        except struct.error:
            raise Refusal(400, f"a text must have its length, got less of {name!r}") from None
        at += 4
        if at + length > len(content):
            raise Refusal(400, f"a text must have its {length} bytes, got less of {name!r}")
        try:
            yield content[at : at + length].decode()
        except UnicodeDecodeError:
            raise Refusal(400, f"a text must be UTF-8, got other bytes in {name!r}") from None
        at += length
