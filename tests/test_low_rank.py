"""The parent of the adapters: factors and core, applied left to right."""

import pytest
import torch
from torch import Tensor, nn

from isthmus.adapters import LowRank
from isthmus.adapters.low_rank import row_product
from isthmus.layers import hyper_network
from isthmus.layers.hyper_network import HyperNetwork
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


@pytest.mark.parametrize("products", [1, 2])
@pytest.mark.parametrize("dense", [True, False])
def test_cores_written_for_products_have_the_gradient_of_cores(products, dense, monkeypatch):
    monkeypatch.setattr(hyper_network, "BLOCK_VALUES", 27)  # three rows a block
    torch.manual_seed(0)
    hyper = HyperNetwork(condition_width=4, widths=(), rank=3).double()
    nn.init.normal_(hyper.last.bias)
    read = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)

    def fast(read: Tensor, x: Tensor, *_: Tensor) -> Tensor:
        y = row_product(x, hyper.write(read)) if dense else x
        for core in hyper.write_for(read, products=2)[:products]:
            y = row_product(y.tanh(), core)
        return y

    def slow(read: Tensor, x: Tensor) -> Tensor:
        core = (read @ hyper.last.weight.t() + hyper.last.bias).unflatten(1, (3, 3))
        y = (x.unsqueeze(1) @ core).squeeze(1) if dense else x
        for _ in range(products):
            y = (y.tanh().unsqueeze(1) @ core).squeeze(1)
        return y

    leaves = [read, x, *hyper.parameters()]
    towards = torch.randn(7, 3, dtype=torch.float64)
    torch.testing.assert_close(fast(read, x), slow(read, x))
    torch.testing.assert_close(
        torch.autograd.grad(fast(read, x), leaves, towards),
        torch.autograd.grad(slow(read, x), leaves, towards),
    )
    assert torch.autograd.gradcheck(fast, leaves)
    with torch.no_grad():
        torch.testing.assert_close(fast(read, x), slow(read, x))


def test_a_second_backward_pass_adds_the_same_gradient():
    """As weightings ask for that take a gradient per domain of one forward pass."""
    torch.manual_seed(0)
    hyper = HyperNetwork(condition_width=4, widths=(), rank=3)
    x = torch.randn(7, 3)
    core, other = hyper.write_for(torch.randn(7, 4), products=2)
    y = row_product(row_product(x, core), other)
    half = torch.autograd.grad(y[:4].sum(), hyper.last.weight, retain_graph=True)[0]
    rest = torch.autograd.grad(y[4:].sum(), hyper.last.weight, retain_graph=True)[0]
    torch.testing.assert_close(half + rest, torch.autograd.grad(y.sum(), hyper.last.weight)[0])


def test_a_core_serves_one_product():
    hyper = HyperNetwork(condition_width=3, widths=(4,), rank=2)
    (core,) = hyper.write_for(hyper.read(torch.randn(5, 3)), products=1)
    row_product(torch.randn(5, 2), core)
    with pytest.raises(RuntimeError, match="must be used for one product, got a second"):
        row_product(torch.randn(5, 2), core)
