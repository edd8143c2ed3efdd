"""Features of kind time: their fields, what is fitted, what is refused, and what is kept on disk."""

import datetime as dt
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from isthmus.config import validate
from isthmus.data import Dataset, Encoder
from isthmus.data.encoding.encoder import EncodedRows
from isthmus.data.encoding.gathering.encoder_fit import EncoderFit
from isthmus.data.encoding.roles import value_kinds
from isthmus.data.encoding.trees import ForestColumns
from isthmus.data.store.subset import Subset
from isthmus.data.tables.columns import Origin
from isthmus.errors import BundleError, ConfigError, SchemaError
from isthmus.schema import DataConfig

FILE = "part-3.parquet"
BERLIN = pa.timestamp("us", "Europe/Berlin")


def config(at: Any = "time", **more: Any) -> DataConfig:
    given = {"domain": "tab", "label": "click", "features": {"at": at, "tab": "categorical"}}
    return validate(DataConfig, given | more)


def table(at: pa.Array) -> pa.RecordBatch:
    rows = len(at)
    tab = pa.array(["a", "b"] * rows)[:rows]
    return pa.record_batch({"at": at, "tab": tab, "click": pa.array([0, 1] * rows)[:rows]})


def fit(
    given: DataConfig, at: pa.Array, train: list[int] | None = None, block: int = 99
) -> Encoder:
    batch = table(at)
    kinds = value_kinds(given, [(FILE, {one.name: one.type for one in batch.schema})], roles=())
    fitting = EncoderFit(given, kinds)
    is_train = np.isin(np.arange(len(at)), range(len(at)) if train is None else train)
    for start in range(0, len(at), block):
        some = slice(start, start + block)
        rows = np.flatnonzero(is_train[some])
        number = np.arange(len(at))[some]
        fitting.add(batch.slice(start, block), rows, Origin(FILE, start), row=number)
    return fitting.encoder()


def encode(encoder: Encoder, at: pa.Array) -> EncodedRows:
    return encoder.encode(table(at), 0, FILE, roles=())


def moments(*texts: str | None, dtype: pa.DataType | None = None) -> pa.Array:
    """Texts of UTC as timestamps."""
    read = [None if text is None else dt.datetime.fromisoformat(text + "+00:00") for text in texts]
    return pa.array(read, dtype or pa.timestamp("us", "UTC"))


# ---------------------------------------------------------------- fields and numbers


def test_a_time_gives_a_field_for_each_part_in_the_order_of_the_config():
    given = config({"kind": "time", "parts": ["age", "hour", "day", "weekday"], "dim": 4})
    fields = fit(given, moments("2024-01-01", "2024-01-02")).fields
    assert [field.name for field in fields] == [
        *("at:age", "at:hour", "at:day_sin", "at:day_cos", "at:weekday"),
        "tab",
    ]
    by_name = {field.name: field for field in fields}
    assert [by_name[f"at:{part}"].table_rows for part in ("hour", "weekday")] == [25, 8]
    assert [by_name[f"at:{part}"].width for part in ("hour", "age")] == [4, 1]
    assert {field.source for field in fields[:5]} == {"at"}


def test_the_numbers_of_rows_are_those_worked_by_hand():
    train = moments("2024-03-03", "2024-03-01T23:30", "1969-12-31T23:59:59", None)
    encoder = fit(config(), train)
    rows = encode(encoder, moments("2024-03-01T23:30", "1969-12-31T23:59:59", None, "2025-01-01"))
    assert rows.categorical[:, 0].tolist() == [24, 24, 0, 1]  # hours 23, 23, missing, 0
    assert rows.categorical[:, 1].tolist() == [5, 3, 0, 3]  # Friday, Wednesday, missing, Wednesday
    angle = 2 * math.pi * 60 / 366
    np.testing.assert_allclose(rows.numeric[0, :2], [math.sin(angle), math.cos(angle)], rtol=1e-6)
    np.testing.assert_allclose(rows.numeric[2:, :2], [[0, 0], [0, 1]], atol=1e-7)
    second = 1 / 86_400
    ages = np.log1p([0, 1 + 0.5 / 24, 19785 + second])
    scaled = [(math.log1p(age) - ages.mean()) / ages.std() for age in (1 + 0.5 / 24, 19785, 0)]
    np.testing.assert_allclose(rows.numeric[[0, 1, 3], 2], scaled, rtol=1e-5)
    assert rows.numeric[2, 2] == 0  # the mean


