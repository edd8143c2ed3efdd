"""Run folders: one writer, what resume takes, and what a refused or stopped fit leaves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import isthmus
from isthmus import checkpoint
from isthmus.errors import ConfigError, IsthmusError, RunError
from isthmus.run import Notice
from isthmus.train import TrainState
from small_runs import ROWS, clicks, content, settings, weights, write_table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def run(table: Path) -> isthmus.Run:
    return isthmus.fit(settings(), table, out=table.parent / "run", cache=table.parent / "cache")


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
    with pytest.raises(
        IsthmusError, match=r"'click' must hold both classes .* got the label 0 in all"
    ):
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
