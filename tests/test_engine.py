"""The engine: every training once, faults named, and nothing half done when it is stopped."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from isthmus import checkpoint
from isthmus.data import Dataset
from isthmus.errors import BundleError, ConfigError, RunError
from isthmus.experiments import Engine
from isthmus.experiments.cost import cost, probe, steps
from isthmus.models import ModelConfig
from isthmus.train import Budget
from small_runs import content, write_table
from small_trainings import broken, clean, make_dataset, results, settled, training

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("table")
    return make_dataset(write_table(folder), folder / "cache")


def test_a_second_run_trains_nothing(dataset: Dataset, tmp_path: Path):
    told: list[tuple[str, int, int]] = []
    wanted = [training(), training(domains=("home",)), training()]
    folder = tmp_path / "trainings"
    with Engine([dataset], folder, tell=lambda *args: told.append(args[:3])) as engine:
        first = engine.run(wanted, "some")
        assert (engine.trained, engine.cached) == (2, 0)
        assert engine.seconds > 0
        assert told == [("some", 1, 2), ("some", 2, 2)]
        assert [one.training for one in first] == wanted
        before = content(folder)
        again = engine.run(wanted, "again")
        assert (engine.trained, engine.cached) == (2, 0), "asked for twice, counted once"
    with Engine([dataset], folder, tell=lambda *args: told.append(args[:3])) as engine:
        assert all(map(engine.is_done, wanted))
        later = engine.run(wanted, "later")
        assert (engine.trained, engine.cached) == (0, 2)
    assert len(told) == 2
    assert {name: data for name, data in content(folder).items() if name != ".lock"} == {
        name: data for name, data in before.items() if name != ".lock"
    }
    for outcomes in (again, later):
        assert [results(one) for one in outcomes] == [results(one) for one in first]
    clean(folder)


def test_a_training_does_not_depend_on_its_neighbours(dataset: Dataset, tmp_path: Path):
    """Neither on torch's global generator, nor on what was trained before it."""
    wanted = [training(), training(domains=("mail",), half=True), training(rows_per_domain=60)]
    found = []
    for number in range(2):
        torch.manual_seed(number)
        state = torch.get_rng_state()
        with Engine([dataset], tmp_path / str(number)) as engine:
            outcomes = engine.run(wanted[:: 1 if number else -1], "x")
        assert torch.equal(torch.get_rng_state(), state)
        found.append([results(one) for one in outcomes[:: 1 if number else -1]])
    assert found[0] == found[1]


# ---------------------------------------------------------------- faults


def test_a_failing_training_is_named_and_leaves_nothing(dataset: Dataset, tmp_path: Path):
    folder = tmp_path / "trainings"
    with Engine([dataset], folder) as engine:
        rule = r"a training on mail, home with seed 0: .* must stay finite, got"
        with pytest.raises(RunError, match=rule):
            engine.run([broken()], "x")
        assert not engine.is_done(broken())
        assert engine.trained == 0
        clean(folder)
        (outcome,) = engine.run([training(domains=("mail",))], "x")
        assert outcome.told.steps > 0


def test_faults_of_data_and_model_are_named_too(dataset: Dataset, tmp_path: Path):
    made = settled()
    adapter = made.model.adapter.model_copy(update={"condition": ("price",)})
    nameless = training(model=made.model.model_copy(update={"adapter": adapter}))
    starved = training(domains=("mail",), rows_per_domain=1, replicate=1)
    with Engine([dataset, dataset], tmp_path / "trainings") as engine:
        with pytest.raises(
            RunError, match=r"a training on all domains with seed 0: model: .*price"
        ):
            engine.run([nameless], "x")
        rule = r"a training on mail with seed 0, replicate 1: the train split must hold at least 2"
        with pytest.raises(RunError, match=rule):
            engine.run([starved], "x")
        other = made.model.model_copy(update={"towers": "per_domain"})
        stage = training(model=other, start=training(), budget=Budget(steps=1, looks=1))
        rule = r"a training on all domains .*must start from one of the same model, whose '.*' has"
        with pytest.raises(RunError, match=rule):
            engine.run([stage], "x")


