"""HAMUR as drawn and as released: the formulas, the sites, the hyper-network, the build."""

from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from isthmus.adapters import (
    AdapterState,
    Hamur,
    HamurConfig,
    HamurReleased,
    HamurReleasedConfig,
)
from isthmus.layers.domain_norm import DomainNorm
from isthmus.layers.hyper_network import HyperNetwork
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Site, SiteSpec
from isthmus.testing import adapter_subject, check_matches_formula, train_a_little
from routed import domains

N_DOMAINS = 4


Kind = TypeVar("Kind", Hamur, HamurReleased)


def make(kind: type[Kind] = Hamur, **options) -> Kind:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "site_widths": (12, 9),
        "condition_width": 6,
        "n_domains": N_DOMAINS,
        "bottleneck": 5,
        "rank": 3,
    }
    given |= options
    return kind(**given)


def one_norm_per_domain(norm: DomainNorm, o: Tensor, domain: Tensor) -> Tensor:
    """The eval formula, a row at a time."""
    rows = []
    for row, d in zip(o, domain.tolist(), strict=True):
        itself, own = norm.own_pull[d], norm.own_share[d] - norm.own_pull[d]
        pooled = 1 - norm.own_share[d]
        mean = itself * row + own * norm.own_mean[d] + pooled * norm.pooled_mean[0]
        square = itself * row**2 + own * (norm.own_var[d] + norm.own_mean[d] ** 2)
        square = square + pooled * (norm.pooled_var[0] + norm.pooled_mean[0] ** 2)
        apart = (row - mean) / (square - mean**2 + norm.eps).sqrt()
        rows.append(norm.gain[d] * apart + norm.bias[d])
    return torch.stack(rows)


def test_the_fast_form_is_the_formula_of_the_paper():
    adapter = make()
    subject = adapter_subject(adapter, condition_width=6, n_domains=N_DOMAINS, rows=40)
    cell = adapter.cell(1)
    generator = torch.Generator().manual_seed(0)  # as adapter_subject draws its rows
    h = torch.randn(40, 9, generator=generator)
    e = torch.randn(40, 6, generator=generator)

    def formula(rows: Tensor, domain: Tensor) -> Tensor:
        core = adapter.hyper(e[rows])
        found = []
        for r, d in enumerate(domain.tolist()):
            x = h[rows[r]]
            u = cell.down.left[d] @ core[r] @ cell.down.right[d]
            v = cell.up.left[d] @ core[r] @ cell.up.right[d]
            z = x @ u + cell.down_bias[d]
            found.append(torch.sigmoid(z) @ v + cell.up_bias[d])
        return h[rows] + one_norm_per_domain(cell.norm, torch.stack(found), domain)

    nn.init.normal_(cell.norm.gain)
    nn.init.normal_(cell.up_bias)
    check_matches_formula(subject, formula)


def test_released_is_the_formula_of_the_released_code():
    adapter = make(HamurReleased, hyper_widths=(7,))
    cell = adapter.cell(1)
    torch.manual_seed(1)
    for parameter in cell.parameters():
        nn.init.normal_(parameter)
    h, e = torch.randn(30, 9), torch.randn(30, 6)
    routing = Routing(domains(30, N_DOMAINS), N_DOMAINS)
    for training in (True, False):
        adapter.train(training)
        state = adapter.prepare(e, routing)
        core = state.shared
        assert core is not None
        assert (core >= 0).all()  # ReLU on the last layer too
        w1 = torch.einsum("mi,bij,jn->bmn", cell.down.left, core, cell.down.right)
        w2 = torch.einsum("mi,bij,jn->bmn", cell.up.left, core, cell.up.right)
        t = torch.sigmoid(torch.einsum("bf,bfj->bj", h, w1) + cell.down_bias)
        o = torch.einsum("bf,bfj->bj", t, w2) + cell.up_bias
        n = cell.gain * (o - o.mean(0)) / torch.sqrt(o.var(0) + 1e-5) + cell.bias
        torch.testing.assert_close(adapter(1, h, state), h + n, rtol=1e-4, atol=1e-4)


