"""An adapter behind a foreign module's submodules, and the untouched module back."""

import copy

import pytest
import torch
from torch import Tensor, nn

from isthmus.adapters import Hamur
from isthmus.attaching import attach, detach
from isthmus.layers.routing import Routing

N_DOMAINS = 3
DOMAIN = torch.tensor([1, 2, 3, 0, 1, 1])
E = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


class Foreign(nn.Module):
    """Somebody else's network: knows nothing of domains or adapters."""

    def __init__(self) -> None:
        super().__init__()
        self.dnn = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU())
        self.out = nn.Linear(6, 1)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return self.out(self.dnn(x)).squeeze(1) * scale


@pytest.fixture
def foreign() -> Foreign:
    torch.manual_seed(0)
    return Foreign()


def make_adapter(**options) -> Hamur:
    torch.manual_seed(1)
    given = {"site_widths": (8, 6), "condition_width": 4, "n_domains": N_DOMAINS, "rank": 2}
    adapter = Hamur(**(given | options))
    for site in adapter.sites:
        nn.init.ones_(adapter.cell(site).norm.gain)
    return adapter


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs",
         "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called")  # fmt: skip


def untouched(module: nn.Module) -> bool:
    """Whether no hook is left, whatever its kind."""
    return not any(getattr(part, kind) for part in module.modules() for kind in HOOKS)


def test_a_fresh_adapter_changes_nothing(foreign):
    adapter = Hamur(site_widths=(8, 6), condition_width=4, n_domains=N_DOMAINS)
    before = foreign(E)
    attached = attach(foreign, at={"dnn.3": 1}, adapter=adapter, n_domains=N_DOMAINS)
    assert torch.equal(attached(E, domain=DOMAIN, condition=E), before)


def test_the_adapter_sits_behind_the_named_submodules(foreign):
    adapter = make_adapter(sites=(0, 1)).eval()
    attached = attach(foreign, at={"dnn.1": 0, "dnn.3": 1}, adapter=adapter, n_domains=N_DOMAINS)
    foreign.eval()
    state = adapter.prepare(E, Routing(DOMAIN, N_DOMAINS))
    h = adapter(0, foreign.dnn[0](E).relu(), state)
    h = adapter(1, foreign.dnn[2](h).relu(), state)
    expected = foreign.out(h).squeeze(1) * 2
    found = attached(E, scale=2.0, domain=DOMAIN, condition=E)
    torch.testing.assert_close(found, expected)
    with attached.batch(domain=DOMAIN, condition=E):
        torch.testing.assert_close(foreign(E) * 2, expected)


def test_it_trains_and_switches_mode_with_the_module(foreign):
    adapter = make_adapter()
    attached = attach(foreign, at={"dnn.3": 1}, adapter=adapter, n_domains=N_DOMAINS)
    assert {id(p) for p in adapter.parameters()} <= {id(p) for p in foreign.parameters()}
    foreign.eval()
    assert not adapter.training
    foreign.train()
    before = copy.deepcopy(adapter.state_dict())
    optimiser = torch.optim.SGD(foreign.parameters(), lr=0.1)
    attached(E, domain=DOMAIN, condition=E).square().sum().backward()
    optimiser.step()
    moved = adapter.state_dict()
    assert not torch.equal(moved["cells.1.down.left"], before["cells.1.down.left"])


def test_detach_gives_the_untouched_module_back(foreign):
    before, keys = foreign(E), list(foreign.state_dict())
    adapter = make_adapter()
    before_parts = list(foreign.modules())
    attached = attach(foreign, at={"dnn.2": 1, "dnn.3": 1}, adapter=adapter, n_domains=N_DOMAINS)
    assert len(list(foreign.state_dict())) > len(keys)
    assert detach(foreign, attached) is foreign
    assert torch.equal(foreign(E), before)
    assert list(foreign.state_dict()) == keys
    assert untouched(foreign)
    assert all(new is old for new, old in zip(foreign.modules(), before_parts, strict=True))
    with pytest.raises(ValueError, match="must be attached, got a call after detach"):
        attached(E, domain=DOMAIN, condition=E)
    attached = attach(foreign, at={"dnn.3": 1}, adapter=adapter, n_domains=N_DOMAINS)
    assert not torch.equal(attached(E, domain=DOMAIN, condition=E), before)


