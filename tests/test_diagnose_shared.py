"""A diagnosis by several machines ends with the report of one process, on each of them."""

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from command_line import ISTHMUS, SRC
from diagnosed import Case, numbers, on_disk, opposed, settings
from isthmus import cli
from isthmus.diagnosis import diagnose
from isthmus.experiments.peers import Peers, Sharing

pytestmark = pytest.mark.usefixtures("one_thread")

MEASURED = {"table": "table.parquet", "level": "quick"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Case:
    case = on_disk(tmp_path_factory.mktemp("alone"), opposed(), settings(adapter=False))
    with contextlib.ExitStack() as stack:
        import torch

        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        case.diagnose("quick")
    return case


def check_same(case: Case, out: Path) -> dict[str, Any]:
    """Every outcome, the report and the pages are those of one process."""
    report = json.loads((out / "report.json").read_text())
    assert numbers(report) == numbers(case.reports["quick"])
    for path in (case.out / "trainings").glob("[!.]*/*.safetensors"):
        other = out / path.relative_to(case.out)
        assert other.read_bytes() == path.read_bytes()
    # The page holds the report, and nothing else of the folder.
    assert page_numbers(out) == page_numbers(case.out)
    assert {path.name for path in out.iterdir()} == {path.name for path in case.out.iterdir()}
    for kind in ("configs/*.yaml", "figures/*.svg"):
        ours = {path.name: path.read_bytes() for path in out.glob(kind)}
        assert ours == {path.name: path.read_bytes() for path in case.out.glob(kind)}
    return report


def page_numbers(out: Path) -> list[str]:
    """The lines of the Markdown that do not tell how long it took."""
    lines = (out / "report.md").read_text().splitlines()
    return [line for line in lines if "trainings" not in line]


@pytest.mark.soak
def test_one_machine_of_several_is_refused_or_ends_as_one_process(alone: Case, tmp_path: Path):
    out = tmp_path / "out"
    words = ["diagnose", str(alone.config), "--out", str(out), "--level", "quick", "--shared"]
    (out / "trainings").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISTHMUS_CACHE", str(alone.cache))
        here = Peers(out / "trainings", Sharing({"margin": 0.01}, beat=0.05))
        refused = CliRunner().invoke(cli.app, words)
        here.leave()
        assert refused.exit_code == 2
        told = " ".join(refused.stderr.split())
        assert f"process {os.getpid()} on {here.machine} differs: " in told
        assert "margin is 0.01 there, 0.005 here" in told
        assert "encoded tables is missing there" in told
        done = CliRunner().invoke(cli.app, [*words, "--jobs", "1"])
    assert done.exit_code == 0, done.output
    report = check_same(alone, out)
    assert report["plan"]["trained"] == alone.reports["quick"]["plan"]["trained"]
    assert report["plan"]["threads"] == 1
    assert [path.name for path in (out / "trainings").glob(".*")] == [".lock"]


@pytest.mark.soak
def test_two_machines_both_end_with_the_report_of_one(alone: Case, tmp_path: Path):
    out = tmp_path / "out"
    words = ["diagnose", str(alone.config), "--out", str(out), "--level", "quick", "--shared"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(SRC),
        "ISTHMUS_CACHE": str(alone.cache),
    }
    running = [
        subprocess.Popen(
            [*ISTHMUS, *words, "--jobs", str(jobs)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for jobs in (1, 2)
    ]
    for process in running:
        told, _ = process.communicate(timeout=600)
        assert process.returncode == 0, told
        assert f"report: {out}/report.html" in told
    check_same(alone, out)
    # All is there: the same call trains nothing, alone or shared.
    again = diagnose(alone.config, out=out, level="quick", cache=alone.cache)
    assert again.report["plan"]["trained"] == 0
