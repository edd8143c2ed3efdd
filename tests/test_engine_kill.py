"""The engine with several processes, some of them killed: in the end as one process alone does."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.data import Dataset
from isthmus.errors import RunError
from isthmus.experiments import Engine, Training
from killables import Killable, members
from small_runs import write_table
from small_trainings import broken, clean, make_dataset, results, settled
from trainings_to_kill import DOMAINS, config, trainings

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Dataset:
    return make_dataset(table, tmp_path_factory.mktemp("cache"))


def children() -> list[Any]:
    return multiprocessing.active_children()


def test_two_processes_give_the_same_bits_and_survive_their_faults(
    dataset: Dataset, tmp_path: Path
):
    made = settled(checkpoint_minutes=0)
    wanted = [
        Training(model=made.model, train=made.train),
        *(Training(model=made.model, train=made.train, domains=(name,)) for name in DOMAINS),
    ]
    with Engine([dataset], tmp_path / "one") as engine:
        alone = [results(outcome) for outcome in engine.run(wanted, "x")]
    killed: list[int] = []

    def kill(*_: Any) -> None:
        if not killed:
            victim = children()[0]
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()

    folder = tmp_path / "two"
    failing = [
        broken(hide_domain=hide, half=half) for hide in (True, False) for half in (True, False)
    ]
    with Engine([dataset], folder, jobs=2, tell=kill) as engine:
        # A process that is killed, as by a machine that runs out of memory, is a named fault.
        rule = r"a training on .* with seed 0: its process must live .* by signal SIGKILL \(memory"
        with pytest.raises(RunError, match=rule):
            engine.run(wanted, "x")
        assert killed
        assert children() == []
        assert list(folder.glob(".*part-*")) == []
        assert 1 <= engine.trained < len(wanted), "what was finished stays"
        # The next run has processes again, goes on, and ends as one process alone does.
        engine.run(wanted, "x")
        assert engine.trained == len(wanted)
        assert [results(engine.outcome(one)) for one in wanted] == alone
        assert len(children()) == 2, "they are kept for more"
        # A failing training ends them all, and is named.
        with pytest.raises(RunError, match=r"a training on mail, home with seed 0: .* finite, got"):
            engine.run(failing, "x")
        assert children() == []
        assert not any(map(engine.is_done, failing))
    clean(tmp_path / "one")
    assert list(folder.glob(".*part-*")) == []


# ---------------------------------------------------------------- real processes, really killed


def is_deaf(process: int) -> bool:
    """Whether a process blocks or ignores SIGINT (Linux)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    masks = dict(line.split(":") for line in lines if line.startswith("Sig"))
    unheard = int(masks["SigBlk"], 16) | int(masks["SigIgn"], 16)
    return bool(unheard >> (signal.SIGINT - 1) & 1)


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    """What must be closed whatever happens."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.mark.soak
def test_stopped_and_killed_again_and_again(
    table: Path, tmp_path: Path, opened: contextlib.ExitStack
):
    made = config()
    dataset = Dataset.from_table(made.data, table, cache=tmp_path / "cache")
    wanted = trainings(made)
    with Engine([dataset], tmp_path / "whole") as engine:
        whole = [results(outcome) for outcome in engine.run(wanted, "x")]
        joints = engine.trained - len(wanted)
    assert joints == 2
    folder = tmp_path / "killed"

    def begun() -> Killable:
        killable = Killable(table, tmp_path / "cache", folder)
        opened.callback(killable.close)
        assert killable.heard().startswith("done 1 of")
        while len(members(killable.group)) < 3:  # a last start has nobody beside it
            assert killable.heard().startswith("done")
        return killable

    def finished() -> int:
        # Without what is half written under a name with a dot.
        return len(list(folder.glob("[!.]*/outcome.json")))

    # Ctrl-C, as a terminal sends it: to every process of the group.
    killable = begun()
    with pytest.raises(
        RunError, match=f"{folder} must have one .* process {killable.group} writes"
    ):
        Engine([dataset], folder)
    others = [member for member in members(killable.group) if member != killable.group]
    assert len(others) >= 2, "what trains, and the tracker of multiprocessing"
    assert all(map(is_deaf, others)), "the first process hears them, and it alone"
    os.killpg(killable.group, signal.SIGINT)
    complaint = killable.ended()
    assert killable.process.returncode in (-signal.SIGINT, 130)
    assert complaint.count("Traceback") == 1, complaint
    assert complaint.rstrip().endswith("KeyboardInterrupt")
    assert list(folder.glob(".*part-*")) == []
    done = finished()
    assert 1 <= done < len(wanted)

    # The engine alone is killed, in the middle: its processes end by themselves.
    killable = begun()
    os.kill(killable.group, signal.SIGKILL)
    killable.ended()
    assert done < finished() < len(wanted)
    done = finished()

    # All of them at once.
    killable = begun()
    os.killpg(killable.group, signal.SIGKILL)
    killable.ended()
    assert done < finished() < len(wanted) + joints
    done = finished()

    with Engine([dataset], folder) as engine:
        assert [results(outcome) for outcome in engine.run(wanted, "x")] == whole
        assert engine.trained == len(wanted) + joints - done
    clean(folder)
