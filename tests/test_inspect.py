"""The first look at a table: kinds, leaks, counts, and a config that is accepted unchanged."""

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from click_logs import ROWS, clicks, data_section, note, uses
from isthmus.data import SPLITS, Dataset
from isthmus.errors import SchemaError
from isthmus.inspect import inspect_table
from isthmus.schema import DataConfig


def test_each_kind_of_column_is_told():
    found = inspect_table(clicks(), "tab", "clicked")
    assert uses(found) == {
        "user_id": "categorical",
        "videoId": "categorical",
        "at": "time",
        "duration_ms": "numeric",
        "price": "numeric",
        "device": "categorical",
        "is_new": "categorical",
        "w": "weight",
        "history": "categorical_list",
        "vector": "vector",
        "scores": "numeric_list",
    }
    assert (found.time, found.group, found.weight, found.split) == ("at", "user_id", "w", "time")
    assert found.warnings == ()
    assert (found.rows, found.drawn) == (ROWS, ROWS)


def test_the_config_is_accepted_and_says_what_was_found():
    found = inspect_table(clicks(), "tab", "clicked")
    text = found.config_text("clicks.parquet")
    config = yaml.safe_load(text)
    data = DataConfig.model_validate(config["data"])
    assert (data.table, data.domain, data.label.column) == ("clicks.parquet", "tab", "clicked")
    assert (data.time, data.group, data.weight) == ("at", "user_id", "w")
    assert data.label.above is None
    assert next(iter(data.features)) == "tab"
    assert data.features["vector"].model_dump() == {"kind": "vector", "width": 4}
    assert data.features["duration_ms"].model_dump(exclude_defaults=True) == {"scale": "log"}
    assert data.features["price"].model_dump(exclude={"nan"}) == {
        "kind": "numeric",
        "scale": "standard",
        "embedding": "none",
        "dim": None,
    }
    assert set(config["model"]) == {"backbone", "towers", "adapter", "calibration"}
    assert config["model"]["adapter"] == {"name": "none"}
    assert config["model"]["backbone"]["norm"] == "none"
    assert (config["train"]["looks_per_epoch"], config["train"]["batch_rows"]) == (4, 1024)
    assert config["train"]["monitor"] == "auc_pooled"
    assert "3,000 rows, 3 domains" in text


def test_columns_with_many_values_get_statistics_and_trees_where_they_are_installed(monkeypatch):
    found = inspect_table(clicks(), "tab", "clicked")
    values = {name: clicks().column(name).unique() for name in ("user_id", "videoId", "device")}
    data = DataConfig.model_validate(yaml.safe_load(found.config_text("clicks.parquet"))["data"])
    assert set(data.with_statistics) == {name for name, of in values.items() if len(of) > 200}
    assert data.with_statistics
    assert data.trees
    monkeypatch.setattr("isthmus.data.encoding.trees.find_spec", lambda _: None)
    text = found.config_text("clicks.parquet")
    assert not yaml.safe_load(text)["data"]["trees"]
    assert "pip install 'isthmus[trees]'" in text


