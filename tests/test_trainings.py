"""The engine: every training once, equal whoever runs it, and nothing half done when it is stopped."""

import contextlib
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import isthmus
from isthmus import checkpoint
from isthmus.config import Config, validate
from isthmus.data import Dataset
from isthmus.errors import BundleError, ConfigError, RunError
from isthmus.metrics import auc, logloss
from isthmus.models import DomainModel, ModelConfig, build_model
from isthmus.schema import DataConfig
from isthmus.train import Budget, End, Look, TrainConfig, score_rows, train
from isthmus.trainings import Engine, Outcome, Training
from isthmus.trainings.cost import cost, probe, steps
from isthmus.trainings.outcome import build
from small_runs import clicks, content, settings
from trainings_to_kill import DOMAINS, config, trainings

SCRIPT = Path(__file__).with_name("trainings_to_kill.py")
SRC = Path(isthmus.__file__).parents[1]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums over several threads have other last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def settled(**train: Any) -> Config:
    return validate(Config, settings(**train))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "clicks.parquet"
    pq.write_table(clicks(), path)
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Dataset:
    return Dataset.from_table(settled().data, table, cache=tmp_path_factory.mktemp("cache"))


def training(**changes: Any) -> Training:
    made = settled()
    return replace(Training(model=made.model, train=made.train), **changes)


def unadapted() -> ModelConfig:
    return settled().model.model_copy(update={"adapter": ModelConfig().adapter})


def results(outcome: Outcome) -> dict[str, bytes]:
    """All that an equal training must have equal, bit for bit."""
    names = ("logits.safetensors", "weights.safetensors")
    told = replace(outcome.told, seconds=0.0)
    return {name: (outcome.folder / name).read_bytes() for name in names} | {
        "told": repr(told).encode()
    }


def clean(folder: Path) -> None:
    """Outcomes and the lock, and nothing else."""
    assert {path.name for path in folder.rglob("*") if "part-" in path.name} == set()
    for path in folder.iterdir():
        assert path.name == ".lock" or (path / "outcome.json").exists(), path


# ---------------------------------------------------------------- keys


def other_values() -> dict[str, Any]:
    made = settled()
    return {
        "model": made.model.model_copy(update={"towers": "per_domain"}),
        "train": made.train.model_copy(update={"lr": 0.02}),
        "replicate": None,  # the dataset's key tells replicates apart
        "domains": ("home",),
        "watch": ("home",),
        "scored": ("home",),
        "rows_per_domain": 50,
        "hide_domain": True,
        "half": True,
        "start": training(),
        "budget": Budget(steps=5, looks=2),
    }


def test_every_field_that_matters_moves_the_key(dataset: Dataset):
    changes = other_values()
    assert set(changes) == {field.name for field in fields(Training)}
    keys = {training().key(dataset)}
    for name, value in changes.items():
        if value is not None:
            keys.add(training(**{name: value}).key(dataset))
    keys.add(training(start=training(hide_domain=True)).key(dataset))
    keys.add(training(budget=Budget(steps=6, looks=2)).key(dataset))
    keys.add(training(budget=Budget(steps=5, looks=3)).key(dataset))
    keys.add(training(domains=("home", "mail")).key(dataset))
    assert len(keys) == len(changes) + 4


def test_every_key_of_the_train_section_but_one_moves_the_key(dataset: Dataset):
    changes: dict[str, Any] = {
        "batch_rows": 64,
        "epochs": 3,
        "lr": 0.02,
        "embedding_l2": 0.0,
        "embedding_update": "lazy",
        "patience": 3,
        "looks_per_epoch": 3,
        "monitor": "logloss_pooled",
        "seed": 1,
        "domain_sampling": 0.5,
        "domain_dropout": 0.5,
        "weighting": "uniform",
        "clip_norm": 1.0,
        "compile": True,
        "device": "cpu",
    }
    assert set(changes) | {"checkpoint_minutes"} == set(TrainConfig.model_fields)
    keys = {training().with_recipe(**{name: value}).key(dataset) for name, value in changes.items()}
    assert len(keys) == len(changes)
    assert training().key(dataset) not in keys
    assert training().with_recipe(checkpoint_minutes=0).key(dataset) == training().key(dataset)


def test_what_does_not_matter_leaves_the_key(dataset: Dataset):
    calibrated = settled().model.model_copy(update={"calibration": "per_domain"})
    assert training(model=calibrated).key(dataset) == training().key(dataset)
    one = training(domains=("home", "mail"), watch=("mail", "search"), scored=("home", "mail"))
    other = training(
        domains=("mail", "home", "mail"), watch=("search", "mail"), scored=("mail", "home")
    )
    assert one.key(dataset) == other.key(dataset)
    alone = training(domains=("home",))
    assert replace(alone, watch=("home",)).key(dataset) == alone.key(dataset)
    assert training(replicate=3).key(dataset) == training().key(dataset)


