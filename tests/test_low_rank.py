"""The parent of the adapters: factors and core, applied left to right."""

import pytest
import torch

from isthmus.adapters import LowRank
from isthmus.adapters.low_rank import row_product
from isthmus.layers.routing import Routing
from routed import domains

ROWS, N_DOMAINS = 60, 6


@pytest.mark.parametrize("per_domain", [True, False])
@pytest.mark.parametrize("with_core", [True, False])
def test_matches_the_formula_written_out(per_domain, with_core):
    torch.manual_seed(0)
    layer = LowRank(in_width=7, out_width=5, rank=3, n_domains=N_DOMAINS if per_domain else None)
    domain = domains(ROWS, N_DOMAINS, zipf=1.0)
    h = torch.randn(ROWS, 7, requires_grad=True)
    core = torch.randn(ROWS, 3, 3, requires_grad=True) if with_core else None

    fast = layer(h, Routing(domain, N_DOMAINS), core)
    left = layer.left[domain] if per_domain else layer.left.expand(ROWS, 7, 3)
    right = layer.right[domain] if per_domain else layer.right.expand(ROWS, 3, 5)
    weight = left @ right if core is None else left @ core @ right  # (rows, in, out)
    slow = (h.unsqueeze(1) @ weight).squeeze(1)

    torch.testing.assert_close(fast, slow)
    leaves = [h, layer.left, layer.right] + ([] if core is None else [core])
    towards = torch.randn(ROWS, 5)
    torch.testing.assert_close(
        torch.autograd.grad(fast, leaves, towards),
        torch.autograd.grad(slow, leaves, towards),
        rtol=1e-4,
        atol=1e-4,
    )


def test_the_product_of_rows_and_their_matrices_has_the_right_gradient():
    torch.manual_seed(0)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    core = torch.randn(4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(row_product, (x, core))
    assert torch.autograd.gradcheck(lambda x: row_product(x, core.detach()), (x,))
    assert torch.autograd.gradcheck(lambda core: row_product(x.detach(), core), (core,))


def test_no_weight_per_row_is_ever_built():
    layer = LowRank(in_width=200, out_width=100, rank=2, n_domains=N_DOMAINS)
    routing = Routing(domains(ROWS, N_DOMAINS), N_DOMAINS)
    h = torch.randn(ROWS, 200)
    core = torch.randn(ROWS, 2, 2, requires_grad=True)
    with torch.profiler.profile(profile_memory=True, record_shapes=True) as profile:
        layer(h, routing, core).sum().backward()
    largest = max(event.cpu_memory_usage for event in profile.events() or ())
    assert 0 < largest < 4 * ROWS * 200 * 100 / 4


def test_the_scale_of_the_input_is_kept():
    torch.manual_seed(0)
    layer = LowRank(in_width=128, out_width=64, rank=16, n_domains=3)
    y = layer(torch.randn(2000, 128), Routing(domains(2000, 3), 3))
    assert 0.7 < y.std().item() < 1.4


@pytest.mark.parametrize("name", ["in_width", "out_width", "rank", "n_domains"])
def test_sizes_below_one_are_refused(name):
    sizes = {"in_width": 2, "out_width": 2, "rank": 2, "n_domains": 2} | {name: 0}
    with pytest.raises(ValueError, match=f"sizes must be at least 1, got .*{name}=0"):
        LowRank(**sizes)  # pyright: ignore[reportArgumentType]
