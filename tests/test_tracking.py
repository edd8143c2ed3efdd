"""Trackers, against the real MLflow, W&B and TensorBoard, which write on this machine here."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

import isthmus
from isthmus.config import load_config
from isthmus.errors import ConfigError, RunError
from isthmus.ranks import Ranks
from isthmus.run import Notice
from isthmus.run.fit_plan import without_table
from isthmus.run.folder import RunFolder, trackers_of
from isthmus.tracking import (
    AbstractTracker,
    AbstractTrackerConfig,
    Ending,
    MlflowConfig,
    TensorboardConfig,
    TrackedRun,
    Trackers,
    WandbConfig,
    check_trackers,
    flattened,
    tracker_thread,
)
from isthmus.tracking.tracker import SafeNames
from isthmus.train import Look
from small_runs import content, settings, write_table
from wandb_file import kept

BOTH = ({"name": "mlflow", "experiment": "clicks"}, {"name": "wandb", "project": "clicks"})


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module", autouse=True)
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where both write: a folder, and files for a later `wandb sync`."""
    folder, own = tmp_path_factory.mktemp("mlflow"), tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_TRACKING_URI", folder.as_uri())
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        patch.setenv("WANDB_MODE", "offline")
        for name in ("DATA", "CACHE", "CONFIG"):
            patch.setenv(f"WANDB_{name}_DIR", str(own / name.lower()))
        yield folder


def tracked(*trackers: dict[str, Any], **train: Any) -> dict[str, Any]:
    return {**settings(**{"epochs": 1, **train}), "trackers": list(trackers)}


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> isthmus.Run:
    """A run that all three track, with a page beside it."""
    told: list[Notice] = []

    def tell(notice: Notice) -> None:
        told.append(notice)
        if notice.text == "test rows":  # the run has no page of its own until it is finished
            (folder / "study.html").write_text("<!doctype html><title>A page</title>")

    folder = tmp_path_factory.mktemp("runs") / "of-all"
    trackers = (*BOTH, {"name": "tensorboard"})
    made = isthmus.fit(tracked(*trackers), table, out=folder, progress=tell)
    assert not [one for one in told if "no more" in one.text]
    return made


def mlflow_run(path: Path) -> Any:
    from mlflow import MlflowClient

    mark = json.loads((path / "trackers.json").read_text())["mlflow"]["run"]
    return MlflowClient().get_run(mark)


def looks_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def expected_rows(run: isthmus.Run) -> list[dict[str, Any]]:
    """What a tracker is to hold, look by look, out of the run's own files."""
    rows = []
    for look in looks_of(run.path):
        row = {"train/loss": look["loss"]}
        monitors = {key: look[key] for key in look if re.fullmatch("(auc|logloss)_[a-z]+", key)}
        assert set(monitors) >= {"auc_pooled", "auc_macro", "auc_worst", "logloss_pooled"}
        row |= {f"val/{name}": value for name, value in monitors.items()}
        row |= {f"val/auc/{name}": look["auc_by_domain"][name] for name in run.state.domains}
        rows.append(row)
    evaluation = run.evaluate()
    last = {f"test/auc/{name}": of.auc for name, of in evaluation.domains.items()}
    last |= {f"test/logloss/{name}": of.logloss for name, of in evaluation.domains.items()}
    last |= {"test/auc_pooled": evaluation.pooled.auc, "test/auc_macro": evaluation.macro.auc}
    last |= {
        "test/logloss_pooled": evaluation.pooled.logloss,
        "test/auc_worst": evaluation.worst.auc,
    }
    last |= {"test/calibration_pooled": evaluation.pooled.calibration}
    return [*rows, last]


def test_mlflow_holds_the_run(run: isthmus.Run):
    from mlflow import MlflowClient

    client, found = MlflowClient(), mlflow_run(run.path)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "of-all"
    assert client.get_experiment(found.info.experiment_id).name == "clicks"
    params = found.data.params
    assert params["train.lr"] == "0.01"
    assert params["model.backbone.widths"] == "[8]"
    assert params["data.features.history.shares"] == "item"
    assert params["train.clip_norm"] == "null"
    *looks, test = expected_rows(run)
    for name in looks[0]:
        history = client.get_metric_history(found.info.run_id, name)
        assert [point.value for point in history] == [row[name] for row in looks], name
        assert [point.step for point in history] == [look["step"] for look in looks_of(run.path)]
    assert {name: found.data.metrics[name] for name in test} == test
    names = {one.path for one in client.list_artifacts(found.info.run_id)}
    assert names >= {"bundle", "config.yaml", "report.html", "report.md", "study.html"}
    bundle = Path(client.download_artifacts(found.info.run_id, "bundle"))
    assert content(bundle) == content(run.path / "bundle")


