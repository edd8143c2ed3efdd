"""The loss: hand-worked values, and a weight that means so many rows."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.objectives import binary_cross_entropy


def test_values_worked_by_hand():
    logits = torch.tensor([math.log(3), math.log(3)])  # p = 3/4
    loss = binary_cross_entropy(logits, torch.tensor([1.0, 0.0]))
    assert math.isclose(loss.item(), -(math.log(0.75) + math.log(0.25)) / 2, rel_tol=1e-6)


def test_weighted_value_worked_by_hand():
    logits = torch.tensor([math.log(3), 0.0])
    loss = binary_cross_entropy(logits, torch.tensor([1.0, 1.0]), torch.tensor([3.0, 1.0]))
    assert math.isclose(loss.item(), -(3 * math.log(0.75) + math.log(0.5)) / 4, rel_tol=1e-6)


@settings(deadline=None)  # the first call of autograd is slow
@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.floats(0.1, 10))
def test_a_weight_is_a_number_of_equal_rows_in_value_and_gradient(copies, unit):
    generator = torch.Generator().manual_seed(len(copies))
    logits = torch.randn(len(copies), generator=generator, dtype=torch.float64)
    label = (torch.rand(len(copies), generator=generator) < 0.5).double()
    weighted = logits.clone().requires_grad_()
    repeated = logits.clone().requires_grad_()
    times = torch.tensor(copies)
    a = binary_cross_entropy(weighted, label, times * unit)
    b = binary_cross_entropy(repeated.repeat_interleave(times), label.repeat_interleave(times))
    torch.testing.assert_close(a, b)
    a.backward()
    b.backward()
    torch.testing.assert_close(weighted.grad, repeated.grad)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = binary_cross_entropy(logits, torch.tensor([0.0, 1.0]))
    loss.backward()
    assert loss.item() == 1e4
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([0.5, -0.5]))
