"""Weightings that give each domain a share of the loss, against slow versions written out."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from weighed import (
    UNEQUAL,
    assert_close,
    batch_of,
    build,
    gradients_by_hand,
    losses_by_hand,
    net,
    shares_of,
    take,
)

# Uniform, random, dwa, uncertainty


def test_uniform_counts_every_domain_in_the_batch_the_same():
    model, batch = net(), batch_of([0, 0, 1, 1, 1, 1, 1, 3], weighted=True)
    found = take(build("uniform", model), model, batch)
    assert_close(found, gradients_by_hand(model, batch, dict.fromkeys((0, 1, 3), 1 / 3)))


def test_rows_without_weight_bring_no_domain_in():
    model, batch = net(), batch_of([1, 1, 2, 3, 3], weighted=True)
    assert batch.weight is not None
    batch.weight[2] = 0.0
    found = take(build("uniform", model), model, batch)
    rest = batch.take(torch.tensor([0, 1, 3, 4]))
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
