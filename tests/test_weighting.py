"""Weightings of domains: what holds for every one, from a batch of one domain to thousands."""

import pytest
import torch

from isthmus.data.batch import Batch
from isthmus.objectives import binary_cross_entropy
from isthmus.train.weighting import WeightingName
from weighed import (
    NAMES,
    PER_DOMAIN,
    UNEQUAL,
    assert_close,
    batch_of,
    build,
    gradients,
    net,
    shares_of,
    take,
)


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
