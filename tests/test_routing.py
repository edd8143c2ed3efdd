"""Rows meet their own domain's parameters, at a cost that follows the rows."""

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from isthmus.layers import routing
from isthmus.layers.bank import BankLinear
from isthmus.layers.routing import TILE_LENGTHS, Routing
from routed import calls_of, domains

LAYOUTS = {
    "a few": torch.tensor([2, 0, 3, 3, 1, 0, 2, 2]),
    "one row": torch.tensor([3]),
    "one domain": torch.full((700,), 2),
    "only the unknown": torch.zeros(5, dtype=torch.int64),
    "three": domains(1000, 3),
    "zipf": domains(1000, 200, zipf=1.0),
    "uniform": domains(1000, 200),
    "more domains than rows": domains(50, 5000),
}


@pytest.fixture(params=[False, True], ids=["read", "fixed"])
def fixed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether no shape may hang on a value, as on a GPU."""
    if request.param:
        monkeypatch.setattr(routing, "shapes_are_fixed", lambda _: True)
    return request.param


@pytest.mark.usefixtures("fixed")
@pytest.mark.parametrize("domain", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_row_meets_the_matrix_of_its_own_domain(domain):
    n_domains = int(domain.max()) + 2  # the last domain is never seen
    torch.manual_seed(0)
    h = torch.randn(len(domain), 6, requires_grad=True)
    weight = torch.randn(n_domains + 1, 6, 4, requires_grad=True)
    towards = torch.randn(len(domain), 4)

    fast = Routing(domain, n_domains).apply(h, weight)
    slow = torch.stack([h[r] @ weight[domain[r]] for r in range(len(domain))])
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(
        torch.autograd.grad(fast, (h, weight), towards),
        torch.autograd.grad(slow, (h, weight), towards),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("domain", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_tiles_hold_every_row_once_and_rows_of_one_domain_only(domain, fixed: bool):
    tiles = Routing(domain, int(domain.max()) + 1).tiles
    assert tiles.length in TILE_LENGTHS
    assert len(set(tiles.slot.tolist())) == len(domain)
    assert (tiles.source[tiles.slot] == torch.arange(len(domain))).all()
    owner = domain[tiles.source].unflatten(0, (-1, tiles.length))
    assert (owner == tiles.domain.unsqueeze(1)).all()
    # At most one partly filled tile per present domain. Otherwise they are as many as there may be.
    assert fixed or len(tiles.domain) <= len(domain) // tiles.length + len(domain.unique())


@pytest.mark.usefixtures("fixed")
def test_no_rows_at_all():
    routing = Routing(torch.zeros(0, dtype=torch.int64), 3)
    weight = torch.randn(4, 2, 5, requires_grad=True)
    y = routing.apply(torch.zeros(0, 2), weight)
    assert y.shape == (0, 5)
    y.sum().backward()
    assert weight.grad is not None
    assert (weight.grad == 0).all()


def test_no_step_per_domain():
    def step(n_domains: int) -> Callable[[], None]:
        domain = domains(512, n_domains, zipf=1.0)
        bank = BankLinear(n_domains=n_domains, in_width=4, out_width=3)
        h = torch.randn(512, 4)
        return lambda: bank(h, Routing(domain, n_domains)).square().sum().backward()

    assert calls_of(step(3)) == calls_of(step(1000))


@pytest.mark.parametrize("zipf", [0.0, 1.0])
def test_work_hardly_grows_with_the_number_of_domains(zipf):
    def products(n_domains: int) -> int:
        routing = Routing(domains(4096, n_domains, zipf=zipf), n_domains)
        weight = torch.randn(n_domains + 1, 16, 8, requires_grad=True)
        with FlopCounterMode(display=False) as counter:
            routing.apply(torch.randn(4096, 16), weight).sum().backward()
        return counter.get_total_flops()

    assert products(3) <= 1.15 * products(1)
    assert products(1000) <= 1.5 * products(3)


def test_a_row_that_is_not_a_number_spoils_its_own_domain_only():
    domain = torch.tensor([1, 1, 2, 2, 2, 3])
    h = torch.randn(6, 4)
    h[0] = torch.nan
    weight = torch.randn(4, 4, 3, requires_grad=True)
    y = Routing(domain, 3).apply(h, weight)
    assert y[1:].isfinite().all()
    y.sum().backward()
    assert weight.grad is not None
    assert weight.grad[[0, 2, 3]].isfinite().all()


def test_gradients_repeat_bit_for_bit_on_two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        domain = domains(4096, 1000, zipf=1.0)
        torch.manual_seed(0)
        bank = BankLinear(n_domains=1000, in_width=16, out_width=8)
        h = torch.randn(4096, 16, requires_grad=True)
        found = []
        for _ in range(5):
            y = bank(h, Routing(domain, 1000))
            parameters = [h, *bank.parameters()]
            found.append(torch.autograd.grad(y.square().sum(), parameters))
        for again in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(found[0], again, strict=True))
    finally:
        torch.set_num_threads(threads)


def test_sums_and_take_are_per_domain():
    routing = Routing(torch.tensor([2, 0, 2, 1]), 3)
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    assert routing.sums(x).flatten().tolist() == [2.0, 4.0, 4.0, 0.0]
    assert routing.take(routing.sums(x)).flatten().tolist() == [4.0, 2.0, 4.0, 4.0]
    assert routing.counts().tolist() == [1, 1, 2, 0]


@pytest.mark.parametrize("wrong", [-1, 4])
def test_a_domain_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"domain must lie in 0\.\.3, got .*{wrong}"):
        Routing(torch.tensor([1, wrong, 2]), 3)


def test_domains_must_be_int64():
    with pytest.raises(ValueError, match=r"domain must be int64 .* got torch\.int32"):
        Routing(torch.tensor([1, 2], dtype=torch.int32), 3)


def test_bank_linear_is_a_linear_map_per_domain():
    torch.manual_seed(0)
    bank = BankLinear(n_domains=2, in_width=3, out_width=2)
    assert bank.bias is not None
    torch.nn.init.normal_(bank.bias)
    h = torch.randn(3, 3)
    y = bank(h, Routing(torch.tensor([2, 0, 1]), 2))
    for row, domain in enumerate([2, 0, 1]):
        torch.testing.assert_close(y[row], h[row] @ bank.weight[domain] + bank.bias[domain])
    assert not torch.equal(bank.weight[0], bank.weight[1])


def test_the_present_domains_are_counted_alone():
    domain = torch.tensor([70, 0, 9, 70, 9, 70])
    held, local = Routing(domain, n_domains=90).present
    assert held.tolist() == [0, 9, 70]
    assert torch.equal(held[local.domain], domain)
    assert local.counts().tolist() == [1, 2, 3]
    alone = Routing(torch.tensor([5, 5]), n_domains=90).present[1]
    assert alone.counts().tolist() == [2]