def test_released_starts_with_ones_and_a_dead_first_half():
    adapter = make(HamurReleased, site_widths=(128,), condition_width=50, bottleneck=32, rank=35)
    torch.manual_seed(0)
    routing = Routing(domains(64, N_DOMAINS), N_DOMAINS)
    cell = adapter.cell(0)
    h = torch.randn(64, 128).relu()
    y = adapter(0, h, adapter.prepare(torch.randn(64, 50), routing))
    (y * torch.randn_like(y)).sum().backward()
    for name in ("down.left", "down.right", "down_bias"):
        gradient = cell.get_parameter(name).grad
        assert gradient is not None
        assert (gradient == 0).all(), name
    assert HamurReleasedConfig.unsound is not None
    assert "neighbours" in HamurReleasedConfig.unsound
    assert HamurConfig.unsound is None


def test_domains_have_factors_of_their_own_and_meet_them():
    adapter = make()
    train_a_little(adapter_subject(adapter, condition_width=6, n_domains=N_DOMAINS))
    h, e = torch.randn(1, 9), torch.randn(1, 6)
    answers = {
        d: adapter(1, h, adapter.prepare(e, Routing(torch.tensor([d]), N_DOMAINS)))
        for d in range(N_DOMAINS + 1)
    }
    for d, answer in answers.items():
        for other in range(d):
            assert not torch.allclose(answer, answers[other], atol=1e-4), (d, other)


def test_every_line_of_every_bank_learns():
    adapter = make()
    subject = adapter_subject(adapter, condition_width=6, n_domains=N_DOMAINS)
    train_a_little(subject, steps=2, lr=1e-3)
    for name, parameter in adapter.cells.named_parameters():
        assert parameter.shape[0] == N_DOMAINS + 1
        assert parameter.grad is not None
        assert (parameter.grad.flatten(1).abs().amax(dim=1) > 0).all(), name


def test_one_batch_of_cores_serves_all_sites():
    adapter = make(sites=(0, 1))
    assert sorted(adapter.cells) == ["0", "1"]
    routing = Routing(domains(8, N_DOMAINS), N_DOMAINS)
    state = adapter.prepare(torch.randn(8, 6), routing)
    assert isinstance(state, AdapterState)
    assert adapter(0, torch.randn(8, 12), state).shape == (8, 12)
    assert adapter(1, torch.randn(8, 9), state).shape == (8, 9)


def test_a_site_without_a_cell_returns_what_it_was_given():
    adapter = make(sites=(-1,))
    h = torch.randn(8, 12)
    state = adapter.prepare(torch.randn(8, 6), Routing(domains(8, N_DOMAINS), N_DOMAINS))
    assert adapter(0, h, state) is h


def test_sites_count_from_both_ends():
    four = SiteSpec((9,) * 4, 3, input_width=5)
    assert four.resolve((-1,)) == (3,)
    assert four.resolve((2, "input", 0)) == ("input", 0, 2)
    with pytest.raises(ValueError, match=r"adapter.sites must lie in -2..1 .* got 2"):
        make(sites=(2,))
    with pytest.raises(ValueError, match=r"adapter\.sites must be numbers here, got 'input'"):
        make(sites=("input",))
    wrong: list[tuple[Site, ...]] = [(1, -3), ("input", "input"), ()]
    for twice in wrong:
        with pytest.raises(ValueError, match="each site once"):
            four.resolve(twice)


