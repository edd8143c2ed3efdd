"""The detector: what it tells, by row and by group, and that no row with a domain ever changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import isthmus
from command_line import isthmus_in_process, told
from isthmus.bundle import served
from isthmus.data.tables import open_table
from isthmus.errors import BundleError, ConfigError, SchemaError
from small_runs import clicks, settings

pytestmark = pytest.mark.usefixtures("one_thread")

TABS = ("home", "mail", "search")


def table_of(rows: int = 3_000, *, seed: int = 0, numbers: bool = False) -> pa.Table:
    """Every user stays in one tab; a row's place tells the tab in half of the rows."""
    rng = np.random.default_rng(seed)
    home = rng.integers(3, size=400)
    user = rng.integers(400, size=rows)
    place = np.where(rng.random(rows) < 0.5, home[user], rng.integers(3, size=rows))
    click = rng.random(rows) < np.array([0.2, 0.5, 0.8])[home[user]]
    names = np.array([10, 20, 300]) if numbers else np.array(TABS)
    return pa.table(
        {
            "user": user.astype(np.int32),
            "place": place.astype(np.int32),
            "age": rng.normal(40, 10, rows),
            "tab": names[home[user]],
            "click": click.astype(np.int8),
        }
    )


def config_of(**model: Any) -> dict[str, Any]:
    return {
        "data": {
            "domain": "tab",
            "label": "click",
            "group": "user",
            "features": {
                "place": {"kind": "categorical", "dim": 4},
                "tab": {"kind": "categorical", "dim": 4},
                "age": "numeric",
            },
            "split": {"by": "user", "fractions": [0.6, 0.2, 0.2]},
        },
        "model": {
            "backbone": {"name": "mlp", "widths": [8]},
            "adapter": {"name": "mlora"},
            "detector": True,
            **model,
        },
        "train": {"batch_rows": 128, "epochs": 2, "lr": 0.01, "domain_dropout": 0.1},
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> isthmus.Run:
    folder = tmp_path_factory.mktemp("detector")
    pq.write_table(table_of(), folder / "rows.parquet")
    return isthmus.fit(config_of(), folder / "rows.parquet", folder / "run")


def nameless(table: pa.Table, where: np.ndarray | None = None) -> pa.Table:
    """The table with no tab in the rows of ``where``, or in any."""
    where = np.ones(table.num_rows, bool) if where is None else where
    place = table.schema.get_field_index("tab")
    column = pa.array(table["tab"].to_pylist(), table["tab"].type, mask=where)
    return table.set_column(place, "tab", column)


def told_by(run: isthmus.Run, table: Any, by: Any) -> list[str | None]:
    blocks = run.bundle.score_blocks(table, detect_domain=by)
    return [name for one in blocks if one.told is not None for name in one.told.to_pylist()]


def test_a_group_is_told_better_than_a_row(run: isthmus.Run):
    new = table_of(seed=0).slice(0, 3_000)
    truth = new["tab"].to_pylist()
    right = {
        by: np.mean([a == b for a, b in zip(told_by(run, nameless(new), by), truth, strict=True)])
        for by in ("row", "group")
    }
    # A row tells in 2 of 3 rows at most, and some seven rows of a user nearly always.
    assert 0.55 < right["row"] < 0.75
    assert right["group"] > 0.85
    assert run.bundle.detector is not None
    assert 0.5 < run.bundle.detector.accuracy < 0.8
    assert "- Detector: told the domain of " in (run.path / "report.md").read_text()


def test_rows_with_a_domain_keep_every_bit(run: isthmus.Run, tmp_path: Path):
    table = table_of(500, seed=0)
    where = np.arange(500) % 3 == 0
    plain = run.predict(table)
    for by in ("row", "group"):
        assert np.array_equal(run.predict(table, detect_domain=by), plain)
        found = run.predict(nameless(table, where), detect_domain=by)
        assert np.array_equal(found[~where], plain[~where])
        assert set(np.flatnonzero([name is not None for name in told_by(
            run, nameless(table, where), by)])) == set(np.flatnonzero(where))  # fmt: skip
    without = isthmus.fit(config_of(detector=False), table_of(), tmp_path / "run")
    assert np.array_equal(without.predict(table), plain), "the model is the same without a detector"
    with pytest.warns(UserWarning, match="null"):
        hidden = run.predict(nameless(table))
    with pytest.warns(UserWarning, match="null"):
        assert np.array_equal(without.predict(nameless(table)), hidden)


@pytest.mark.parametrize("by", ["row", "group"])
def test_what_is_told_is_scored_as_if_the_row_had_said_it(run: isthmus.Run, by: Any):
    table = nameless(table_of(400, seed=0))
    names = told_by(run, table, by)
    written = table.set_column(table.schema.get_field_index("tab"), "tab", pa.array(names))
    assert np.array_equal(run.predict(table, detect_domain=by), run.predict(written))


def test_a_group_is_its_rows_mean_log_chance(run: isthmus.Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(served, "BLOCK_ROWS", 64)  # groups reach over blocks
    where = np.arange(600) % 4 != 0
    table = nameless(table_of(600, seed=0), where)
    bundle = run.bundle
    assert bundle.detector is not None
    (block,) = open_table(table).blocks(table.column_names)
    chances = bundle.detector.log_chances(
        bundle.encoder.encode(block.batch, 0, "", roles=()).batch()
    )
    users, names = table["user"].to_numpy(), told_by(run, table, "group")
    for user in np.unique(users):
        of = (users == user) & where
        if of.any():
            expected = bundle.domains[int(chances[of].mean(0).argmax())]
            assert {names[place] for place in np.flatnonzero(of)} == {expected}


def test_a_bundle_carries_its_detector(run: isthmus.Run, tmp_path: Path):
    bundle = isthmus.Bundle.load(run.path / "bundle")
    table = nameless(table_of(200, seed=0))
    bundle.save(tmp_path / "again")
    again = isthmus.Bundle.load(tmp_path / "again")
    for by in ("row", "group"):
        scores = bundle.score(table, detect_domain=by)
        assert np.array_equal(again.score(table, detect_domain=by), scores)
        assert np.array_equal(run.predict(table, detect_domain=by), scores)
    assert not [file for file in (run.path / "bundle").rglob("*") if file.suffix in (".pkl", ".pt")]


def test_a_column_of_numbers_of_nulls_and_of_text_files_is_filled(tmp_path: Path):
    numbers = table_of(1_000, numbers=True)
    run = isthmus.fit(config_of(), numbers, tmp_path / "run")
    table = nameless(numbers.slice(0, 200))
    names = told_by(run, table, "row")
    assert set(names) <= {"10", "20", "300"}
    scores = run.predict(table, detect_domain="row")
    place = table.schema.get_field_index("tab")
    for column in (
        pa.nulls(200),
        table["tab"].cast(pa.float64()),
        table["tab"].cast(pa.int16()),
        table["tab"].combine_chunks().dictionary_encode(),
    ):
        other = table.set_column(place, "tab", column)
        assert np.array_equal(run.predict(other, detect_domain="row"), scores)
    half = nameless(numbers.slice(0, 200), np.arange(200) % 2 == 0)
    pyarrow.csv.write_csv(half, tmp_path / "half.csv")
    run.predict_to(tmp_path / "half.csv", tmp_path / "out.csv", detect_domain="row")
    written = pyarrow.csv.read_csv(tmp_path / "out.csv")
    assert written["score"].to_numpy()[::2] == pytest.approx(scores[::2])
    assert written["detected_domain"].null_count == 100
    assert written["tab"].null_count == 100, "the column itself stays as it was"


def test_the_commands_tell(run: isthmus.Run, tmp_path: Path):
    table = table_of(300, seed=0)
    pq.write_table(nameless(table), tmp_path / "new.parquet")
    out = tmp_path / "out.parquet"
    words = ("predict", run.path, tmp_path / "new.parquet", "-o", out, "--detect-domain", "group")
    result = isthmus_in_process(*words)
    assert result.exit_code == 0, result.output
    written = pq.read_table(out)
    assert written.column_names == [*table.column_names, "score", "detected_domain"]
    assert set(written["detected_domain"].to_pylist()) <= set(TABS)
    pq.write_table(table, tmp_path / "named.parquet")
    shown = isthmus_in_process(
        "evaluate", run.path, "--data", tmp_path / "named.parquet", "--domain-as", "detected"
    )
    assert shown.exit_code == 0, shown.output
    assert "domain told row by row" in shown.output
    refused = isthmus_in_process(*words[:4], tmp_path / "other.parquet", *words[5:6], "user")
    assert "--detect-domain must be row or group, got 'user'" in told(refused)


def test_what_cannot_be_told_is_refused(run: isthmus.Run, tmp_path: Path):
    table = nameless(table_of(50, seed=0))
    taken = table.append_column("detected_domain", table["user"])
    with pytest.raises(SchemaError, match="'detected_domain' must not be in the table yet"):
        run.predict_to(taken, tmp_path / "out.parquet", detect_domain="row")
    with pytest.raises(BundleError, match="detect_domain must be row or group, got 'user'"):
        run.predict(table, detect_domain="user")  # pyright: ignore[reportArgumentType]
    plain = isthmus.fit(settings(epochs=1), clicks(), tmp_path / "plain")
    with pytest.raises(BundleError, match="got one without a detector"):
        plain.predict(clicks(), detect_domain="row")
    ungrouped = config_of()
    del ungrouped["data"]["group"]
    ungrouped["data"]["split"] = {"by": "random"}
    other = isthmus.fit(ungrouped, table_of(), tmp_path / "other")
    with pytest.raises(ConfigError, match=r"where data\.group names its column"):
        other.predict(table, detect_domain="group")


def test_nothing_to_tell_and_nothing_to_tell_by_are_refused_before_training(tmp_path: Path):
    one = table_of().filter(pc.field("tab") == "home")
    with pytest.raises(ConfigError, match="of 2 or more with train rows, got 1"):
        isthmus.fit(config_of(), one, tmp_path / "run")
    bare = config_of()
    bare["data"]["features"] = {"tab": "categorical"}
    with pytest.raises(ConfigError, match="got none beside the domain"):
        isthmus.fit(bare, table_of(), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"model\.detector needs 20 train rows, got"):
        isthmus.fit(config_of(), table_of(25), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_trees_and_guarded_runs_ship_a_detector_too(tmp_path: Path):
    table = table_of(1_500)
    trees = config_of()
    trees["model"] = {"name": "trees", "detector": True}
    of_trees = isthmus.fit(trees, table, tmp_path / "trees")
    short = config_of()
    short["train"]["epochs"] = 1
    guarded = isthmus.fit(short, table, tmp_path / "guarded", guard="balanced")
    named = table.slice(0, 100)
    for run in (of_trees, guarded):
        bundle = isthmus.Bundle.load(run.path / "bundle")
        assert bundle.detector is not None
        names = told_by(run, nameless(named), "group")
        place = named.schema.get_field_index("tab")
        written = named.set_column(place, "tab", pa.array(names))
        assert np.array_equal(
            run.predict(nameless(named), detect_domain="group"), run.predict(written)
        )
        assert np.array_equal(run.predict(named, detect_domain="row"), run.predict(named))
