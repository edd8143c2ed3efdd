"""MAMDR: outer steps by hand, sets of one domain alone, any step resumed, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from by_method import (
    assert_same,
    by_mamdr,
    by_phases,
    make_dataset,
    make_model,
    moved,
    run,
    states,
)
from isthmus.data import Batch, Dataset
from isthmus.data.store.by_domain import RowsByDomain
from isthmus.errors import ConfigError
from isthmus.schema import DataConfig
from isthmus.train import Budget, TrainConfig, TrainState, train
from isthmus.train.methods import Mamdr
from isthmus.train.methods.inner_steps import InnerStep, schedule, steps_of
from resumed import in_pieces

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("cache"))


def plan(dataset: Dataset, *, helpers: int = 3, unknown: bool = True, epoch: int = 0):
    counts = RowsByDomain(dataset.rows("train"), dataset.n_domains).counts
    steps = steps_of(counts, 100)
    return schedule(steps, helpers=helpers, unknown=unknown, seed=0, epoch=epoch)


class Slope(nn.Module):
    """A linear model of one number: ``logit = w x``."""

    def __init__(self, start: float = 0.5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([start]))

    def forward(self, batch: Batch) -> Tensor:
        return batch.numeric[:, 0] * self.weight


def line_dataset(cache: Path) -> Dataset:
    rng = np.random.default_rng(3)
    x, tab = rng.normal(size=400), rng.choice(["one", "two"], 400, p=[0.7, 0.3])
    logit = np.where(tab == "one", 2.0, 1.0) * x
    click = (rng.random(400) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    config = DataConfig.model_validate(
        {"domain": "tab", "label": "click", "features": {"x": "numeric"}}
    )
    table = pa.table({"x": x, "tab": tab, "click": click})
    return Dataset.from_table(config, table, cache=cache)


def test_theta_follows_the_sum_of_the_domains_steps(tmp_path: Path):
    """One batch a domain: Adam's two steps by hand, then beta of their sum."""
    data = line_dataset(tmp_path)
    arrays = data.rows("train").arrays
    order = [step.rows_of for step in schedule(
        np.array([0, 1, 1]), helpers=0, unknown=False, seed=0, epoch=0)]  # fmt: skip
    w, first, second, lr, beta = 0.5, 0.0, 0.0, 0.1, 0.3
    moves = []
    for number, domain in enumerate(order, start=1):
        here = np.asarray(arrays.domain) == domain
        x, y = arrays.numeric[here, 0].astype(np.float64), arrays.label[here]
        at = w + sum(moves)
        gradient = np.mean((1 / (1 + np.exp(-at * x)) - y) * x)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        size = np.sqrt(second / (1 - 0.999**number)) + 1e-8
        moves.append(-lr * first / (1 - 0.9**number) / size)
    model = Slope()
    config = by_mamdr(
        batch_rows=1000, lr=lr, beta=beta, epochs=1, looks_per_epoch=1, domain_dropout=0.0
    )
    seen = list(states(model, data, config))
    assert len(seen) == 2
    assert seen[0].model["weight"].item() == pytest.approx(w + moves[0], abs=1e-6)
    assert seen[0].method["theta.weight"].item() == w
    assert seen[1].model["weight"].item() == pytest.approx(w + beta * sum(moves), abs=1e-6)
    assert seen[1].method == {}
    assert model.weight.item() == seen[1].model["weight"].item()


def test_a_look_in_an_inner_loop_judges_where_the_outer_step_would_lead(tmp_path: Path):
    data = line_dataset(tmp_path)
    model = Slope()
    config = by_mamdr(
        batch_rows=1000, beta=0.3, epochs=1, looks_per_epoch=2, domain_dropout=0.0, lr=0.1
    )
    first, last = states(model, data, config)
    inner, theta = first.model["weight"], first.method["theta.weight"]
    torch.testing.assert_close(first.best["weight"], theta + 0.3 * (inner - theta))
    assert moved(first.best, first.model) == {"weight"}
    # The look has left the inner loop as it was: without looks inside, the end is the same.
    rare = config.model_copy(update={"looks_per_epoch": 1})
    assert moved(list(states(Slope(), data, rare))[-1].model, last.model) == set()


def changes(seen: list[TrainState], place: int) -> set[str]:
    return moved(seen[place - 1].model, seen[place].model)


