"""The carriers of a value: Arrow types that can hold it, lists of them, and doors into the package.

A value stands here as Python writes it: a number, a text, bytes; a moment, a time of day or a duration
as nanoseconds (since 1970 in UTC, since midnight). `carried` puts values into an Arrow type and
`through` brings tables to a door; neither knows the package. `KINDS` has one line a kind.
"""

import csv
import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

Value: TypeAlias = int | float | Decimal | str | bytes
Test: TypeAlias = Callable[[pa.DataType], bool]

TICKS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
SECOND, DAY = 10**9, 86_400 * 10**9
FILES = ("parquet", "csv")
ARROW = ("parquet", "table", "reader")
DOORS = ("parquet", "csv", "pandas", "polars", "lazy", "table", "reader", "duckdb")
LAYOUTS = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
t = pa.types


# ---------------------------------------------------------------- values into Arrow


def scalar_type(dtype: pa.DataType) -> pa.DataType:
    """What a dictionary or run ends are made of; any other type is itself."""
    return dtype.value_type if t.is_dictionary(dtype) or t.is_run_end_encoded(dtype) else dtype


def is_uuid(dtype: pa.DataType) -> bool:
    return isinstance(dtype, pa.BaseExtensionType)


def is_text(dtype: pa.DataType) -> bool:
    return t.is_string(dtype) or t.is_large_string(dtype) or t.is_string_view(dtype)


def is_bytes(dtype: pa.DataType) -> bool:
    """Whether the type holds bytes of any length."""
    return t.is_binary(dtype) or t.is_large_binary(dtype) or t.is_binary_view(dtype)


def is_list(dtype: pa.DataType) -> bool:
    """Whether the type is of any of `LAYOUTS`."""
    return hasattr(dtype, "value_field") and not t.is_map(dtype)


def is_number(dtype: pa.DataType) -> bool:
    return any(test(dtype) for test in (t.is_boolean, t.is_integer, t.is_floating, t.is_decimal))


def family(dtype: pa.DataType, values: Sequence[Any]) -> str:
    """Values of one family can be equal."""
    dtype = scalar_type(dtype)
    if is_number(dtype):
        return "number"
    if t.is_date(dtype) or t.is_timestamp(dtype):
        return "moment"
    if t.is_time(dtype) or t.is_duration(dtype):
        return "time" if t.is_time(dtype) else "duration"
    return "bytes" if any(isinstance(value, bytes) for value in values) else "text"


def carried(values: Sequence[Value | None], dtype: pa.DataType) -> pa.Array:
    """The values, exactly, in an Arrow type; None is null."""
    if t.is_dictionary(dtype):
        known: list[Any] = list(dict.fromkeys(value for value in values if value is not None))
        codes = [None if value is None else known.index(value) for value in values]
        # An entry that no row has is no value of the column.
        spare = ["spare"] if any(isinstance(value, str) for value in known) else []
        entries = carried([*known, *spare], dtype.value_type)
        return pa.DictionaryArray.from_arrays(pa.array(codes, dtype.index_type), entries)
    if t.is_run_end_encoded(dtype):
        options = pc.RunEndEncodeOptions(dtype.run_end_type)
        return pc.call_function("run_end_encode", [carried(values, dtype.value_type)], options)
    if isinstance(dtype, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(dtype, pa.array(values, dtype.storage_type))
    if t.is_date(dtype) or t.is_timestamp(dtype) or t.is_time(dtype) or t.is_duration(dtype):
        size = DAY if t.is_date32(dtype) else TICKS[getattr(dtype, "unit", "ms")]
        ticks = [None if value is None else _whole(value, size) for value in values]
        width = pa.int32() if dtype.bit_width == 32 else pa.int64()
        return pa.array(ticks, width).cast(dtype)
    if t.is_float16(dtype):
        half = np.array([0 if value is None else value for value in values], np.float16)
        return pa.array(half, mask=np.array([value is None for value in values], dtype=bool))
    as_python = _python(dtype)
    return pa.array([None if value is None else as_python(value) for value in values], dtype)


def _whole(value: Any, size: int) -> int:
    ticks, rest = divmod(value, size)
    assert not rest
    return ticks


def _python(dtype: pa.DataType) -> Callable[[Any], Any]:
    if t.is_boolean(dtype):
        return bool
    if t.is_floating(dtype):
        return float
    if t.is_decimal(dtype):
        return lambda value: Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if is_bytes(dtype):
        return lambda value: value.encode() if isinstance(value, str) else value
    return lambda value: value


def listed(
    rows: Sequence[Sequence[Value] | None], item: pa.DataType, layout: str = "list"
) -> pa.Array:
    """Lists of the values in one of `LAYOUTS`; views lie in the opposite order of the rows."""
    missing = pa.array([row is None for row in rows], pa.bool_())
    if layout == "fixed_size_list":
        spare = next(row for row in rows if row is not None)
        flat = [value for row in rows for value in (spare if row is None else row)]
        return pa.FixedSizeListArray.from_arrays(carried(flat, item), 2, mask=missing)
    sizes = [0 if row is None else len(row) for row in rows]
    if "view" in layout:
        starts = [sum(sizes[i + 1 :]) for i in range(len(rows))]
        items = carried([value for row in reversed(rows) for value in row or ()], item)
        made = pa.ListViewArray if layout == "list_view" else pa.LargeListViewArray
        width = pa.int32() if layout == "list_view" else pa.int64()
        places = pa.array(starts, width), pa.array(sizes, width)
        return made.from_arrays(*places, items, mask=missing)
    items = carried([value for row in rows for value in row or ()], item)
    made = pa.ListArray if layout == "list" else pa.LargeListArray
    width = pa.int32() if layout == "list" else pa.int64()
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), width)
    return made.from_arrays(offsets, items, mask=missing)


