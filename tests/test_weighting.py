"""Weightings of domains: each against a slow version written out, and a training that resumes."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from isthmus import checkpoint
from isthmus.data import Dataset
from isthmus.data.batch import Batch
from isthmus.errors import ConfigError
from isthmus.layers import BankLinear
from isthmus.layers.routing import Routing
from isthmus.layers.tables import FusedTable
from isthmus.models import DomainModel, ModelConfig, build_model
from isthmus.objectives import binary_cross_entropy
from isthmus.schema import DataConfig
from isthmus.train import CheckpointDue, Look, TrainConfig, train
from isthmus.train.weighting import (
    Weighting,
    WeightingName,
    build_weighting,
    shared_parameters,
)
from isthmus.train.weighting.shares import GradNorm
from isthmus.train.weighting.surgery import CAGrad, PCGrad

NAMES: tuple[WeightingName, ...] = get_args(WeightingName)
PER_DOMAIN = ("gradnorm", "pcgrad", "cagrad")


class Net(nn.Module):
    """Shared dense layers, a table of embeddings, and a set of weights of each domain's own."""

    def __init__(self, n_domains: int = 3, width: int = 3) -> None:
        super().__init__()
        self.n_domains = n_domains
        self.table = FusedTable(rows={"item": 6}, dim=2, std=1.0)
        self.first = nn.Linear(width + 2, 4)
        self.last = nn.Linear(4, 4)
        self.own = BankLinear(n_domains=n_domains, in_width=4, out_width=1)

    def forward(self, batch: Batch) -> Tensor:
        x = torch.cat([batch.numeric, self.table(batch.categorical[:, 0])], dim=1)
        h = torch.tanh(self.last(torch.tanh(self.first(x))))
        return self.own(h, Routing(batch.domain, self.n_domains)).squeeze(1)


def net(seed: int = 0, *, sparse: bool = False, n_domains: int = 3) -> Net:
    torch.manual_seed(seed)
    model = Net(n_domains)
    model.table.sparse = sparse
    return model


def batch_of(domain: list[int], seed: int = 0, *, weighted: bool = False) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    rows = len(domain)
    return Batch(
        categorical=torch.randint(0, 6, (rows, 1), generator=draw, dtype=torch.int32),
        numeric=torch.randn(rows, 3, generator=draw),
        lists=(),
        domain=torch.tensor(domain),
        label=torch.randint(0, 2, (rows,), generator=draw).float(),
        weight=torch.rand(rows, generator=draw) + 0.5 if weighted else None,
    )


def build(
    name: WeightingName, model: nn.Module, *, n_domains: int = 3, lr: float = 0.1, seed: int = 0
) -> Weighting:
    return build_weighting(name, model, n_domains=n_domains, lr=lr, seed=seed, compiled=False)


def take(weighting: Weighting, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The gradients that a weighting leaves, dense."""
    model.zero_grad()
    weighting.backward(model(batch), batch, batch.domain)
    return gradients(model)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad.to_dense().clone()
    return found


def losses_by_hand(model: nn.Module, batch: Batch) -> dict[int, Tensor]:
    """Each domain's mean loss, row after row, with its graph."""
    logits = model(batch)
    total: dict[int, Tensor] = {}
    mass: dict[int, float] = {}
    for row in range(batch.rows):
        d, y = int(batch.domain[row]), float(batch.label[row])
        w = 1.0 if batch.weight is None else float(batch.weight[row])
        p = torch.sigmoid(logits[row])
        loss = -y * torch.log(p) - (1 - y) * torch.log(1 - p)
        total[d] = total.get(d, torch.zeros(())) + w * loss
        mass[d] = mass.get(d, 0.0) + w
    return {d: total[d] / mass[d] for d in sorted(total)}


def gradients_by_hand(
    model: nn.Module, batch: Batch, shares: dict[int, float]
) -> dict[str, Tensor]:
    model.zero_grad()
    each = losses_by_hand(model, batch)
    torch.stack([shares[d] * loss for d, loss in each.items()]).sum().backward()
    return gradients(model)


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=2e-4, atol=2e-6, msg=name)


