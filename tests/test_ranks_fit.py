"""Fits by several processes: killed and started again, gone on with, and refused."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

import isthmus
from command_line import written
from forking import children
from isthmus.bundle import Bundle
from isthmus.run import Notice
from small_runs import settings
from worlds import HERE, ends, environment, start_world

EPOCHS = 8
SHARDED = {"tables": "sharded"}


def quiet(**train: Any) -> dict[str, Any]:
    """A config that draws no number for a row."""
    config = settings(checkpoint_minutes=0, domain_dropout=0.0, patience=9, **train)
    config["model"]["backbone"]["dropout"] = 0.0
    return config


class Stop(Exception):
    """Stops a fit as Ctrl-C would."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fits")


@pytest.fixture(scope="module")
def told(place: Path) -> list[list[dict[str, Any]]]:
    """What a world of 2 says of order after order, by rank."""
    config_file = written(place, checkpoint_minutes=0, epochs=EPOCHS, patience=EPOCHS)
    table = str(place / "clicks.parquet")
    other = place / "other"
    other.mkdir()
    (other / "clicks.parquet").write_bytes((place / "clicks.parquet").read_bytes())
    os.utime(other / "clicks.parquet", (1, 1))
    begin_alone(place)
    base = yaml.safe_load(config_file.read_text())
    orders = [
        {"config": settings(lr=0.01), "config 1": settings(lr=0.02, seed=3)},
        {"config": settings(), "table 1": str(other / "clicks.parquet")},
        {"config": settings(), "table 1": str(place / "missing.parquet")},
        {"config": settings(weighting="pcgrad")},
        {"config": settings(method={"name": "mamdr"})},
        {"config": settings(objectives=[{"name": "domain_classifier"}])},
        {"config": quiet(), "out": str(place / "alone"), "resume": True},
        {"config": {**base, "data": settings()["data"]}, "out": str(place / "whole")},
        {"config": settings(), "out": str(place / "whole")},
        {"config": quiet(tables="sharded", clip_norm=1.0), "out": str(place / "sharded")},
        {"config": quiet(clip_norm=1.0), "out": str(place / "plain")},
        {
            "config": {**base, "data": settings()["data"]} | {"train": base["train"] | SHARDED},
            "out": str(place / "whole-sharded"),
        },
    ]
    for number, order in enumerate(orders):
        order.setdefault("table", table)
        order.setdefault("out", str(place / f"refused-{number}"))
    file = place / "orders.json"
    file.write_text(json.dumps(orders))
    cache = place / "cache"
    for code, _, err in ends(
        start_world(2, [HERE / "fits_of_ranks.py", file], ISTHMUS_CACHE=cache)
    ):
        assert code == 0, err
    return [json.loads((place / f"orders-{rank}.json").read_text()) for rank in (0, 1)]


def begin_alone(place: Path) -> None:
    """A run of one process to its end, and the same one stopped after some steps."""
    table = place / "clicks.parquet"

    def stop(notice: Notice) -> None:
        if "epoch 1.00" in notice.text:
            raise Stop

    isthmus.fit(quiet(), table, out=place / "to the end")
    with pytest.raises(Stop):
        isthmus.fit(quiet(), table, out=place / "alone", progress=stop)


def test_each_difference_between_ranks_is_named(told):
    assert told[0][0] == {
        "fault": "ConfigError",
        "text": "all processes of a training must see the same, got:\n"
        "config.train.lr: rank 0 has 0.01, rank 1 has 0.02\n"
        "config.train.seed: rank 0 has 0, rank 1 has 3",
    }
    assert told[1][0]["fault"] == "ToldElsewhereError"
    assert re.search(r"\ntable: rank 0 has \"\w+\", rank 1 has \"\w+\"$", told[0][1]["text"])


def test_what_one_rank_refuses_all_refuse(told):
    assert told[0][2]["text"].startswith("rank 1: ")
    assert "missing.parquet" in told[0][2]["text"]
    assert told[1][2]["fault"] == "ToldElsewhereError"


def test_what_is_no_sum_over_rows_is_refused_by_name(told, place: Path):
    orders = (3, 4, 5)
    texts = [told[0][order]["text"] for order in orders]
    for key, text in zip(("weighting", "method", "objectives"), texts, strict=True):
        assert text.startswith(f"train.{key} must be ")
        assert " for a training by 2 processes, got " in text
    assert {told[1][order]["fault"] for order in orders} == {"ToldElsewhereError"}
    assert not list(place.glob("refused-*"))


def test_a_run_of_one_process_goes_on_with_two(told, place: Path):
    whole = isthmus.Run.open(place / "to the end")
    for rank in (0, 1):
        assert told[rank][6]["auc"] == pytest.approx(whole.evaluate().pooled.auc, abs=1e-6)
    one, two = (place / name / "metrics.jsonl" for name in ("to the end", "alone"))
    for first, second in zip(lines(one), lines(two), strict=True):
        assert first["step"] == second["step"]
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_both_ranks_give_the_run_and_one_of_them_wrote_it(told, place: Path):
    assert told[0][7] == told[1][7]
    report = (place / "whole" / "report.md").read_text()
    assert "- Processes: 2." in report
    assert told[0][8]["text"] == f"run folder must not exist yet, got {place / 'whole'}"


@pytest.mark.parametrize(
    ("tables", "undisturbed"),
    [("replicated", "whole"), pytest.param("sharded", "whole-sharded", marks=pytest.mark.soak)],
)
def test_a_killed_rank_ends_all_and_the_run_goes_on_bit_for_bit(
    told, place: Path, tables: str, undisturbed: str
):
    out = place / f"killed-{tables}"
    words = ["fit", place / "config.yaml", "--processes", "2", "--out", out]
    words += ["--set", f"train.tables={tables}"]
    parent = subprocess.Popen(
        [sys.executable, "-m", "isthmus", *map(str, words)],
        env=environment(ISTHMUS_CACHE=place / "cache"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(out / "checkpoint" / "checkpoint.json", parent)
        killed = children(parent.pid)
        os.kill(killed[1], signal.SIGKILL)
        text, err = parent.communicate(timeout=200)
    finally:
        parent.kill()
    assert parent.returncode == 0, err
    assert "run folder: " in text
    assert "going on after step" in text + err
    for name in ("bundle/weights.safetensors", "metrics.jsonl", "scores/test.parquet"):
        assert (out / name).read_bytes() == (place / undisturbed / name).read_bytes(), name


def wait_for(file: Path, parent: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 200
    while not file.exists():
        assert parent.poll() is None, parent.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_run_that_may_be_restarted_must_name_its_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(isthmus.ConfigError, match="give --out"):
        isthmus.fit(settings(), place / "clicks.parquet")


def test_tables_on_several_processes_give_what_whole_ones_give(told, place: Path):
    assert told[0][9]["auc"] == pytest.approx(told[0][10]["auc"], abs=1e-6)
    whole, dealt = (
        load_file(place / name / "bundle" / "weights.safetensors") for name in ("plain", "sharded")
    )
    assert whole.keys() == dealt.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(dealt[name], tensor, rtol=1e-4, atol=1e-5)
    table = pq.read_table(place / "clicks.parquet")
    scores = [Bundle.load(place / name / "bundle").score(table) for name in ("plain", "sharded")]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    state = json.loads((place / "sharded" / "checkpoint" / "checkpoint.json").read_text())
    assert len(list((place / "sharded" / "checkpoint").glob("shard-*"))) == 2
    assert state["format"] == 5
    assert not list((place / "sharded").glob("*.weights"))