def test_newest_time_and_scale_are_of_train_rows_whatever_the_block():
    rng = np.random.default_rng(0)
    at = pa.array(rng.integers(0, 10**9, 500), pa.timestamp("s"))
    train = list(range(0, 500, 3))
    whole = fit(config(), at, train).clocks["at"]
    assert whole.newest == max(at.cast(pa.int64()).to_numpy()[train]) / 86_400
    for block in (1, 7, 100):
        assert fit(config(), at, train, block).clocks["at"] == whole
    alone = fit(config(), at.take(pa.array(train))).clocks["at"]
    assert alone.newest == whole.newest
    assert alone.age.shift == pytest.approx(whole.age.shift)


def test_without_a_train_time_every_age_is_the_mean():
    encoder = fit(config(), pa.array([None, None], BERLIN))
    assert encoder.clocks["at"].newest is None
    assert encode(encoder, moments("2024-01-01")).numeric[0, 2] == 0
    assert len(fit(config(), pa.nulls(3)).fields) == 6


def test_default_parts_follow_the_column():
    def names(given: DataConfig, at: pa.Array) -> list[str]:
        return [field.name.removeprefix("at:") for field in fit(given, at).fields[:-1]]

    days = pa.array([dt.date(2024, 1, 1), dt.date(2024, 1, 2)])
    assert names(config(), days) == ["weekday", "day_sin", "day_cos", "age"]
    assert names(config({"kind": "time", "unit": "s"}), pa.array([1, 2]))[0] == "hour"
    with pytest.raises(SchemaError, match=r"'at' must hold times of day, .* got date32\[day\] in"):
        fit(config({"kind": "time", "parts": ["hour"]}), days)


def test_hours_are_those_of_the_zone_that_was_fitted():
    at = moments("2024-01-01T12:00", "2024-07-01T12:00", dtype=BERLIN)
    encoder = fit(config({"kind": "time", "parts": ["hour"]}), at)
    for zone in ("Europe/Berlin", "UTC", "America/New_York", None):
        again = at.view(pa.int64()).view(pa.timestamp("us", zone))
        assert encode(encoder, again).categorical[:, 0].tolist() == [14, 15]  # 13 and 14 o'clock
    naive = fit(config({"kind": "time", "parts": ["hour"]}), at.cast(pa.timestamp("us")))
    assert encode(naive, at).categorical[:, 0].tolist() == [13, 13]
    days = pa.array([dt.date(2024, 1, 1)])
    assert encode(encoder, days).categorical[0, 0] == 1


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("at", "feature", "told"),
    [
        (pa.array([1, 2]), "time", "have a unit, s, ms, us or ns, .*unit: ms.* got int64 in"),
        (
            pa.array([1.0, 2.0]),
            {"kind": "time", "unit": "s"},
            "be a .* integers with a unit.* got double",
        ),
        (pa.array(["2024-01-01"]), "time", "be a date, a timestamp, .* got string in"),
        (pa.array([True]), "time", "be a date, a timestamp, .* got bool in"),
        (pa.array([[1]]), "time", "hold one value a row"),
        (moments("2024-01-01"), {"kind": "time", "unit": "s"}, "hold integers.*unit 's', got time"),
        (
            pa.array([0], pa.timestamp("s", "Mars/Base")),
            "time",
            "have a time zone .* got 'Mars/Base' in",
        ),
    ],
)
def test_a_column_of_another_type_is_refused_by_name(at, feature, told):
    with pytest.raises(SchemaError, match=rf"column 'at' must {told}.*{FILE}"):
        fit(config(feature), at)


def test_files_must_agree_on_the_zone():
    types = [{"at": pa.timestamp("s", zone), "tab": pa.string()} for zone in ("UTC", None)]
    kinds = value_kinds(config(), [("a", types[0]), ("b", types[1])], roles=())
    assert kinds["at"] == "timestamp"
    other = {**types[0], "at": BERLIN}
    message = r"one time zone in all files \(UTC in a\), got Europe/Berlin in b"
    with pytest.raises(SchemaError, match=message):
        value_kinds(config(), [("a", types[0]), ("b", other)], roles=())


