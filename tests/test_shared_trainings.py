"""Several processes train in one folder: each training once, and the dead ones' are taken over."""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.data import Dataset
from isthmus.errors import RunError
from isthmus.experiments import Engine, Sharing
from isthmus.experiments.one import run_one
from isthmus.experiments.peers import Peers, Watch, differences
from isthmus.experiments.queue import LEFT, LOST, Queue
from killables import SRC, Killable
from small_runs import write_table
from small_trainings import broken, clean, make_dataset, results, training
from takers_of_claims import DEAD, KEYS
from trainings_to_kill import config, trainings

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = Sharing({"level": "quick"}, beat=0.05, silence=1.0)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Dataset:
    return make_dataset(table, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory, table: Path, cache: Path
) -> tuple[Dataset, list[dict[str, bytes]]]:
    """The outcomes of one process alone."""
    made = config(often=False)
    dataset = Dataset.from_table(made.data, table, cache=cache)
    with Engine([dataset], tmp_path_factory.mktemp("alone")) as engine:
        return dataset, [results(outcome) for outcome in engine.run(trainings(made, 1), "x")]


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    """What must be closed whatever happens."""
    with contextlib.ExitStack() as stack:
        yield stack


def wait_for(reached: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 120
    while not (found := reached()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


def counts(worker: Killable) -> list[int]:
    """What a process says at its end: trained here, trained by anybody, found finished."""
    line = worker.heard()
    while not line.startswith("end"):
        line = worker.heard()
    return [int(word) for word in line.split()[1:]]


# ---------------------------------------------------------------- real processes


def claims(folder: Path, process: int) -> list[Path]:
    """The claims that a process holds."""
    found = []
    for path in folder.glob(".*.claim-*"):
        with contextlib.suppress(FileNotFoundError):
            found += [path] if f"-{process}-" in path.read_text() else []
    return found


@pytest.fixture
def begun(
    table: Path, cache: Path, tmp_path: Path, opened: contextlib.ExitStack
) -> Callable[[], Killable]:
    """Start one more process that trains in ``shared``."""

    def begin() -> Killable:
        worker = Killable(table, cache, tmp_path / "shared", jobs=1, shared="quick")
        opened.callback(worker.close)
        return worker

    return begin


def with_a_claim(folder: Path, worker: Killable, by: signal.Signals) -> None:
    """Send a signal to a process and its own when it has just begun its first training."""
    wait_for(lambda: claims(folder, worker.group), "a process must claim a training")
    os.killpg(worker.group, by)


def test_each_training_is_run_once_though_one_of_three_processes_is_killed(
    tmp_path: Path, alone: tuple[Dataset, list[dict[str, bytes]]], begun: Callable[[], Killable]
):
    folder, (dataset, wanted) = tmp_path / "shared", alone
    workers = [begun() for _ in range(3)]
    killed = wait_for(
        lambda: next((one for one in workers if claims(folder, one.group)), None),
        "a process must claim a training",
    )
    os.killpg(killed.group, signal.SIGKILL)
    assert claims(folder, killed.group)
    others = [worker for worker in workers if worker is not killed]
    told = [counts(worker) for worker in others]
    for worker in others:
        assert worker.ended() == ""
    every = len(wanted) + 1  # and the joint that others start from
    assert sum(here for here, _, _ in told) == every, told
    assert all(trained + cached in (every, every - 1) for _, trained, cached in told), told
    with Engine([dataset], folder) as engine:  # which clears what the killed one left
        assert [results(one) for one in engine.run(trainings(config(), 1), "x")] == wanted
        assert engine.trained == 0
    clean(folder)


@pytest.mark.soak
def test_a_stopped_process_comes_back_and_harms_nothing(
    tmp_path: Path, alone: tuple[Dataset, list[dict[str, bytes]]], begun: Callable[[], Killable]
):
    folder, (dataset, wanted) = tmp_path / "shared", alone
    killed, stopped = begun(), begun()
    with_a_claim(folder, killed, signal.SIGKILL)
    with_a_claim(folder, stopped, signal.SIGSTOP)
    assert claims(folder, killed.group) + claims(folder, stopped.group)
    heir = begun()
    here, trained, _ = counts(heir)
    assert heir.ended() == ""
    assert here == trained, "nobody else was at work"
    before = {path.parent.name: path.stat().st_ino for path in folder.glob("*/outcome.json")}
    assert len(before) == len(wanted) + 1
    os.killpg(stopped.group, signal.SIGCONT)
    counts(stopped)
    assert stopped.ended() == ""
    after = {path.parent.name: path.stat().st_ino for path in folder.glob("*/outcome.json")}
    assert after == before, "an outcome that stands is never replaced"
    with Engine([dataset], folder) as engine:
        assert [results(one) for one in engine.run(trainings(config(), 1), "x")] == wanted
        assert engine.trained == 0
    clean(folder)


def test_a_claim_of_a_dead_owner_is_taken_by_one(tmp_path: Path):
    for key in KEYS:
        (tmp_path / f".{key}.claim-0").write_text(DEAD)
    script = Path(__file__).with_name("takers_of_claims.py")
    process = subprocess.run(
        [sys.executable, script, tmp_path, "3"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SRC)},
    )
    taken = [line.split() for line in process.stdout.splitlines()]
    assert sorted(key for keys in taken for key in keys) == KEYS, "each by exactly one"
    assert sum(map(bool, taken)) > 1, "there was a race"


# ---------------------------------------------------------------- faults


def test_a_failed_training_is_told_to_all_and_not_tried_for_ever(dataset: Dataset, tmp_path: Path):
    where = (
        f"a training on mail, home with seed 0: process {os.getpid()} on {socket.gethostname()}: "
    )
    with (
        Engine([dataset], tmp_path, sharing=QUICK) as one,
        Engine([dataset], tmp_path, sharing=QUICK) as other,
    ):
        assert len(list(tmp_path.glob(f".worker-*-{os.getpid()}-*.json"))) == 2
        one.run([training(domains=("mail",))], "x")
        assert (one.trained, one.trained_here, one.threads) == (1, 1, 1)
        for engine in (one, other):
            with pytest.raises(RunError) as fault:
                engine.run([broken()], "x")
            assert str(fault.value).startswith(where), fault.value
            assert "must stay finite" in str(fault.value)
        assert other.trained_here == 0
        assert not other.path(broken()).exists()
        with pytest.raises(RunError, match="writer at a time, and a process with --shared writes"):
            Engine([dataset], tmp_path)
    # Whoever starts again has it tried again.
    assert list(tmp_path.glob(".*.failed"))
    with Engine([dataset], tmp_path, sharing=QUICK):
        assert not list(tmp_path.glob(".*.failed"))
    with Engine([dataset], tmp_path) as engine:
        assert engine.is_done(training(domains=("mail",)))
        with pytest.raises(RunError, match=f"and process {os.getpid()} writes there"):
            Engine([dataset], tmp_path, sharing=QUICK)
    clean(tmp_path)


def test_others_with_other_terms_are_refused_with_each_difference(dataset: Dataset, tmp_path: Path):
    other = Sharing({"level": "full", "config": {"lr": 0.1, "seed": 3}}, beat=0.05, silence=0.5)
    here = Sharing({"level": "quick", "config": {"lr": 0.2, "seed": 3}}, beat=0.05, silence=0.5)
    with Engine([dataset], tmp_path, sharing=other):
        with pytest.raises(RunError) as fault:
            Engine([dataset, dataset], tmp_path, sharing=here)
        told = str(fault.value)
        assert told.startswith(f"all who share {tmp_path} must have the same config, table and")
        assert f"process {os.getpid()} on {socket.gethostname()} differs: " in told
        assert '; '.join(
            [
                'level is "full" there, "quick" here',
                "config.lr is 0.1 there, 0.2 here",
                f'encoded tables is ["{dataset.key}"] there',
            ]
        ) in told  # fmt: skip
        assert len(list(tmp_path.glob(".worker-*"))) == 1, "the refused one left nothing"
    # One that is dead stops nobody, whatever it wrote last.
    dead = {"machine": "gone", "process": 1, "beats": 7, "terms": {"isthmus": "0.0"}}
    for number, text in enumerate((json.dumps(dead), "half", "")):
        (tmp_path / f".worker-gone-{number}.json").write_text(text)
    with Engine([dataset], tmp_path, sharing=here):
        assert len(list(tmp_path.glob(".worker-*"))) == 4
    clean(tmp_path)
    assert list(differences({"a": [1, {"b": None}]}, {"a": [1, {"b": "x"}]})) == [
        'a.1.b is missing there, "x" here'
    ]


def test_a_disk_that_takes_nothing_is_named(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rule = "a folder of trainings must be writable at"
    with pytest.raises(RunError, match=f"{rule} /proc/none, got: No such file"):
        Engine([dataset], Path("/proc/none"), sharing=QUICK)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Engine([dataset], tmp_path, sharing=QUICK) as engine, monkeypatch.context() as patch:
        patch.setattr("isthmus.experiments.queue.os.write", full)
        with pytest.raises(RunError, match=f"{rule} {tmp_path}, got: No space left on device"):
            engine.run([training()], "x")
        assert not list(tmp_path.glob(".*.claim-*")), "a claim that nobody holds"


def test_a_training_that_takes_its_machines_down_is_given_up(tmp_path: Path):
    queue = Queue(tmp_path, Peers(tmp_path, Sharing({}, beat=0.05, silence=0.2)))
    for number in range(LOST + 1):
        (tmp_path / f".key.claim-{number}").write_text(LEFT if number == 1 else f"gone-{number}")
        queue.look()
        assert queue.fault("key") is None
        wait_for(lambda: queue.is_free("key"), "a dead owner must be found out")
    assert queue.fault("key") == (
        f"{LOST} processes began it and fell silent, the last one gone-{LOST}"
        " (memory may have run out)"
    )
    queue.peers.leave()


def test_an_heir_goes_on_from_the_checkpoint_and_finishes(tmp_path: Path):
    (tmp_path / ".key.claim-0").write_text(LEFT)
    (tmp_path / "key.claim-0.checkpoint").mkdir()
    (tmp_path / "key.claim-0.checkpoint" / "state").write_text("half way")
    (tmp_path / ".key.part-17-abc").mkdir()
    (tmp_path / ".keyed.part-17-abc").mkdir()
    queue = Queue(tmp_path, Peers(tmp_path, QUICK))
    assert queue.is_free("key")
    assert queue.claim("key")
    assert queue.holds("key")
    assert (queue.saved("key") / "state").read_text() == "half way"
    assert {path.name for path in tmp_path.glob("*.checkpoint")} == {"key.claim-1.checkpoint"}
    assert [path.name for path in tmp_path.glob(".*part*")] == [".keyed.part-17-abc"]
    (tmp_path / ".key.claim-2").write_text("an heir of the heir")
    assert not queue.holds("key")
    queue.look()
    queue.finish("key")
    queue.peers.leave()
    assert [path.name for path in tmp_path.iterdir()] == [".keyed.part-17-abc"]


def test_a_second_outcome_of_one_training_changes_nothing(dataset: Dataset, tmp_path: Path):
    folder = tmp_path / "outcome"
    run_one(training(), dataset, folder, None)
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    run_one(training(), dataset, folder, None)
    assert {path.name: path.stat().st_ino for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["outcome"]


def test_silence_is_what_was_watched_and_not_what_was_slept_through():
    now = 0.0
    watch = Watch(10.0, clock=lambda: now)
    assert watch.still("a", "x") == 0
    now = 4.0
    assert watch.still("a", "x") == 4
    assert watch.still("b", None) == 0
    now = 4_000.0  # this machine was suspended
    assert watch.still("a", "x") == 14
    assert watch.still("b", None) == 10
    assert watch.still("a", "y") == 0
    now = 4_001.0
    assert watch.still("a", "y") == 1
