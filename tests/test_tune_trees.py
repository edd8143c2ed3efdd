"""tune() of trees: its space and portfolio, what it finds, and that fit has the same score."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import isthmus
from command_line import SRC
from forest_rows import forest_config, forest_table
from isthmus.config import Config, load_config
from isthmus.data import Dataset
from isthmus.errors import RunError
from isthmus.schema import Forest
from isthmus.tuning.forest_space import NO_PENALTY
from isthmus.tuning.portfolio import FOREST_PORTFOLIO
from isthmus.tuning.ranges import Bounds
from isthmus.tuning.space import Space, point
from isthmus.tuning.tune_plan import chosen_recipes


def written(folder: Path, table: pa.Table, **data: Any) -> Path:
    """The config file of trees on a table."""
    pq.write_table(table, folder / "table.parquet")
    config = forest_config(table="table.parquet", **data)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder / "config.yaml"


def checkers(rows: int = 6000) -> pa.Table:
    """The label follows the field of a board of 8 by 8 that a row lies on: few leaves cannot say it."""
    rng = np.random.default_rng(3)
    x, y = rng.random(rows), rng.random(rows)
    board = np.random.default_rng(4).random((8, 8)) < 0.5
    truth = board[(8 * x).astype(int), (8 * y).astype(int)]
    label = np.where(rng.random(rows) < 0.1, ~truth, truth)
    tab = rng.choice(["a", "b"], rows).tolist()
    return pa.table({"x": x, "y": y, "tab": tab, "click": label.astype(np.int8)})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Dataset]:
    config = load_config(forest_config())
    cache = tmp_path_factory.mktemp("cache")
    return config, Dataset.from_table(config.data, forest_table(), cache=cache)


def test_the_config_as_it_stands_is_a_point_of_the_space(dataset: tuple[Config, Dataset]):
    config, table = dataset
    for trees in (True, {"leaves": 500, "rate": 0.9, "least_rows": 1, "columns": 0.1, "l2": 1e-9}):
        own = load_config(config, [f"data.trees={json.dumps(trees)}"])
        space = Space.of(own, table)
        stands = point(space.config)
        assert list(stands) == list(space.parameters)
        assert all(space.parameters[key].holds(value) for key, value in stands.items())
        assert space.configured(stands) == space.config
        assert space.changes(stands) == {}
        leaves = own.data.forest.leaves or 31  # 1,800 train rows
        assert space.config.data.forest == own.data.forest.model_copy(update={"leaves": leaves})


def test_the_portfolio_begins_with_the_config_and_says_each_thing_once(
    dataset: tuple[Config, Dataset],
):
    config, table = dataset
    recipes, left_out = chosen_recipes(Space.of(config, table))
    assert [one.name for one in recipes] == [one.name for one in FOREST_PORTFOLIO]
    assert recipes[0].changes == {}
    assert left_out == {}
    few = load_config(config, ["data.trees.leaves=15"])
    _, left_out = chosen_recipes(Space.of(few, table))
    assert left_out == {"few leaves": "the same as 'as it stands'"}


@settings(max_examples=20)
@given(draw=st.data())
def test_every_point_is_a_config(dataset: tuple[Config, Dataset], draw: st.DataObject):
    space = Space.of(*dataset)
    assert len(space.parameters) == 5
    params = {}
    for key, of in space.parameters.items():
        assert isinstance(of, Bounds)
        numbers = st.integers(int(of.low), int(of.high)) if of.whole else st.floats(of.low, of.high)
        params[key] = draw.draw(numbers)
    found = space.configured(params)
    assert load_config(yaml.safe_load(found.to_yaml())) == found
    forest = found.data.trees
    assert isinstance(forest, Forest)
    l2 = params.pop("data.trees.l2")
    assert forest.l2 == (0.0 if l2 == NO_PENALTY else l2)
    assert {f"data.trees.{key}": of for key, of in forest if key != "l2"} == params
    without = found.model_dump(mode="json")
    without["data"]["trees"] = True
    assert without == space.config.model_dump(mode="json") | {"data": without["data"]}


def test_more_leaves_are_found_where_the_table_asks_for_them(tmp_path: Path):
    features = {"x": "numeric", "y": "numeric", "tab": "categorical"}
    config = written(
        tmp_path, checkers(), features=features, time=None, trees={"leaves": 3, "rate": 0.2}
    )
    study = isthmus.tune(config, tmp_path / "s", trials=8)
    best, trials = study.best, study.report["trials"]
    assert trials[0]["recipe"] == "as it stands"
    assert trials[0]["changes"] == {}
    assert best is not None
    assert best["changes"]["data.trees.leaves"] > 20
    assert best["score"] > trials[0]["score"] + 0.02
    assert load_config(config).data.forest.leaves == 3, "the user's file stays as it is"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, isthmus.Tuning, list[str]]:
    folder = tmp_path_factory.mktemp("tuned")
    heard: list[str] = []
    config = written(folder, forest_table(), group="user")
    study = isthmus.tune(
        config, folder / "s", trials=9, progress=lambda notice: heard.append(notice.text)
    )
    return config, study, heard


def test_best_yaml_is_fitted_to_the_score_that_the_study_saw(tuned: Any, tmp_path: Path):
    _, study, _ = tuned
    run = isthmus.fit(study.path / "best.yaml", out=tmp_path / "run")
    (look,) = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert study.best is not None
    assert look["auc_pooled"] == study.best["score"]
    assert run.config.data.forest.leaves == study.best["params"]["data.trees.leaves"]


def test_the_first_trial_is_the_forest_that_the_table_is_encoded_with(tuned: Any, tmp_path: Path):
    config, study, _ = tuned
    run = isthmus.fit(config, out=tmp_path / "run")
    (look,) = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert look["auc_pooled"] == study.report["trials"][0]["score"]


def test_the_plan_and_the_report_speak_of_the_forest(tuned: Any):
    _, study, heard = tuned
    plan = next(text for text in heard if text.startswith("tuning for 9 trials"))
    assert "6 recipes of the portfolio, then 3 trials of TPE" in plan
    assert "  data.trees.leaves: 8 to 256" in plan
    texts = [str(study), (study.path / "trials.md").read_text()]
    for text in (*texts, page := (study.path / "report.html").read_text()):
        assert "leaves 127" in text
    assert "at epoch" not in page
    assert all(trial["state"] == "complete" for trial in study.report["trials"])
    assert list(study.report["space"]) == list(study.report["as_it_stands"])


def test_a_study_of_another_forest_is_refused(tuned: Any):
    config, study, _ = tuned
    with pytest.raises(RunError, match=r"must go on with the config it began with.*data.trees was"):
        isthmus.tune(config, study.path, trials=9, set=["data.trees.leaves=9"])


@pytest.mark.soak
def test_a_study_that_is_killed_in_a_trial_ends_as_an_undisturbed_one(
    tuned: Any, tmp_path: Path, one_thread: None
):
    config, undisturbed, _ = tuned
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{SRC}{os.pathsep}{Path(__file__).parent}",
    }
    script, out = Path(__file__).with_name("tunes_to_kill.py"), tmp_path / "s"
    order = [sys.executable, str(script), str(config), str(out), "9", "8"]  # in a trial of TPE
    done = subprocess.run(order, env=environment, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(isthmus.Tuning.open(out).report["trials"]) == 7
    resumed = isthmus.tune(config, out, trials=9)
    for one, other in zip(resumed.report["trials"], undisturbed.report["trials"], strict=True):
        assert one | {"seconds": 0.0} == other | {"seconds": 0.0}
    assert (out / "best.yaml").read_bytes() == (undisturbed.path / "best.yaml").read_bytes()
