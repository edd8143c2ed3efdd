"""Numbers on the way in: quantile scales, bins, and the rows that both are drawn from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, rankdata

from isthmus.data import Dataset, Encoder
from isthmus.data.encoding.numbers import library
from isthmus.data.encoding.numbers.bins import BINS, bin_edges
from isthmus.data.encoding.numbers.drawn import Drawn, hashes, item_hashes
from isthmus.data.encoding.numbers.quantiles import KNOTS, QuantileScaler, quantile_scaler
from isthmus.errors import BundleError, ConfigError, SchemaError
from isthmus.schema import DataConfig

NUMBERS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60)
PIECEWISE = {"kind": "numeric", "embedding": "piecewise", "dim": 8, "scale": "quantile"}


def config(features: dict[str, Any] | None = None, **changes: Any) -> DataConfig:
    content = {
        "domain": "tab",
        "label": "click",
        "features": features or {"price": PIECEWISE, "tab": "categorical"},
    }
    return DataConfig.model_validate(content | changes)


def table(rows: int = 3000, seed: int = 0) -> pa.Table:
    """Prices, of which nine tenths are 0 and one in twenty is null; lists of sizes."""
    rng = np.random.default_rng(seed)
    price = np.where(rng.random(rows) < 0.9, 0.0, rng.exponential(size=rows))
    sizes = [list(rng.normal(size=n)) for n in rng.integers(0, 4, rows)]
    return pa.table(
        {
            "price": pa.array(price, mask=rng.random(rows) < 0.05),
            "sizes": pa.array(sizes, pa.list_(pa.float64())),
            "tab": rng.choice(["a", "b", "c"], rows),
            "click": rng.integers(0, 2, rows),
        }
    )


# ---------------------------------------------------------------- scale: quantile


def test_a_value_becomes_the_middle_of_its_mass():
    scaler = quantile_scaler(np.array([0.0, 0, 0, 7, 9]))
    np.testing.assert_allclose(scaler.apply(np.array([0.0, 7, 9])), norm.ppf([0.3, 0.7, 0.9]), 1e-6)
    between = scaler.apply(np.array([3.5, -100, 100]))
    np.testing.assert_allclose(between, norm.ppf([0.5, 0.3, 0.9]), atol=1e-6)
    assert scaler.fill == 0


@settings(deadline=None)
@given(NUMBERS, NUMBERS)
def test_the_scale_equals_the_slow_formula_rises_and_is_bounded(train, others):
    x = np.sort(np.array(train, dtype=np.float64))
    scaler = quantile_scaler(x)
    want = norm.ppf((rankdata(x) - 0.5) / len(x))  # the mean rank of ties
    np.testing.assert_allclose(scaler.apply(x), want, rtol=1e-5, atol=1e-5)
    found = scaler.apply(np.sort(np.array(others, dtype=np.float64)))
    assert (np.diff(found) >= 0).all()
    assert (np.abs(found) <= np.float32(norm.ppf(1 - 0.5 / len(x)))).all()


def test_one_value_and_no_value():
    np.testing.assert_array_equal(quantile_scaler(np.full(9, 3.0)).apply(np.array([3.0, 8])), 0)
    nothing = quantile_scaler(np.empty(0))
    np.testing.assert_array_equal(nothing.apply(np.array([3.0, -8])), 0)
    np.testing.assert_array_equal(nothing.apply(np.array([np.inf, np.nan])), [np.inf, np.nan])


def test_few_knots_keep_the_quantiles_and_tell_heavy_values_from_their_neighbours():
    rng = np.random.default_rng(0)
    x = np.sort(np.concatenate([np.zeros(45_000), rng.exponential(size=5000)]))
    scaler = quantile_scaler(x)
    assert KNOTS / 20 < len(scaler.values) < KNOTS + 9
    some = x[np.flatnonzero(x)[::50]]
    want = norm.ppf(np.searchsorted(x, some) / len(x))
    np.testing.assert_allclose(scaler.apply(some), want, atol=0.02)
    zero, above = scaler.apply(np.array([0.0, x[45_000]]))
    assert zero == pytest.approx(norm.ppf(0.45), abs=1e-3)
    assert above == pytest.approx(norm.ppf(0.9), abs=1e-3)


@pytest.mark.parametrize(
    ("values", "scores", "rule"),
    [
        ((1.0, 2.0), (0.0,), "one score for each value"),
        ((2.0, 1.0), (0.0, 1.0), "finite and rise"),
        ((1.0, 2.0), (0.0, float("nan")), "finite and rise"),
    ],
)
def test_a_scale_that_cannot_be_is_refused(values, scores, rule):
    with pytest.raises(ValueError, match=rule):
        QuantileScaler(values, scores)


# ---------------------------------------------------------------- bins


def test_heavy_zeros_leave_all_bins_to_the_other_rows():
    rest = np.random.default_rng(0).exponential(size=1000).astype(np.float32)
    x = np.sort(np.concatenate([np.zeros(9000, dtype=np.float32), rest]))
    edges = np.array(bin_edges(x))
    assert edges[0] == 0
    assert edges[1] == np.float32(rest.min())
    assert BINS <= len(edges) <= BINS + 3
    counts = np.histogram(rest, edges[1:])[0]
    assert counts.max() < 2 * len(rest) / BINS


def test_a_heavy_value_in_the_midst_has_bins_that_no_other_value_enters():
    x = np.sort(np.concatenate([np.linspace(-1, 1, 1001), np.full(500, 0.5003)])).astype(np.float32)
    edges = bin_edges(x)
    at = edges.index(float(np.float32(0.5003)))
    around = x[(x > edges[at - 1]) & (x < edges[at + 1])]
    assert set(around.tolist()) == {edges[at]}


def test_few_values_are_all_edges_and_there_are_two_bins_at_least():
    ages = np.arange(18, 60).repeat(3).astype(np.float32)
    assert bin_edges(ages) == tuple(float(age) for age in range(18, 60))
    assert bin_edges(np.array([0, 1, 1], dtype=np.float32)) == (0, 0.5, 1)
    assert bin_edges(np.full(4, 0.25, dtype=np.float32)) == (-0.75, 0.25, 1.25)
    assert bin_edges(np.full(4, 3e38, dtype=np.float32))[0] == 0
    assert bin_edges(np.full(4, -8, dtype=np.float32)) == (-8, -4, 0)
    assert bin_edges(np.empty(0, dtype=np.float32)) == (-1, 0, 1)


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), max_size=200), st.integers(2, 9))
def test_edges_rise_lie_among_the_rows_and_can_be_told_apart(numbers, bins):
    x = np.sort(np.array(numbers, dtype=np.float32))
    edges = np.array(bin_edges(x, bins), dtype=np.float32)
    assert len(edges) >= 3
    gaps = np.diff(edges)
    assert (gaps >= 2.0**-41).all()
    assert (gaps >= 2.0**-16 * np.abs(edges[1:])).all()


# ---------------------------------------------------------------- which rows are drawn


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_the_drawn_numbers_are_those_of_the_smallest_hashes_whatever_the_block(block):
    row = np.arange(1000)
    x, hashed = np.random.default_rng(0).normal(size=1000), hashes(row)
    drawn = Drawn(most=50)
    for start in range(0, 1000, block):
        drawn.add(x[start : start + block], hashed[start : start + block])
    np.testing.assert_array_equal(drawn.numbers(), np.sort(x[np.argsort(hashed)[:50]]))


def test_each_item_of_a_list_has_a_hash_that_follows_its_row_and_its_place():
    lengths = np.array([2, 0, 3])
    together = item_hashes(hashes(np.arange(3)), lengths)
    assert len(set(together.tolist())) == 5
    alone = item_hashes(hashes(np.array([2])), lengths[2:])
    np.testing.assert_array_equal(together[2:], alone)


def test_scale_and_bins_are_of_train_rows_and_the_same_in_any_block_size(tmp_path: Path):
    features = {"price": PIECEWISE, "sizes": {"kind": "numeric_list", "scale": "quantile"}}
    given = config(features)
    rows = table()
    whole = Dataset.from_table(given, rows, cache=tmp_path / "whole")
    pieces = Dataset.from_table(given, rows, cache=tmp_path / "pieces", block_rows=97)
    assert whole.encoder.scalers == pieces.encoder.scalers
    assert whole.encoder.bins == pieces.encoder.bins
    train = np.asarray(whole.rows("train").row)
    price = rows["price"].take(train).drop_null().to_numpy()
    assert whole.encoder.scalers["price"] == quantile_scaler(np.sort(price))
    sizes = np.concatenate(rows["sizes"].take(train).to_pylist())
    scaler = whole.encoder.scalers["sizes"]
    assert isinstance(scaler, QuantileScaler)
    assert np.isin(scaler.values, sizes).all()
    assert len(scaler.values) >= KNOTS


# ---------------------------------------------------------------- on disk


def test_an_encoder_keeps_scale_and_bins_exactly(tmp_path: Path):
    encoder = Dataset.from_table(config(), table(), cache=tmp_path / "cache").encoder
    encoder.save(tmp_path / "encoder")
    again = Encoder.load(tmp_path / "encoder")
    assert again.scalers == encoder.scalers
    assert again.fields == encoder.fields
    price = again.fields[0]
    assert (price.width, price.numbers, price.embedding) == (8, 1, "piecewise")
    assert len(price.bins) > BINS


@pytest.mark.parametrize("bins", [None, [], [1.0, 2.0], [0.0, 2.0, 1.0], [0.0, 1.0, "x"]])
def test_damaged_bins_are_refused(tmp_path: Path, bins):
    encoder = Dataset.from_table(config(), table(), cache=tmp_path / "cache").encoder
    encoder.save(tmp_path / "encoder")
    path = tmp_path / "encoder" / "encoder.json"
    content = json.loads(path.read_text())
    content["bins"] = {} if bins is None else {"price": bins}
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match="encoder is damaged"):
        Encoder.load(tmp_path / "encoder")


def test_a_damaged_scale_is_refused(tmp_path: Path):
    encoder = Dataset.from_table(config(), table(), cache=tmp_path / "cache").encoder
    encoder.save(tmp_path / "encoder")
    path = tmp_path / "encoder" / "encoder.json"
    content = json.loads(path.read_text())
    content["scalers"]["price"]["scores"].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match="one score for each value"):
        Encoder.load(tmp_path / "encoder")


# ---------------------------------------------------------------- what is refused, and nulls


def test_a_dim_without_an_embedding_is_refused():
    with pytest.raises(ValueError, match="'price' must have an embedding where it has a dim, got"):
        config({"price": {"kind": "numeric", "dim": 4}})
    with pytest.raises(ValueError, match="embedding"):
        config({"price": {"kind": "numeric_list", "embedding": "piecewise"}})


def test_a_missing_library_is_told_before_anything_is_encoded_and_at_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = Dataset.from_table(config(), table(), cache=tmp_path / "cache")
    made.encoder.save(tmp_path / "encoder")
    monkeypatch.setattr(library, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"pip install 'isthmus\[numbers\]'"):
        Dataset.from_table(config(), pa.table({"nothing": [1]}), cache=tmp_path / "other")
    with pytest.raises(ConfigError, match="rtdl-num-embeddings"):
        Encoder.load(tmp_path / "encoder")
    plain = config({"price": {"kind": "numeric", "scale": "quantile"}})
    Dataset.from_table(plain, table(), cache=tmp_path / "plain")


def test_numbers_that_are_not_finite_are_refused_where_the_scale_would_cut_them(tmp_path: Path):
    encoder = Dataset.from_table(config(), table(), cache=tmp_path / "cache").encoder
    row = pa.record_batch({"price": [float("inf")], "tab": ["a"], "click": [0]})
    with pytest.raises(SchemaError, match="column 'price' must be finite, got inf"):
        encoder.encode(row, 0, "rows.csv")


@pytest.mark.parametrize("scale", ["standard", "quantile", "log", "min_max", "none"])
def test_a_column_of_nulls_has_bins_and_becomes_0(tmp_path: Path, scale):
    rows = table(300).set_column(0, "price", pa.nulls(300, pa.float64()))
    given = config({"price": PIECEWISE | {"scale": scale}, "tab": "categorical"})
    made = Dataset.from_table(given, rows, cache=tmp_path)
    assert made.encoder.fields[0].bins == (-1, 0, 1)
    assert not np.asarray(made.rows("train").arrays.numeric).any()
