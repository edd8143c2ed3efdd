"""Weightings that change gradients where domains conflict: PCGrad and CAGrad, written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.train.weighting.surgery import CAGrad, PCGrad
from weighed import UNEQUAL, assert_close, batch_of, build, gradients_by_hand, net, take


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
