"""Times from config to served score: planted hours and weekdays, a guard, a diagnosis, evaluation."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

import isthmus
from isthmus.bundle import Bundle
from isthmus.run.scores import read_scores

ROWS = 4_000
ZONE = "America/New_York"
ISO = "%Y-%m-%dT%H:%M:%S%:z"  # what pandas writes; polars leaves the colon out


def log(rows: int = ROWS, seed: int = 0) -> pl.DataFrame:
    """Clicks from 6 to 18 o'clock in New York, and more of them on Sundays."""
    rng = np.random.default_rng(seed)
    second = rng.integers(1_640_000_000, 1_700_000_000, rows)
    utc = pl.from_epoch(pl.Series(second), time_unit="s").dt.replace_time_zone("UTC")
    at = utc.dt.convert_time_zone(ZONE).dt.cast_time_unit("us")
    hour, weekday = at.dt.hour().to_numpy(), at.dt.weekday().to_numpy()
    chance = np.where((hour >= 6) & (hour < 18), 0.8, 0.1) + np.where(weekday == 7, 0.15, 0)
    return pl.DataFrame(
        {
            "at": at,
            "ms": second * 1000,
            "tab": rng.choice(["home", "search"], rows, p=[0.5, 0.5]),
            "click": (rng.random(rows) < chance).astype(np.int8),
        }
    )


def settings(*, epochs: int = 6, batch_rows: int = 128, **data: object) -> dict[str, object]:
    return {
        "data": {
            "domain": "tab",
            "label": "click",
            "time": "at",
            "features": {
                "at": {"kind": "time", "parts": ["hour", "weekday"], "dim": 4},
                "tab": {"kind": "categorical", "dim": 2},
                "ms": {"kind": "time", "unit": "ms", "parts": ["day", "age"]},
            },
            "split": {"by": "random", "fractions": [0.6, 0.2, 0.2]},
            **data,
        },
        "model": {"backbone": {"name": "mlp", "widths": [8]}, "adapter": {"name": "none"}},
        "train": {"batch_rows": batch_rows, "epochs": epochs, "lr": 0.01},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("times")


@pytest.fixture(scope="module")
def run(folder: Path) -> isthmus.Run:
    pq.write_table(log().to_arrow(), folder / "log.parquet")
    log().write_csv(folder / "log.csv", datetime_format=ISO)
    return isthmus.fit(
        settings(table=str(folder / "log.parquet")), out=folder / "run", cache=folder / "cache"
    )


def test_planted_hours_and_weekdays_are_found(run: isthmus.Run):
    scored = read_scores(run.path / "scores" / "validation.parquet")
    at = log()["at"].gather(scored.row)
    sunday = (at.dt.weekday() == 7).to_numpy()
    daytime = ((at.dt.hour() >= 6) & (at.dt.hour() < 18)).to_numpy()
    best = np.where(daytime, 0.8, 0.1) + np.where(sunday, 0.15, 0)

    def auc(score: np.ndarray) -> float:
        one, none = score[scored.label], score[~scored.label]
        return float(np.mean((one[:, None] > none) + 0.5 * (one[:, None] == none)))

    assert auc(scored.logits) > auc(best) - 0.03 > 0.8


def test_parquet_csv_and_other_zones_score_as_the_dataset_does(run: isthmus.Run, folder: Path):
    bundle = Bundle.load(run.path / "bundle")
    assert bundle.encoder.clocks["at"].zone == ZONE
    logits = bundle.logits(folder / "log.parquet")
    for split in ("validation", "test"):
        scored = read_scores(run.path / "scores" / f"{split}.parquet")
        np.testing.assert_allclose(logits[scored.row], scored.logits, atol=1e-5)
    np.testing.assert_array_equal(bundle.logits(folder / "log.csv"), logits)
    for column in (
        pl.col("at").dt.convert_time_zone("Asia/Kolkata"),
        pl.col("at").dt.convert_time_zone("UTC").dt.replace_time_zone(None),
        pl.col("at").dt.cast_time_unit("ns"),
    ):
        np.testing.assert_array_equal(bundle.logits(log().with_columns(column)), logits)
    np.testing.assert_allclose(bundle.logits(log()[7:8]), logits[7:8], atol=1e-6)
    empty = log()[:1].with_columns(pl.lit(None, pl.Datetime("us", "UTC")).alias("at"))
    assert np.isfinite(bundle.logits(empty)).all()


def test_rows_that_fit_never_saw_are_evaluated(run: isthmus.Run, folder: Path):
    log(800, seed=1).write_parquet(folder / "new.parquet")
    report = run.evaluate(data=folder / "new.parquet")
    assert report.pooled.auc > 0.8  # pyright: ignore[reportOptionalOperand]


def test_memory_follows_the_block_and_not_the_table(folder: Path):
    config = isthmus.load_config(settings())
    one, many = (
        isthmus.Dataset.from_table(
            config.data, log(), cache=folder / f"cache-{block}", block_rows=block
        )
        for block in (10_000, 97)
    )
    assert one.encoder.clocks == many.encoder.clocks
    for split in ("train", "test"):
        for name in ("categorical", "numeric"):
            left, right = (getattr(each.rows(split).arrays, name) for each in (one, many))
            np.testing.assert_array_equal(left, right)


def test_a_guard_ships_a_model_that_reads_times(folder: Path):
    guarded = isthmus.fit(
        settings(epochs=1),
        log(800),
        out=folder / "guard",
        cache=folder / "cache",
        guard="balanced",
    )
    scored = read_scores(guarded.path / "scores" / "test.parquet")
    logits = Bundle.load(guarded.path / "bundle").logits(log(800))
    np.testing.assert_allclose(logits[scored.row], scored.logits, atol=1e-5)


@pytest.mark.truth
def test_a_diagnosis_measures_times_and_takes_no_part_for_an_item(folder: Path):
    config = settings(epochs=1, batch_rows=1024)
    given = {"config": config, "table": log(1_400), "cache": folder / "cache"}
    found = isthmus.diagnose(**given, out=folder / "out", level="quick")
    assert set(found.report["domains"]) == {"home", "search"}
    assert all(one["auc"]["net"] is not None for one in found.report["domains"].values())
    with pytest.raises(isthmus.ConfigError, match="item must be a categorical feature"):
        isthmus.diagnose(**given, out=folder / "item", level="quick", item="at:hour")
