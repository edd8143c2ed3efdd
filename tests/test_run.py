"""Runs: what a fit leaves on disk, what it refuses, and what can be asked of it afterwards."""

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
from isthmus import checkpoint
from isthmus.errors import ConfigError, IsthmusError, RunError, SchemaError
from isthmus.run import Notice
from isthmus.train import TrainState
from small_runs import ROWS, clicks, content, settings


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "clicks.parquet"
    pq.write_table(clicks(), path)
    return path


@pytest.fixture(scope="module")
def run(table: Path) -> isthmus.Run:
    return isthmus.fit(settings(), table, out=table.parent / "run", cache=table.parent / "cache")


def weights(run: isthmus.Run) -> bytes:
    return (run.path / "bundle" / "weights.safetensors").read_bytes()


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


def test_an_existing_folder_is_refused_by_name_and_left_alone(
    run: isthmus.Run, table: Path, tmp_path: Path
):
    before = content(run.path)
    with pytest.raises(RunError, match=f"run folder must not exist yet, got {run.path}"):
        isthmus.fit(settings(), table, out=run.path)
    assert content(run.path) == before
    (tmp_path / "mine").mkdir()
    with pytest.raises(RunError, match="run folder must not exist yet"):
        isthmus.fit(settings(), table, out=tmp_path / "mine")
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="is not a run folder"):
        isthmus.fit(settings(), table, out=tmp_path / "mine", resume=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_a_finished_run_is_given_back_by_resume(run: isthmus.Run, table: Path):
    before, told = content(run.path), []
    again = isthmus.fit(settings(), table, out=run.path, resume=True, progress=told.append)
    assert content(again.path) == before
    assert [str(notice) for notice in told] == [
        f"train: run {run.path} is finished already: nothing to resume"
    ]


def stopped(out: Path, table: Any, config: dict[str, Any], looks: int = 2) -> None:
    """Leave a run as Ctrl-C leaves it."""
    seen = []

    def interrupt(notice: Notice) -> None:
        seen.extend([1] if "look at" in notice.text else [])
        if len(seen) == looks:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        isthmus.fit(config, table, out=out, progress=interrupt)


def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_bits(
    run: isthmus.Run, table: Path, tmp_path: Path
):
    for minutes in (0.0, 60.0):  # with a checkpoint after each step, and with none yet
        out = tmp_path / f"every-{minutes}"
        config = settings(checkpoint_minutes=minutes)
        stopped(out, table, config)
        with pytest.raises(RunError, match=r"must be finished, got one that was stopped"):
            isthmus.Run.open(out)
        assert weights(isthmus.fit(config, table, out=out, resume=True)) == weights(run)
        assert (out / "metrics.jsonl").read_bytes() == (run.path / "metrics.jsonl").read_bytes()


def test_resume_refuses_what_would_change_the_result(table: Path, tmp_path: Path):
    out, config = tmp_path / "run", settings(checkpoint_minutes=0)
    mine = tmp_path / "clicks.parquet"
    mine.write_bytes(table.read_bytes())
    stopped(out, mine, config)
    before = content(out)
    changed = settings(checkpoint_minutes=0, lr=0.02)
    with pytest.raises(RunError, match=r"config it began with, got: train\.lr was 0\.01, is 0\.02"):
        isthmus.fit(changed, mine, out=out, resume=True)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        with pytest.raises(RunError, match=f"with {threads} threads as it began"):
            isthmus.fit(config, mine, out=out, resume=True)
    finally:
        torch.set_num_threads(threads)
    pq.write_table(clicks(ROWS + 1), mine)
    with pytest.raises(RunError, match="with the table it began with, but its files changed"):
        isthmus.fit(config, mine, out=out, resume=True)
    assert content(out) == before


def test_resume_takes_another_thread_count_when_allowed(table: Path, tmp_path: Path):
    out, config = tmp_path / "run", settings(checkpoint_minutes=0)
    stopped(out, table, config)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        run = isthmus.fit(config, table, out=out, resume=True, allow_other_threads=True)
    finally:
        torch.set_num_threads(threads)
    assert run.evaluate().pooled.auc is not None


def test_the_time_between_checkpoints_may_change(run: isthmus.Run, table: Path, tmp_path: Path):
    out = tmp_path / "run"
    stopped(out, table, settings(checkpoint_minutes=0))
    resumed = isthmus.fit(settings(), table, out=out, resume=True)
    assert weights(resumed) == weights(run)


def test_one_folder_has_one_writer(table: Path, tmp_path: Path):
    out, config = tmp_path / "run", settings(checkpoint_minutes=0)
    refused = []

    def second(notice: Notice) -> None:
        if "look at" in notice.text and not refused:
            with pytest.raises(RunError, match="is in use by another process") as caught:
                isthmus.fit(config, table, out=out, resume=True)
            refused.append(caught)

    isthmus.fit(config, table, out=out, progress=second)
    assert refused


def test_a_refused_fit_leaves_no_folder(table: Path, tmp_path: Path):
    out = tmp_path / "runs" / "run"
    bad = {
        "model: adapter.condition": isthmus.load_config(
            settings(), ["model.adapter.condition=[nothing]"]
        ),
        "data.table must name a table": settings(),
    }
    for text, config in bad.items():
        given = None if "data.table" in text else table
        with pytest.raises(ConfigError, match=text):
            isthmus.fit(config, given, out=out)
    one_class = clicks().set_column(6, "click", pa.array(np.zeros(ROWS, np.int8)))
    with pytest.raises(IsthmusError, match=r"train\.monitor must be defined"):
        isthmus.fit(settings(), one_class, out=out)
    with pytest.raises(RunError, match="the training loss must stay finite"):
        isthmus.fit(settings(lr=1e30), table, out=out)
    assert not out.exists()


def test_a_full_disk_keeps_the_last_checkpoint_if_there_is_one(
    run: isthmus.Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save, saved = checkpoint.save, []

    def first_only(folder: Path, state: TrainState) -> None:
        if len(saved) == fits:
            raise RunError("a checkpoint must be writable, got: no space left")
        saved.append(state.step)
        save(folder, state)

    monkeypatch.setattr(checkpoint, "save", first_only)
    config, out = settings(checkpoint_minutes=0), tmp_path / "run"
    fits = 0
    with pytest.raises(RunError, match=r"no space left$"):
        isthmus.fit(config, table, out=out)
    assert not out.exists()
    fits = 2
    with pytest.raises(RunError, match=f"no space left; go on with --resume --out {out}"):
        isthmus.fit(config, table, out=out)
    monkeypatch.undo()
    assert weights(isthmus.fit(config, table, out=out, resume=True)) == weights(run)


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


def test_without_a_name_runs_go_to_fresh_folders(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "clicks.yaml"
    config.write_text(isthmus.load_config(settings(epochs=1)).to_yaml())
    first, second = (isthmus.fit(config, table) for _ in range(2))
    assert first.path != second.path
    assert first.path.parent == second.path.parent == Path("runs")
    assert first.name.startswith("clicks-")
    assert isthmus.fit(config, table, resume=True).path == second.path
    with pytest.raises(RunError, match="a run to resume must exist, got none named other"):
        isthmus.fit(config.rename(tmp_path / "other.yaml"), table, resume=True)


def test_without_tensorboard_a_run_says_so(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("isthmus.run.folder.find_spec", lambda name: None)
    told: list[Notice] = []
    run = isthmus.fit(settings(epochs=1), table, out=tmp_path / "run", progress=told.append)
    assert "train: tensorboard is not installed: no events are written" in map(str, told)
    assert not [name for name in content(run.path) if "tfevents" in name]


def test_damaged_run_folders_are_refused_by_name(run: isthmus.Run, tmp_path: Path):
    with pytest.raises(RunError, match="run folder must exist, got"):
        isthmus.Run.open(tmp_path / "none")
    with pytest.raises(RunError, match=r"is not a run folder: it has no run\.json"):
        isthmus.Run.open(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        isthmus.Run.open(tmp_path)
    state = json.loads((run.path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**state, "format": 9}))
    with pytest.raises(RunError, match="run folder must have format 1, got 9"):
        isthmus.Run.open(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(state))
    (tmp_path / "config.yaml").write_bytes((run.path / "config.yaml").read_bytes())
    with pytest.raises(RunError, match="scored rows must exist, got none at"):
        isthmus.Run.open(tmp_path).evaluate()
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "test.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match="scored rows must be readable, but"):
        isthmus.Run.open(tmp_path).evaluate()


def test_public_names_are_all_there():
    for name in isthmus.__all__:
        assert getattr(isthmus, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'scenario'"):
        _ = isthmus.scenario