@pytest.mark.parametrize(("adapter", "norm"), [("mlora", "batch"), ("hamur", "domain")])
def test_each_part_moves_its_own_parameters_alone(dataset: Dataset, adapter: str, norm: str):
    model = make_model(dataset, adapter, norm=norm, head="per_domain")
    own = set(model.domain_parameters())
    learnt = {name for name, _ in model.named_parameters()}
    seen = list(states(model, dataset, by_mamdr(epochs=1, domain_dropout=0.2)))
    steps = plan(dataset)
    assert len(seen) == len(steps)
    domains = set()
    for place, step in enumerate(steps):
        if place == 0:
            continue
        found = changes(seen, place)
        if step.negotiates:
            assert not found & own
            assert found - learnt, "batch statistics move"
            continue
        domains.add(step.scored_as)
        assert found <= own, "neither shared parameters nor statistics move"
        assert found
        for name in found:
            before, after = seen[place - 1].model[name], seen[place].model[name]
            rows = (before != after).flatten(1).any(1).nonzero().flatten().tolist()
            assert rows == [step.scored_as], name
    assert domains == {0, 1, 2, 3}, "the unknown domain is regularised too"


def test_a_domain_follows_its_two_steps_by_gamma(dataset: Dataset):
    """The first pair of the first domain, from the same weights, with gamma 1 and 0.25."""
    place = next(p for p, step in enumerate(plan(dataset)) if not step.negotiates)
    found = {}
    for gamma in (1.0, 0.25):
        config = by_mamdr(epochs=1, gamma=gamma, looks_per_epoch=1)
        found[gamma] = list(states(make_model(dataset), dataset, config))
    whole, part = found[1.0], found[0.25]
    assert moved(whole[place].model, part[place].model) == set(), "inner steps are the same"
    own = [name for name in part[place].method if name.startswith("theta.")]
    assert own
    for name in (name.removeprefix("theta.") for name in own):
        start = part[place - 1].model[name]
        far = whole[place + 1].model[name] - start
        torch.testing.assert_close(part[place + 1].model[name] - start, 0.25 * far)
    assert part[place + 1].method["steps"].tolist()[plan(dataset)[place].scored_as] == 2


def test_no_dropout_leaves_the_unknown_domain_as_it_was(dataset: Dataset):
    model = make_model(dataset)
    before = {name: p.detach().clone() for name, p in model.domain_parameters().items()}
    run(model, dataset, by_mamdr(domain_dropout=0.0))
    for name, p in model.domain_parameters().items():
        assert torch.equal(p[0], before[name][0]), name
        assert not torch.equal(p[1:], before[name][1:]), name


@pytest.mark.parametrize("update", ["dense", "lazy"])
def test_resuming_at_any_step_gives_the_same_bits(dataset: Dataset, tmp_path: Path, update: str):
    config = by_mamdr(embedding_update=update, clip_norm=1.0, looks_per_epoch=3)
    whole, again = make_model(dataset), make_model(dataset)
    looks, end = run(whole, dataset, config)
    run(again, dataset, config)
    assert_same(whole, again)
    steps = plan(dataset)
    apart = next(place for place, step in enumerate(steps) if not step.negotiates)
    # Inside the negotiation, at its end, inside a pair, at its end, and the same an epoch later.
    stops = [2, apart, apart + 1, apart + 2, apart + 5, len(steps), len(steps) + 2, end.step]
    model, told, last = in_pieces(
        lambda seed: make_model(dataset, seed=seed), dataset, config, stops, tmp_path
    )
    assert told == looks
    assert (last.best, last.history, last.stopped) == (end.best, end.history, end.stopped)
    assert_same(whole, model)


def test_without_parameters_of_domains_there_is_negotiation_alone(dataset: Dataset):
    model = make_model(dataset, "none")
    _, end = run(model, dataset, by_mamdr(epochs=1))
    assert end.step == len(plan(dataset, helpers=0)) == sum(
        step.negotiates for step in plan(dataset)
    )  # fmt: skip


