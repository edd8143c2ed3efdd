import pytest
import torch

from isthmus.layers.dropout import Dropout


@pytest.mark.parametrize("p", [0.0, 0.1, 0.2, 0.5, 0.999])
def test_the_share_dropped_is_p_and_the_mean_stays(p):
    torch.manual_seed(0)
    h = torch.ones(1000, 403)
    y = Dropout(p)(h)
    assert abs(float((y == 0).float().mean()) - p) < 0.002
    kept = y[y != 0]
    assert torch.equal(kept, kept[0].expand_as(kept))
    assert abs(float(kept[0]) * (1 - p) - 1) < 0.01
    assert abs(float(y.mean()) - 1) < 0.06


def test_values_are_dropped_independently():
    torch.manual_seed(0)
    dropped = (Dropout(0.3)(torch.ones(200_000, 4)) == 0).float()
    # Four neighbours come from one random word: they must know nothing of each other.
    assert (torch.corrcoef(dropped.t()) - torch.eye(4)).abs().max() < 0.01
    assert abs(float(dropped.prod(dim=1).mean()) - 0.3**4) < 0.001


def test_the_gradient_passes_where_the_value_did():
    h = torch.randn(64, 7, requires_grad=True)
    y = Dropout(0.4)(h)
    y.sum().backward()
    assert h.grad is not None
    torch.testing.assert_close(h.grad * h, y)


def test_the_seed_decides():
    h = torch.randn(9, 5)
    torch.manual_seed(3)
    first = Dropout(0.5)(h)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.5)(h), first)
    assert not torch.equal(Dropout(0.5)(h), first)


def test_eval_and_empty_batches_pass_through():
    h = torch.randn(3, 3)
    assert Dropout(0.5).eval()(h) is h
    assert Dropout(0.5)(torch.zeros(0, 3)).shape == (0, 3)


def test_a_probability_outside_its_range_is_refused():
    for p in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\)"):
            Dropout(p)
