"""Rows of a request become the same ids, numbers and scores as rows of a table."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.bundle import Bundle
from isthmus.data.requests import EncodedRequest, RowEncoder
from isthmus.errors import SchemaError
from isthmus.run import fit

KINDS: dict[str, dict[str, Any]] = {
    "user": {"kind": "categorical", "statistics": True},
    "city": {"kind": "categorical", "min_count": 2},
    "price_class": {"kind": "categorical"},
    "agent": {"kind": "categorical", "hash_buckets": 7},
    "device": {"kind": "categorical", "hash_buckets": 5},
    "member": {"kind": "categorical"},
    "born": {"kind": "categorical"},
    "seen": {"kind": "categorical_list", "shares": "user", "max_length": 3},
    "price": {"kind": "numeric", "nan": "missing"},
    "age": {"kind": "numeric", "scale": "log"},
    "rank": {"kind": "numeric", "scale": "quantile"},
    "share": {"kind": "numeric", "scale": "min_max", "embedding": "piecewise"},
    "raw": {"kind": "numeric", "scale": "none"},
    "marks": {"kind": "numeric_list", "max_length": 2, "scale": "standard"},
    "embedding": {"kind": "vector", "width": 2},
    "at": {"kind": "time"},
    "clock": {"kind": "time", "unit": "ms"},
}
TYPES: dict[str, Any] = {
    "user": pl.Int64,
    "city": pl.String,
    "price_class": pl.Float64,
    "agent": pl.String,
    "device": pl.Int64,
    "member": pl.Boolean,
    "born": pl.Date,
    "seen": pl.List(pl.Int64),
    "price": pl.Float64,
    "age": pl.Int64,
    "rank": pl.Float64,
    "share": pl.Float64,
    "raw": pl.Float64,
    "marks": pl.List(pl.Float64),
    "embedding": pl.List(pl.Float64),
    "at": pl.Datetime("us", "Europe/Berlin"),
    "clock": pl.Int64,
}
START = datetime(2024, 3, 1, 12, tzinfo=UTC)


def drawn(n: int, seed: int) -> dict[str, list[Any]]:
    rng = np.random.default_rng(seed)
    whole = lambda most: rng.integers(0, most, n).tolist()  # noqa: E731
    return {
        "user": whole(20),
        "city": [f"city {v}" for v in whole(12)],
        "price_class": [v / 2 for v in whole(6)],
        "agent": [f"agent {v}" for v in whole(30)],
        "device": whole(30),
        "member": [bool(v) for v in whole(2)],
        "born": [date(1980, 1, 1) + timedelta(days=v) for v in whole(9)],
        "seen": [rng.integers(0, 20, v).tolist() for v in whole(6)],
        "price": rng.normal(size=n).tolist(),
        "age": whole(90),
        "rank": rng.normal(size=n).tolist(),
        "share": rng.random(n).tolist(),
        "raw": rng.normal(size=n).tolist(),
        "marks": [rng.normal(size=v).tolist() for v in whole(4)],
        "embedding": rng.normal(size=(n, 2)).tolist(),
        "at": [START + timedelta(hours=v) for v in whole(2000)],
        "clock": [1_700_000_000_000 + 3_600_000 * v for v in whole(2000)],
    }


def frame(columns: Mapping[str, Sequence[Any]], domain: pl.Series) -> pl.DataFrame:
    named = {name: pl.Series(name, columns[name], TYPES[name], strict=False) for name in KINDS}
    return pl.DataFrame({**named, "shop": domain})


@pytest.fixture(scope="module", params=["text", "integer"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    rng = np.random.default_rng(4)
    number = rng.integers(1, 4, 400)
    shops = pl.Series(number if request.param == "integer" else [f"shop {v}" for v in number])
    table = frame(drawn(400, 3), shops).with_columns(label=pl.Series(rng.integers(0, 2, 400)))
    run = fit(
        {
            "data": {"label": "label", "domain": "shop", "features": KINDS},
            "model": {"backbone": {"name": "mlp", "widths": [8]}, "adapter": {"name": "film"}},
            "train": {"epochs": 1, "seed": 0},
        },
        table,
        out=tmp_path_factory.mktemp("rows") / "run",
    )
    return run.bundle


def same(found: EncodedRequest, bundle: Bundle, table: pl.DataFrame) -> None:
    (scored,) = bundle.score_blocks(table)
    right = scored.encoded
    np.testing.assert_array_equal(found.categorical, right.categorical)
    np.testing.assert_array_equal(found.numeric, right.numeric)
    np.testing.assert_array_equal(found.domain, right.domain)
    for one, other in zip(found.lists, right.lists, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_known_rows_are_encoded_as_in_a_table(bundle: Bundle):
    shops = pl.Series([bundle.domains[v % 3] for v in range(200)])
    if bundle.encoder.domain_kind == "integer":
        shops = shops.cast(pl.Int64)
    table = frame(drawn(200, 3), shops)
    found = RowEncoder(bundle.encoder).encode(table.to_dicts())
    assert found.categorical.any(axis=0).all()
    assert set(found.domain) == {1, 2, 3}
    same(found, bundle, table)
    np.testing.assert_array_equal(bundle.score_rows(table.to_dicts()), bundle.score(table))


whole = st.integers(-3, 40) | st.sampled_from([2**63 - 1, -(2**63)])
number = st.floats(-1e30, 1e30) | st.integers(-5, 5).map(float)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "user": whole,
    "city": st.integers(0, 14).map(lambda v: f"city {v}") | st.text(max_size=3),
    "price_class": number,
    "agent": st.text(max_size=12),
    "device": whole,
    "member": st.booleans(),
    "born": st.dates(date(1979, 12, 30), date(1980, 1, 12)),
    "seen": st.lists(st.none() | whole, max_size=5),
    "price": number | st.just(float("nan")),
    "age": st.integers(-(2**40), 2**40),
    "rank": number,
    "share": number,
    "raw": number,
    "marks": st.lists(st.none() | st.floats(-1e6, 1e6), max_size=4),
    "embedding": st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2),
    "at": st.datetimes(datetime(1999, 1, 1), datetime(2040, 1, 1)).map(
        lambda at: at.replace(tzinfo=UTC)
    ),
    "clock": st.integers(0, 2**42),
}
ROWS = st.lists(
    st.fixed_dictionaries(
        {name: st.none() | values for name, values in VALUES.items()}
        | {"shop": st.none() | st.integers(-1, 5)}
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60)
@given(rows=ROWS)
def test_any_row_is_encoded_as_in_a_table(bundle: Bundle, rows: list[dict[str, Any]]):
    text = bundle.encoder.domain_kind == "string"
    shops = [f"shop {v['shop']}" if text and v["shop"] is not None else v["shop"] for v in rows]
    rows = [{**row, "shop": shop} for row, shop in zip(rows, shops, strict=True)]
    columns = {name: [row[name] for row in rows] for name in KINDS}
    table = frame(columns, pl.Series(shops, dtype=pl.String if text else pl.Int64))
    found = RowEncoder(bundle.encoder).encode(rows)
    same(found, bundle, table)
    np.testing.assert_allclose(bundle.score_rows(rows), bundle.score(table), rtol=0, atol=1e-6)


def row_of(bundle: Bundle, **other: Any) -> dict[str, Any]:
    table = frame(drawn(1, 9), pl.Series([bundle.domains[0]]))
    return {**table.to_dicts()[0], **other}


def test_dates_and_times_may_be_texts(bundle: Bundle):
    row = row_of(bundle, born=date(1980, 1, 3), at=datetime(2024, 3, 1, 12, 30, tzinfo=UTC))
    spelled = {**row, "born": "1980-01-03", "at": "2024-03-01T13:30:00+01:00"}
    assert bundle.score_row(spelled) == bundle.score_row(row)
    found = bundle.row_encoder.encode([{**row, "born": "1980-01-03"}])
    assert found.categorical[0, list(KINDS).index("born")] > 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (7, np.int64(7)),
        (7, 7.0),
        (7, Decimal(7)),
        (1, True),
    ],
)
def test_a_number_is_the_same_number_whatever_carries_it(bundle: Bundle, one: Any, other: Any):
    rows = [row_of(bundle, user=one, device=one), row_of(bundle, user=other, device=other)]
    found = bundle.row_encoder.encode(rows).categorical
    assert found[0, 0] > 0
    np.testing.assert_array_equal(found[0], found[1])


def test_a_float32_is_the_decimal_that_a_person_reads(bundle: Bundle):
    rows = [row_of(bundle, price_class=x) for x in (0.5, np.float32(0.5), 2.5, np.float32(2.5))]
    found = bundle.row_encoder.encode(rows).categorical[:, 2]
    assert found[0] == found[1] > 0
    assert found[2] == found[3] > 0


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("user", "7", "be a number, got '7' in the request, row 1"),
        ("user", [7], "hold one value a row, got [7] in the request, row 1"),
        ("city", 7, "be a text, got 7 in the request, row 1"),
        ("agent", 7, "be a text, got 7 in the request, row 1"),
        ("member", "yes", "be a number, got 'yes' in the request, row 1"),
        (
            "born",
            "soon",
            "be a date or a time as ISO 8601 has it, got 'soon' in the request, row 1",
        ),
        ("seen", "7", "be a list, got '7' in the request, row 1"),
        ("seen", [7, "7"], "be a number, got '7' in the request, row 1"),
        ("seen", {"a": 1}, "be a list, got {'a': 1} in the request, row 1"),
        ("price", "1,234.5", "be numeric, got '1,234.5' in the request, row 1"),
        ("price", [1.0], "be numeric, got [1.0] in the request, row 1"),
        ("price", float("inf"), "be finite, got inf in the request, row 1"),
        ("age", 10**400, f"fit in 64-bit floats, got 1{39 * '0'}... in the request, row 1"),
        ("rank", float("nan"), "be finite, got nan in the request, row 1"),
        ("raw", 1e300, "fit in 32-bit floats once scaled, got 1e+300 in the request, row 1"),
        ("marks", [1.0, "x"], "be numeric, got 'x' in the request, row 1"),
        ("marks", [1.0, float("inf")], "be finite, got inf in the request, row 1"),
        ("embedding", [1.0], "hold 2 numbers, got 1 in the request, row 1"),
        ("embedding", [1.0, None], "hold no null, got null in the request, row 1"),
        ("embedding", [1.0, 1e300], "be finite, got inf in the request, row 1"),
        ("at", 17, "be a date or a time as ISO 8601 has it, got 17 in the request, row 1"),
        (
            "clock",
            "17",
            "be an integer, since its time has the unit 'ms', got '17' in the request, row 1",
        ),
        (
            "clock",
            2**70,
            "lie in the years 1 to 9999 (ms since 1970), got 1180591620717411303424 in",
        ),
        ("clock", 10**17, "lie in the years 1 to 9999 (ms since 1970), got 100000000000000000 in"),
        ("shop", ["a"], "hold plain values (it is the domain), got ['a'] in the request, row 1"),
    ],
)
def test_what_the_schema_does_not_allow_is_named(
    bundle: Bundle, column: str, value: Any, rule: str
):
    with pytest.raises(SchemaError) as fault:
        bundle.score_rows([row_of(bundle), row_of(bundle, **{column: value})])
    assert f"column {column!r} must {rule}" in str(fault.value)


def test_a_row_has_every_column(bundle: Bundle):
    row = row_of(bundle)
    short = {name: value for name, value in row.items() if name != "city"}
    with pytest.raises(
        SchemaError, match=r"column .city. must be in every row, got none in .* row 1"
    ):
        bundle.score_rows([row, short])
    with pytest.raises(SchemaError, match=r"must stand in a row that names its columns, got \[1\]"):
        bundle.score_rows([[1]])  # type: ignore[list-item]
    assert bundle.score_row({**row, "other": object()}) == bundle.score_row(row)


def test_no_row_has_no_score(bundle: Bundle):
    assert bundle.score_rows([]).shape == (0,)


def test_what_was_answered_once_is_answered_again(bundle: Bundle):
    row = row_of(bundle, agent="never seen", device=10**6)
    first = bundle.row_encoder.encode([row]).categorical
    np.testing.assert_array_equal(bundle.row_encoder.encode([row]).categorical, first)
    right = bundle.encoder.vocabularies["agent"].ids(pa.array(["never seen"]))
    assert first[0, list(KINDS).index("agent")] == right[0] > 0