def test_every_row_of_every_domain_comes_once_an_epoch(dataset: Dataset):
    rows = RowsByDomain(dataset.rows("train"), dataset.n_domains)
    config = by_mamdr()
    method = config.method.build(
        make_model(dataset), dataset.rows("train"), config,
        n_domains=dataset.n_domains, places=make_model(dataset).domain_places,
    )  # fmt: skip
    assert isinstance(method, Mamdr)
    assert method.steps_per_epoch == len(plan(dataset))
    orders = []
    for epoch in (0, 1):
        steps = plan(dataset, epoch=epoch)
        seen: list[tuple[int, ...]] = []
        for step, lesson in zip(steps, method.lessons(epoch, 0), strict=True):
            true = set(lesson.domain.tolist())
            if step.rows_of is not None:
                assert true == {step.rows_of}
            if step.negotiates:
                assert set(lesson.batch.domain.tolist()) == {step.rows_of}
                seen += [tuple(row) for row in lesson.batch.categorical.tolist()]
            else:
                assert set(lesson.batch.domain.tolist()) == {step.scored_as}
                assert not lesson.dropout
                hidden = lesson.batch.categorical[:, 2] == 0
                assert bool(hidden.all()) == (step.scored_as == 0)
            method.at = None  # nothing is trained here
            method.theta = {}
        whole = [tuple(row) for row in dataset.rows("train").arrays.categorical.tolist()]
        assert sorted(seen) == sorted(whole)
        orders.append(seen)
    assert orders[0] != orders[1]
    assert len(rows) == len(orders[0])
    method.release()


def test_a_schedule_draws_other_helpers_and_counts_the_same():
    steps = np.array([0, 2, 1, 0, 3])
    found = [schedule(steps, helpers=1, unknown=True, seed=0, epoch=epoch) for epoch in range(8)]
    assert {len(one) for one in found} == {6 + 2 * 4}
    for one in found:
        assert [step.rows_of for step in one if step.scored_as == 0][1::2] == [None]
        for helped, own in zip(one[6::2], one[7::2], strict=True):
            assert (helped.opens, helped.closes, own.opens, own.closes) == (1, 0, 0, 1)
            assert helped.rows_of != helped.scored_as == own.scored_as
            assert own.rows_of == (own.scored_as or None)
    assert len({tuple(step.rows_of for step in one) for one in found}) > 4
    assert found[0][0].opens
    assert found[0][5].closes
    every = schedule(steps, helpers=9, unknown=False, seed=0, epoch=0)
    assert len(every) == 6 + 2 * 3 * 2, "no more helpers than there are other domains"
    assert isinstance(every[0], InnerStep)


def test_a_budget_has_its_steps_and_looks(dataset: Dataset):
    looks, end = run(make_model(dataset), dataset, by_mamdr(), Budget(steps=8, looks=3))
    assert (end.step, len(looks), end.stopped) == (8, 3, "budget")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weighting": "uniform"}, "train.weighting must be 'proportional', got 'uniform'"),
        ({"domain_sampling": 0.5}, "train.domain_sampling must be 'proportional', got 0.5"),
        ({"objectives": [{"name": "domain_classifier"}]}, "got train.objectives 'domain_class"),
    ],
)
def test_what_needs_several_domains_in_a_batch_is_refused(
    dataset: Dataset, changed: dict[str, Any], message: str
):
    with pytest.raises(ConfigError, match=message):
        next(train(make_model(dataset), dataset, by_mamdr(**changed)))


def test_too_many_domains_and_too_few_are_refused(tmp_path: Path):
    def with_domains(count: int) -> Dataset:
        rows = np.arange(count * 20)
        table = pa.table({"x": rows % 7, "tab": rows // 20 + 1000, "click": rows % 2})
        config = {"domain": "tab", "label": "click", "features": {"x": "numeric"}}
        return Dataset.from_table(
            DataConfig.model_validate(config), table, cache=tmp_path / f"{count}"
        )

    for count in (1, 257):
        with pytest.raises(ConfigError, match=f"2 to 256 domains .* got {count}"):
            next(train(Slope(), with_domains(count), by_mamdr(batch_rows=1000)))
    events = train(Slope(), with_domains(256), by_mamdr(batch_rows=1000))
    assert next(events) is not None
    events.close()


class OwnSlopes(nn.Module):
    """Nothing that domains share."""

    per_domain = ("weight",)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 1))

    def forward(self, batch: Batch) -> Tensor:
        return batch.numeric[:, 0] * self.weight.index_select(0, batch.domain)[:, 0]


def test_a_network_without_anything_shared_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="needs parameters that domains share"):
        next(train(OwnSlopes(), line_dataset(tmp_path), by_mamdr()))


def test_expected_steps_follow_the_method():
    joint, mamdr = TrainConfig().method, by_mamdr(helpers=5).method
    assert joint.epoch_steps([150, 50], 100) == 2
    assert mamdr.epoch_steps([150, 50], 100) == 3 + 2 * 1 * 2
    assert by_phases(epochs=4).method.lengths(4) == (4, 4)
