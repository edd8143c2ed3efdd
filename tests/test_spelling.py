"""What a text spells: the ladder of types, and the readings of columns that a model knows."""

import datetime as dt
import re
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isthmus.data.tables.csv.spelling import (
    MOMENT,
    NULLS,
    ZONED,
    Spelled,
    first_no_number,
    known_moments,
    known_numbers,
    numbers,
    present,
    typed,
)

WHOLE, LARGE, FLOAT, TEXT = pa.int64(), pa.uint64(), pa.float64(), pa.string()
TRUTH, DAY, NOTHING = pa.bool_(), pa.date32(), pa.null()


def texts(*written: str | None) -> pa.Array:
    return pa.array(written, pa.string())


def spelled(*written: str | None) -> pa.DataType:
    return Spelled.of(texts(*written)).type


@pytest.mark.parametrize(
    ("written", "dtype"),
    [
        (["1", "-20", "0"], WHOLE),
        (["9223372036854775807", "-9223372036854775808"], WHOLE),
        (["9223372036854775808", "18446744073709551615", "0"], LARGE),
        (["9223372036854775808", "-1"], TEXT),
        (["18446744073709551616"], TEXT),
        (["-9223372036854775809"], TEXT),
        (["20240131"], WHOLE),
        (["007", "8"], TEXT),
        (["-07"], TEXT),
        (["00"], TEXT),
        (["-0"], TEXT),
        (["+5"], TEXT),
        (["0x1F"], TEXT),
        (["1_000"], TEXT),
        (["1,000"], TEXT),
        ([" 1"], TEXT),
        (["1\n"], TEXT),
        (["A7", *["1"] * 500], TEXT),
        ([*["1"] * 500, "A7", *["1"] * 500], TEXT),
    ],
)
def test_integers(written: list[str], dtype: pa.DataType) -> None:
    assert spelled(*written) == dtype


# As Python and pandas write floats, as polars does, and as pyarrow does.
PANDAS = "1.0 0.1 -2.5 0.0 -0.0 0.0001 1e-05 1.5e-06 5e-324 1e+16 1e+22 inf -inf 1234567890123456.0"
POLARS = "9007199254740992.0 0.30000000000000004 0.00001 1e-6 1e-10"
PYARROW = "0.000001 1e-7 1.5e+10 1.234567890123456e+15"


@pytest.mark.parametrize("written", f"{PANDAS} {POLARS} {PYARROW}".split())
def test_floats_that_come_back(written: str) -> None:
    assert spelled(written) == FLOAT
    assert spelled(written, "0.5", None, "3") == FLOAT
    assert typed(texts(written), FLOAT).to_pylist() == [float(written)]


NO_FLOATS = (
    "1.50 3e5 12e4 1e5 1E5 1e+5 1e+05 1e-5 1.0e+22 1e22 10e-06 1. .5 -.5 00.5 +1.5 0.00 1,5 1.5f "
    "0.0000001 0.1000000000000000055 0.30000000000000003 0.3000000000000000444 9007199254740993.0 "
    "12345678901234567.0 1e+999 1.7976931348623157e+309 1e-400 0x1p3 Infinity +inf"
)


@pytest.mark.parametrize("written", [*NO_FLOATS.split(), " 1.5", "1.5 ", "1.5\n"])
def test_floats_that_do_not_come_back_are_text(written: str) -> None:
    assert spelled(written) == TEXT
    assert spelled("0.5", written) == TEXT


def test_integers_beside_floats_must_be_exactly_floats() -> None:
    assert spelled("0.5", "9007199254740992", "-9007199254740992") == FLOAT
    assert spelled("0.5", "9007199254740993") == TEXT
    assert spelled("0.5", "9007199254740994") == TEXT
    assert spelled("0.5", "12345678901") == FLOAT  # no writer writes it beside floats, but exact
    assert spelled("0.5", "007") == spelled("0.5", "-0") == TEXT


@pytest.mark.parametrize(
    ("written", "dtype"),
    [
        (["true", "True", "TRUE", "false", "False", "FALSE"], TRUTH),
        (["true", "1"], TEXT),
        (["tRUE"], TEXT),
        (["t"], TEXT),
        (["2024-01-31", "2024-02-29"], DAY),
        (["2024-02-30"], TEXT),
        (["2024-1-31"], TEXT),
        (["2024-01-31", "2024-01-31 10:00:00"], MOMENT),
        (["2024-01-31T10:00", "2024-01-31 10:00:00.123456"], MOMENT),
        (["2024-01-31 10:00:00.1234567"], TEXT),
        (["2024-01-31 24:00:00"], TEXT),
        (["2024-01-31 10"], TEXT),
        (["2024-01-31 10:00:00Z", "2024-01-31T10:00:00.5+02:00"], ZONED),
        (["2024-01-31 10:00:00+0200"], TEXT),
        (["2024-01-31 10Z"], TEXT),
        (["2024-01-31 10:00:00Z", "2024-01-31 10:00:00"], TEXT),
        (["2024-01-31 10:00:00Z", "2024-01-31"], TEXT),
        (["2024-01-31", "5"], TEXT),
        (["a"], TEXT),
    ],
)
def test_truths_and_moments(written: list[str], dtype: pa.DataType) -> None:
    assert spelled(*written) == dtype
    # One text at a time, joined, says the same as all of them at once, in any order.
    for order in (written, written[::-1]):
        joined = Spelled()
        for one in order:
            joined = joined.join(Spelled.of(texts(one)))
        assert joined.type == dtype


