"""Trainings in threads of one process: they take turns, and each gives what it gives alone."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path

import pytest
import torch

import isthmus
from isthmus.data import Dataset
from isthmus.errors import RunError
from isthmus.experiments import Engine
from isthmus.train import generators
from isthmus.train.generators import seeded, turn
from planted_rows import Linear, assert_same, begin, config, planted, weights
from small_runs import clicks, content, settings, write_table
from small_runs import weights as weights_of_run
from small_trainings import make_dataset, results, training

pytestmark = pytest.mark.usefixtures("one_thread")

THREADS = 4


def side_by_side(work: Callable[[int], object]) -> list[object]:
    """What each of a few threads gives that begin at the same moment."""
    start = threading.Barrier(THREADS)

    def begun(number: int) -> object:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(begun, range(THREADS)))


def is_free() -> bool:
    """Whether another thread gets its turn at once."""
    done = threading.Event()

    def take() -> None:
        with turn():
            done.set()

    threading.Thread(target=take, daemon=True).start()
    return done.wait(timeout=10)


def test_fits_in_threads_are_equal_to_one_alone(tmp_path: Path):
    table = clicks()

    def fit(name: str) -> tuple[dict[str, bytes], bytes]:
        run = isthmus.fit(settings(), table, out=tmp_path / name / "run")
        return content(run.path / "scores"), weights_of_run(run)

    alone = fit("alone")
    for found in side_by_side(lambda number: fit(f"thread {number}")):
        assert found == alone


def test_trainings_of_engines_in_threads_are_equal_to_one_alone(tmp_path: Path):
    dataset: Dataset = make_dataset(write_table(tmp_path), tmp_path / "cache")

    def outcomes(name: str) -> list[dict[str, bytes]]:
        with Engine([dataset], tmp_path / name) as engine:
            return [results(one) for one in engine.run([training(), training(half=True)], "x")]

    alone = outcomes("alone")
    for found in side_by_side(lambda number: outcomes(f"thread {number}")):
        assert found == alone


def test_the_callers_generator_is_left_alone_by_another_threads_training():
    data = planted()

    def trained(number: int) -> object:
        if number:
            return list(begin(Linear(dropout=0.3), data, config(seed=number)))
        return [one_draw() for _ in range(500)]

    def one_draw() -> float:
        with seeded(7):
            return float(torch.rand(1))

    draws = side_by_side(trained)[0]
    assert isinstance(draws, list)
    assert set(draws) == {one_draw()}


def test_two_trainings_of_one_thread_may_go_step_by_step():
    data = planted()
    alone, models = [Linear(dropout=0.3) for _ in "ab"], [Linear(dropout=0.3) for _ in "ab"]
    for seed, model in enumerate(alone):
        list(begin(model, data, config(seed=seed)))
    both = [begin(model, data, config(seed=seed)) for seed, model in enumerate(models)]
    for _ in zip_longest(*both):
        assert is_free()
    for model, same in zip(models, alone, strict=True):
        assert_same(weights(model), weights(same))
    assert not torch.equal(models[0].weight, models[1].weight)


@pytest.mark.parametrize("end", ["kept", "closed", "dropped"])
def test_a_training_that_nobody_goes_on_with_holds_nobody_up(end: str):
    before = torch.get_rng_state()
    events = begin(Linear(dropout=0.3), planted(), config())
    next(events)
    assert torch.equal(torch.get_rng_state(), before)
    assert is_free()
    if end == "closed":
        events.close()
    if end == "dropped":
        del events
    assert is_free()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_training_may_go_on_in_another_thread():
    alone, model = Linear(dropout=0.3), Linear(dropout=0.3)
    list(begin(alone, planted(), config()))
    events = begin(model, planted(), config())
    next(events)
    thread = threading.Thread(target=lambda: list(events))
    thread.start()
    thread.join()
    assert_same(weights(model), weights(alone))


def test_a_training_that_fails_gives_its_turn_back():
    before = torch.get_rng_state()
    with pytest.raises(RunError, match="must stay finite"):
        list(begin(Linear(), planted(), config(lr=1e38, epochs=20)))
    assert is_free()
    assert torch.equal(torch.get_rng_state(), before)


def test_turns_may_be_nested_and_a_thread_that_waits_comes_next():
    order: list[str] = []

    def take() -> None:
        with turn():
            order.append("the one that waited")

    with turn():
        with turn():
            pass
        waiting = threading.Thread(target=take)
        waiting.start()
        while not generators._next.locked():
            pass
        with turn():  # nested: it must not queue behind the one that waits for it
            order.append("the one that had it")
    with turn():
        order.append("again")
    waiting.join()
    assert order == ["the one that had it", "the one that waited", "again"]