def test_tensorboard_holds_the_same_numbers(run: isthmus.Run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run.path)).Reload()
    *looks, test = expected_rows(run)
    for name in looks[0]:
        told = [(point.step, point.value) for point in board.Scalars(name)]
        steps = [look["step"] for look in looks_of(run.path)]
        assert told == list(zip(steps, [pytest.approx(row[name]) for row in looks], strict=True))
    for name, value in test.items():
        assert [point.value for point in board.Scalars(name)] == [pytest.approx(value)]


def test_wandb_holds_the_run_for_later(run: isthmus.Run):
    told = kept(run.path)
    assert told["exit"] == 0
    assert told["run"].project == "clicks"
    assert told["run"].display_name == "of-all"
    assert told["config"]["train.lr"] == 0.01
    assert told["config"]["data.features.history.shares"] == "item"
    for expected in expected_rows(run):
        assert any(expected.items() <= row.items() for row in told["rows"]), expected
    mark = told["run"].run_id
    kind, files = told["artefacts"][f"{mark}-bundle"]
    assert kind == "model"
    assert {"bundle/bundle.json", "bundle/weights.safetensors"} <= set(files)
    assert told["artefacts"][f"{mark}-study"] == ("page", ["study.html"])


def test_a_stopped_run_goes_on_in_the_same_runs(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("isthmus.train.stopwatch.PROGRESS_SECONDS", 0)  # tell of every step
    config = tracked(*BOTH, epochs=2, checkpoint_minutes=0)
    looks: list[Notice] = []

    def stop(notice: Notice) -> None:
        looks.extend([notice] if notice.text.startswith("look at") else [])
        if len(looks) == 2 and "step" in notice.text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        isthmus.fit(config, table, out=tmp_path / "run", progress=stop)
    from mlflow import MlflowClient

    before = mlflow_run(tmp_path / "run")
    assert before.info.status == "KILLED"
    assert kept(tmp_path / "run")["exit"] == 130
    run = isthmus.fit(config, table, out=tmp_path / "run", resume=True)
    after = mlflow_run(run.path)
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    history = MlflowClient().get_metric_history(after.info.run_id, "val/auc_pooled")
    assert [point.value for point in history] == [one["auc_pooled"] for one in looks_of(run.path)]
    # W&B keeps each start in a file of its own, under one id, which joins them at the server.
    assert len({path.name for path in run.path.glob("wandb/offline-run-*/*.wandb")}) == 1


def test_a_fault_is_told_as_a_failed_run(table: Path, tmp_path: Path):
    config = tracked(BOTH[0], lr=1e30, checkpoint_minutes=0, looks_per_epoch=1)
    with pytest.raises(RunError, match="must stay finite"):
        isthmus.fit(config, table, out=tmp_path / "run")
    from mlflow import MlflowClient

    client = MlflowClient()
    place = client.get_experiment_by_name("clicks")
    assert place is not None
    found = client.search_runs([place.experiment_id], "attributes.status = 'FAILED'")
    assert len(found) == 1


def test_a_server_that_is_away_is_told_once(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # where nobody listens
    told: list[str] = []
    run = isthmus.fit(
        tracked(BOTH[0]), table, out=tmp_path / "run", progress=lambda one: told.append(one.text)
    )
    (fault,) = [text for text in told if "mlflow" in text]
    assert fault.startswith("mlflow tracks this run no more: MlflowException: ")
    assert run.evaluate().pooled.auc is not None
    assert not (run.path / "trackers.json").exists()


OPENED = """
from pathlib import Path
from isthmus.tracking import TrackedRun, WandbConfig
try:
    WandbConfig().open(TrackedRun(Path.cwd(), {}))
except Exception as fault:
    Path("told.txt").write_text(str(fault))
"""


def test_wandb_without_a_key_asks_nobody(tmp_path: Path):
    """On a terminal W&B asks for a key, and a training would wait for the answer."""
    own, terminal = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if "WANDB" not in key}
    environment |= {"HOME": str(tmp_path), "WANDB_BASE_URL": "http://127.0.0.1:9"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    subprocess.run(
        [sys.executable, "-c", OPENED],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=tmp_path,
        env=environment,
        timeout=300,
        check=True,
    )
    os.close(own)
    os.close(terminal)
    assert "No API key configured" in (tmp_path / "told.txt").read_text()


class Recorded(AbstractTracker):
    """Keeps what it is told. ``hold``: what its first call waits for."""

    def __init__(self, mark: str, hold: threading.Event) -> None:
        self.mark, self.hold = mark, hold
        self.calls: list[tuple[Any, ...]] = []

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.hold.wait()
        self.calls.append((step, dict(values)))

    def keep(self, path: Path) -> None:
        self.calls.append((path.name,))

    def end(self, how: Ending) -> None:
        self.calls.append((how,))


class RecordedConfig(AbstractTrackerConfig):
    library: ClassVar[str] = "json"
    extra: ClassVar[str] = "none"
    made: ClassVar[list[Recorded]] = []
    hold: ClassVar[threading.Event] = threading.Event()

    name: Literal["recorded"] = "recorded"

    def open(self, run: TrackedRun) -> Recorded:
        self.made.append(Recorded(run.mark or f"run {len(self.made)}", self.hold))
        return self.made[-1]


def look(step: int, **values: Any) -> Look:
    return Look(step=step, epoch=1.0, loss=0.5, metrics=values, better=True)


def trackers(folder: Path, *history: Look, told: list[str]) -> Trackers:
    config = {"train": {"lr": 0.1}}
    return Trackers(
        [RecordedConfig()], folder=folder, config=config, history=history, tell=told.append
    )


def test_training_waits_for_no_tracker_and_no_look_is_told_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(RecordedConfig, "made", [])
    monkeypatch.setattr(RecordedConfig, "hold", threading.Event())
    told: list[str] = []
    first = trackers(tmp_path, told=told)

    def train() -> None:
        with first.following():
            for step in (1, 2, 3):  # a tracker that answers late holds up none of them
                first.look(look(step, auc_pooled=step / 10, auc_macro=None))
            RecordedConfig.hold.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert RecordedConfig.made[0].calls == [
        *((step, {"train/loss": 0.5, "val/auc_pooled": step / 10}) for step in (1, 2, 3)),
        ("stopped",),
    ]
    # The checkpoint knows of the first look alone, so two of them come again.
    second = trackers(tmp_path, look(1), told=told)
    with second.following():
        for step in (2, 3, 4):
            second.look(look(step, auc_pooled=step / 10))
    assert RecordedConfig.made[1].mark == "run 0"
    assert [call[0] for call in RecordedConfig.made[1].calls] == [4, "finished"]
    assert json.loads((tmp_path / "trackers.json").read_text()) == {
        "recorded": {"run": "run 0", "looks": 4}
    }
    assert told == []


def test_a_tracker_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(RecordedConfig, "hold", threading.Event())
    monkeypatch.setattr(tracker_thread, "CLOSING_SECONDS", 0.1)
    told: list[str] = []
    slow = trackers(tmp_path, told=told)
    with slow.following():
        slow.look(look(1))
    assert told == ["recorded tracks this run no more: it did not end within 0.1 s"]
    RecordedConfig.hold.set()


def test_of_several_processes_only_the_first_one_tracks(tmp_path: Path):
    config = load_config(tracked(*BOTH, {"name": "tensorboard"}))
    found = trackers_of(config, RunFolder(tmp_path), (), print, Ranks(rank=1, size=2))
    with found.following():
        found.look(look(1))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_refused_before_the_table_is_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("isthmus.tracking.tracker.find_spec", lambda name: None)
    for config in (MlflowConfig(), WandbConfig()):
        with pytest.raises(ConfigError, match=rf"pip install 'isthmus\[{config.name}\]'"):
            isthmus.fit(tracked({"name": config.name}), "no/such/table.parquet")
    check_trackers([TensorboardConfig()])


def test_a_tracker_is_named_once():
    with pytest.raises(ConfigError, match="each tracker once, got 'mlflow' twice"):
        check_trackers([MlflowConfig(), MlflowConfig(experiment="other")])
    with pytest.raises(ConfigError, match="did you mean 'mlflow'"):
        load_config(tracked({"name": "mlfow"}))


def test_trackers_decide_nothing():
    plain, other = load_config(settings()), load_config(tracked(*BOTH, epochs=2))
    assert plain.trackers == (TensorboardConfig(),)
    assert load_config(other) == other
    assert without_table(plain) == without_table(other)  # so a run may go on with others


@settings_of_hypothesis(max_examples=50)
@given(st.lists(st.text(max_size=12), max_size=8))
def test_names_are_what_mlflow_takes_and_stay_apart(domains: list[str]):
    from mlflow.utils.validation import _validate_metric_name

    names = SafeNames(limit=40)
    told = {f"val/auc/{domain}": names.of(f"val/auc/{domain}") for domain in domains}
    assert len(set(told.values())) == len(told)
    for name in told.values():
        assert len(name) <= 40
        _validate_metric_name(name)


def test_a_config_is_flat():
    assert flattened({"a": {"b": 1, "c": {}}, "d": [1, {"e": None}], "f": None}) == {
        "a.b": 1,
        "a.c": "{}",
        "d": '[1, {"e": null}]',
        "f": None,
    }