def shares_of(weighting: Weighting, losses: dict[int, float], n_groups: int) -> dict[int, float]:
    """What each domain's loss is multiplied with, read from the gradients of the logits."""
    domain = torch.tensor(list(losses))
    wanted = torch.tensor(list(losses.values()), dtype=torch.float64)
    logits = -torch.log(torch.expm1(wanted)).float()  # label 1: the loss is log(1 + exp(-logit))
    logits.requires_grad_()
    batch = batch_of(list(losses))
    batch = Batch(batch.categorical, batch.numeric, (), domain, torch.ones(len(domain)))
    assert weighting.n_groups == n_groups
    weighting.backward(logits, batch, domain)
    assert logits.grad is not None
    slope = -torch.sigmoid(-logits.detach())
    return dict(zip(losses, (logits.grad / slope).tolist(), strict=True))


# What holds for every weighting

UNEQUAL = [1] * 7 + [2] * 3 + [3] * 2


def test_proportional_is_the_mean_over_rows_bit_for_bit():
    for weighted in (False, True):
        model, batch = net(), batch_of(UNEQUAL, weighted=weighted)
        found = take(build("proportional", model), model, batch)
        model.zero_grad()
        binary_cross_entropy(model(batch), batch.label, batch.weight).backward()
        for name, wanted in gradients(model).items():
            assert torch.equal(found[name], wanted), name
    assert build("proportional", model).state_dict() == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_domain_is_proportional_bit_for_bit(name: WeightingName):
    model, batch = net(), batch_of([2] * 9, weighted=True)
    wanted = take(build("proportional", model), model, batch)
    weighting = build(name, model)
    take(weighting, model, batch_of(UNEQUAL))
    found = take(weighting, model, batch)
    for parameter in wanted:
        assert torch.equal(found[parameter], wanted[parameter]), parameter


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_that_is_told_is_the_mean_over_rows(name: WeightingName):
    model, batch = net(), batch_of(UNEQUAL, weighted=True)
    loss = build(name, model).backward(model(batch), batch, batch.domain)
    wanted = binary_cross_entropy(model(batch), batch.label, batch.weight)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert not loss.requires_grad


@pytest.mark.parametrize("name", [name for name in NAMES if name != "proportional"])
def test_copies_of_one_domain_are_weighed_as_one(name: WeightingName):
    # Three domains with the same rows: whatever the shares, their combination is the plain mean.
    model, one = net(), batch_of([0] * 8, weighted=True)
    assert one.weight is not None
    with torch.no_grad():
        model.own.weight[:] = model.own.weight[0]
    batch = Batch(
        categorical=one.categorical.repeat(3, 1),
        numeric=one.numeric.repeat(3, 1),
        lists=(),
        domain=torch.arange(1, 4).repeat_interleave(8),
        label=one.label.repeat(3),
        weight=one.weight.repeat(3),
    )
    weighting = build(name, model)
    wanted = take(build("proportional", model), model, batch)
    for _ in range(3):
        found = take(weighting, model, batch)
        for parameter in ("table.weight", "first.weight", "last.bias"):
            torch.testing.assert_close(
                found[parameter], wanted[parameter], rtol=1e-4, atol=1e-7, msg=parameter
            )


@pytest.mark.parametrize("name", NAMES)
def test_a_sparse_table_gets_the_gradient_of_a_dense_one(name: WeightingName):
    dense, sparse, batch = net(), net(sparse=True), batch_of(UNEQUAL, weighted=True)
    one, other = build(name, dense), build(name, sparse)
    for step in range(3):
        batch = batch_of(UNEQUAL, seed=step, weighted=True)
        found = take(other, sparse, batch)
        assert sparse.table.weight.grad is not None
        assert sparse.table.weight.grad.is_sparse
        assert_close(found, take(one, dense, batch))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PER_DOMAIN])
def test_shares_are_positive_and_sum_to_one(name: WeightingName):
    weighting = build(name, net(n_domains=4), n_domains=4)
    for _ in range(3):
        found = shares_of(weighting, {0: 0.3, 1: 0.7, 3: 0.1}, 5)  # 2 and 4 are not in the batch
        weighting.end_epoch()
        assert sum(found.values()) == pytest.approx(1, abs=1e-5)
        assert min(found.values()) > 0


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PER_DOMAIN])
def test_any_number_of_domains_is_weighed(name: WeightingName):
    n = 5000
    weighting = build(name, net(), n_domains=n)
    losses = {d: 0.1 + d / n for d in range(1, n, 2)}
    found = shares_of(weighting, losses, n + 1)
    assert sum(found.values()) == pytest.approx(1, abs=1e-3)


