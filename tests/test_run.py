"""Runs: what a fit leaves on disk, and what can be asked of it afterwards."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import isthmus
from isthmus.data.tables import table as table_module
from isthmus.errors import RunError, SchemaError
from isthmus.run import Notice
from small_runs import ROWS, clicks, content, settings, weights, write_table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def run(table: Path) -> isthmus.Run:
    return isthmus.fit(settings(), table, out=table.parent / "run", cache=table.parent / "cache")


def test_a_run_folder_holds_what_it_promises(run: isthmus.Run):
    names = set(content(run.path))
    assert {"config.yaml", "run.json", "metrics.jsonl", "report.md", "bundle/bundle.json"} <= names
    assert {"scores/test.parquet", "scores/validation.parquet"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not [name for name in names if "part-" in name or name.endswith(".tmp")]
    state = json.loads((run.path / "run.json").read_text())
    assert state["state"] == "finished"
    assert state["domains"] == ["home", "mail", "search"]
    assert state["threads"] == torch.get_num_threads()


def test_the_saved_config_is_resolved_and_reads_back(run: isthmus.Run):
    assert run.config.train.embedding_update == "dense", "auto must be resolved"
    assert isthmus.load_config(run.path / "config.yaml") == run.config
    assert "Embedding update: dense" in (run.path / "report.md").read_text()


def test_each_look_stands_once_in_the_metrics(run: isthmus.Run):
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps))
    assert len(steps) == 4, "two looks in each of two epochs"
    best = max(lines, key=lambda line: line["auc_pooled"])
    assert best["step"] == run.state.best_step


def test_scores_belong_to_the_rows_of_the_table(run: isthmus.Run):
    scored = {split: run.scored(split) for split in ("validation", "test")}
    raw = clicks()
    for rows in scored.values():
        assert (rows.label == (raw["click"].to_numpy()[rows.row] == 1)).all()
        names = np.array(rows.names)[rows.domain - 1]
        assert (names == np.array(raw["tab"].to_pylist())[rows.row]).all()
    assert not set(scored["test"].row) & set(scored["validation"].row)
    file = pq.read_table(run.path / "scores" / "test.parquet")
    assert file.column_names == ["row", "domain", "label", "logit", "group"]


def test_the_scores_are_those_of_the_best_look(run: isthmus.Run):
    looks = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    best = next(look for look in looks if look["step"] == run.state.best_step)
    assert run.evaluate("validation").pooled.auc == pytest.approx(best["auc_pooled"], abs=1e-9)


def test_two_runs_with_one_seed_are_equal_and_with_another_seed_are_not(
    run: isthmus.Run, table: Path, tmp_path: Path
):
    again = isthmus.fit(settings(), table, out=tmp_path / "again")
    other = isthmus.fit(settings(seed=1), table, out=tmp_path / "other")
    assert weights(again) == weights(run)
    assert weights(other) != weights(run)
    # The split does not follow the training seed.
    assert (other.scored().row == run.scored().row).all()


def test_a_frame_trains_like_the_file_it_was_read_from(
    run: isthmus.Run, table: Path, tmp_path: Path
):
    for name, frame in {"polars": pl.read_parquet(table), "pandas": pd.read_parquet(table)}.items():
        from_frame = isthmus.fit(settings(), frame, out=tmp_path / name)
        assert weights(from_frame) == weights(run)


def test_evaluate_names_its_split(run: isthmus.Run, table: Path):
    test, external = run.evaluate(), run.evaluate(data=table)
    assert (test.split, external.split) == ("test", "external")
    assert external.pooled.rows == ROWS
    assert list(test.domains) == ["home", "mail", "search"]
    assert test.pooled.rows == len(run.scored())
    assert str(test).startswith("run: test split")
    with pytest.raises(RunError, match="split must be test or validation, got 'train'"):
        run.evaluate("train")


def test_an_external_table_of_the_test_rows_gives_the_test_metrics(run: isthmus.Run):
    rows = clicks().take(pa.array(run.scored().row))
    inside, outside = run.evaluate(), run.evaluate(data=rows)
    assert outside.pooled.auc == pytest.approx(inside.pooled.auc, abs=1e-6)
    assert outside.pooled.auc_ci == pytest.approx(inside.pooled.auc_ci, abs=1e-6)
    assert outside.domains["mail"].logloss == pytest.approx(
        inside.domains["mail"].logloss, abs=1e-6
    )


def test_a_run_is_opened_by_another_process_from_its_folder_alone(run: isthmus.Run):
    opened = isthmus.Run.open(str(run.path))
    assert opened.evaluate() == run.evaluate()
    assert opened.config == run.config


def test_predict_keeps_rows_and_columns_and_agrees_with_the_bundle(
    run: isthmus.Run, table: Path, tmp_path: Path
):
    out = tmp_path / "scored.parquet"
    assert run.predict_to(table, out) == ROWS
    scored = pq.read_table(out)
    assert scored.drop_columns(["score"]).equals(clicks())
    np.testing.assert_allclose(scored["score"], run.predict(table), atol=1e-6)
    np.testing.assert_allclose(run.bundle.score(clicks()), run.predict(table), atol=1e-6)


def test_predict_needs_no_label_and_refuses_to_write_over(run: isthmus.Run, tmp_path: Path):
    out = tmp_path / "scored.parquet"
    run.predict_to(clicks().drop_columns(["click"]), out)
    before = out.read_bytes()
    with pytest.raises(RunError, match="file to write must not exist yet, got"):
        run.predict_to(clicks(), out)
    assert out.read_bytes() == before
    with pytest.raises(SchemaError, match="column 'score' must not be in the table yet"):
        run.predict_to(pq.read_table(out), tmp_path / "other.parquet")
    with pytest.raises(RunError, match="folder of the file to write must exist"):
        run.predict_to(clicks(), tmp_path / "none" / "other.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["scored.parquet"]


def test_a_fault_in_the_middle_of_a_prediction_leaves_no_file(
    run: isthmus.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("isthmus.bundle.served.BLOCK_ROWS", 100)
    ages = clicks()["age"].to_numpy().copy()
    ages[1_000] = np.inf
    broken = clicks().set_column(3, "age", pa.array(ages))
    with pytest.raises(SchemaError, match=r"column 'age' must be finite, got inf .*row 1000"):
        run.predict_to(broken, tmp_path / "scored.parquet")
    assert list(tmp_path.iterdir()) == []


def test_domains_that_were_never_trained_are_reported_and_scored(run: isthmus.Run, tmp_path: Path):
    tabs: list[Any] = clicks()["tab"].to_pylist()
    tabs[5], tabs[6], tabs[9] = "mars", "mars", None
    strange = clicks().set_column(2, "tab", pa.array(tabs))
    pq.write_table(strange, tmp_path / "strange.parquet")
    told = (
        r"column 'tab' holds domains that were never trained: 'mars' \(2 rows, first in"
        r" strange\.parquet, row 5\), null \(1 row, first in strange\.parquet, row 9\); .*unknown"
    )
    with pytest.warns(UserWarning, match=told):
        run.predict_to(tmp_path / "strange.parquet", tmp_path / "out.parquet")
    score = pq.read_table(tmp_path / "out.parquet")["score"].to_numpy()
    assert np.isfinite(score).all()
    with pytest.warns(UserWarning, match="'mars'"):
        evaluation = run.evaluate(data=tmp_path / "strange.parquet")
    assert evaluation.domains["mars"].rows == 2
    assert evaluation.pooled.rows == ROWS


def test_compare_is_paired_and_antisymmetric(run: isthmus.Run, table: Path, tmp_path: Path):
    other = isthmus.fit(settings(seed=1), table, out=tmp_path / "other")
    forth, back = isthmus.compare(run, other), isthmus.compare(other.path, run.path)
    assert (forth.a, forth.b) == ("run", "other")
    assert forth.pooled.auc.difference == pytest.approx(
        (other.evaluate().pooled.auc or 0) - (run.evaluate().pooled.auc or 0)
    )
    assert forth.pooled.auc.difference == pytest.approx(-(back.pooled.auc.difference or 0))
    assert "b - a, a = run, b = other" in str(forth)


def test_compare_works_between_models_that_see_other_columns(
    run: isthmus.Run, table: Path, tmp_path: Path
):
    config = settings()
    del config["data"]["features"]["age"]
    other = isthmus.fit(config, table, out=tmp_path / "other")
    assert isthmus.compare(run, other).pooled.rows == len(run.scored())


def test_compare_refuses_other_rows(run: isthmus.Run, table: Path, tmp_path: Path):
    moved = isthmus.load_config(settings(), ["data.split.seed=1"])
    other = isthmus.fit(moved, table, out=tmp_path / "other")
    with pytest.raises(RunError, match="runs must score the same rows of split 'test'"):
        isthmus.compare(run, other)
    elsewhere = isthmus.fit(settings(), clicks(seed=1), out=tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"one table|the label of every row"):
        isthmus.compare(run, elsewhere)


def test_a_domain_of_one_class_is_reported_and_not_fatal(tmp_path: Path):
    labels = clicks()["click"].to_numpy().copy()
    labels[np.array(clicks()["tab"].to_pylist()) == "mail"] = 0
    table = clicks().set_column(6, "click", pa.array(labels))
    evaluation = isthmus.fit(settings(), table, out=tmp_path / "run").evaluate()
    mail = evaluation.domains["mail"]
    assert mail.auc is None
    assert mail.positives == 0
    assert mail.logloss is not None
    assert "auc" in mail.reasons
    assert "mail" in str(evaluation)
    assert evaluation.to_dict()["domains"]["mail"]["auc"] is None


def test_without_tensorboard_a_run_says_so(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("isthmus.tracking.tracker.find_spec", lambda name: None)
    told: list[Notice] = []
    run = isthmus.fit(settings(epochs=1), table, out=tmp_path / "run", progress=told.append)
    assert "train: tensorboard is not installed: no events are written" in map(str, told)
    assert not [name for name in content(run.path) if "tfevents" in name]


def test_public_names_are_all_there():
    for name in isthmus.__all__:
        assert getattr(isthmus, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'scenario'"):
        _ = isthmus.scenario


def test_a_fit_takes_the_tables_fingerprint_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    taken: list[Path] = []

    def counted(path: Path, **options: bool) -> dict[str, Any]:
        taken.append(path)
        return of_file(path, **options)

    of_file = table_module.of_file
    monkeypatch.setattr(table_module, "of_file", counted)
    isthmus.fit(settings(epochs=1), write_table(tmp_path), out=tmp_path / "run")
    assert len(taken) == 1