def test_a_full_disk_is_named(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("isthmus.experiments.outcome.save_file", full)
    with Engine([dataset], tmp_path / "trainings") as engine:
        rule = r"a training on all domains with seed 0: an outcome must be writable at .*No space"
        with pytest.raises(RunError, match=rule):
            engine.run([training()], "x")
        clean(engine.folder)


def test_what_does_not_fit_is_refused_before_anything_is_trained(dataset: Dataset, tmp_path: Path):
    with Engine([dataset], tmp_path / "trainings") as engine:
        for wrong, rule in (
            (training(domains=("shop",)), r"among those of the dataset, .*, got \['shop'\]"),
            (training(watch=("shop",)), r"got \['shop'\]"),
            (training(scored=("shop", "mail")), r"scored must name domains .*, got \['shop'\]"),
            (training(domains=()), "domains must name at least one domain, got none"),
            (training(rows_per_domain=0), "rows_per_domain must be at least 1, got 0"),
            (training(replicate=1), "replicate must be below the number of datasets, 1, got 1"),
        ):
            with pytest.raises(ValueError, match=rule):
                engine.run([training(), wrong], "x")
        assert engine.trained == 0
    with pytest.raises(ValueError, match="replicate must be 0 or more, got -1"):
        training(replicate=-1)
    with pytest.raises(ValueError, match="start from one of its own replicate, 1, got 0"):
        training(replicate=1, start=training())
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        Engine([dataset], tmp_path / "trainings", jobs=0)
    with pytest.raises(ValueError, match="datasets must hold at least one, got none"):
        Engine([], tmp_path / "trainings")
    with pytest.raises(ConfigError, match="did you mean 'lr'"):
        training().with_recipe(lrr=0.1)
    with pytest.raises(ConfigError, match="lr must be greater than 0, got -1"):
        training().with_recipe(lr=-1)


def test_a_damaged_outcome_is_trained_again(dataset: Dataset, tmp_path: Path):
    with Engine([dataset], tmp_path / "trainings") as engine:
        (outcome,) = engine.run([training()], "x")
        wanted = results(outcome)
        for damage in ("outcome.json", "weights.safetensors"):
            path = outcome.folder / damage
            if damage == "outcome.json":
                path.write_text(path.read_text()[:50])
                with pytest.raises(BundleError, match="an outcome must be whole, got none in"):
                    engine.outcome(training())
            else:
                path.unlink()
            assert not engine.is_done(training())
            assert results(engine.run([training()], "x")[0]) == wanted
        older = json.loads((outcome.folder / "outcome.json").read_text()) | {"format": 0}
        (outcome.folder / "outcome.json").write_text(json.dumps(older))
        with pytest.raises(BundleError, match="must have format 1, got 0"):
            engine.outcome(training())
        assert results(engine.run([training()], "x")[0]) == wanted
        (outcome.folder / "logits.safetensors").write_bytes(b"half")
        with pytest.raises(BundleError, match=r"logits in .* are damaged"):
            engine.outcome(training()).logits("test")


class Interrupted:
    """`checkpoint.save` that is stopped by Ctrl-C after so many states."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(
        self, folder: Path, state: Any, save: Callable[..., None] = checkpoint.save
    ) -> None:
        save(folder, state)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("budget", [None, Budget(steps=10, looks=3)])
def test_a_stopped_training_goes_on_in_its_middle(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: Budget | None
):
    often = training(train=settled(checkpoint_minutes=0).train, budget=budget)
    with Engine([dataset], tmp_path / "whole") as engine:
        (wanted,) = engine.run([often], "x")
    folder = tmp_path / "stopped"
    for after in (1, 3, 4):
        with Engine([dataset], folder) as engine, monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save", Interrupted(after))
            with pytest.raises(KeyboardInterrupt):
                engine.run([often], "x")
            saved = engine.path(often).with_name(f"{engine.path(often).name}.checkpoint")
            assert checkpoint.exists(saved)
    assert checkpoint.load(saved).step == 8
    with Engine([dataset], folder) as engine:
        assert results(engine.run([often], "x")[0]) == results(wanted)
    clean(folder)
    # One that is damaged, or left beside a finished outcome, is no obstacle.
    for half in (False, True):
        saved.mkdir(exist_ok=True)
        (saved / "checkpoint.json").write_text("{}")
        if half:
            (engine.path(often) / "outcome.json").unlink()
        with Engine([dataset], folder) as engine:
            assert saved.exists() == half
            assert results(engine.run([often], "x")[0]) == results(wanted)
        clean(folder)


# ---------------------------------------------------------------- one engine a folder


def test_a_second_engine_in_the_folder_is_refused(dataset: Dataset, tmp_path: Path):
    folder = tmp_path / "trainings"
    rule = f"{folder} must have one writer at a time, and process {os.getpid()} writes there"
    with Engine([dataset], folder) as engine:
        (folder / ".x.part-1").write_text("of the engine at work")
        with pytest.raises(RunError, match=rule):
            Engine([dataset], folder)
        assert (folder / ".x.part-1").exists(), "the refused one must touch nothing"
        (outcome,) = engine.run([training()], "x")
    with Engine([dataset], folder) as other:
        assert not (folder / ".x.part-1").exists()
        assert other.is_done(training())
    # A closed one still reads, and does not write.
    assert results(engine.run([training()], "x")[0]) == results(outcome)
    with pytest.raises(ValueError, match="an engine must be open to train, got a closed one"):
        engine.run([training(half=True)], "x")
    forgotten = Engine([dataset], folder)
    del forgotten
    Engine([dataset], folder).close()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"a folder of trainings must be writable at .*file"):
        Engine([dataset], tmp_path / "file")


# ---------------------------------------------------------------- time


def unadapted() -> ModelConfig:
    return settled().model.model_copy(update={"adapter": ModelConfig().adapter})


def test_costs_and_pace_are_of_the_right_size(dataset: Dataset):
    joint, solo = training(), training(domains=("mail",))
    assert steps(joint, dataset) == 6 * 2
    assert steps(replace(joint, budget=Budget(steps=33, looks=1)), dataset) == 33
    assert 0 < cost(solo, dataset) < cost(joint, dataset)
    assert cost(training(rows_per_domain=20), dataset) < cost(joint, dataset)
    assert cost(training(model=unadapted()), dataset) < cost(joint, dataset)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    pace = probe(joint.model, joint.train, dataset, jobs=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert pace.rows > 0
    one, two = (pace.seconds([joint, solo], [dataset], jobs) for jobs in (1, 2))
    assert 0 < two < one
