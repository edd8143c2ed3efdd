"""Every command on trees alone: fit, resume, predict, evaluate, compare, guard, tune."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from scipy.special import expit, logit

import isthmus
from command_line import SRC, isthmus_in_process, told
from forest_rows import forest_config, forest_table
from isthmus.bundle import Bundle
from isthmus.errors import BundleError
from small_runs import content

FOREST_FILE = Path("encoder") / "taught.trees.txt"
MLP = {"backbone": {"name": "mlp", "widths": [8]}}
QUICK = {"epochs": 1, "batch_rows": 256}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config file beside its table."""
    folder = tmp_path_factory.mktemp("trees")
    pq.write_table(forest_table(), folder / "clicks.parquet")
    (folder / "config.yaml").write_text(yaml.safe_dump(forest_config(table="clicks.parquet")))
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def fitted(config: Path) -> isthmus.Run:
    """What ``isthmus fit`` made, and said."""
    out = config.parent / "run"
    found = isthmus_in_process("fit", config, "--out", out, "--set", "model.calibration=per_domain")
    assert found.exit_code == 0, found.output
    assert "nothing is left to learn: the forest was grown with the encoded table" in found.stderr
    assert "pooled" in found.stdout
    return isthmus.Run.open(out)


def logits_of(path: Path) -> np.ndarray:
    return np.asarray(isthmus.Run.open(path).scored("test").logits)


def test_the_run_says_what_it_is(fitted: isthmus.Run):
    state = fitted.state
    assert (state.parameters, state.steps, state.stopped) == (0, 0, "no parameters")
    report = (fitted.path / "report.md").read_text()
    forest = lightgbm.Booster(model_file=str(fitted.path / "bundle" / FOREST_FILE))
    assert f"a forest of {forest.num_trees()} trees, calibration per_domain" in report
    assert "Embedding update" not in report
    area = fitted.evaluate().pooled.auc
    assert area is not None
    assert area > 0.75


def test_the_same_table_gives_the_same_bundle(config: Path, fitted: isthmus.Run, tmp_path: Path):
    again = isthmus.fit(
        config, out=tmp_path / "run", cache=tmp_path / "cache", set=["model.calibration=per_domain"]
    )
    first, second = (content(run.path / "bundle") for run in (fitted, again))
    assert first == second


def test_the_bundle_scores_as_the_run_did(fitted: isthmus.Run):
    bundle = Bundle.load(fitted.path / "bundle")
    assert bundle.calibration is not None
    for split in ("validation", "test"):
        scored = fitted.scored(split)
        found = bundle.logits(forest_table())[scored.row]
        np.testing.assert_allclose(found, scored.logits, atol=1e-5)
    alone = np.concatenate([bundle.score(forest_table().slice(row, 1)) for row in range(5)])
    np.testing.assert_allclose(alone, bundle.score(forest_table())[:5], atol=1e-6)


def test_another_process_opens_the_bundle(fitted: isthmus.Run, tmp_path: Path):
    path = tmp_path / "rows.parquet"
    pq.write_table(forest_table().slice(0, 50), path)
    code = (
        "import sys; from isthmus.bundle import Bundle;"
        "print(*Bundle.load(sys.argv[1]).score(sys.argv[2]))"
    )
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(fitted.path / "bundle"), str(path)],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=True,
    )
    scores = [float(word) for word in found.stdout.split()]
    np.testing.assert_allclose(scores, fitted.predict(forest_table().slice(0, 50)), rtol=1e-9)


def test_a_damaged_forest_is_refused(fitted: isthmus.Run, tmp_path: Path):
    for path, held in content(fitted.path / "bundle").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(held)
    Bundle.load(tmp_path)
    forest = tmp_path / FOREST_FILE
    whole = forest.read_text()
    forest.write_text(whole.replace("leaf_value=", "leaf_value=1", 1))
    with pytest.raises(BundleError, match=r"encoder/taught\.trees\.txt is damaged"):
        Bundle.load(tmp_path)
    forest.unlink()
    with pytest.raises(BundleError, match=r"encoder/taught\.trees\.txt is missing"):
        Bundle.load(tmp_path)


def test_predict_and_evaluate_take_a_table(fitted: isthmus.Run, config: Path, tmp_path: Path):
    table = config.parent / "clicks.parquet"
    scored = tmp_path / "scored.parquet"
    found = isthmus_in_process("predict", fitted.path, table, "-o", scored)
    assert found.exit_code == 0, found.output
    scores = pq.read_table(scored)["score"].to_numpy()
    np.testing.assert_allclose(scores, fitted.predict(forest_table()), atol=1e-12)
    found = isthmus_in_process("evaluate", fitted.path, "--data", table, "--json", "-")
    assert found.exit_code == 0, found.output
    assert "external" in found.stdout


