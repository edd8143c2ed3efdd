"""Number 6: what a diagnosis costs, against a joint fit and in minutes."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from bench.data import MIB, children, own_bytes
from bench.measure import Row, at_most
from isthmus.diagnosis.command import prepared
from isthmus.diagnosis.level import LEVELS
from isthmus.diagnosis.measures.matrices import pairwise
from isthmus.sources import insteval, movielens_1m

JOBS = 2
SLEEP = 0.5


def everything(folder: Path) -> list[Row]:
    """All of number 6."""
    config = movielens_1m(folder / "movielens") / "config.yaml"
    joint = folder / "joint.yaml"
    content = yaml.safe_load(config.read_text())
    content["data"]["table"] = str(config.parent / content["data"]["table"])
    # The joint arm: no adapter, as the diagnosis trains it.
    content["model"]["adapter"] = {"name": "none"}
    joint.write_text(yaml.safe_dump(content, sort_keys=False))
    script = str(Path(sys.executable).with_name("isthmus"))
    command([script, "fit", str(joint), "--out", str(folder / "warm"), "--set", "train.epochs=1"])
    fit_seconds, fit_peak = command([script, "fit", str(joint), "--out", str(folder / "fit")])
    out = str(folder / "diagnosis")
    diagnose = [script, "diagnose", str(joint), "--out", out, "--jobs", str(JOBS), "--level"]
    command([*diagnose, "quick", "--dry-run"])  # encodes, as the first fit did
    quick, quick_peak = command([*diagnose, "quick"])
    more, standard_peak = command([*diagnose, "standard"])
    pairs, trainings = matrix(folder)
    return [
        at_most(
            "6 quick diagnosis of MovieLens-1M by age, over one joint fit",
            quick / fit_seconds,
            12,
            fit=f"{fit_seconds:.0f} s",
            quick=f"{quick:.0f} s",
        ),
        at_most(
            "6 standard diagnosis of the same, minutes (what quick had trained is taken over, its"
            " time counted)",
            (quick + more) / 60,
            20,
            seconds=f"{quick + more:.0f}",
        ),
        at_most(
            "6 pairwise matrix of InstEval, 14 domains, 3 folds, with solos and choices, minutes",
            pairs / 60,
            10,
            seconds=f"{pairs:.0f}",
            trainings=f"{trainings:,}",
        ),
        at_most(
            "6 largest process of a diagnosis, memory over that of the fit",
            max(quick_peak, standard_peak) / fit_peak,
            1.5,
            fit=f"{fit_peak / MIB:,.0f} MiB",
            diagnosis=f"{max(quick_peak, standard_peak) / MIB:,.0f} MiB",
        ),
    ]


def command(arguments: Sequence[str]) -> tuple[float, int]:
    """Seconds of a command, and the anonymous memory of its largest process."""
    began, peak = time.perf_counter(), 0
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        while child.poll() is None:
            for process in (child.pid, *children(child.pid)):
                peak = max(peak, own_bytes(process))
            time.sleep(SLEEP)
        if child.returncode:
            assert child.stderr is not None
            raise RuntimeError(f"{arguments} failed: {child.stderr.read().decode()[-2000:]}")
    return time.perf_counter() - began, peak


def matrix(folder: Path) -> tuple[float, int]:
    """Seconds and trainings of InstEval's pairwise matrix from nothing: choices, solos, pairs."""
    config = insteval(folder / "insteval") / "config.yaml"
    level = replace(LEVELS["full"], seeds=3, few=3, stages=False, adapted=False)
    began = time.perf_counter()
    with prepared(config, None, folder / "pairs", level=level, jobs=JOBS) as (study, _):
        study.choose()
        study.train_arms()
        pairwise(study)
        return time.perf_counter() - began, study.engine.trained