def test_nulls_go_with_everything() -> None:
    assert spelled() == spelled(None) == spelled(*NULLS) == NOTHING
    for written, dtype in (("7", WHOLE), ("0.5", FLOAT), ("true", TRUTH), ("2024-01-31", DAY)):
        assert spelled(written, *NULLS) == dtype
        assert typed(texts(written, *NULLS), dtype).null_count == len(NULLS)
    assert spelled("Null") == spelled("NAN") == spelled("na") == TEXT
    assert present(texts("x", *NULLS, " ")).to_pylist() == ["x", *[None] * len(NULLS), " "]


def test_other_layouts_of_texts() -> None:
    written = ["x", "7", "-8", None, "y"]
    for dtype in (
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
    ):
        array = pa.array(written, dtype)
        assert Spelled.of(array.slice(1, 3)) == Spelled(WHOLE, True, 8)
        assert numbers(array).to_pylist() == [None, 7, -8, None, None]


def test_what_is_known_is_kept_and_widened() -> None:
    known = Spelled.of(texts("5", "-3"))
    assert known == Spelled(WHOLE, negative=True, widest=5)
    assert Spelled.of(texts("18446744073709551615"), known).type == TEXT
    assert Spelled.of(texts("0.5"), known) == Spelled(FLOAT)
    assert Spelled.of(texts("1", "20"), Spelled(FLOAT)) == Spelled(FLOAT)
    assert Spelled.of(texts("9007199254740993"), Spelled(FLOAT)).type == TEXT
    assert Spelled.of(texts("1"), Spelled(TEXT)) == Spelled(TEXT)
    assert Spelled.of(texts("NA", None), known) == known
    assert Spelled.of(texts("2024-01-31"), Spelled(MOMENT)) == Spelled(MOMENT)
    large = Spelled.of(texts("18446744073709551615"))
    assert Spelled.of(texts("5"), large) == Spelled(LARGE, widest=2**64 - 1)
    assert large.join(Spelled(FLOAT)).type == TEXT


FLOATS = st.floats(allow_nan=False)
WRITTEN = st.one_of(
    st.integers().map(str),
    st.integers(-(2**65), 2**65).map(str),
    FLOATS.map(repr),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.text("0123456789.eE+-xn ", max_size=6),
    st.text(max_size=4),
    st.sampled_from(["true", "False", "2024-01-31", "2024-01-31 10:00:00", *NULLS]),
)