# Shares: uniform, random, dwa, uncertainty


def test_uniform_counts_every_domain_in_the_batch_the_same():
    model, batch = net(), batch_of([0, 0, 1, 1, 1, 1, 1, 3], weighted=True)
    found = take(build("uniform", model), model, batch)
    assert_close(found, gradients_by_hand(model, batch, dict.fromkeys((0, 1, 3), 1 / 3)))


def test_rows_without_weight_bring_no_domain_in():
    model, batch = net(), batch_of([1, 1, 2, 3, 3], weighted=True)
    assert batch.weight is not None
    batch.weight[2] = 0.0
    found = take(build("uniform", model), model, batch)
    kept = torch.tensor([0, 1, 3, 4])
    rest = Batch(
        batch.categorical[kept],
        batch.numeric[kept],
        (),
        batch.domain[kept],
        batch.label[kept],
        batch.weight[kept],
    )
    assert_close(found, gradients_by_hand(model, rest, {1: 0.5, 3: 0.5}))


def test_random_shares_are_a_softmax_of_normal_numbers():
    weighting = build("random", net(), seed=3)
    draws = [shares_of(weighting, {1: 0.2, 2: 0.9, 3: 0.5}, 4) for _ in range(3000)]
    logs = np.log([[draw[d] for d in (1, 2, 3)] for draw in draws])
    differences = np.array([logs[:, 0] - logs[:, 1], logs[:, 1] - logs[:, 2]])
    assert differences.mean(1) == pytest.approx([0, 0], abs=0.1)
    # Differences of N(0, 1) have variance 2, neighbours covariance -1.
    assert np.cov(differences) == pytest.approx(np.array([[2, -1], [-1, 2]]), abs=0.15)
    again = build("random", net(), seed=3)
    assert shares_of(again, {1: 0.2, 2: 0.9, 3: 0.5}, 4) == draws[0]
    other = build("random", net(), seed=4)
    assert shares_of(other, {1: 0.2, 2: 0.9, 3: 0.5}, 4) != draws[0]


def test_dwa_weighs_by_how_slowly_a_loss_falls():
    weighting = build("dwa", net())
    epochs = [
        {1: 0.8, 2: 0.6, 3: 0.5},
        {1: 0.4, 2: 0.6, 3: 0.6},
        {1: 0.3, 2: 0.5},
        {1: 0.3, 2: 0.2},
    ]
    shares = []
    for losses in epochs:
        shares.append(shares_of(weighting, losses, 4))
        shares_of(weighting, dict.fromkeys(losses, 0.5), 4)  # the epoch's mean: (loss + 0.5) / 2
        weighting.end_epoch()
    for epoch in (0, 1):
        assert shares[epoch] == pytest.approx(dict.fromkeys(epochs[epoch], 1 / 3), abs=1e-5)
    for epoch in (2, 3):
        mean = [{d: (v + 0.5) / 2 for d, v in losses.items()} for losses in epochs]
        raw = {d: math.exp(mean[epoch - 1][d] / mean[epoch - 2][d] / 2) for d in epochs[epoch]}
        wanted = {d: value / sum(raw.values()) for d, value in raw.items()}
        assert shares[epoch] == pytest.approx(wanted, abs=1e-5)
    assert shares[2][1] < shares[2][2]  # 1 fell faster
    # Domain 3 had no rows in epoch 3, so it has no ratio and counts with 1.
    ratio = weighting.state_dict()["ratio"]
    assert ratio[3] == 1


