"""A table with every kind of feature, rows drawn for it, and a run fitted on it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hypothesis import strategies as st

from isthmus.run import Run, fit

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


def run_of_every_kind(folder: Path, *, integers: bool, rows: int = 400) -> Run:
    """A small run; its three domains are named by integers or by texts."""
    rng = np.random.default_rng(4)
    number = rng.integers(1, 4, rows)
    shops = pl.Series(number if integers else [f"shop {v}" for v in number])
    table = frame(drawn(rows, 3), shops).with_columns(label=pl.Series(rng.integers(0, 2, rows)))
    config = {
        "data": {"label": "label", "domain": "shop", "features": KINDS},
        "model": {"backbone": {"name": "mlp", "widths": [8]}, "adapter": {"name": "film"}},
        "train": {"epochs": 1, "seed": 0},
    }
    return fit(config, table, out=folder)


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
