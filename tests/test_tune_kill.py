"""kill -9 in the middle of a trial, then the same command: the same trials as without the kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import isthmus
from command_line import SRC, written
from isthmus.run import Notice

TRIALS = 14


def killed(config: Path, out: Path, looks: int) -> int:
    """Tune in a process of its own, which dies at its n-th look; 0 lets it live."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{SRC}{os.pathsep}{Path(__file__).parent}",
    }
    script = Path(__file__).with_name("tunes_to_kill.py")
    order = [sys.executable, str(script), str(config), str(out), str(TRIALS), str(looks)]
    return subprocess.run(order, env=environment, check=False).returncode


def plain(study: isthmus.Tuning) -> list[dict[str, Any]]:
    return [trial | {"seconds": 0.0} for trial in study.report["trials"]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, isthmus.Tuning]:
    """A study that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    config = written(folder, epochs=2)
    assert killed(config, folder / "s", looks=0) == 0
    return config, isthmus.Tuning.open(folder / "s")


# Each trial has at most 4 looks: in the first trial, in the portfolio, and in the last trials.
@pytest.mark.parametrize(
    "looks", [1, pytest.param(9, marks=pytest.mark.soak), pytest.param(40, marks=pytest.mark.soak)]
)
def test_a_killed_study_ends_as_an_undisturbed_one(
    whole: tuple[Path, isthmus.Tuning], looks: int, tmp_path: Path, one_thread: None
):
    config, undisturbed = whole
    out = tmp_path / "s"
    assert killed(config, out, looks) == -signal.SIGKILL
    assert not list(out.glob(".*part-*"))
    # A kill may also leave half a line, and the lock of the journal.
    with (out / "journal.log").open("ab") as journal:
        journal.write(b'{"op_code": 7, "wor')
    (out / "journal.log.lock").symlink_to(out / "journal.log")
    heard: list[Notice] = []
    resumed = isthmus.tune(config, out, trials=TRIALS, progress=heard.append)
    assert plain(resumed) == plain(undisturbed)
    assert (out / "best.yaml").read_bytes() == (undisturbed.path / "best.yaml").read_bytes()
    assert any("was stopped in its middle, and begins again" in one.text for one in heard)


@pytest.mark.soak
def test_a_trial_that_was_stopped_keeps_its_recipe_and_is_told_once(
    whole: tuple[Path, isthmus.Tuning], tmp_path: Path
):
    config, _ = whole
    out = tmp_path / "s"
    for _ in range(2):  # killed again in the same trial
        assert killed(config, out, looks=2) == -signal.SIGKILL
    study = isthmus.tune(config, out, trials=3)
    recipes = [trial["recipe"] for trial in study.report["trials"]]
    assert recipes == undisturbed_recipes(whole)[:3]
    assert [trial["number"] for trial in study.report["trials"]] == [0, 1, 2]


def undisturbed_recipes(whole: tuple[Path, isthmus.Tuning]) -> list[str]:
    return [trial["recipe"] for trial in whole[1].report["trials"]]