@pytest.mark.parametrize(
    ("features", "told"),
    [
        ({"at": "time", "at:age": "numeric"}, "a part that is called 'at:age'"),
        ({"at": "time", "at:day_cos": "numeric"}, "a part that is called 'at:day_cos'"),
        ({"at": {"kind": "time", "parts": ["age", "age"]}}, "name each part once, got 'age'"),
        ({"at": {"kind": "time", "parts": ["minute"]}}, "minute"),
        ({"at": {"kind": "time", "parts": []}}, "at"),
        ({"at": {"kind": "time", "unit": "h"}}, "'h'"),
        ({"tab": "time"}, "is the domain and must be categorical"),
        ({"click": "time"}, "is the label"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(features, told):
    with pytest.raises(ConfigError, match=told):
        config(features=features)
    config(features={"at": {"kind": "time", "parts": ["hour"]}, "at:age": "numeric"})


# ---------------------------------------------------------------- on disk


def test_an_encoder_is_read_as_it_was_written(tmp_path: Path):
    at = moments("2024-01-01T12:00", "2024-07-01T12:00", None, dtype=BERLIN)
    encoder = fit(config(), at)
    encoder.save(tmp_path)
    again = Encoder.load(tmp_path)
    assert (again.clocks, again.fields) == (encoder.clocks, encoder.fields)
    np.testing.assert_array_equal(encode(again, at).numeric, encode(encoder, at).numeric)


def test_an_encoder_without_a_time_says_nothing_of_clocks(tmp_path: Path):
    fit(config(features={"tab": "categorical"}), moments("2024-01-01", "2024-01-02")).save(tmp_path)
    assert "clocks" not in json.loads((tmp_path / "encoder.json").read_text())
    assert Encoder.load(tmp_path).clocks == {}


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda clock: clock.update(zone="Mars/Base"), "zone of 'at' must be known"),
        (lambda clock: clock.update(zone=3), "zone of 'at' must be known"),
        (lambda clock: clock.update(parts=["minute"]), "parts of 'at' must be"),
        (lambda clock: clock.update(parts=["age"]), "parts of 'at' must be"),
        (lambda clock: clock.update(newest="soon"), "newest time of 'at' must be a finite"),
        (lambda clock: clock.update(newest=math.nan), "newest time of 'at' must be a finite"),
        (lambda clock: clock["age"].update(spread=0.0), "age of 'at' must have a finite log"),
        (lambda clock: clock["age"].update(scale="none"), "age of 'at' must have a finite log"),
        (lambda clock: clock.pop("zone"), "zone"),
        (lambda clock: clock["age"].update(more=1), "more"),
    ],
)
def test_a_damaged_clock_is_refused_by_name(
    damage: Callable[[dict[str, Any]], Any], told: str, tmp_path: Path
):
    given = config({"kind": "time", "parts": ["hour", "age"]})
    fit(given, moments("2024-01-01", "2024-01-02")).save(tmp_path)
    path = tmp_path / "encoder.json"
    content = json.loads(path.read_text())
    damage(content["clocks"]["at"])
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match=f"encoder is damaged.*{told}"):
        Encoder.load(tmp_path)


# ---------------------------------------------------------------- the dataset


def test_a_solo_knows_the_hours_of_its_rows_and_the_forest_reads_all_parts(tmp_path: Path):
    rows = 400
    rng = np.random.default_rng(0)
    tab = np.where(np.arange(rows) % 2, "a", "b")
    hour = np.where(tab == "a", rng.integers(0, 3, rows), rng.integers(9, 12, rows))
    at = pa.array(hour * 3600, pa.timestamp("s"))
    frame = pa.table(
        {"at": at, "tab": tab, "click": np.arange(rows) // 2 % 2, "n": rng.random(rows)}
    )
    features = {"n": "numeric", "at": {"kind": "time"}, "tab": "categorical"}
    given = config(features=features, split={"by": "time"}, time="at")
    with pytest.raises(SchemaError, match="every split"):
        Dataset.from_table(config(features=features), frame.slice(0, 1), cache=tmp_path)
    split_by_time = Dataset.from_table(given, frame, cache=tmp_path)
    assert np.ptp(split_by_time.rows("test").arrays.numeric[:, 3]) == 0  # every age is 0
    dataset = Dataset.from_table(config(features=features), frame, cache=tmp_path)
    known = Subset(dataset, domains=["a"]).masks
    assert known is not None
    assert np.flatnonzero(known.categorical[0]).tolist() == [1, 2, 3]
    fields = Dataset.from_table(config(features=features, trees=True), frame, cache=tmp_path)
    columns = ForestColumns.of(fields.encoder.fields)
    assert (columns.score, columns.categories) == (4, (0, 1))