def test_an_unknown_submodule_is_refused_and_the_nearest_named(foreign):
    with pytest.raises(ValueError, match=r"got 'dnn\.5'; the nearest are 'dnn\.\d', 'dnn\.\d'"):
        attach(foreign, at={"dnn.5": 1}, adapter=make_adapter(), n_domains=N_DOMAINS)
    with pytest.raises(ValueError, match="at least one submodule"):
        attach(foreign, at={}, adapter=make_adapter(), n_domains=N_DOMAINS)
    assert untouched(foreign)


def test_a_bare_sequential_is_adapted_too(foreign):
    """It runs all its children, so the adapter must not become one of them."""
    foreign.eval()
    adapter = make_adapter(sites=(1,)).eval()
    before, keys = foreign.dnn(E), set(foreign.dnn.state_dict())
    attached = attach(foreign.dnn, at={"3": 1}, adapter=adapter, n_domains=N_DOMAINS)
    state = adapter.prepare(E, Routing(DOMAIN, N_DOMAINS))
    torch.testing.assert_close(attached(E, domain=DOMAIN, condition=E), adapter(1, before, state))
    assert set(foreign.dnn.state_dict()) > keys
    attached.detach()
    assert torch.equal(foreign.dnn(E), before)
    assert set(foreign.dnn.state_dict()) == keys
    nested = nn.Sequential(nn.Sequential(nn.Linear(4, 6)))
    with pytest.raises(ValueError, match="must name a module that is no container"):
        attach(nested, at={"0": 1}, adapter=adapter, n_domains=N_DOMAINS)


def test_a_site_that_the_adapter_does_not_have_is_refused(foreign):
    with pytest.raises(ValueError, match=r"'dnn\.1' must go to one of the sites \(1,\), got 0"):
        attach(foreign, at={"dnn.1": 0}, adapter=make_adapter(), n_domains=N_DOMAINS)


def test_two_adapters_at_once_are_refused(foreign):
    attach(foreign, at={"dnn.3": 1}, adapter=make_adapter(), n_domains=N_DOMAINS)
    with pytest.raises(ValueError, match="detach it first"):
        attach(foreign, at={"dnn.3": 1}, adapter=make_adapter(), n_domains=N_DOMAINS)


def test_a_container_is_adapted_once_and_never_runs_the_adapter(foreign):
    class Chain(nn.ModuleList):
        def forward(self, x: Tensor) -> Tensor:
            for part in self:
                x = part(x)
            return x

    chain = Chain([nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6)])
    attached = attach(chain, at={"2": 1}, adapter=make_adapter(), n_domains=N_DOMAINS)
    assert attached(E, domain=DOMAIN, condition=E).shape == (6, 6)
    assert len(chain) == 3
    with pytest.raises(ValueError, match="detach it first"):  # also behind another part
        attach(chain, at={"0": 0}, adapter=make_adapter(sites=(0,)), n_domains=N_DOMAINS)


def test_a_call_without_domains_says_so(foreign):
    attached = attach(foreign, at={"dnn.3": 1}, adapter=make_adapter(), n_domains=N_DOMAINS)
    with pytest.raises(ValueError, match=r"attachment\.batch\(\.\.\.\); 'dnn\.3' ran without"):
        foreign(E)
    attached(E, domain=DOMAIN, condition=E)
    with pytest.raises(ValueError, match="ran without"):  # a batch does not outlive its call
        foreign(E)


def test_shapes_that_do_not_fit_are_refused(foreign):
    with pytest.raises(ValueError, match=r"'dnn\.1' must have the width of site 1, 6, got 8"):
        attach(foreign, at={"dnn.1": 1}, adapter=make_adapter(), n_domains=N_DOMAINS)
    with pytest.raises(ValueError, match="n_domains must be the adapter's own, 3, got 4"):
        attach(foreign, at={"dnn.3": 1}, adapter=make_adapter(), n_domains=4)
    assert untouched(foreign)
    attached = attach(foreign, at={"dnn.3": 1}, adapter=make_adapter(), n_domains=N_DOMAINS)
    expected = r"output of 'dnn\.3' must be a tensor \(5, 6\) or \(5, steps, 6\) for a domain of 5 rows, got \(6, 6\)"
    with pytest.raises(ValueError, match=expected):
        attached(E, domain=DOMAIN[:5], condition=E[:5])
    with pytest.raises(ValueError, match="equally many rows, got 6 and 5"):
        attached(E, domain=DOMAIN, condition=E[:5])


def test_an_attachment_is_taken_off_its_own_module_only(foreign):
    attached = attach(foreign, at={"dnn.3": 1}, adapter=make_adapter(), n_domains=N_DOMAINS)
    with pytest.raises(ValueError, match="another module"):
        detach(Foreign(), attached)
