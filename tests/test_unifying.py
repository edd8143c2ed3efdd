"""One type for a column over all files, and no value lost."""

import tempfile
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.errors import SchemaError
from isthmus.run.output.unifying import as_type, risky, unified
from written_columns import (
    BIG,
    F16,
    F32,
    F64,
    I8,
    I32,
    I64,
    LIST,
    MAP,
    NOT_NULL,
    NULL,
    STRUCT,
    U64,
    D,
    S,
    coded,
    files,
    moments,
    runs,
    same,
    uuids,
    values,
    write,
)

a = pa.array
US, AB, DEEP = (
    pa.timestamp("us"),
    STRUCT({"a": I64, "b": S}),
    LIST(STRUCT({"a": F64, "b": LIST(S)})),
)
PAIRS: list[tuple[pa.Array, pa.Array, pa.DataType]] = [
    (a([None]), a(["x"]), S),
    (a([None]), a([[1]]), LIST(I64)),
    (a([None]), a([D("1.5")]), pa.decimal128(2, 1)),
    (a([-1, None], I8), a([2**40]), I64),
    (a([-1], I8), a([255], pa.uint8()), pa.int16()),
    (a([-1], I8), a([2**32 - 1], pa.uint32()), I64),
    (a([-1]), a([2**64 - 1, None], U64), pa.decimal128(20, 0)),
    (a([-1], I8), a([2**64 - 1], U64), pa.decimal128(20, 0)),
    (a([2**53, None, -(2**62)]), a([0.5]), F64),
    (a([2**60]), a([0.5], F32), F64),
    (a([2**63], U64), a([0.5]), F64),
    (a([0.5, None], F16), a([0.1]), F64),
    (a([0.5], F32), a([0.1, float("inf")]), F64),
    (a([127], I8), a([0.5, None], F16), F16),
    (a([2**15 - 1], pa.int16()), a([0.5], F16), F32),
    (a([D("1.50")], pa.decimal32(5, 2)), a([10**18]), pa.decimal128(21, 2)),
    (a([D("1.5")], pa.decimal64(12, 1)), a([D("0.0625")]), pa.decimal128(15, 4)),
    (a([D(10**30)], pa.decimal128(38, 0)), a([D("0.5")]), pa.decimal256(39, 1)),
    (a([2**64 - 1], U64), a([D("0.5")], pa.decimal32(1, 1)), pa.decimal128(21, 1)),
    (a([D("0.5"), None], pa.decimal256(50, 4)), a([0.25], F16), F64),
    (a(["x", None]), a(["y"], BIG), BIG),
    (a(["x", None], pa.string_view()), a(["y"]), BIG),
    (a([b"x"], pa.binary_view()), a([b"yy"], pa.binary(2)), pa.large_binary()),
    (a([b"x"]), a([b"yy", None], pa.binary(2)), pa.binary()),
    (moments("s", datetime(2024, 1, 1)), moments("us", datetime(1, 1, 1)), US),
    (a([time(1)], pa.time32("s")), a([time(1, 2, 3, 4)]), pa.time64("us")),
    (a([timedelta(1)], pa.duration("s")), a([timedelta(0, 0, 1), None]), pa.duration("us")),
    (a([date(2024, 1, 1)]), a([date(1, 1, 1)], pa.date64()), pa.date64()),
    (a([{"a": 1}, None], NOT_NULL), a([None]), STRUCT({"a": I8})),
    (a([{"a": 1}, None], NOT_NULL), a([{"b": "x", "a": None}], STRUCT({"b": S, "a": I64})), AB),
    (a([[{"a": 1}], None, []]), a([[{"a": 0.5, "b": ["x"]}]], DEEP), DEEP),
    (a([[1, None], None], LIST(I64, 2)), a([[7]], LIST(I32)), LIST(I64)),
    (a([[1, 2], None], LIST(I8, 2)), a([[3, 4]], LIST(I64, 2)), LIST(I64, 2)),
    (a([[1], None], pa.list_view(I64)), a([[2]]), LIST(I64)),
    (a([[1]], pa.large_list_view(I64)), a([[0.5]]), pa.large_list(F64)),
    (a([[("k", 1)], None], MAP(S, I8)), a([[("k", None)], []], MAP(S, I64)), MAP(S, I64)),
    (coded(a(["x"])), a(["y", None]), S),
    (coded(a(["x"])), coded(a(["y"]), I8), S),
    (coded(a(["x"], pa.string_view())), a(["y"]), BIG),
    (coded(a([[1]])), a([[0.5]]), LIST(F64)),
    (coded(a([7])), a([0.5]), F64),
    (coded(a([7, 8])), pa.nulls(1), pa.dictionary(I32, I64)),
    (runs(a(["x", None])), a(["y"]), S),
    (runs(a(["x", "y"], pa.string_view())), runs(a(["y"])), BIG),
    (runs(a([[1], None])), pa.nulls(2), LIST(I64)),
    (uuids(b"0" * 16, None), pa.nulls(1), pa.uuid()),
]