def test_dwa_weighs_the_rows_of_an_epoch_by_their_weights():
    model, weighting = net(), build("dwa", net())
    total, mass = torch.zeros(4), torch.zeros(4)
    for seed in range(3):
        batch = batch_of(UNEQUAL if seed else [1] * 4, seed=seed, weighted=True)
        assert batch.weight is not None
        weighting.backward(model(batch), batch, batch.domain)
        for d, loss in losses_by_hand(model, batch).items():
            weight = batch.weight[batch.domain == d].sum()
            total[d] += weight * loss.detach()
            mass[d] += weight
    weighting.end_epoch()
    last = weighting.state_dict()["last"].float()
    torch.testing.assert_close(last[1:], total[1:] / mass[1:])
    assert last[0].isnan()


def test_uncertainty_learns_s_as_adam_on_the_papers_loss():
    model, weighting = net(), build("uncertainty", net(), lr=0.05)
    s = {d: nn.Parameter(torch.zeros((), dtype=torch.float64)) for d in range(4)}
    adam = {d: torch.optim.Adam([value], lr=0.05) for d, value in s.items()}
    for step, domains in enumerate([UNEQUAL, [1, 1, 2, 2], [2, 3, 3, 3], [0, 0, 1, 3], UNEQUAL]):
        batch = batch_of(domains, seed=step, weighted=True)
        raw = {d: math.exp(-s[d].item()) for d in set(domains)}
        shares = {d: value / sum(raw.values()) for d, value in raw.items()}
        wanted = gradients_by_hand(model, batch, shares)
        assert_close(take(weighting, model, batch), wanted)
        for d, loss in losses_by_hand(model, batch).items():
            adam[d].zero_grad()
            (torch.exp(-s[d]) * loss.detach().double() + s[d] / 2).backward()
            adam[d].step()
    learnt = weighting.state_dict()["value"].tolist()
    assert learnt == pytest.approx([value.item() for value in s.values()], abs=1e-6)


def test_uncertainty_ends_where_a_share_is_the_inverse_of_the_loss():
    weighting = build("uncertainty", net(), lr=0.02)
    losses = {1: 0.1, 2: 0.4, 3: 0.7}
    shares: dict[int, float] = {}
    for _ in range(600):
        shares = shares_of(weighting, losses, 4)
    total = sum(1 / loss for loss in losses.values())
    assert shares == pytest.approx({d: 1 / loss / total for d, loss in losses.items()}, abs=0.01)


# GradNorm


def test_gradnorm_is_its_algorithm_written_out():
    model = net()
    weighting = build("gradnorm", model, lr=0.05)
    w = {d: nn.Parameter(torch.ones((), dtype=torch.float64)) for d in range(4)}
    adam = {d: torch.optim.Adam([value], lr=0.05) for d, value in w.items()}
    start: dict[int, float] = {}
    for step, domains in enumerate([UNEQUAL, UNEQUAL, [1, 1, 2, 2], [0, 0, 1, 3], UNEQUAL]):
        batch = batch_of(domains, seed=step, weighted=True)
        here = sorted(set(domains))
        total = sum(w[d].item() for d in here)
        wanted = gradients_by_hand(model, batch, {d: w[d].item() / total for d in here})
        assert_close(take(weighting, model, batch), wanted)

        each = losses_by_hand(model, batch)
        for d in here:
            start.setdefault(d, each[d].item())
        scale = len(here) / total  # weights of mean 1 over the domains in the batch
        norm = {
            d: torch.autograd.grad(each[d], model.last.weight, retain_graph=True)[0].norm().double()
            for d in here
        }
        mean_norm = sum(w[d].item() * scale * norm[d] for d in here) / len(here)
        ratio = {d: each[d].item() / start[d] for d in here}
        mean_ratio = sum(ratio.values()) / len(here)
        for d in here:
            goal = mean_norm * (ratio[d] / mean_ratio) ** 1.5
            adam[d].zero_grad()
            # The norming is no part of the slope.
            ((w[d] * scale * norm[d] - goal).abs() / scale).backward()
            adam[d].step()
        with torch.no_grad():
            mean = sum(w[d].clamp(min=0.01).item() for d in start) / len(start)
            for d in start:
                w[d].copy_(w[d].clamp(min=0.01) / mean)
        with torch.no_grad():  # the losses must move, or their ratios stay 1
            for parameter in model.parameters():
                parameter -= 0.5 * wanted[_name(model, parameter)]
    learnt = weighting.state_dict()["value"].tolist()
    assert learnt == pytest.approx([value.item() for value in w.values()], abs=1e-4)
    assert max(learnt) - min(learnt) > 0.1