def test_another_dataset_or_torch_moves_the_key(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    data = settled().data
    turned = data.model_copy(update={"split": data.split.model_copy(update={"seed": 1})})
    assert training().key(Dataset.from_table(turned, clicks())) != training().key(dataset)
    before = training().key(dataset)
    monkeypatch.setattr(torch, "__version__", torch.__version__.partition("+")[0] + "+other")
    assert training().key(dataset) == before, "a build of one version computes the same"
    monkeypatch.setattr(torch, "__version__", "1.0.0")
    assert training().key(dataset) != before


# ---------------------------------------------------------------- what is trained


def test_a_joint_training_is_the_fit_of_the_same_config(
    dataset: Dataset, table: Path, tmp_path: Path
):
    run = isthmus.fit(settled(), table, tmp_path / "run")
    with Engine([dataset], tmp_path / "trainings") as engine:
        (outcome,) = engine.run([training()], "joint")
    for split in ("validation", "test"):
        scored = run.scored(split)
        assert np.array_equal(outcome.logits(split), scored.logits)
        for place, name in enumerate(dataset.domain_names, start=1):
            of = scored.domain == place
            assert np.array_equal(outcome.logits(split, name), scored.logits[of])
    shipped = run.bundle.model.state_dict()
    weights = outcome.weights()
    assert weights.keys() == shipped.keys()
    for name, tensor in outcome.model().state_dict().items():
        assert torch.equal(tensor, shipped[name]), name
    assert not outcome.model().training
    assert outcome.told.stopped == run.state.stopped
    assert (outcome.told.steps, outcome.told.best_step) == (run.state.steps, run.state.best_step)
    assert outcome.told.best == outcome.told.metrics["auc_pooled"]
    assert outcome.told.rows == len(dataset.rows("train"))


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


def test_scored_domains_are_those_of_all_rows(dataset: Dataset, tmp_path: Path):
    """A training's scores of a domain do not depend on which others it scores."""
    with Engine([dataset], tmp_path / "trainings") as engine:
        every, some = engine.run(
            [training(domains=("mail",)), training(domains=("mail",), scored=("search", "mail"))],
            "x",
        )
    for split in ("validation", "test"):
        domain = dataset.rows(split).domain
        assert len(every.logits(split)) == len(domain)
        assert len(some.logits(split)) < len(domain)
        for place, name in enumerate(dataset.domain_names, start=1):
            assert np.array_equal(every.logits(split, name), every.logits(split)[domain == place])
        for name in ("mail", "search"):
            # Batches of other sizes: the same to the last bits of a float32 sum.
            np.testing.assert_allclose(
                some.logits(split, name), every.logits(split, name), atol=1e-5
            )
        with pytest.raises(ValueError, match=r"among the scored ones, search, mail, got 'home'"):
            some.logits(split, "home")
    with pytest.raises(ValueError, match=r"among the scored ones, home, mail, search, got 'shop'"):
        every.logits("test", "shop")
    with pytest.raises(ValueError, match="split must be one of validation, test, got 'train'"):
        every.logits("train")


def test_a_domain_that_was_not_trained_is_scored_as_unknown(dataset: Dataset, tmp_path: Path):
    solo = training(domains=("mail",))
    with Engine([dataset], tmp_path / "trainings") as engine:
        (outcome,) = engine.run([solo], "x")
    rows = solo.subset(dataset).scored("test", None)
    shown = next(rows.batches(10**6)).domain.numpy()
    mail = dataset.domain_names.index("mail") + 1
    assert np.array_equal(shown, np.where(rows.domain == mail, mail, 0))
    assert np.array_equal(score_rows(outcome.model(), rows), outcome.logits("test"))


# ---------------------------------------------------------------- second stages


def looks_of(
    model: DomainModel, dataset: Any, config: TrainConfig, budget: Budget | None
) -> tuple[list[Look], End, dict[int, dict[str, torch.Tensor]]]:
    """A plain training: its looks, its end, and the weights at every look."""
    looks, weights = [], {}
    for event in train(model, dataset, config, budget=budget):
        if isinstance(event, Look):
            looks.append(event)
            weights[event.step] = {
                name: tensor.clone() for name, tensor in model.state_dict().items()
            }
        elif isinstance(event, End):
            return looks, event, weights
    raise AssertionError("a training must end")


@pytest.mark.parametrize(("count", "looks"), [(1, 1), (7, 3), (23, 4), (40, 40), (3, 8)])
def test_a_budget_is_kept_to_the_step(dataset: Dataset, count: int, looks: int):
    """More steps than the epochs allow, no patience, looks spread evenly, the last at the end."""
    config = settled(epochs=1, patience=1, lr=1e-9).train
    assert dataset.rows("train").steps(config.batch_rows) == 6
    model = build(training(), dataset)
    told, end, _ = looks_of(model, dataset, config, Budget(steps=count, looks=looks))
    spread = min(looks, count)
    assert [look.step for look in told] == [
        math.ceil(k * count / spread) for k in range(1, spread + 1)
    ]
    assert (end.step, end.stopped) == (count, "budget")
    assert told[-1].step == count


def test_a_budget_that_holds_nothing_is_refused():
    for count, looks in ((0, 1), (1, 0), (-2, 3)):
        with pytest.raises(ValueError, match=rf"at least 1 step and 1 look, got .*steps={count}"):
            Budget(steps=count, looks=looks)


def test_a_second_stage_begins_with_the_best_weights_of_its_start(dataset: Dataset, tmp_path: Path):
    first = training()
    still = training(
        train=settled(lr=1e-12, domain_dropout=0.0, embedding_l2=0.0, seed=5).train,
        domains=("mail",),
        start=first,
        budget=Budget(steps=3, looks=1),
    )
    with Engine([dataset], tmp_path / "trainings") as engine:
        (stage,) = engine.run([still], "stages")
        assert engine.trained == 2, "the start is trained first, though nobody named it"
        start = engine.outcome(first)
        assert engine.run([first], "first")[0].told == start.told
    found, wanted = stage.model(), dict(start.model().named_parameters())
    for name, parameter in found.named_parameters():
        torch.testing.assert_close(parameter, wanted[name], rtol=0, atol=1e-6, msg=name)
    # Norms take up the running means of the rows that they meet: that is no step of the optimiser.
    fresh = dict(build(still, dataset).named_parameters())
    assert any((fresh[name] - wanted[name]).abs().max() > 1e-2 for name in wanted)


def test_a_second_stage_is_a_plain_training_from_there(dataset: Dataset, tmp_path: Path):
    first = training()
    budget = Budget(steps=17, looks=5)
    # A rate so high that every look is worse than the start: it must not come back.
    second = training(
        train=settled(lr=2.0, seed=3, monitor="logloss_pooled").train,
        domains=("mail",),
        start=first,
        budget=budget,
    )
    with Engine([dataset], tmp_path / "trainings") as engine:
        start, stage = engine.run([first, second], "stages")
    model = build(second, dataset)
    model.load_state_dict(start.weights())
    part = second.subset(dataset)
    assert part.known is None, "what the start has seen stays known"
    assert set(part.rows("train").domain.tolist()) == {dataset.domain_names.index("mail") + 1}
    looks, end, weights = looks_of(model, part, second.train, budget)
    assert [look.step for look in looks] == [4, 7, 11, 14, 17]
    losses = {look.step: look.metrics["logloss_pooled"] or math.inf for look in looks}
    best_step = min(losses, key=lambda step: losses[step])
    told = stage.told
    assert (told.steps, told.looks, told.stopped) == (17, 5, "budget")
    assert (told.best, told.best_step) == (losses[best_step], best_step)
    assert end.best.step == best_step
    found = stage.weights()
    for name, tensor in weights[best_step].items():
        assert torch.equal(found[name], tensor), name
    mail = part.rows("validation")
    before = logloss(score_rows(start.model(), mail), mail.label > 0)
    assert before < losses[best_step], "step 0 would have been the best look"


def test_what_a_stage_knows_is_what_it_or_its_start_has_seen(dataset: Dataset):
    budget = Budget(steps=2, looks=1)
    joint, solo = training(), training(domains=("mail",))
    capped = training(rows_per_domain=50)

    def knows_all(start: Training) -> bool:
        return training(domains=("mail",), start=start, budget=budget).subset(dataset).known is None

    assert knows_all(joint)
    assert knows_all(training(domains=("mail",), start=joint, budget=budget))
    assert not knows_all(solo)
    assert not knows_all(capped)


# ---------------------------------------------------------------- solo, against a table of its own


def markets(rows: int = 4_000) -> pa.Table:
    """Two domains with their own taste; groups decide the split, so that a part splits alike."""
    rng = np.random.default_rng(11)
    user, item = rng.integers(0, 400, rows), rng.integers(0, 60, rows)
    shop = rng.choice(["de", "fr"], rows, p=[0.7, 0.3])
    taste = rng.normal(size=(2, 60))[(shop == "fr").astype(int), item]
    return pa.table(
        {
            "user": user,
            "item": [f"i{x}" for x in item],
            "last": [[f"i{x}" for x in rng.integers(0, 60, n)] for n in rng.integers(0, 4, rows)],
            "shop": shop.tolist(),
            "size": rng.normal(size=rows),
            "bought": (rng.random(rows) < 1 / (1 + np.exp(-1.5 * taste))).astype(np.int64),
        }
    )


def markets_config(least: int) -> DataConfig:
    return DataConfig.model_validate(
        {
            "domain": "shop",
            "label": "bought",
            "group": "user",
            "features": {
                "user": {"kind": "categorical", "dim": 4, "min_count": least},
                "item": {"kind": "categorical", "dim": 4, "min_count": least},
                "last": {"kind": "categorical_list", "shares": "item", "dim": 4},
                "shop": {"kind": "categorical", "dim": 2, "min_count": least},
                "size": {"kind": "numeric", "scale": "none"},
            },
            "split": {"by": "user", "fractions": (0.7, 0.15, 0.15)},
        }
    )


def transplanted(whole: Dataset, own: Dataset, model: DomainModel, other: DomainModel) -> None:
    """Give ``other``, of the small table, the weights that ``model`` has for the same values."""
    weights, target = model.state_dict(), other.state_dict()
    for name, tensor in target.items():
        table = name.removeprefix("inputs.tables.")
        if table == name:
            tensor.copy_(weights[name])
            continue
        here = own.encoder.vocabularies[table].values.to_pylist()
        there = ["", *whole.encoder.vocabularies[table].values.to_pylist()]
        at = [0, *(there.index(value) for value in here)]
        tensor.copy_(weights[name][at])


def test_a_solo_is_the_training_on_a_table_of_its_own(tmp_path: Path):
    """The rows of one domain alone, min_count 2, and the same first weights give the same logits.

    Values have other ids there, so gradients of a table's rows add up in another order: equal to
    float32 sums, not bit for bit. Nothing else differs: the split is by group, rows keep their
    order, the numbers are not scaled, and a value of a single train row is unknown in both.
    """
    table = markets()
    alone = table.filter(pa.array(np.array(table["shop"].to_pylist()) == "fr"))
    whole = Dataset.from_table(markets_config(1), table)
    own = Dataset.from_table(markets_config(2), alone)
    made = validate(ModelConfig, {"backbone": {"name": "mlp", "widths": [16, 8]}})
    recipe = TrainConfig(batch_rows=100, epochs=3, lr=0.01, looks_per_epoch=2, domain_dropout=0.1)
    solo = Training(model=made, train=recipe, domains=("fr",), scored=("fr",))
    for split in ("train", "validation"):
        rows = solo.subset(whole).rows(split)
        assert np.array_equal(rows.label, own.rows(split).label)
        assert ((rows.arrays.categorical == 0) == (own.rows(split).arrays.categorical == 0)).all()
    assert (own.rows("test").arrays.categorical == 0).any(), "some value must be unknown"

    with Engine([whole], tmp_path / "trainings") as engine:
        (outcome,) = engine.run([solo], "solo")
    model = build_model(made, own.encoder.fields, own.n_domains)
    transplanted(whole, own, build(solo, whole), model)
    _, end, _ = looks_of(model, own, recipe, None)
    assert outcome.told.best_step == end.best.step
    assert outcome.told.steps == end.step
    for name, value in end.best.metrics.items():
        assert outcome.told.metrics[name] == pytest.approx(value, abs=1e-4), name
    logits, label = score_rows(model, own.rows("test")), own.rows("test").label > 0
    np.testing.assert_allclose(outcome.logits("test", "fr"), logits, atol=1e-3)
    assert auc(outcome.logits("test", "fr"), label) == pytest.approx(auc(logits, label), abs=1e-4)
    assert auc(logits, label) > 0.6, "it must have learnt something"


# ---------------------------------------------------------------- faults


def broken(**changes: Any) -> Training:
    return training(
        train=settled(lr=1e30, embedding_l2=0.0).train, domains=("mail", "home"), **changes
    )


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

    monkeypatch.setattr("isthmus.trainings.outcome.save_file", full)
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


# ---------------------------------------------------------------- several processes


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


class Killable:
    """`trainings_to_kill.py` in a process group of its own."""

    def __init__(self, table: Path, cache: Path, folder: Path) -> None:
        order = {"table": str(table), "cache": str(cache), "folder": str(folder)}
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(order)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SRC)},
        )
        self.group = self.process.pid

    def heard(self) -> str:
        """The next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, self.process.stderr.read() if self.process.stderr else ""
        return line

    def close(self) -> None:
        """End what is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGKILL)
        self.process.communicate(timeout=60)

    def ended(self) -> str:
        """Wait until every process of the group is gone; give what they complained."""
        _, complaint = self.process.communicate(timeout=60)
        deadline = time.monotonic() + 60
        while left := members(self.group):
            assert time.monotonic() < deadline, f"processes {left} must end"
            time.sleep(0.02)
        return complaint


def members(group: int) -> list[int]:
    """Living processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_group) == group and state != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    """What must be closed whatever happens."""
    with contextlib.ExitStack() as stack:
        yield stack


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


# ---------------------------------------------------------------- time


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