def test_the_dataset_takes_the_config_unchanged(tmp_path):
    """Every kind of column together with every kind that must be left out."""
    odd = {
        "row_id": np.arange(ROWS),
        "nothing": pa.nulls(ROWS),
        "struct": [{"a": 1}] * ROWS,
        "nan": np.r_[np.nan, np.ones(ROWS - 1)],
        "broken_vector": [[1.0, None]] * ROWS,
        "missing": pa.array(np.arange(ROWS) % 100 + 0.5, mask=np.arange(ROWS) % 3 == 0),
        "day_of_sale": [dt.date(2024, 1, 1 + i % 9) for i in range(ROWS)],
        "cost": [Decimal(i % 91).scaleb(-1) for i in range(ROWS)],
        "tags": [[1, None, 3], None, []] * (ROWS // 3),
        "flags": [[True], [False, True], []] * (ROWS // 3),
        "days": [[dt.date(2024, 1, 1)], [], []] * (ROWS // 3),
        "given": pa.array([[0.5, 1.0], None, [0.0, 2.0]] * (ROWS // 3)),
        "big": np.arange(ROWS, dtype=np.uint64) % 99 + 2**63,
    }
    pq.write_table(clicks(**odd), tmp_path / "clicks.parquet", row_group_size=700)
    found = inspect_table(tmp_path / "clicks.parquet", "tab", "clicked")
    kept = {name for name in odd if uses(found)[name] != "drop"}
    kinds = {"missing", "day_of_sale", "cost", "tags", "flags", "days", "given", "big"}
    assert kept == kinds
    dataset = Dataset.from_table(data_section(found), cache=tmp_path / "cache")
    assert sum(len(dataset.rows(split)) for split in SPLITS) == ROWS


def test_the_text_shows_every_domain():
    table = clicks()
    found = inspect_table(table, "tab", "clicked")
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    expected = frame.group_by("tab").agg(pl.len(), pl.col("clicked").sum()).sort("len").reverse()
    assert [(d.name, d.rows, d.positives) for d in found.domains] == expected.rows()
    assert found.positives == frame["clicked"].sum()
    for name, rows, positives in expected.rows():
        line = next(line for line in str(found).splitlines() if line.startswith(name))
        assert f"{rows:,}" in line
        assert f"{positives / rows:.2%}" in line


@pytest.mark.parametrize(
    ("values", "above"),
    [
        ([1, 2, 3, 4, 5], 3),
        ([-1, 1], 0),
        ([1, 2], 1),
        ([0.5, 1.0, 1.5, 2.0], 1.5),
        ([True, False], None),
        ([0.0, 1.0], None),
        ([Decimal("0"), Decimal("1")], None),
    ],
)
def test_the_label_gets_a_threshold_where_it_needs_one(values, above):
    weights = np.arange(1, len(values) + 1)
    drawn = np.random.default_rng(0).choice(len(values), ROWS, p=weights / weights.sum())
    table = clicks(clicked=pa.array([values[i] for i in drawn]))
    found = inspect_table(table, "tab", "clicked")
    assert found.label.above == above
    assert data_section(found).label == found.label
    cut = 0.5 if above is None else above
    assert found.positives == sum(float(values[i]) > cut for i in drawn)


def test_a_continuous_label_is_cut_at_zero_or_at_the_median():
    watched = np.random.default_rng(0).exponential(1e6, ROWS) + 1
    found = inspect_table(clicks(clicked=watched), "tab", "clicked")
    assert found.label.above == pytest.approx(np.median(watched))
    assert abs(found.positives / ROWS - 0.5) < 0.01
    assert data_section(found).label.above == found.label.above  # every digit survives the YAML
    watched[::3] = 0
    assert inspect_table(clicks(clicked=watched), "tab", "clicked").label.above == 0


def leaky() -> dict[str, Any]:
    table = clicks()
    y = table["clicked"].to_numpy()
    rng = np.random.default_rng(1)
    return {
        "order": np.where(y == 1, "bought", "none"),
        "seconds_watched": pa.array(rng.random(ROWS), mask=y == 0),
        "log_rating": -3.0 * y + 0.5 * rng.random(ROWS),
        "session_key": 2 * rng.integers(150, size=ROWS) + y,
        "basket": [["x"] * int(n) for n in y],
    }


@pytest.mark.parametrize("name", list(leaky()))
def test_a_column_that_gives_the_label_away_is_left_out(name):
    found = inspect_table(clicks(**{name: leaky()[name]}), "tab", "clicked")
    assert uses(found)[name] == "drop"
    assert "gives the label away" in note(found, name)
    assert any(repr(name) in warning for warning in found.warnings)
    assert name not in data_section(found).features
    assert f"# {name}:" in found.config_text()


def test_ids_with_few_rows_are_no_false_alarm():
    # The label's mean over all rows would give each of these AUC near 1.
    rng = np.random.default_rng(2)
    table = clicks(
        pair_id=rng.permutation(ROWS) // 2, name=rng.permutation(ROWS).astype(str).astype("<U3")
    )
    found = inspect_table(table, "tab", "clicked")
    assert uses(found)["pair_id"] == "categorical"
    assert uses(found)["name"] == "categorical"
    for column in found.columns:
        assert column.auc is None or column.auc < 0.6, column


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (np.arange(ROWS), "value of its own"),
        ([f"row {i}" for i in range(ROWS)], "value of its own"),
        (np.full(ROWS, 7), "one value (7)"),
        (pa.nulls(ROWS), "nothing but nulls"),
        (pa.nulls(ROWS, pa.float64()), "nothing but nulls"),
        ([{"a": 1}] * ROWS, "struct"),
        ([b"\xff"] * ROWS, "one value"),
        ([dt.time(1)] * ROWS, "time"),
        ([[]] * ROWS, "empty lists"),
        ([[["x"]]] * ROWS, "no kind of feature"),
        (np.r_[np.inf, np.ones(ROWS - 1)], "holds infinity in 1 rows"),
        (np.r_[np.nan, np.ones(ROWS - 1)], "one value"),
        ([[1.0, None], [0.5, 0.1]] * (ROWS // 2), "null 1,500 times"),
        (pa.array([0, 1] * (ROWS // 2), pa.timestamp("s", "Mars/Base")), "time zone"),
    ],
)
def test_columns_that_no_model_can_use_are_left_out_with_the_reason(column, reason):
    found = inspect_table(clicks(extra=pa.array(column)), "tab", "clicked")
    assert uses(found)["extra"] == "drop"
    assert any(part in note(found, "extra") for part in reason.split("|"))
    assert "extra" not in data_section(found).features


@pytest.mark.parametrize(
    ("name", "values", "use"),
    [
        ("age", np.arange(ROWS) % 70, "numeric"),
        ("weekday", np.arange(ROWS) % 7, "categorical"),
        ("item", np.arange(ROWS) % 1000, "categorical"),
        ("views", np.arange(ROWS) ** 2 % 9973, "numeric"),
        ("hash", np.arange(ROWS, dtype=np.uint64) % 99 + 2**63, "categorical"),
        ("zip_code", np.arange(ROWS) % 70 + 90_000, "categorical"),
        ("amount", np.arange(ROWS) + 1, "numeric"),
        ("shop", pd.array([1, None, 3] * 1000, dtype="Int64").to_numpy("float64"), "categorical"),
        ("ts", 1_700_000_000 + np.arange(ROWS), "time"),
        ("event_time", 1_700_000_000_000 + 7 * np.arange(ROWS), "time"),
    ],
)
def test_numbers_are_told_apart_by_name_and_values(name, values, use):
    column = pa.array(values, from_pandas=True)
    table = clicks(**{name: column})
    if use == "time":
        table = table.drop_columns(["at"])
    assert uses(inspect_table(table, "tab", "clicked"))[name] == use


def test_without_a_name_that_fits_there_is_no_group():
    table = clicks().drop_columns(["user_id"])
    found = inspect_table(table, "tab", "clicked")
    assert found.group is None
    assert data_section(found).group is None


def test_rows_are_split_by_time_only_where_times_can_be_parted():
    day = np.datetime64("2024-01-01") + np.arange(ROWS) // 1000  # three days
    found = inspect_table(clicks(at=day), "tab", "clicked")
    assert (found.time, found.split) == ("at", "random")
    assert data_section(found).split.by == "random"
    found = inspect_table(clicks().drop_columns(["at"]), "tab", "clicked")
    assert (found.time, found.split) == (None, "random")


def test_domains_that_give_the_label_away_are_named():
    table = clicks()
    tab, y = table["tab"].to_numpy(zero_copy_only=False), table["clicked"].to_numpy().copy()
    y[tab == "feed"] = 0
    found = inspect_table(clicks(clicked=y), "tab", "clicked")
    feed = int((tab == "feed").sum())
    (warning,) = found.warnings
    assert f"one class only, and no AUC: 'feed' (0 of {feed} positive)" in warning
    y[np.flatnonzero(tab == "feed")[:2]] = 1
    (warning,) = inspect_table(clicks(clicked=y), "tab", "clicked").warnings
    assert "rate is near 0 or 1" in warning
    assert "'feed' (2 of" in warning
    told = np.where(table["clicked"].to_numpy() == 1, "yes", "no")
    found = inspect_table(clicks(tab=told), "tab", "clicked")
    assert "alone it reaches AUC 1.0000" in found.warnings[0]
    (warning,) = inspect_table(clicks(tab=["all"] * ROWS), "tab", "clicked").warnings
    assert "one value, 'all'" in warning
    (warning,) = inspect_table(clicks(tab=np.arange(ROWS) // 6), "tab", "clicked").warnings[:1]
    assert "500 values, 6.0 rows each" in warning


NAMES = [
    "yes",
    "null",
    "3",
    "a: b",
    "# x",
    "{x}",
    'q"uote',
    "new\nline",
    "ünï 🙂",
    " pad ",
    "<<",
    "-",
]


def test_names_that_yaml_would_misread_are_quoted():
    rng = np.random.default_rng(0)
    columns = {name: rng.integers(9, size=ROWS) for name in NAMES}
    table = pa.table(
        {"no": rng.integers(3, size=ROWS), "on: off": rng.integers(1, 6, size=ROWS)} | columns
    ).append_column("drop\nme: [", pa.array(np.zeros(ROWS)))
    data = data_section(inspect_table(table, "no", "on: off"), "my table #1.parquet")
    assert data.table == "my table #1.parquet"
    assert (data.domain, data.label.column) == ("no", "on: off")
    assert list(data.features) == ["no", *NAMES]


def test_the_path_is_seen_from_the_folder_of_the_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pq.write_table(clicks(100), "clicks.parquet")
    found = inspect_table("clicks.parquet", "tab", "clicked")
    assert "table: clicks.parquet\n" in found.config_text()
    assert "table: ../clicks.parquet\n" in found.config_text(folder="configs")
    assert "table: other.parquet\n" in found.config_text("other.parquet", folder="configs")
    absolute = inspect_table(tmp_path / "clicks.parquet", "tab", "clicked")
    data = yaml.safe_load(absolute.config_text(folder="configs"))["data"]
    assert data["table"] == str(tmp_path / "clicks.parquet")
    assert (
        "table"
        not in yaml.safe_load(inspect_table(clicks(100), "tab", "clicked").config_text())["data"]
    )


def test_csv_and_frames_are_read_alike(tmp_path):
    frame = clicks().select(["tab", "user_id", "clicked", "price", "device"]).to_pandas()
    frame.to_csv(tmp_path / "clicks.csv", index=False)
    one = inspect_table(tmp_path / "clicks.csv", "tab", "clicked")
    for other in (frame, pl.from_pandas(frame)):
        two = inspect_table(other, "tab", "clicked")
        assert uses(one) == uses(two)
        assert one.domains == two.domains


def replaced(column: str, value: object, row: int = 70) -> dict[str, Any]:
    values = clicks()[column].to_pylist()
    values[row] = value
    return {column: pa.array(values)}


@pytest.mark.parametrize(
    ("table", "domain", "label", "message"),
    [
        (clicks(), "tabs", "clicked", r"column 'tabs' must be in the table.*nearest is 'tab'"),
        (clicks(), "tab", "click", r"column 'click' must.*nearest is 'clicked'"),
        (clicks(), "tab", "tab", "two columns, got 'tab' for both"),
        (clicks(), "history", "clicked", "'history' must hold plain values"),
        (clicks(), "tab", "device", r"'device' must be numeric or boolean.*got"),
        (clicks(clicked=np.ones(ROWS)), "tab", "clicked", "two values.*got 1 in all 3,000 rows"),
        (clicks(**replaced("clicked", None)), "tab", "clicked", "'clicked' must.*null.*row 70"),
        (clicks(**replaced("tab", None)), "tab", "clicked", "'tab' must.*null.*row 70"),
        (clicks(tab=np.r_[np.nan, np.ones(ROWS - 1)]), "tab", "clicked", "'tab' must.*null.*row 0"),
        (clicks(clicked=[np.nan, 0.0, 1.0] * 1000), "tab", "clicked", "'clicked' must.*nan.*row 0"),
    ],
)
def test_errors_name_the_column_and_the_value(table, domain, label, message):
    with pytest.raises(SchemaError, match=message):
        inspect_table(table, domain, label)
