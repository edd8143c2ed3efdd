"""Drawn tables: values of one family, in files of drawn types, are encoded as their plain form is."""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import carried_rows as rows
import carriers as a
from carriers import DAY, FILES, SECOND, TICKS

# Rows of a table: so many that no split is empty, whatever the values.
REPEATED = 60
INDEX = (
    pa.int8(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.uint8(),
    pa.uint16(),
    pa.uint32(),
    pa.uint64(),
)
TEXT = (pa.string(), pa.large_string(), pa.string_view())
BYTES = (pa.binary(), pa.large_binary(), pa.binary_view())
NUMBERS = (
    *(pa.bool_(), *INDEX, pa.float16(), pa.float32(), pa.float64()),
    *(pa.decimal32(9, 2), pa.decimal64(18, 0), pa.decimal64(18, 9), pa.decimal128(38, 0)),
    *(pa.decimal128(38, 12), pa.decimal256(76, 0), pa.decimal256(76, 30)),
)
ZONES = (None, "UTC", "Europe/Berlin", "-07:00")
MOMENTS = (
    pa.date32(),
    pa.date64(),
    *(pa.timestamp(unit, zone) for unit in TICKS for zone in ZONES),
)
TYPES = {
    "number": NUMBERS,
    "text": (*TEXT, *BYTES),
    "bytes": (*BYTES, pa.binary(4), pa.uuid()),
    "moment": MOMENTS,
    "time": (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")),
    "duration": tuple(pa.duration(unit) for unit in TICKS),
}
RUNS = (pa.int16(), pa.int32(), pa.int64())


def rounded(x: float) -> int | float:
    short = round(x, 3)
    return int(short) if short.is_integer() else short


_WHOLE = st.sampled_from(
    (0, 1, -1, 7, 2**24 + 1, 2**53, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 10**22 + 1)
)
_PARTS = st.sampled_from(
    (0.1, 0.5, -2.5, 1e-7, 1 / 3, Decimal("0.1000000000000000055"), Decimal("0.25"))
)
_SMALL = st.integers(-(2**31), 2**31)
_BYTES4 = st.binary(min_size=4, max_size=4)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "number": _WHOLE | _PARTS | _SMALL | st.integers(-(2**63), 2**64 - 1) | st.floats(-1e6, 1e6).map(rounded),
    "text": st.sampled_from(("", "7", "007", "7.0", "ä", "A", "true", "2024-01-31", " ")) | st.text(max_size=6),
    "bytes": st.sampled_from((b"\xff\x00ab", b"abcd", b"")) | _BYTES4 | st.just(b"\xff" * 16),
    "moment": st.sampled_from((0, DAY, -DAY, SECOND, DAY * 19_753, -1000, 1))
    | st.integers(-(10**9), 3 * 10**9).map(lambda x: x * SECOND),
    "time": st.sampled_from((0, SECOND, 10**6, 1000, 1, DAY - SECOND)),
    "duration": st.sampled_from((0, SECOND, -SECOND, 10**6, 1000, 1, DAY)),
}  # fmt: skip
ROLES = {
    "number": ("numeric", "vector", "numeric_list", "time"),
    "moment": ("time",),
}
BOTH = ("categorical", "categorical_list", "domain", "group")


def able(of: str, values: list[Any]) -> list[pa.DataType]:
    """The types that hold all of the values exactly, on their own, by codes and by runs."""
    found = []
    for dtype in TYPES[of]:
        if not all(a.holds(dtype, value) for value in values):
            continue
        found.append(dtype)
        codes = not isinstance(dtype, pa.BaseExtensionType)
        found += [pa.dictionary(index, dtype) for index in INDEX if codes]
        if a.is_number(dtype) or dtype == pa.string():
            found += [pa.run_end_encoded(ends, dtype) for ends in RUNS]
    return found


@dataclass(frozen=True)
class Drawn:
    """A column of a family in a role, in files of these types, behind a door."""

    of: str
    role: str
    door: str
    layout: str
    column: list[Any]
    types: list[pa.DataType]


@st.composite
def tables(draw: st.DrawFn) -> Drawn:
    """Values in files, each of a type that holds those of it exactly."""
    of = draw(st.sampled_from(tuple(TYPES)))
    role = draw(st.sampled_from((*BOTH, *ROLES.get(of, ()))))
    n_files = draw(st.integers(1, 3))
    files = [
        draw(st.lists(VALUES[of], min_size=1, max_size=4, unique_by=a.same)) for _ in range(n_files)
    ]
    if of == "bytes" and all(_is_text(value) for values in files for value in values):
        files[-1] = [b"\xff\x00ab"]
    if role == "time":  # further times, or a split would be empty
        more = [i * (DAY if of == "moment" else 1) for i in range(20)]
        files = [list({a.same(x): x for x in (*values, *more)}.values()) for values in files]
    layout = draw(st.sampled_from(a.LAYOUTS)) if role in rows.LISTS else "list"
    able_of = [able(of, values) for values in files]
    found: dict[str, list[list[pa.DataType]]] = {}
    for door in FILES if n_files > 1 else a.DOORS:
        entering = [
            [dtype for dtype in types if enters(door, dtype, values, role, layout)]
            for types, values in zip(able_of, files, strict=True)
        ]
        if all(entering):
            found[door] = entering
    assume(found)
    door = draw(st.sampled_from(tuple(found)))
    types = [draw(st.sampled_from(entering)) for entering in found[door]]
    size = -(-REPEATED // n_files)
    start = draw(st.integers(0, 3))
    column = [row for values in files for row in _column(values, role, size, layout, start)]
    return Drawn(of, role, door, layout, column, types)


def enters(door: str, dtype: pa.DataType, values: list[Any], role: str, layout: str) -> bool:
    """Whether a column of this type reaches the door as what it is."""
    if role == "time" and a.scalar_type(dtype) == pa.bool_():
        return False  # truth values are no times
    if role in rows.LISTS:
        return door != "csv" and a.passes(door, a.list_type(dtype, layout))
    if door == "csv" and a.is_number(a.scalar_type(dtype)):
        # CSV spells floats; whether it keeps more digits than they have is said of whole ones only.
        whole_or_short = all(a.same(x).denominator == 1 or a.holds(pa.float64(), x) for x in values)
        return whole_or_short and a.passes(door, dtype)
    if door == "csv" and a.is_text(dtype):  # digits alone would be numbers there
        return "A" in values and all(value.isalnum() for value in values)
    return a.passes(door, dtype)


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _column(values: list[Any], role: str, size: int, layout: str, start: int) -> list[Any]:
    """Rows of one file: every value in turn."""
    turn = [values[(start + i) % len(values)] for i in range(size + 4)]
    if role not in rows.LISTS:
        return turn[:size]
    fixed = role == "vector" or layout == "fixed_size_list"
    return [turn[i : i + (2 if fixed else (start + i) % 4)] for i in range(size)]


@pytest.mark.filterwarnings("ignore:column .* holds domains that differ by blanks:UserWarning")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables())
def test_what_is_drawn_is_encoded_as_its_plain_form(drawn: Drawn) -> None:
    role, content = drawn.role, {drawn.role: drawn.column}
    names = {
        "dates": all(a.lands_as_date(drawn.door, dtype) for dtype in drawn.types),
        "booleans": all(a.scalar_type(dtype) == pa.bool_() for dtype in drawn.types),
    }
    given = rows.config((role,), by=None if role == "time" else "random")
    parts = rows.parts(content, drawn.types, layout=drawn.layout)
    with TemporaryDirectory() as name:
        folder = Path(name)
        plain = rows.plain(content, drawn.of, **names)
        want = rows.at_fit(given, plain)
        seen = rows.at_fit(given, a.through(drawn.door, parts, folder / "fit"))
        rows.check_same(seen.by_role[role], want.by_role[role], role)
        assert seen.by_role["split"] == want.by_role["split"]
        assert seen.encoder.domains == want.encoder.domains
        rows.check_values(seen.by_role, drawn.column, role)
        bundle = rows.bundle_of(want)
        found = rows.at_score(bundle, a.through(drawn.door, parts, folder / "score"))
        rows.check_same(found["scores"], rows.at_score(bundle, plain)["scores"], "scores")
