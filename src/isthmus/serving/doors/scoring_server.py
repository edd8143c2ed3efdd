"""MLflow's scoring server: ``/invocations`` takes a frame as JSON or as CSV, and answers predictions.

Source: MLflow's documentation of its REST endpoint. Exactly one of ``dataframe_split``,
``dataframe_records``, ``instances`` (rows that name their columns) and ``inputs`` (columns by name). A list
in CSV is a JSON text, and an empty cell is missing. Departure: an error has no stack trace.
"""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request

from isthmus.data.requests import RowEncoder
from isthmus.errors import SchemaError
from isthmus.serving.doors.columns_of_request import (
    check_counts,
    check_items,
    in_order,
    is_listed,
    is_number,
    parsed_lists,
)
from isthmus.serving.doors.refusal import Head, Refusal, media_type, read_body
from isthmus.serving.edition import Edition

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


async def invoke(request: Request, edition: Edition) -> dict[str, Any]:
    """Answer a request for predictions. Raises `Refusal`."""
    settings, encoder = edition.settings, edition.engine.encoder
    head: Head = request.scope["head"]
    media = media_type(head)
    if media not in ("application/json", "text/csv"):
        raise Refusal(415, f"a body must be application/json or text/csv, got {media or 'none'}")
    body = await read_body(head, request.receive, settings.max_bytes)
    given = _of_csv(body, encoder) if media == "text/csv" else _of_json(body)
    rows = check_counts(given, settings.max_rows)
    columns = in_order(encoder, given)
    check_items(encoder, given, settings.max_items)
    scores = await edition.score_columns("invocations", columns, rows, None)
    return {"predictions": scores.tolist()}


def _of_json(body: bytes) -> dict[str, Sequence[Any]]:
    """Columns by name."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise Refusal(400, f"a body must be JSON: {fault}") from None
    found = [form for form in FORMS if isinstance(content, dict) and form in content]
    if len(found) != 1:
        told = ", ".join(found) or "none"
        raise Refusal(400, f"a body must have exactly one of {', '.join(FORMS)}, got {told}")
    held = content[found[0]]
    if found[0] == "inputs":
        if not isinstance(held, dict) or not all(isinstance(one, list) for one in held.values()):
            raise Refusal(400, "inputs must be lists by the name of their column")
        return held
    if found[0] == "dataframe_split":
        return _of_split(held)
    if not isinstance(held, list) or not all(isinstance(row, dict) for row in held):
        raise Refusal(400, f"{found[0]} must be a list of rows that name their columns")
    return _of_records(held)


def _of_split(held: Any) -> dict[str, Sequence[Any]]:
    names = held.get("columns") if isinstance(held, dict) else None
    rows = held.get("data") if isinstance(held, dict) else None
    if not isinstance(names, list) or not isinstance(rows, list):
        raise Refusal(400, "dataframe_split must have columns and data, both lists")
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise Refusal(400, "dataframe_split must have columns that are texts, each once")
    for at, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            raise Refusal(
                400, f"a row must have {len(names)} values, got other in row {at}", row=at
            )
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return dict(zip(names, columns, strict=True))


def _of_records(rows: list[dict[str, Any]]) -> dict[str, Sequence[Any]]:
    """Columns of rows: those that every row has."""
    names = dict.fromkeys(name for row in rows for name in row)
    found: dict[str, Sequence[Any]] = {}
    for name in names:
        try:
            found[name] = [row[name] for row in rows]
        except KeyError:
            at = next(at for at, row in enumerate(rows) if name not in row)
            text = f"column {name!r} must be in every row, got none in the request, row {at}"
            raise Refusal(422, text, column=name, row=at) from None
    return found


def _of_csv(body: bytes, encoder: RowEncoder) -> dict[str, Sequence[Any]]:
    try:
        text = body.decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text), strict=True))
    except (UnicodeDecodeError, csv.Error) as fault:
        raise Refusal(400, f"a body must be CSV in UTF-8: {fault}") from None
    lines = [line for line in lines if line]
    names = lines[0] if lines else []
    if len(set(names)) < len(names):
        raise Refusal(400, "a column must stand once, got one twice")
    for at, line in enumerate(lines[1:]):
        if len(line) != len(names):
            raise Refusal(
                400, f"a row must have {len(names)} values, got {len(line)} in row {at}", row=at
            )
    columns = zip(*lines[1:], strict=True) if len(lines) > 1 else ((),) * len(names)
    return {
        name: _typed(name, [cell or None for cell in cells], encoder)
        for name, cells in zip(names, columns, strict=True)
    }


def _typed(name: str, cells: Sequence[str | None], encoder: RowEncoder) -> Sequence[Any]:
    """Cells of a CSV as the values that their column holds."""
    if is_listed(encoder, name):
        return parsed_lists(name, cells)
    if not is_number(encoder, name):
        return cells
    return [None if cell is None else _number(name, cell, at) for at, cell in enumerate(cells)]


def _number(name: str, cell: str, row: int) -> bool | int | float:
    if cell in ("True", "true", "False", "false"):
        return cell in ("True", "true")
    for kind in (int, float):
        try:
            found = kind(cell)
        except ValueError:
            continue
        if math.isfinite(found):
            return found
    text = f"column {name!r} must be numeric, got {cell!r} in the request, row {row}"
    raise Refusal.of_schema(SchemaError(text))