def test_a_config_builds_with_every_setting():
    config = HamurConfig(bottleneck=5, rank=3, hyper_widths=(7, 8), sites=(0, -1, "input"))
    adapter = config.build(SiteSpec((12, 9, 4), 2, input_width=10), condition_width=6)
    assert isinstance(adapter, Hamur)
    assert adapter.sites == ("input", 0, 2)
    shapes = {name: tuple(p.shape) for name, p in adapter.named_parameters()}
    assert shapes["cells.2.down.left"] == (3, 4, 3)
    assert shapes["cells.2.down.right"] == (3, 3, 5)
    assert shapes["cells.2.up.left"] == (3, 5, 3)
    assert shapes["cells.2.up.right"] == (3, 3, 4)
    assert shapes["cells.input.down.left"] == (3, 10, 3)
    assert shapes["hyper.last.weight"] == (9, 8)


def test_building_does_not_change_the_list_it_was_given():
    widths = [7]
    make(hyper_widths=widths)
    make(HamurReleased, hyper_widths=widths)
    assert widths == [7]


def test_the_hyper_network_starts_near_the_identity_and_keeps_the_scale():
    torch.manual_seed(0)
    rank = 20
    hyper = HyperNetwork(condition_width=50, widths=(64,), rank=rank)
    cores = hyper(torch.randn(1000, 50))
    torch.testing.assert_close(cores.mean(0), torch.eye(rank), rtol=0, atol=0.5)
    noise = (cores - torch.eye(rank)).square().mean()
    assert noise.item() == pytest.approx(1 / (2 * rank), rel=0.3)
    # Rows differ, so the adapter is the row's own; and a silent condition leaves the identity.
    assert cores.std(dim=0).mean() > 0.3 * noise.sqrt()
    silent = hyper.train()(torch.zeros(10, 50))
    torch.testing.assert_close(silent, torch.eye(rank).expand(10, rank, rank))


def test_the_hyper_network_uses_running_statistics_in_eval():
    torch.manual_seed(0)
    hyper = HyperNetwork(condition_width=5, rank=2)
    hyper(torch.randn(64, 5))
    e = torch.randn(9, 5)
    alone = torch.cat([hyper.eval()(row.unsqueeze(0)) for row in e])
    torch.testing.assert_close(hyper(e), alone)


@pytest.mark.parametrize("rank", [1, 3, 4, 5])  # 16 values fill a line of cache, others do not
@pytest.mark.parametrize("frozen", [False, True])
def test_hyper_network_without_hidden_layers_is_linear(rank, frozen):
    torch.manual_seed(0)
    hyper = HyperNetwork(condition_width=6, widths=(), rank=rank)
    hyper.last.requires_grad_(not frozen)
    e = torch.randn(7, 6, requires_grad=True)
    leaves = [e, *(() if frozen else hyper.parameters())]
    expected = (e @ hyper.last.weight.t() + hyper.last.bias).reshape(7, rank, rank)
    cores = hyper(e)
    torch.testing.assert_close(cores, expected)
    weight = torch.randn(7, rank, rank)
    torch.testing.assert_close(
        torch.autograd.grad((cores * weight).sum(), leaves),
        torch.autograd.grad((expected * weight).sum(), leaves),
    )
    with torch.inference_mode():
        torch.testing.assert_close(hyper(e), expected)


@pytest.mark.parametrize("rank", [4, 5])
def test_hamur_learns_under_autocast(rank):
    torch.manual_seed(0)
    adapter = make(rank=rank)
    nn.init.ones_(adapter.cell(adapter.sites[0]).norm.gain)
    h, condition = torch.randn(60, 9), torch.randn(60, 6)
    routing = Routing(torch.randint(0, N_DOMAINS + 1, (60,)), N_DOMAINS)
    found = {}
    for on in (False, True):
        adapter.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            y = adapter(adapter.sites[0], h, adapter.prepare(condition, routing))
        y.float().square().mean().backward()
        found[on] = adapter.hyper.last.weight.grad
    assert found[True].dtype == torch.float32
    difference = (found[True] - found[False]).norm() / found[False].norm()
    assert difference < 0.1


def test_hyper_network_refuses_sizes_below_one():
    with pytest.raises(ValueError, match="rank=0"):
        HyperNetwork(condition_width=5, rank=0)