@pytest.mark.parametrize(
    ("one", "other", "dtype"), PAIRS, ids=lambda x: str(getattr(x, "type", ""))
)
def test_two_types_become_one_and_no_value_is_lost(
    tmp_path: Path, one: pa.Array, other: pa.Array, dtype: pa.DataType
):
    for first, second in ((one, other), (other, one)):
        found = unified(files(first, second)).field("c").type
        assert found == dtype or pa.types.is_struct(dtype)
        path = tmp_path / f"{first is one}.parquet"
        assert write(path, first, second) == ()
        assert same(values(first, second), pq.read_table(path)["c"].to_pylist())
    assert unified(files(one, other)).field("c").type == dtype


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (I64, S, "got int64 in a.parquet and string in b.parquet"),
        (US, pa.timestamp("us", "UTC"), "got timestamp[us] in a.parquet and timestamp[us, tz=UTC]"),
        (LIST(I64), I64, "got list<item: int64> in a.parquet and int64 in b.parquet"),
        (pa.bool_(), I64, "got bool in a.parquet"),
        (STRUCT({"a": I64}), STRUCT({"a": S}), "got struct<a: int64> in a.parquet"),
        (pa.decimal128(38, 0), S, "got decimal128(38, 0) in a.parquet and string"),
        (pa.decimal256(76, 0), pa.decimal256(76, 9), "got decimal256(76, 0) in a.parquet"),
        (pa.dictionary(I32, S), I64, "got string in a.parquet and int64 in b"),
        (pa.uuid(), S, "got extension<arrow.uuid> in a.parquet and string"),
        (US, pa.date32(), "got timestamp[us] in a.parquet and date32[day]"),
    ],
)
def test_types_that_do_not_go_together_are_refused(
    one: pa.DataType, other: pa.DataType, message: str
):
    rule = "column 'c' must have types that go together in all files, "
    with pytest.raises(SchemaError) as fault:
        unified(files(pa.nulls(1, one), pa.nulls(1, other)))
    assert str(fault.value).startswith(rule + message)


def test_a_refusal_names_the_two_files_that_clash():
    with pytest.raises(SchemaError, match=r"got int64 in b\.parquet and string in c\.parquet"):
        unified(files(a([None]), a([1]), a(["x"])))
    with pytest.raises(SchemaError, match=r"got decimal.* in b\.parquet and string in c\.parquet"):
        unified([("a.parquet", {}), *files(a([]), a([D(1)]), a(["x"]))[1:]])


def test_columns_stand_in_order_of_first_appearance_and_one_file_keeps_its_types():
    odd = {"d": pa.dictionary(I8, S, True), "s": NOT_NULL, "v": pa.string_view()}
    assert unified([("a", {"x": I64, "y": NULL} | odd)]) == pa.schema({"x": I64, "y": NULL} | odd)
    both = unified([("a", {"x": I64}), ("b", {"z": S, "x": F64, "s": NOT_NULL})])
    assert both == pa.schema({"x": F64, "z": S, "s": STRUCT({"a": I8})})
    assert unified([]) == pa.schema([])


@pytest.mark.parametrize(
    ("array", "dtype", "message"),
    [
        (a([0, None, 2**53 + 1, 1]), F64, "got 9007199254740993 in b.parquet, row 102"),
        (a([0, 2**63 - 1]), F64, "got 9223372036854775807 in b.parquet, row 101"),
        (a([2**64 - 1], U64), F64, "got 18446744073709551615 in b.parquet, row 100"),
        (
            a([0, D("0.1234567890123456789")]),
            F64,
            "got 0.1234567890123456789 in b.parquet, row 101",
        ),
        (a([0, 2**60], pa.timestamp("s")), pa.timestamp("ns"), "in b.parquet, row 101"),
        (a([0, 2**60], pa.duration("s")), pa.duration("ns"), "in b.parquet, row 101"),
        (a([[0], [1, 2**53 + 1]]), LIST(F64), "got [1, 9007199254740993] in b.parquet, row 101"),
        (a([None, {"x": 2**53 + 1}]), STRUCT({"x": F64}), "in b.parquet, row 101"),
        (runs(a([0, 2**53 + 1])), F64, "got 9007199254740993 in b.parquet, row 102"),
        (coded(a([2**53 + 1]))[:1], F64, "got 9007199254740993 in b.parquet, row 100"),
        (a([1]), LIST(F64), "got int64 in b.parquet"),
    ],
    ids=str,
)
def test_a_value_that_the_type_does_not_hold_is_refused(
    array: pa.Array, dtype: pa.DataType, message: str
):
    with pytest.raises(SchemaError) as fault:
        as_type(array, dtype, "c", "b.parquet", 100)
    rule = f"column 'c' must fit {dtype}, its type over all files, "
    assert str(fault.value).startswith(rule)
    assert str(fault.value).endswith(message)