def _name(model: nn.Module, parameter: nn.Parameter) -> str:
    return next(name for name, other in model.named_parameters() if other is parameter)


def test_gradnorm_lifts_the_domain_whose_gradient_is_small():
    model = net()
    with torch.no_grad():
        model.own.weight[1] *= 0.05  # little of domain 1's error reaches the shared layers
    weighting = build("gradnorm", model, lr=0.02)
    for step in range(60):
        take(weighting, model, batch_of([1] * 40 + [2] * 40 + [3] * 40, seed=step))
    value = weighting.state_dict()["value"]
    assert value[1] > 1.3 * max(value[2], value[3])
    assert value[1:].sum().item() == pytest.approx(3)
    assert value[0] == 1  # never seen


# Surgery


def flat(found: dict[str, Tensor], names: tuple[str, ...]) -> np.ndarray:
    return np.concatenate([found[name].double().numpy().ravel() for name in names])


DENSE = ("first.weight", "first.bias", "last.weight", "last.bias")
OTHERS = ("table.weight", "own.weight", "own.bias")


def own_gradients(model: nn.Module, batch: Batch) -> dict[int, np.ndarray]:
    here = sorted(set(batch.domain.tolist()))
    return {
        d: flat(
            gradients_by_hand(model, batch, {other: float(other == d) for other in here}), DENSE
        )
        for d in here
    }


def pcgrad_by_hand(each: list[np.ndarray], order: np.ndarray) -> np.ndarray:
    changed = []
    for i, gradient in enumerate(each):
        projected = gradient.copy()
        for j in order[i]:
            if j != i and (along := projected @ each[j]) < 0:
                projected -= along / (each[j] @ each[j]) * each[j]
        changed.append(projected)
    return np.mean(changed, axis=0)


def test_pcgrad_is_its_algorithm_written_out():
    model = net()
    weighting = build("pcgrad", model, seed=5)
    draw = torch.Generator().manual_seed(5 + 2**41)
    conflicts = 0
    for step in range(8):
        batch = batch_of(UNEQUAL, seed=step, weighted=True)
        each = list(own_gradients(model, batch).values())
        conflicts += any(a @ b < 0 for a in each for b in each)
        order = torch.rand(3, 3, generator=draw, dtype=torch.float64).argsort(1).numpy()
        found = take(weighting, model, batch)
        np.testing.assert_allclose(flat(found, DENSE), pcgrad_by_hand(each, order), atol=2e-6)
        mean = gradients_by_hand(model, batch, dict.fromkeys((1, 2, 3), 1 / 3))
        assert_close({n: found[n] for n in OTHERS}, {n: mean[n] for n in OTHERS})
    assert conflicts >= 3, "without conflicts this shows nothing"


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(2, 8), st.integers(0, 10_000))
def test_pcgrad_from_products_is_pcgrad_on_vectors(count: int, width: int, seed: int):
    rng = np.random.default_rng(seed)
    each = rng.normal(size=(count, width)) * np.exp(rng.normal(size=(count, 1)))
    rule = PCGrad([])
    rule.draw.manual_seed(seed)
    order = torch.rand(
        count, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    found = rule.coefficients(each @ each.T) @ each
    wanted = pcgrad_by_hand(list(each), order.argsort(1).numpy())
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-10)
    if count == 2:  # then neither domain is hurt to first order
        assert (each @ found >= -1e-9).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(2, 6), st.integers(0, 10_000))
def test_cagrad_serves_the_worst_off_domain_best(count: int, width: int, seed: int):
    rng = np.random.default_rng(seed)
    each = rng.normal(size=(count, width)) * np.exp(rng.normal(size=(count, 1)))
    step = 1.5 * CAGrad([]).coefficients(each @ each.T) @ each  # without the rescaling by 1 + c
    mean = each.mean(0)
    radius = 0.5 * np.linalg.norm(mean)
    assert np.linalg.norm(step - mean) <= radius * (1 + 1e-4)
    worst = (each @ step).min()
    # No other step of the ball does better for the domain that it serves worst.
    tries = rng.normal(size=(20_000, width))
    tries *= radius / np.linalg.norm(tries, axis=1, keepdims=True)
    near = step - mean + 0.02 * radius * rng.normal(size=(20_000, width))
    near *= radius / np.linalg.norm(near, axis=1, keepdims=True)
    size = np.linalg.norm(each, axis=1).max() * np.linalg.norm(mean)
    for others in (tries, near):
        assert ((mean + others) @ each.T).min(1).max() <= worst + 1e-3 * size


