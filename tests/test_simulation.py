"""The page of the simulation is what its formulas give, and the formulas are right by hand."""

import json
import math
from copy import deepcopy

import numpy as np
import pytest
from bench import simulation
from bench.simulation import Fit, dense_bytes, different, held_bytes, simulated, waits

RECORD = json.loads(simulation.RECORD.read_text(encoding="utf-8"))


def test_the_page_is_what_the_formulas_give():
    assert simulation.PAGE.read_text(encoding="utf-8") == simulation.page(RECORD)
    assert "{" not in simulation.page(RECORD)


def test_bytes_and_waits_by_hand():
    assert dense_bytes(1000, 1) == 0
    assert dense_bytes(1000, 4) == 2 * 4 * 1000 * 3 / 4  # a ring: twice three quarters
    assert waits(3, 1, 1) == 0
    assert waits(3, 1, 2) == 7
    assert waits(3, 2, 8) == 11 * 3


@pytest.mark.parametrize(("draws", "values"), [(10, 5), (500, 50_000), (8192, 1_000_000)])
def test_different_values_are_those_of_a_draw(draws: int, values: int):
    chance = 1 / np.arange(1, values + 1)
    chance /= chance.sum()
    exact = float((1 - (1 - chance) ** draws).sum())
    assert different(draws, values) == pytest.approx(exact, rel=0.05)
    random = np.random.default_rng(0)
    drawn = [len(set(random.choice(values, draws, p=chance).tolist())) for _ in range(20)]
    assert np.mean(drawn) == pytest.approx(exact, rel=0.1)


def test_a_fit_finds_the_figures_that_made_the_steps():
    made = Fit(fixed=0.01, row=2e-5, wait=1e-3, byte=1e-9)
    steps = [
        {"processes": world, "batch_rows": rows, "asked": rows / 2, "dense": 50_000}
        for world in (1, 2, 4)
        for rows in (1024, 2048, 4096)
    ]
    steps = [one | {"seconds": made.seconds(one)} for one in steps]
    probe = {"processes": 2, "batch_rows": 0, "asked": 0, "dense": 1 << 22}
    steps.append(probe | {"seconds": 2 * (8 + dense_bytes(1 << 22, 2)) * 1e-9})
    found = Fit.of(steps)
    for name in ("fixed", "row", "wait", "byte"):
        assert getattr(found, name) == pytest.approx(getattr(made, name), rel=1e-3), name
    assert "0% with 1, 0% with 2, 0% with 4: within" in simulation.verdict(steps)


def test_what_a_gpu_holds_by_hand():
    work = RECORD["workload"]
    ids = 10**9 + 200_000
    table = ids * 16 * 4 * 4 / 8  # weights, two moments, the best look's
    dense = simulation.dense_numbers(work) * 4 * 5
    states = 8192 * 4 * (1792 * 4 + 3 * 384)
    assert held_bytes(8, RECORD) == pytest.approx(table + dense + states + 2e9)
    assert simulation.least_gpus(RECORD) == 4


def test_more_gpus_hold_less_each_and_send_between_machines():
    steps = [simulated(gpus, RECORD) for gpus in simulation.GPUS]
    assert [one.held for one in steps] == sorted((one.held for one in steps), reverse=True)
    assert steps[1].bytes > steps[0].bytes  # 16 GPUs lie on two machines
    assert all(math.isclose(one.seconds, sum(one.parts.values())) for one in steps)


def test_a_day_is_its_steps():
    free = deepcopy(RECORD)
    free["machine"]["dollars_of_an_hour"]["value"] = 3600.0  # a dollar a second
    step = simulated(16, free)
    day = simulation.day_of(step, free)
    assert day["training"] == pytest.approx(10**9 / 65_536 * step.seconds)
    assert day["checkpoint"] == pytest.approx(256.0512e9 / (2 * 10e9))
    assert day["dollars"] == pytest.approx(16 * (day["training"] + day["checkpoint"]))
    assert day["encoding"] == pytest.approx(10**9 / 1.3e6 / 16)


@pytest.mark.parametrize("group", ["machine", "assumed"])
def test_every_figure_says_where_it_is_from(group: str):
    for name, one in RECORD[group].items():
        assert one["what"], name
        assert one["told"], name
        assert one["from"], name