def test_a_value_under_a_null_is_no_value():
    hidden = pa.StructArray.from_arrays([a([2**53 + 1, 1])], ["x"], mask=a([True, False]))
    found = as_type(hidden, STRUCT({"x": F64}), "c", "b.parquet", 0)
    assert found.to_pylist() == [None, {"x": 1.0}]
    lists = pa.ListArray.from_arrays(a([0, 1, 2], I32), a([2**53 + 1, 1]), mask=a([True, False]))
    assert as_type(lists, LIST(F64), "c", "b.parquet", 0).to_pylist() == [None, [1.0]]


def test_a_value_that_stands_in_no_row_is_no_value():
    unused = coded(a([1, 2**53 + 1]))
    assert as_type(unused.take(a([0, 2])), F64, "c", "b.parquet", 0).to_pylist() == [1.0, None]
    assert as_type(runs(a([2**53 + 1, 1]))[2:], F64, "c", "b.parquet", 0).to_pylist() == [1.0, 1.0]


def test_risky_columns_are_those_where_a_value_can_fail():
    exact, zoned = pa.decimal128(15, 2), pa.timestamp("s", "UTC")
    one = {"i": I64, "u": U64, "s": I32, "d": pa.decimal128(16, 2), "e": exact, "n": NULL, "k": I64}
    other = dict.fromkeys(one, F64) | {"k": I64}
    one |= {
        "t": zoned,
        "l": LIST(STRUCT({"a": I64})),
        "g": I64,
        "m": MAP(S, I64),
        "r": coded(a([1])).type,
    }
    other |= {"t": pa.timestamp("ns", "UTC"), "l": LIST(STRUCT({"a": F64})), "g": U64}
    other |= {"m": MAP(S, F64), "r": F64, "only": S}
    schemas = [("a", one), ("b", other)]
    assert risky(schemas, unified(schemas)) == ["i", "u", "d", "t", "l", "m", "r"]


CARRIERS: list[Callable[[list], pa.Array]] = [
    *(
        lambda x, t=t: a(x, t)
        for t in (I8, I32, I64, F32, F64, pa.decimal32(5, 2), pa.decimal256(70, 9))
    ),
    lambda x: coded(a(x, pa.int16()), I8)[: len(x)],
    lambda x: runs(a(x, I32)).slice(0, 2 * len(x)),
]
TEXTS: list[Callable[[list], pa.Array]] = [
    *(lambda x, t=t: a(x, t) for t in (S, BIG, pa.string_view())),
    lambda x: coded(a(x, pa.string_view()), pa.int16())[: len(x)],
    lambda x: coded(a(x, S), I8)[: len(x)],
    lambda x: runs(a(x, BIG)),
]
SMALL = st.lists(st.none() | st.integers(-100, 100), min_size=1, max_size=6)
WORDS = st.lists(st.none() | st.text(max_size=3), min_size=1, max_size=6)


def nested(flat: pa.Array, how: str) -> pa.Array:
    """The values one level down: in lists of one, or in structs."""
    if how == "flat":
        return flat
    if how == "struct":
        return pa.StructArray.from_arrays([flat], ["x"])
    make = {"list": pa.ListArray, "large_list": pa.LargeListArray, "list_view": pa.ListViewArray}[
        how
    ]
    if how == "list_view":
        return make.from_arrays(a(range(len(flat)), I32), a([1] * len(flat), I32), flat)
    return make.from_arrays(a(range(len(flat) + 1), I64 if how == "large_list" else I32), flat)


@given(st.data(), st.sampled_from([(CARRIERS, SMALL), (TEXTS, WORDS)]))
@settings(deadline=None, max_examples=200)
def test_files_with_other_carriers_of_the_same_values_come_back_equal(
    data: st.DataObject, kind: Any
):
    carriers, lists = kind
    lists_or_not = data.draw(
        st.sampled_from([("flat",), ("struct",), ("list", "large_list", "list_view")])
    )
    arrays = []
    for _ in range(2):
        flat = data.draw(st.sampled_from(carriers))(data.draw(lists))
        array = nested(flat, data.draw(st.sampled_from(lists_or_not)))
        arrays.append(array[data.draw(st.integers(0, len(array) - 1)) :])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.parquet"
        assert write(path, *arrays) == ()
        assert pq.read_table(path)["c"].to_pylist() == values(*arrays)