def test_domains_that_were_not_trained_have_an_answer(fitted: isthmus.Run):
    table = forest_table().slice(0, 4)
    place = table.column_names.index("tab")
    strange = table.set_column(place, "tab", pa.array(["mars", None, "a", "b"]))
    with pytest.warns(UserWarning, match="never trained"):
        scores = fitted.predict(strange)
    assert np.isfinite(scores).all()


def test_trees_and_a_network_are_compared(fitted: isthmus.Run, config: Path, tmp_path: Path):
    table = config.parent / "clicks.parquet"
    network = forest_config(table=str(table)) | {"model": MLP, "train": QUICK}
    other = isthmus.fit(network, out=tmp_path / "mlp")
    found = isthmus_in_process("compare", other.path, fitted.path)
    assert found.exit_code == 0, found.output
    assert "b - a, a = mlp, b = run" in found.stdout


def test_a_stopped_fit_begins_again(config: Path, tmp_path: Path):
    run = isthmus.fit(config, out=tmp_path / "run")
    logits = logits_of(run.path)
    file = run.path / "run.json"
    stopped = json.loads(file.read_text()) | {"state": "running"}
    file.write_text(json.dumps(stopped))
    for left in ("bundle/weights.safetensors", "report.md"):
        (run.path / left).unlink()
    again = isthmus.fit(config, out=run.path, resume=True)
    np.testing.assert_array_equal(logits_of(again.path), logits)
    assert Bundle.load(again.path / "bundle")


def test_weights_and_a_negative_rate_are_heeded(tmp_path: Path):
    rng = np.random.default_rng(1)
    table = forest_table().append_column("w", pa.array(rng.choice([0.5, 2.0], 3000)))
    changed = forest_config(weight="w", negative_rate=0.25)
    run = isthmus.fit(changed, table, out=tmp_path / "run", cache=tmp_path / "cache")
    scored = run.scored("test")
    train = isthmus.Dataset.from_table(run.config.data, table, cache=tmp_path / "cache")
    rows = train.rows("train")
    assert rows.weight is not None
    start = float(logit(np.average(rows.label, weights=rows.weight)))
    model = run.bundle.model
    assert float(next(model.buffers())) == pytest.approx(start, abs=1e-6)
    expected = expit(np.asarray(scored.logits) + np.log(0.25))
    np.testing.assert_allclose(run.predict(table)[scored.row], expected, atol=1e-6)


@pytest.fixture(scope="module")
def guarded(config: Path) -> isthmus.Run:
    return isthmus.fit(config, out=config.parent / "guarded", guard="strict")


def test_a_guard_ships_forests_of_a_domains_own_rows(guarded: isthmus.Run):
    told = json.loads((guarded.path / "guard.json").read_text())
    # So few rows prove nothing: strict leaves each domain alone.
    assert {domain["arm"] for domain in told["domains"].values()} == {"solo"}
    assert told["trainings"] == {"trained": 4, "cached": 0}  # joint and three solos
    for domain in told["domains"].values():
        assert set(domain["standings"]) == {"joint"}
        assert set(domain["test"]["auc"]) == {"solo", "joint", "served"}
    assert guarded.bundle.routes == {name: f"solo:{name}" for name in "abc"}
    files = content(guarded.path / "bundle")
    forests = {files[str(Path("parts") / f"{number}.trees.txt")] for number in range(3)}
    assert len(forests | {files[str(FOREST_FILE)]}) == 4
    scored = guarded.scored("test")
    found = guarded.bundle.logits(forest_table())[scored.row]
    np.testing.assert_allclose(found, scored.logits, atol=1e-5)
    report = (guarded.path / "report.md").read_text()
    assert "no domain is adapted or tuned; a solo is the forest of its own rows" in report
    assert "served by" in str(guarded.guard())


def test_a_damaged_forest_of_a_part_is_refused(guarded: isthmus.Run, tmp_path: Path):
    for path, held in content(guarded.path / "bundle").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(held)
    forest = tmp_path / "parts" / "1.trees.txt"
    forest.write_bytes(forest.read_bytes()[:-40])
    with pytest.raises(BundleError, match=r"parts/1\.trees\.txt is damaged"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            ["model.backbone.name=mlp"],
            "model.backbone must be left out where model.name is 'trees'",
        ),
        (["data.trees=false"], "data.trees must be true where model.name is 'trees', got false"),
        (
            ["data.features.user.hash_buckets=300", "data.features.user.statistics=false"],
            "trees must read every feature, but 'user' has 301 ids, more than 256, without"
            " statistics: true",
        ),
    ],
)
def test_a_refused_fit_says_why_and_leaves_no_folder(
    config: Path, tmp_path: Path, changes: list[str], text: str
):
    words: list[Any] = ["fit", config, "--out", tmp_path / "run"]
    found = isthmus_in_process(*words, *(word for one in changes for word in ("--set", one)))
    assert text in " ".join(told(found).split())
    assert not (tmp_path / "run").exists()