def test_cagrad_of_two_domains_by_hand():
    # Gradients (1, 0) and (0, 1): w is (1/2, 1/2), so the step keeps the mean's direction and, as
    # it is divided by 1 + c, the mean's length.
    assert CAGrad([]).coefficients(np.eye(2)) == pytest.approx([0.5, 0.5], abs=1e-6)
    # Gradients (2, 0) and (-1, 0): mean (0.5, 0), and every w gives a step between 0.25 and 0.75
    # along the line; domain 2 wants the least of it: 0.25, that is 1/6 after the division.
    each = np.array([[2.0], [-1.0]])
    assert (CAGrad([]).coefficients(each @ each.T) @ each).item() == pytest.approx(1 / 6, abs=1e-4)


def test_surgery_of_gradients_that_are_zero_or_equal_is_finite():
    for products in (np.zeros((3, 3)), np.ones((3, 3)), np.diag([1.0, 0.0, 4.0])):
        for rule in (PCGrad([]), CAGrad([])):
            found = rule.coefficients(products)
            assert np.isfinite(found).all()
            assert (found >= 0).all()
        assert PCGrad([]).coefficients(products) == pytest.approx([1 / 3] * 3)


def test_cagrad_changes_the_shared_layers_only():
    model, batch = net(), batch_of(UNEQUAL, weighted=True)
    each = np.stack(list(own_gradients(model, batch).values()))
    found = take(build("cagrad", model), model, batch)
    wanted = CAGrad([]).coefficients(each @ each.T) @ each
    np.testing.assert_allclose(flat(found, DENSE), wanted, atol=2e-4 * np.abs(wanted).max())
    mean = gradients_by_hand(model, batch, dict.fromkeys((1, 2, 3), 1 / 3))
    assert_close({n: found[n] for n in OTHERS}, {n: mean[n] for n in OTHERS})


# Which parameters are shared


def test_shared_parameters_are_dense_and_not_one_domains():
    model = net()
    assert shared_parameters(model, 3) == [*model.first.parameters(), *model.last.parameters()]
    wide = net(n_domains=3)
    assert (
        len(wide.last.weight) == wide.n_domains + 1
    )  # a layer as wide as there are sets is shared


@pytest.mark.parametrize("towers", ["shared", "per_domain"])
@pytest.mark.parametrize("adapter", ["hamur", "none"])
def test_what_counts_as_shared_is_moved_by_two_domains(dataset: Dataset, towers: str, adapter: str):
    sections = {"towers": towers, "head": "per_domain", "adapter": {"name": adapter}}
    sections |= {"backbone": {"name": "mlp", "widths": [8, 4], "norm": "none"}}
    torch.manual_seed(0)
    model = build_model(
        ModelConfig.model_validate(sections), dataset.encoder.fields, dataset.n_domains
    )
    for parameter in model.parameters():  # nothing that starts at zero stops a gradient
        nn.init.normal_(parameter)
    model.eval()  # in training a domain norm's statistics are those of all rows, in part
    moved: dict[str, int] = {}
    overlap: dict[str, Tensor] = {}
    for domain in range(1, dataset.n_domains + 1):
        model.zero_grad()
        batch = next(dataset.rows("train").batches(600))
        logits = model(batch)
        logits[batch.domain == domain].square().sum().backward()
        for name, gradient in gradients(model).items():
            moved[name] = moved.get(name, 0) + bool(gradient.any())
            overlap[name] = overlap.get(name, torch.zeros_like(gradient)) + (gradient != 0)
    shared = {id(parameter) for parameter in shared_parameters(model, dataset.n_domains)}
    tables = {id(table.weight) for table in model.tables()}
    for name, parameter in model.named_parameters():
        if id(parameter) in shared:
            assert moved[name] == dataset.n_domains, name
            assert overlap[name].max() > 1, name
        elif id(parameter) not in tables:
            assert overlap[name].max() <= 1, name
    assert bool(shared) == (towers == "shared" or adapter == "hamur")


