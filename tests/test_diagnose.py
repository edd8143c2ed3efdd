"""The diagnosis from a table to its report: planted conflict, honest numbers, no training twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from typer.testing import CliRunner

import isthmus
from diagnosed import (
    Case,
    check_contract,
    check_net_plus,
    numbers,
    on_disk,
    opposed,
    outcomes,
    settings,
    small_levels,
)
from isthmus import cli
from isthmus.diagnosis.abstract_reading import EFFECTS
from isthmus.metrics.crossed import Replicate
from isthmus.metrics.effects import Reader


@pytest.fixture(scope="module")
def conflict(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two domains in conflict, a network that is blind to the domain; quick, then standard."""
    case = on_disk(tmp_path_factory.mktemp("conflict"), opposed(), settings(hidden=True))
    with small_levels(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISTHMUS_CACHE", str(case.cache))
        dry = ["diagnose", str(case.config), "--out", str(case.out), "--level", "quick"]
        told = CliRunner().invoke(cli.app, [*dry, "--dry-run", "--jobs", "1"])
        assert told.exit_code == 0, told.output
        case.told["dry"] = told.stdout
        case.told["left behind"] = " ".join(map(str, outcomes(case.out)))
        case.plan("quick")
        case.diagnose("quick")
        case.diagnose("quick", "again")
        case.plan("standard")
        case.diagnose("standard")
    return case


@pytest.mark.parametrize("level", ["quick", "standard"])
def test_the_report_keeps_its_contract(conflict: Case, level: str):
    check_contract(conflict.reports[level], level)


def test_net_plus_is_transfer_less_interference(conflict: Case):
    check_net_plus(conflict.reports["standard"])


@pytest.mark.parametrize("metric", ["auc", "logloss"])
def test_effects_are_those_of_a_slow_recomputation(conflict: Case, metric: str):
    """Labels, domains and users from the table itself; areas and losses by scikit-learn."""
    report = conflict.reports["standard"]
    label = conflict.table["label"].to_numpy()
    user = conflict.table["user_id"].to_numpy().astype(np.int64)
    domain = np.array(conflict.table["domain"].to_pylist())
    with conflict.study("standard") as study:
        for name in study.measured.names:
            rows = [study.rows.replicate(name, k).row for k in range(3)]
            tested = np.concatenate(rows)
            assert len(set(tested)) == len(tested) == report["domains"][name]["rows"]
            assert set(domain[tested]) == {name}
            logits = {
                arm: [outcome.logits("test", name) for outcome in held]
                for arm, held in study.arm_outcomes[name].items()
            }
            values = {arm: slow(metric, label, rows, held) for arm, held in logits.items()}
            told = report["domains"][name][metric]
            sign = 1 if metric == "auc" else -1
            for key, (plus, minus) in EFFECTS.items():
                wanted = sign * np.mean(np.subtract(values[plus], values[minus]))
                assert told[key]["estimate"] == pytest.approx(wanted, abs=1e-10), key
            for arm in ("solo", "joint", "solo_plus", "joint_plus"):
                assert told[arm] == pytest.approx(np.mean(values[arm]), abs=1e-10)
            reader = Reader([Replicate(at, label[at] == 1, user[at]) for at in rows], metric)  # type: ignore[arg-type]
            left, right = reader.measure(logits["joint"]), reader.measure(logits["solo"])
            margin = 0.005 if metric == "auc" else 0.005 * told["solo"]
            assert told["margin"] == pytest.approx(margin)
            wanted = reader.effect(left - right, margin).to_dict()
            for key in ("se", "df", "ci", "ci90", "p", "detectable", "rows_needed"):
                assert told["net"][key] == pytest.approx(wanted[key], rel=1e-9), key


def slow(metric: str, label: np.ndarray, rows: list, logits: list) -> list[float]:
    if metric == "auc":
        return [roc_auc_score(label[at], z) for at, z in zip(rows, logits, strict=True)]
    return [
        log_loss(label[at], 1 / (1 + np.exp(-z)), labels=[0, 1])
        for at, z in zip(rows, logits, strict=True)
    ]


def test_planted_conflict_is_harm_with_a_tower_of_its_own(conflict: Case):
    for name, domain in conflict.reports["standard"]["domains"].items():
        assert domain["verdict"].startswith("own tower"), domain["why"]
        assert domain["auc"]["net"]["ci"][1] < 0
        assert domain["auc"]["net"]["p_holm"] <= 0.05
        assert domain["config"] == f"configs/own-{name}.yaml"
        assert (conflict.out / domain["config"]).exists()
    for domain in conflict.reports["quick"]["domains"].values():  # two seeds claim no harm
        assert domain["verdict"] in ("no verdict of harm at this level", "not enough data")


def test_a_dry_run_trains_nothing_and_says_what_it_would(conflict: Case):
    told, plan = conflict.told["dry"], conflict.plans["quick"]
    assert conflict.told["left behind"] == ""
    assert "2 domains (left, right)" in told
    assert "12 trainings: choices of batch and rate" in told
    assert "3 trainings: solo and joint" in told
    assert "15 in all, 0 of them finished before" in told
    assert "with 1 processes" in told
    assert plan.trainings == 15
    assert (plan.seconds or 0) > 0


def test_the_command_prints_verdicts_and_where_the_report_is(
    conflict: Case, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ISTHMUS_CACHE", str(conflict.cache))
    command = ["diagnose", str(conflict.config), "--out", str(conflict.out), "--jobs", "1"]
    with small_levels():
        told = CliRunner().invoke(cli.app, command)
    assert told.exit_code == 0, told.output
    report = conflict.reports["standard"]
    assert all(name in told.stdout for name in report["domains"])
    assert f"report: {conflict.out}/report.html" in told.stdout
    assert all((conflict.out / f"report.{kind}").exists() for kind in ("html", "md", "json"))
    assert any((conflict.out / "figures").glob("*.svg"))
    refused = CliRunner().invoke(cli.app, [*command, "--level", "ful"])
    assert refused.exit_code == 2
    assert "level must be one of" in refused.output


def test_the_plan_is_what_is_trained(conflict: Case):
    quick, standard = conflict.reports["quick"]["plan"], conflict.reports["standard"]["plan"]
    assert quick["trained"] == quick["trainings"] == conflict.plans["quick"].trainings
    assert quick["cached"] == 0
    planned = conflict.plans["standard"]
    assert standard["trainings"] == planned.trainings
    assert standard["cached"] == planned.cached
    assert standard["trained"] == planned.trainings - planned.cached


def test_nothing_is_trained_twice(conflict: Case):
    # Quick took two seeds of the first fold; standard has the grids and that fold's first seed.
    assert conflict.plans["standard"].cached == 12
    first, again = conflict.reports["quick"], conflict.reports["again"]
    assert again["plan"]["trained"] == 0
    assert again["plan"]["cached"] == first["plan"]["trainings"]
    assert numbers(again) == numbers(first)


def test_choices_are_as_many_for_all_and_patience_stops_them(conflict: Case):
    choices = conflict.reports["standard"]["plan"]["choices"]
    for choice in (choices["joint"], *choices["solo"].values()):
        tried = choice["tried"]
        assert len({(one["batch_rows"], one["lr"]) for one in tried}) == 4
        assert {round(one["lr"], 9) for one in tried} == {3e-3, 9e-4}
        assert {one["stopped"] for one in tried} == {"patience"}
        best = max(tried, key=lambda one: one["validation"])
        assert (choice["batch_rows"], choice["lr"]) == (best["batch_rows"], best["lr"])
    flags = [domain["flags"] for domain in conflict.reports["standard"]["domains"].values()]
    assert not any("epoch cap" in flag for told in flags for flag in told)


def test_a_killed_diagnosis_goes_on_and_ends_with_the_same_numbers(conflict: Case, tmp_path: Path):
    """SIGKILL to the command itself, after three trainings."""
    out = tmp_path / "out"
    source = str(Path(isthmus.__file__).parents[1])
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PYTHONPATH": source,
        "ISTHMUS_CACHE": str(conflict.cache),
    }
    command = [sys.executable, "-c", "from isthmus.cli import app; app()", "diagnose"]
    options = [str(conflict.config), "--out", str(out), "--level", "quick", "--jobs", "1"]
    process = subprocess.Popen(
        [*command, *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while len(outcomes(out)) < 3:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = len(outcomes(out))
    assert 3 <= done < 15
    assert not (out / "report.json").exists()
    resumed = conflict.diagnose("quick", "resumed", out)
    assert resumed["plan"]["cached"] == done
    assert numbers(resumed) == numbers(conflict.reports["quick"])
