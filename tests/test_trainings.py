"""What is trained: a joint, a second stage and a solo are the plain trainings they stand for."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import isthmus
from isthmus.config import validate
from isthmus.data import Dataset, Rows
from isthmus.experiments import Engine, Training
from isthmus.experiments.outcome import build, build_to_train
from isthmus.metrics import auc, logloss
from isthmus.models import AbstractModel, ModelConfig, build_model
from isthmus.schema import DataConfig
from isthmus.train import Budget, End, Look, TrainConfig, score_rows, train
from small_runs import write_table
from small_trainings import make_dataset, settled, training

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Dataset:
    return make_dataset(table, tmp_path_factory.mktemp("cache"))


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
    model: AbstractModel, dataset: Any, config: TrainConfig, budget: Budget | None
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
    model = build_to_train(training(), dataset, dataset.rows("train"))
    told, end, _ = looks_of(model, dataset, config, Budget(steps=count, looks=looks))
    spread = min(looks, count)
    assert [look.step for look in told] == [
        math.ceil(k * count / spread) for k in range(1, spread + 1)
    ]
    assert (end.step, end.stopped) == (count, "budget")
    assert told[-1].step == count


def test_the_first_logits_stand_around_the_train_rows_own_rate(dataset: Dataset):
    """Of a part of the rows: of that part. Both classes count as there, even where one is not."""
    plain = build(training(), dataset).eval()
    for domains in (None, ("mail",)):
        made = training(domains=domains)
        rows = made.subset(dataset).rows("train")
        rate = np.asarray(rows.label).mean()
        model = build_to_train(made, dataset, rows).eval()
        moved = score_rows(model, rows) - score_rows(plain, rows)
        np.testing.assert_allclose(moved, math.log(rate / (1 - rate)), atol=1e-5)
    only = np.flatnonzero(np.asarray(rows.label) > 0)
    some = Rows(rows.arrays.take(only), row=rows.row[only], group=None, n_domains=3, fold=None)
    moved = score_rows(build_to_train(made, dataset, some).eval(), rows) - score_rows(plain, rows)
    np.testing.assert_allclose(moved, math.log(2 * len(only) - 1), rtol=1e-4)


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


def transplanted(whole: Dataset, own: Dataset, model: AbstractModel, other: AbstractModel) -> None:
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
    first = build_to_train(solo, whole, solo.subset(whole).rows("train"))
    transplanted(whole, own, first, model)
    _, end, _ = looks_of(model, own, recipe, None)
    assert outcome.told.best_step == end.best.step
    assert outcome.told.steps == end.step
    for name, value in end.best.metrics.items():
        assert outcome.told.metrics[name] == pytest.approx(value, abs=1e-4), name
    logits, label = score_rows(model, own.rows("test")), own.rows("test").label > 0
    np.testing.assert_allclose(outcome.logits("test", "fr"), logits, atol=1e-3)
    assert auc(outcome.logits("test", "fr"), label) == pytest.approx(auc(logits, label), abs=1e-4)
    assert auc(logits, label) > 0.6, "it must have learnt something"
