"""Processes that train together, and one of them does not come: a clear end on all, never a hang."""

import socket
import subprocess
from typing import Any

import pytest

from worlds import HERE, ends, start_world

World = list[subprocess.Popen[str]]


def world(what: str, seconds: float = 60, meeting: float = 60, **changes: Any) -> World:
    return start_world(2, [HERE / "faults_of_ranks.py", what, seconds, meeting], **changes)


@pytest.fixture(scope="module")
def worlds() -> dict[str, list[tuple[int, str, str]]]:
    """How all worlds end."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        return {
            "stay_away": ends(world("stay_away", 2)),
            "say_nothing": ends(world("say_nothing", 2)),
            "take_long": ends(world("take_long", 2)),
            "port": ends(world("go_well", 60, 5, MASTER_PORT=port)),
        }


def test_a_rank_that_does_not_come_ends_the_others(worlds):
    (code, _, err), _ = worlds["stay_away"]
    assert code == 2
    assert err.startswith("RankError: rank 0 of 2 must hear of the others within 2 s, got:")


def test_a_silent_rank_0_ends_the_others(worlds):
    _, (code, _, err) = worlds["say_nothing"]
    assert code == 2
    assert err.startswith("RankError: rank 0 of 2 must give a sign of life every 2 s")


def test_rank_0_may_work_for_longer_than_a_rank_waits(worlds):
    assert [(code, err) for code, _, err in worlds["take_long"]] == [(0, ""), (0, "")]


def test_a_port_in_use_is_named(worlds):
    for code, _, err in worlds["port"]:
        assert code == 2
        assert "must meet the others at 127.0.0.1:" in err
    assert "in use" in worlds["port"][0][2]


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_processes_that_did_well_end_well(times: int):
    """On torch 2.13 the interpreter's own end aborts in gloo, now and then."""
    for first in range(0, times, 5):  # few at a time: each starts torch twice
        started = [world("go_well") for _ in range(min(5, times - first))]
        for one in started:
            assert [(code, err) for code, _, err in ends(one)] == [(0, ""), (0, "")]