def list_type(item: pa.DataType, layout: str = "list") -> pa.DataType:
    """The type that `listed` gives."""
    makers: dict[str, Callable[[pa.DataType], pa.DataType]] = {
        "list": pa.list_,
        "large_list": pa.large_list,
        "fixed_size_list": lambda inner: pa.list_(inner, 2),
        "list_view": pa.list_view,
        "large_list_view": pa.large_list_view,
    }
    return makers[layout](item)


def holds(dtype: pa.DataType, value: Any) -> bool:
    """Whether the type holds exactly this value, of its own family."""
    dtype = scalar_type(dtype)
    if t.is_boolean(dtype):
        return value in (0, 1)
    if t.is_integer(dtype):
        signed = t.is_signed_integer(dtype)
        low = -(2 ** (dtype.bit_width - 1)) if signed else 0
        return same(value).denominator == 1 and low <= value < low + 2**dtype.bit_width
    if t.is_float64(dtype):
        return same(value) == same(float(value))
    if t.is_floating(dtype):  # the shortest decimal that gives the narrow float back
        top = 2048 if t.is_float16(dtype) else 2**24
        narrow = dtype.to_pandas_dtype()
        return abs(value) <= top and same(value) == Fraction(str(narrow(float(value))))
    if t.is_decimal(dtype):
        shifted = abs(same(value)) * Fraction(10) ** dtype.scale
        return shifted.denominator == 1 and shifted < 10**dtype.precision
    if t.is_date(dtype) or t.is_timestamp(dtype) or t.is_time(dtype) or t.is_duration(dtype):
        size = DAY if t.is_date(dtype) else TICKS[dtype.unit]
        return value % size == 0 and abs(value // size) < 2**63
    if t.is_fixed_size_binary(dtype) or is_uuid(dtype):
        width = 16 if is_uuid(dtype) else dtype.byte_width
        return isinstance(value, bytes) and len(value) == width
    return True


def same(value: Any) -> Any:
    """What two values have in common exactly where they are one: the number itself, or the value."""
    if isinstance(value, float) and not value.is_integer():
        return Fraction(repr(value))
    return Fraction(value) if isinstance(value, int | float | Decimal) else value


# ---------------------------------------------------------------- doors


def contains(dtype: pa.DataType, *tests: Test) -> bool:
    """Whether the type, or one inside it, passes a test."""
    inner = [getattr(dtype, "value_type", None), getattr(dtype, "storage_type", None)]
    inner += [dtype.field(i).type for i in range(dtype.num_fields)]
    found = any(test(dtype) for test in tests)
    return found or any(contains(one, *tests) for one in inner if one is not None)


def _below_zero_scale(dtype: pa.DataType) -> bool:
    return t.is_decimal(dtype) and dtype.scale < 0


def _is_view(dtype: pa.DataType) -> bool:
    return t.is_list_view(dtype) or t.is_large_list_view(dtype)


_SPELLED = (
    *(pa.bool_(), pa.int64(), pa.uint64(), pa.float64(), pa.string(), pa.date32()),
    *(pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us", "UTC")),
)


def _fixed_list_of_codes(dtype: pa.DataType) -> bool:
    return t.is_fixed_size_list(dtype) and t.is_dictionary(dtype.value_type)


def _codes(*tests: Test) -> Test:
    """Whether a type is a dictionary of values that pass a test."""
    return lambda dtype: t.is_dictionary(dtype) and any(test(dtype.value_type) for test in tests)


# What other packages do not read or write, and what they write as something else.
_NOT_THROUGH: dict[str, tuple[Test, ...]] = {
    "parquet": (
        *(t.is_run_end_encoded, t.is_union, t.is_interval, _below_zero_scale),
        _codes(t.is_string_view, t.is_binary_view, t.is_duration),
    ),
    "pandas": (_codes(t.is_float16),),
    "polars": (
        *(t.is_decimal256, t.is_run_end_encoded, _is_view, t.is_union, t.is_interval),
        _below_zero_scale,
    ),
    "duckdb": (
        *(t.is_decimal256, t.is_float16, t.is_union, is_uuid, t.is_duration),
        *(_below_zero_scale, _fixed_list_of_codes),
    ),
}


def passes(door: str, dtype: pa.DataType) -> bool:
    """Whether the type can reach the door at all."""
    if door == "csv":
        return dtype in _SPELLED
    if door in ("polars", "lazy") and is_list(dtype) and contains(dtype, t.is_decimal):
        return False  # polars 2.1 panics when it hands over a list of decimals
    return not contains(dtype, *_NOT_THROUGH.get("polars" if door == "lazy" else door, ()))


def becomes_another(dtype: pa.DataType) -> bool:
    """Whether polars and duckdb hold the type as another one, which comes to their doors as well."""
    tests = (t.is_run_end_encoded, t.is_large_string, t.is_large_binary, t.is_string_view)
    narrow = t.is_dictionary(dtype) and dtype.index_type != pa.int8()
    return narrow or contains(dtype, *tests, t.is_binary_view)


def lands_as_date(door: str, dtype: pa.DataType) -> bool:
    """Whether a column of this type is one of dates behind the door: polars has one width only."""
    dtype = scalar_type(dtype)
    return t.is_date32(dtype) or (t.is_date64(dtype) and door not in ("polars", "lazy"))


def through(door: str, parts: Sequence[pa.Table], folder: Path) -> Any:
    """The tables as a source that the package opens: only files take more than one."""
    if door in FILES:
        folder.mkdir(parents=True)
        for number, part in enumerate(parts):
            if door == "csv":
                _write_csv(part, folder / f"part-{number}.csv")
            else:
                pq.write_table(part, folder / f"part-{number}.parquet")
        return folder
    (part,) = parts
    match door:
        case "pandas":
            return part.to_pandas(types_mapper=_pandas_type)
        case "polars":
            return pl.from_arrow(part)
        case "lazy":
            frame = pl.from_arrow(part)
            assert isinstance(frame, pl.DataFrame)
            return frame.lazy()
        case "reader":
            return pa.RecordBatchReader.from_batches(part.schema, part.to_batches(max_chunksize=50))
        case "duckdb":
            return _duckdb().from_arrow(part)
    return part


def _pandas_type(dtype: pa.DataType) -> Any:
    """NumPy and objects, but for what pandas has no other way to hold."""
    odd: tuple[Test, ...] = (t.is_map, t.is_union, lambda one: one == pa.time64("ns"))
    if is_list(dtype):
        odd += (t.is_run_end_encoded, t.is_decimal32, t.is_decimal64, t.is_fixed_size_binary)
        odd += (t.is_string_view, t.is_binary_view, is_uuid)
    return pd.ArrowDtype(dtype) if contains(dtype, *odd) else None


@cache
def _duckdb() -> Any:
    return pytest.importorskip("duckdb").connect()


def _write_csv(part: pa.Table, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(part.column_names)
        columns = [[_spelled(x) for x in column.to_pylist()] for column in part.columns]
        writer.writerows(zip(*columns, strict=True))


def _spelled(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return format(value, "f") if isinstance(value, Decimal) else str(value)


# ---------------------------------------------------------------- what a value must become


def named(value: Any, of: str, *, dates: bool = False, booleans: bool = False) -> str | None:
    """The name of a domain by the rules; None where they leave it open. ``of``: the family."""
    if of == "number":
        if booleans:
            return str(bool(value))
        if same(value).denominator == 1:
            return str(int(value)) if abs(value) < 2**64 else None
        return repr(value) if isinstance(value, float) else None
    if of == "moment":
        second, fine = divmod(value, SECOND)
        clock = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=second)
        if dates:
            return clock.date().isoformat()
        fraction = f".{fine:09d}".removesuffix("000") if fine else ""
        return f"{clock.isoformat(sep=' ')}{fraction}"
    if of == "text":
        return value
    return value.hex() if of == "bytes" else None


def plain_type(
    values: Iterable[Any], of: str, *, dates: bool = False, booleans: bool = False
) -> pa.DataType:
    """The plainest type that holds all of the values, within what names them."""
    known = set(values) - {None}
    if of == "number":
        if booleans:
            return pa.bool_()
        plain = (pa.int64(), pa.uint64(), pa.float64())
        for dtype in plain:
            if all(holds(dtype, value) for value in known):
                return dtype
        scale = max(len(format(Decimal(str(v)), "f").partition(".")[2]) for v in known)
        return pa.decimal256(76, scale)
    if of in ("text", "bytes"):
        return pa.string() if of == "text" else pa.binary()
    if of == "moment" and dates:
        return pa.date32()
    unit = "ns" if any(value % 1000 for value in known) else "us"
    return {"moment": pa.timestamp, "time": pa.time64, "duration": pa.duration}[of](unit)


@dataclass(frozen=True)
class Kind:
    """How one column is held: the first half of its rows, and in files the second half otherwise."""

    name: str
    carrier: pa.DataType
    values: tuple[Any, ...]
    beside: pa.DataType | None = None  # of the second file; the plainest type of its values
    beside_values: tuple[Any, ...] = ()
    doors: tuple[str, ...] = DOORS

    @property
    def family(self) -> str:
        return family(self.carrier, self.values)