def test_gradnorm_looks_at_the_last_shared_layer(dataset: Dataset):
    model = make_model(dataset, 1)
    rule = build("gradnorm", model).rule
    assert isinstance(rule, GradNorm)
    assert rule.layer is model.head.weight
    model = net()
    rule = build("gradnorm", model).rule
    assert isinstance(rule, GradNorm)
    assert rule.layer is model.last.weight


# Trainings

ROWS = 1500


def make_table(n_domains: int = 3) -> pa.Table:
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 80, ROWS), rng.zipf(1.3, ROWS).clip(max=60)
    names = np.array([f"d{i}" for i in range(n_domains)])
    tab = rng.choice(names, ROWS, p=np.arange(1, n_domains + 1) / (n_domains * (n_domains + 1) / 2))
    logit = np.sin(user) + np.where(tab == "d0", -1, 1) * np.cos(item)
    return pa.table(
        {
            "user": user,
            "item": item,
            "tab": tab,
            "x": rng.normal(size=ROWS),
            "w": rng.random(ROWS) + 0.5,
            "click": (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(np.int64),
        }
    )


def make_dataset(table: pa.Table, cache: Path) -> Dataset:
    config = DataConfig.model_validate(
        {
            "domain": "tab",
            "label": "click",
            "weight": "w",
            "features": {
                "user": {"kind": "categorical", "dim": 4},
                "item": {"kind": "categorical", "dim": 4},
                "tab": {"kind": "categorical", "dim": 4},
                "x": "numeric",
            },
            "split": {"by": "random", "fractions": (0.7, 0.15, 0.15)},
        }
    )
    return Dataset.from_table(config, table, cache=cache)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(make_table(), tmp_path_factory.mktemp("cache"))


def make_model(dataset: Dataset, seed: int, adapter: str = "hamur", **backbone) -> DomainModel:
    config = ModelConfig.model_validate(
        {
            "backbone": {"name": "mlp", "widths": [8, 4], "dropout": 0.3, **backbone},
            "adapter": {"name": adapter},
        }
    )
    torch.manual_seed(seed)
    return build_model(config, dataset.encoder.fields, dataset.n_domains)


def config(**changes) -> TrainConfig:
    given = {"batch_rows": 250, "epochs": 3, "lr": 0.01, "domain_dropout": 0.1, "patience": 9}
    given |= {"looks_per_epoch": 1, "device": "cpu"}
    return TrainConfig(**{**given, **changes})


def run(
    model: nn.Module, dataset: Dataset, settings: TrainConfig
) -> tuple[dict[str, Tensor], list[Look]]:
    events = list(train(model, dataset, settings))
    return model.state_dict(), [event for event in events if isinstance(event, Look)]


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("embedding_update", ["dense", "lazy"])
@pytest.mark.parametrize("name", NAMES)
def test_resuming_gives_the_same_bits(
    dataset: Dataset, tmp_path: Path, name: WeightingName, embedding_update: str
):
    settings = config(
        weighting=name, embedding_update=embedding_update, clip_norm=1.0, checkpoint_minutes=0
    )
    adapter = "hamur" if embedding_update == "lazy" else "none"
    whole = make_model(dataset, 1, adapter)
    weights, looks = run(whole, dataset, settings)
    steps = dataset.rows("train").steps(settings.batch_rows)
    state, told = None, []
    for stop in [1, steps, 2 * steps + 1]:
        model = make_model(dataset, 1 if state is None else 99, adapter)
        for event in train(model, dataset, settings, state=state):
            if isinstance(event, Look):
                told.append(event)
            if isinstance(event, CheckpointDue) and event.state.step == stop:
                checkpoint.save(tmp_path, event.state)
                break
        state = checkpoint.load(tmp_path)
    model = make_model(dataset, 99, adapter)
    for event in train(model, dataset, settings, state=state):
        if isinstance(event, Look):
            told.append(event)
    assert told == looks
    assert_same(model.state_dict(), weights)


def test_weightings_train_different_models_from_the_same_start(dataset: Dataset):
    found = {name: run(make_model(dataset, 1), dataset, config(weighting=name)) for name in NAMES}
    for name, (weights, looks) in found.items():
        assert all(tensor.isfinite().all() for tensor in weights.values()), name
        for other, (_, others) in found.items():
            assert name == other or looks[-1].metrics != others[-1].metrics, (name, other)
    # In the first two epochs dwa has no ratio yet, and is uniform.
    equal = [a == b for a, b in zip(found["dwa"][1], found["uniform"][1], strict=True)]
    assert equal == [True, True, False]


@pytest.mark.parametrize("name", NAMES)
def test_one_domain_leaves_nothing_to_weigh(
    name: WeightingName, tmp_path_factory: pytest.TempPathFactory
):
    alone = make_dataset(make_table(1), tmp_path_factory.mktemp("alone"))
    wanted, _ = run(make_model(alone, 1), alone, config(epochs=1))
    found, _ = run(make_model(alone, 1), alone, config(epochs=1, weighting=name))
    assert_same(found, wanted)


def test_a_row_whose_domain_is_hidden_counts_for_its_domain(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
):
    seen = []

    def backward(self: Weighting, logits: Tensor, batch: Batch, domain: Tensor) -> Tensor:
        seen.append(((batch.domain == 0).float().mean().item(), int((domain == 0).sum())))
        return logits.detach().mean()

    monkeypatch.setattr(Weighting, "backward", backward)
    run(make_model(dataset, 1), dataset, config(epochs=1, domain_dropout=0.5, weighting="uniform"))
    hidden, unknown = zip(*seen, strict=True)
    assert np.mean(hidden) == pytest.approx(0.5, abs=0.1)
    assert set(unknown) == {0}


def test_uniform_serves_a_small_domain_that_wants_the_opposite():
    # Two domains with opposite slopes and a model that cannot tell them apart: the larger one wins
    # by rows, and by domains neither does.
    x = torch.linspace(-1, 1, 400).unsqueeze(1)
    domain = torch.tensor(([1] * 9 + [2]) * 40)
    label = ((x[:, 0] > 0) == (domain == 1)).float()
    batch = Batch(torch.zeros(400, 0, dtype=torch.int32), x, (), domain, label)
    slopes = {}
    names: tuple[WeightingName, ...] = ("proportional", "uniform")
    for name in names:
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        weighting = build(name, model, n_domains=2)
        optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
        for _ in range(300):
            optimiser.zero_grad()
            weighting.backward(model(x).squeeze(1), batch, domain)
            optimiser.step()
        slopes[name] = model.weight.item()
    assert slopes["proportional"] > 2
    assert slopes["uniform"] == pytest.approx(0, abs=0.2)


# What is refused


@pytest.mark.parametrize("name", PER_DOMAIN)
def test_gradients_per_domain_have_their_limits(name: WeightingName, dataset: Dataset):
    model = make_model(dataset, 1)

    def asked(n_domains: int, compiled: bool) -> Callable[[], Weighting]:
        return lambda: build_weighting(
            name, model, n_domains=n_domains, lr=0.1, seed=0, compiled=compiled
        )

    asked(64, False)()
    with pytest.raises(ConfigError, match=f"train.weighting '{name}' .* 64 domains, got 65"):
        asked(65, False)()
    with pytest.raises(ConfigError, match=r"train\.compile false, got true"):
        asked(3, True)()


@pytest.mark.parametrize("name", PER_DOMAIN)
def test_a_model_that_shares_only_tables_is_refused(name: WeightingName, dataset: Dataset):
    sections = {"backbone": {"name": "mlp", "widths": [8]}, "towers": "per_domain"}
    model = build_model(
        ModelConfig.model_validate({**sections, "adapter": {"name": "none"}}),
        dataset.encoder.fields,
        dataset.n_domains,
    )
    with pytest.raises(ConfigError, match="needs dense parameters that domains share"):
        next(train(model, dataset, config(weighting=name)))


def test_an_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match="weighting"):
        config(weighting="dwq")