def written_again(value: Any) -> set[str]:
    """Every text that a column may have had where it now has this value."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, bool):
        return {str(value), str(value).lower(), str(value).upper()}
    if isinstance(value, float):
        polars = pl.Series([value]).cast(pl.String)[0]
        pyarrow = pc.cast(pa.array([value]), pa.string())[0].as_py()
        forms = {repr(value), polars, pyarrow} - {"-0"}
        return forms | ({str(int(value))} if value.is_integer() and abs(value) <= 2**53 else set())
    return {str(value)}


@example(written=["", "nan"])
@given(
    st.lists(WRITTEN, max_size=6) | st.lists(FLOATS.map(repr)) | st.lists(st.integers().map(str))
)
def test_what_is_typed_comes_back(written: list[str]) -> None:
    array = pa.array(written, pa.string())
    found = Spelled.of(array)
    for value, text in zip(typed(array, found.type).to_pylist(), written, strict=True):
        assert text in (NULLS if value is None else written_again(value))
    # In two parts, one after the other or joined, the texts spell the same.
    front, back = array[: len(array) // 2], array[len(array) // 2 :]
    assert Spelled.of(back, Spelled.of(front)).type == found.type
    assert Spelled.of(back).join(Spelled.of(front)) == Spelled.of(front).join(Spelled.of(back))
    assert Spelled.of(back).join(Spelled.of(front)).type == found.type


@given(st.lists(FLOATS, min_size=1))
def test_what_writers_write_is_a_float_again(values: list[float]) -> None:
    polars = pl.Series(values).cast(pl.String).to_arrow()
    for written in (pa.array(map(repr, values)), polars):
        assert Spelled.of(written).type == FLOAT
        assert typed(written, FLOAT).to_pylist() == values
    # pyarrow writes an integer without a point, and a negative zero as a text that is no integer.
    values = [value for value in values if value or str(value) == "0.0"]
    written = pc.cast(pa.array(values, FLOAT), pa.string())
    assert Spelled.of(written).type in (FLOAT, WHOLE, NOTHING)
    assert typed(written, FLOAT).to_pylist() == values


def test_numbers_in_every_usual_spelling() -> None:
    good = ["1.50", "007", "3e5", "+5", ".5", "1e-5", "5.", "-1E+2", "inf", "-inf", "Infinity"]
    value = [1.5, 7, 3e5, 5, 0.5, 1e-5, 5, -100, float("inf"), -float("inf"), float("inf")]
    bad = [
        " 1.5",
        "1,234.5",
        "-",
        "\\N",
        "0x1F",
        "1_000",
        "1e",
        "NAN",
        "-nan",
        ".",
        "",
        "NA",
        "++5",
    ]
    assert numbers(texts(*good)).to_pylist() == value
    assert numbers(texts(*good, None, *bad)).to_pylist() == [*value, *[None] * (1 + len(bad))]
    assert first_no_number(texts(*good, None, *NULLS)) is None
    assert first_no_number(texts(*good, None, "NA", "1,5", "x")) == len(good) + 2
    assert first_no_number(texts(*["1"] * 1000, "nan", "NAN")) == 1001
    assert first_no_number(texts()) is None


@given(st.text("0123456789.eE+-infxINFTY _", max_size=7))
def test_a_number_is_one_alone_or_in_company(written: str) -> None:
    pattern = r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity)"
    number = re.fullmatch(pattern, written, re.IGNORECASE) is not None
    alone, beside = numbers(texts(written)), numbers(texts(written, "x"))
    assert alone[0] == beside[0]
    assert alone.to_pylist() == [float(written) if number else None]
    assert (first_no_number(texts(written)) is None) == (number or written in NULLS)


def known(*written: str | None) -> tuple[pa.DataType, list[Any]]:
    found = known_numbers(texts(*written))
    return found.type, found.to_pylist()


def test_known_numbers_are_exact_or_null() -> None:
    odd = ["007", "1.50", "3e5", "x", "-0", "NA", None, " 1", "true"]
    gap = [None] * len(odd)
    assert known("5", *odd) == (WHOLE, [5, *gap])
    assert known("18446744073709551615", *odd) == (LARGE, [2**64 - 1, *gap])
    assert known("0.5", "3", *odd) == (FLOAT, [0.5, 3.0, *gap])
    assert known("1e-05", "inf") == (FLOAT, [1e-05, float("inf")])
    assert known("-1", "9223372036854775808") == (FLOAT, [-1.0, 2.0**63])
    assert known("18446744073709551616", "9007199254740994", "0.5")[0] == FLOAT
    assert known(*odd) == (WHOLE, gap)
    assert known() == (WHOLE, [])


def test_known_numbers_beyond_floats_are_decimals() -> None:
    dtype, values = known("9007199254740993", "0.1", "1.5e-07", "1e+22", "-inf", "x", "1e+10")
    assert dtype == pa.decimal128(38, 18)
    exact = [Decimal(9007199254740993), Decimal("0.1"), Decimal("1.5e-07"), None, None, None]
    assert values == [*exact, Decimal(10**10)]
    assert known("18446744073709551617")[1] == [Decimal(2**64 + 1)]
    assert known("1" * 5000, "0.5", "9007199254740993")[1][0] is None


def test_known_truths_only_where_all_are() -> None:
    assert known("true", "FALSE", None, "NA") == (TRUTH, [True, False, None, None])
    assert known("true", "1") == (WHOLE, [None, 1])


def test_known_moments() -> None:
    written = texts(
        "2024-01-31", "2024-02-30", "2024-01-31 10:00:00.5", "x", "20240131", None, "NA"
    )
    value = [dt.datetime(2024, 1, 31), None, dt.datetime(2024, 1, 31, 10, 0, 0, 500000)]
    found = known_moments(written, DAY)
    assert found.type == MOMENT
    assert found.to_pylist() == [*value, None, None, None, None]
    zoned = texts("2024-01-31T10:00:00+02:00", "2024-01-31T10:00:00Z", "0001-01-01T00:00:00+02:00")
    hours = [dt.datetime(2024, 1, 31, hour) for hour in (8, 10)]
    assert known_moments(zoned[:2], MOMENT).to_pylist() == hours
    assert known_moments(texts("2024-01-31 25:00:00Z"), MOMENT).to_pylist() == [None]
    found = known_moments(zoned[:2], pa.timestamp("ns", "Europe/Berlin"))
    assert found.type == pa.timestamp("us", "Europe/Berlin")
    assert found.to_pylist() == [hour.replace(tzinfo=dt.UTC) for hour in hours]
    assert known_moments(texts("2024-01-31"), ZONED).to_pylist() == [
        value[0].replace(tzinfo=dt.UTC)
    ]


def test_typed_truths_and_texts() -> None:
    assert typed(texts("TRUE", "False", "NA"), TRUTH).to_pylist() == [True, False, None]
    assert typed(texts("007", "NA"), TEXT).to_pylist() == ["007", None]
    assert typed(texts("NA"), NOTHING).type == NOTHING
    assert typed(texts("18446744073709551615"), LARGE).to_pylist() == [2**64 - 1]
    zoned = typed(texts("2024-01-31T10:00:00+02:00"), ZONED).to_pylist()
    assert zoned == [dt.datetime(2024, 1, 31, 8, tzinfo=dt.UTC)]
