"""Values as a person or a JSON text gives them: what they are, and as Arrow would hold them.

A column of a table has one type. A value of a request has only its own, so each value is asked for
itself: a number where the column held numbers, a text where it held texts, a date or a time where it held
those, as an object of Python or as ISO 8601. An empty value is None.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from isthmus.data.tables.columns import Origin
from isthmus.data.tables.kinds import BOTH_SIGNS, MOMENTS, NUMBERS, TEXTS

PLAIN_NUMBERS = frozenset((int, float, bool, type(None)))
_NUMBERS = (bool, int, float, Decimal, np.number, np.bool_)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_WIDEST = 76  # digits of an Arrow decimal
SHOWN = 40


def shown(value: object) -> str:
    """A value for an error, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def refuse(column: str, rule: str, value: object, origin: Origin, row: int) -> None:
    """Raise ``SchemaError`` for a value of a request."""
    raise origin.fault(column, rule, shown(value), row)


def rule_of(kind: str) -> str:
    """What a value must be where a column held values of a kind."""
    if kind in (*NUMBERS, BOTH_SIGNS):
        return "be a number"
    if kind in TEXTS:
        return "be a text"
    if kind in MOMENTS:
        return "be a date or a time as ISO 8601 has it"
    return f"be a {kind}"


def fits(value: object, kind: str) -> bool:
    """Whether a value that is not None can be one of a column of this kind."""
    if kind == "null":
        return True
    if kind in (*NUMBERS, BOTH_SIGNS):
        return isinstance(value, _NUMBERS)
    if kind in TEXTS:
        return isinstance(value, str | bytes)
    if kind in MOMENTS:
        return moment(value) is not None
    return isinstance(value, {"time": time, "duration": timedelta}.get(kind, ()))


def moment(value: object) -> int | None:
    """Microseconds since 1970 UTC of a date, a time or an ISO text; None of other values.

    Without a zone it counts as UTC, and a date as its midnight there.

    >>> moment("1970-01-02")
    86400000000
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        return None
    known = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return (known - _EPOCH) // _MICROSECOND


def arrow(values: Sequence[Any], kind: str) -> pa.Array:
    """Values of one Python type, none of them None, as Arrow holds a column of this kind."""
    first = values[0]
    if kind in MOMENTS:
        return pa.array([moment(value) for value in values], pa.int64()).view(
            pa.timestamp("us", "UTC")
        )
    if isinstance(first, np.generic):
        # A float32 is the number that a person reads, 0.1 and not 0.10000000149.
        short = isinstance(first, np.floating) and first.itemsize < 8
        return arrow([float(str(x)) if short else x.item() for x in values], kind)
    if isinstance(first, int) and not isinstance(first, bool):
        least, most = min(values), max(values)
        if least >= -(2**63) and most < 2**63:
            return pa.array(values, pa.int64())
        if least >= 0 and most < 2**64:
            return pa.array(values, pa.uint64())
        return _decimals([Decimal(x) for x in values])
    if isinstance(first, Decimal):
        return _decimals(values)
    return pa.array(values)


def _decimals(values: Sequence[Decimal]) -> pa.Array:
    """Decimals; null where one has more digits than any table can hold, for no table has it."""
    kept = [x if x.is_finite() and _digits(x) <= _WIDEST else None for x in values]
    return pa.array(kept) if any(x is not None for x in kept) else pa.nulls(len(kept))


def _digits(x: Decimal) -> int:
    _, digits, exponent = x.as_tuple()
    assert isinstance(exponent, int)
    return max(len(digits) + max(exponent, 0), -exponent)


def by_type(values: Sequence[Any], places: Sequence[int]) -> dict[tuple[type, int], list[int]]:
    """Places of values, by what one Arrow array can hold: one type, and integers of one size."""
    found: dict[tuple[type, int], list[int]] = {}
    for at in places:
        value = values[at]
        size = 0
        if isinstance(value, int):
            size = 0 if -(2**63) <= value < 2**63 else 1 if 0 <= value < 2**64 else 2
        found.setdefault((type(value), size), []).append(at)
    return found


def numbers(
    column: str, values: Sequence[Any], origin: Origin, row_of: Callable[[int], int]
) -> np.ndarray:
    """Float64 (values,) of numbers; nan where a value is None.

    ``row_of``: the row of a value, for errors. Raises ``SchemaError`` for what is no number.
    """
    if not PLAIN_NUMBERS.issuperset(map(type, values)):
        for at, value in enumerate(values):
            if value is not None and not isinstance(value, _NUMBERS):
                refuse(column, "be numeric", value, origin, row_of(at))
        values = [None if value is None else float(value) for value in values]
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        at = next(at for at, x in enumerate(values) if isinstance(x, int) and abs(x) >= 2**1023)
        return refuse(column, "fit in 64-bit floats", values[at], origin, row_of(at))  # type: ignore[return-value]
