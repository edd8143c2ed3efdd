"""Rows as JSON: ``{"rows": [{"user": 7, "tab": "home"}], "id": "r-1"}``, read by a type made from the schema.

msgspec decodes a body straight into the type, and refuses what the schema does not allow by its path.
"""

import re
from collections.abc import Sequence
from datetime import time, timedelta
from typing import Annotated, Any

import msgspec

from isthmus.data.encoding.roles import vocabulary_name
from isthmus.data.requests import RowEncoder
from isthmus.data.tables.kinds import BOTH_SIGNS, MOMENTS, NUMBERS, TEXTS
from isthmus.schema import Categorical, CategoricalList, Numeric, NumericList, Time, Vector
from isthmus.serving.doors.refusal import Refusal

_ROW = re.compile(r"\$\.rows\[(\d+)\](?:\.(.*?))?(\[.*)?$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_KNOWN = re.compile(r"Expected `(.*?)`, got `(.*?)`$", re.DOTALL)
_SPELLED = {
    "str": "a text",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a row",
}

Moment = Annotated[
    str, msgspec.Meta(description="A date or a time as ISO 8601, UTC where it names no zone")
]
Number = bool | int | float | None
Plain = str | bool | int | float | None


class RowReader:
    """Reads bodies of one bundle's rows. ``max_rows``, ``max_items``: of a request, of one list."""

    def __init__(self, encoder: RowEncoder, *, max_rows: int, max_items: int) -> None:
        self.types = {name: _type_of(encoder, name, max_items) for name in encoder.columns}
        # A column may have any name; a field of a class may not.
        places = {f"column_{at}": name for at, name in enumerate(encoder.columns)}
        self.row = msgspec.defstruct(
            "Row",
            [(place, self.types[name]) for place, name in places.items()],
            rename=places,
            gc=False,  # no value of a row leads back to the row
        )
        rows = Annotated[list[self.row], msgspec.Meta(max_length=max_rows)]  # type: ignore[name-defined]
        self.request = msgspec.defstruct(
            "ScoreRequest",
            [("rows", rows), ("id", _or_null(Annotated[str, msgspec.Meta(max_length=256)]), None)],
        )
        self._decoder = msgspec.json.Decoder(self.request)

    def read(self, body: bytes) -> tuple[Sequence[Sequence[Any]], int, str | None]:
        """Columns in the order of the encoder's, the number of rows, and the request's own id.

        Raises `Refusal`: 400 for what is no JSON, 422 for what the schema does not allow.
        """
        try:
            found: Any = self._decoder.decode(body)
        except msgspec.ValidationError as fault:
            raise told(str(fault)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
            raise Refusal(400, f"a body must be JSON: {fault}") from None
        rows = found.rows
        columns = list(zip(*map(msgspec.structs.astuple, rows), strict=True))
        return columns or [()] * len(self.types), len(rows), found.id

    def schemas(self) -> dict[str, Any]:
        """Schemas of the request and of its row, for OpenAPI."""
        _, found = msgspec.json.schema_components(
            [self.request], ref_template="#/components/schemas/{name}"
        )
        return found


def told(fault: str) -> Refusal:
    """The refusal for a fault of msgspec, in the words of the package where it concerns a row."""
    text, _, path = fault.partition(" - at `")
    path = path.removesuffix("`")
    found = _ROW.search(path)
    if found is None:
        return Refusal(422, f"a request must be valid: {fault}")
    row, column = int(found[1]), found[2]
    if (missing := _MISSING.search(text)) is not None:
        column, rule = missing[1], "be in every row, got none"
    elif (known := _KNOWN.search(text)) is not None:
        wanted = " or ".join(_SPELLED.get(word, word) for word in known[1].split(" | "))
        rule = f"be {wanted}, got {_SPELLED.get(known[2], known[2])}"
    else:
        rule = f"be valid: {text}"
    if not column:
        return Refusal(422, f"a row must {rule} in the request, row {row}", row=row)
    return Refusal(
        422, f"column {column!r} must {rule} in the request, row {row}", column=column, row=row
    )


def _or_null(of: Any) -> Any:
    return of | None


def _type_of(encoder: RowEncoder, name: str, max_items: int) -> Any:
    """The type of a column's values in a row."""
    config, kinds = encoder.encoder.config, encoder.encoder.kinds
    feature = config.features.get(name)
    if feature is None:  # the domain, which any value may name
        return Plain
    listed = msgspec.Meta(max_length=max_items)
    if isinstance(feature, Numeric):
        return float | bool | None
    if isinstance(feature, NumericList):
        return _or_null(Annotated[list[float | None], listed])
    if isinstance(feature, Vector):
        return _or_null(Annotated[list[float], listed])
    if isinstance(feature, Time):
        return _or_null(Moment if feature.unit is None else int)
    assert isinstance(feature, Categorical | CategoricalList)
    value = _value_of(kinds[vocabulary_name(config, name)])
    return value if isinstance(feature, Categorical) else _or_null(Annotated[list[value], listed])


def _value_of(kind: str) -> Any:
    if kind in (*NUMBERS, BOTH_SIGNS):
        return Number
    if kind in TEXTS:
        return str | None
    if kind in MOMENTS:
        return _or_null(Moment)
    return {"time": time | None, "duration": timedelta | None}.get(kind, Plain)
