"""Experts, gates and the networks made of them, against their formulas written out row by row."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus import testing
from isthmus.backbones import ADL, PLE, AbstractBackbone, HiNet, M3oE, MMoE, SharedBottom
from isthmus.config import load_config
from isthmus.errors import ConfigError
from isthmus.layers.bank import BankLinear
from isthmus.layers.blocks import DeepBlock
from isthmus.layers.gates import ExpertLinear, Experts, Gate, mixed
from isthmus.layers.per_domain import domain_tensors
from isthmus.layers.routing import Routing
from isthmus.models import ModelConfig
from isthmus.testing import Subject

N_DOMAINS = 3
WIDTH = 6
SMALL = {"in_width": WIDTH, "n_domains": N_DOMAINS, "dropout": 0.0, "norm": "none"}


# The slow forms: one row and one expert at a time, with plain products.


def linear(part: nn.Module, h: Tensor, domain: int) -> Tensor:
    """One row through a Linear, or a bank of them."""
    if isinstance(part, BankLinear):
        y = h @ part.weight[domain]
        return y if part.bias is None else y + part.bias[domain]
    assert isinstance(part, nn.Linear)
    return F.linear(h, part.weight, part.bias)


def gate(part: Gate, h: Tensor, domain: int) -> Tensor:
    return torch.softmax(linear(part.linear, h, domain), dim=0)


def expert(part: Experts, number: int, h: Tensor, domain: int) -> Tensor:
    """One row through one expert of a set without norm, or with layer norms."""
    for block in part.blocks:
        maps, norm = block.linear, block.norm
        assert isinstance(maps, ExpertLinear)
        weight, bias = maps.weight, maps.bias
        assert bias is not None
        if maps.n_domains is not None:
            weight, bias = weight[domain], bias[domain]
        out = maps.out_width
        mine = slice(number * out, (number + 1) * out)
        h = h @ (weight[:, mine] if maps.one_input else weight[number]) + bias[mine]
        if norm is not None:
            at = domain if norm.per_domain else 0  # pyright: ignore[reportAttributeAccessIssue]
            h = (h - h.mean()) / (h.var(unbiased=False) + 1e-5).sqrt()
            h = h * norm.gain[at, mine] + norm.bias[at, mine]  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
        h = h.relu()
    return h


def experts(part: Experts, h: Tensor, domain: int) -> list[Tensor]:
    return [expert(part, k, h, domain) for k in range(part.blocks[0].linear.n_experts)]  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]


def mix(weights: Tensor, states: list[Tensor]) -> Tensor:
    return torch.stack([w * s for w, s in zip(weights, states, strict=True)]).sum(0)


def blocks(part: nn.Module, h: Tensor, domain: int) -> Tensor:
    for block in part.blocks:  # type: ignore[union-attr]
        assert isinstance(block, DeepBlock)
        h = linear(block.linear, h, domain).relu()
    return h


def slow_shared_bottom(net: SharedBottom, x: Tensor, d: int) -> Tensor:
    return blocks(net.tower, blocks(net.bottom, x, d), d)


def slow_mmoe(net: MMoE, x: Tensor, d: int) -> Tensor:
    return blocks(net.tower, mix(gate(net.gate, x, d), experts(net.experts, x, d)), d)


def slow_ple(net: PLE, x: Tensor, d: int) -> Tensor:
    own = shared = x
    for level in net.levels.values():
        states = experts(level.own, own, d) + experts(level.shared, shared, d)  # pyright: ignore[reportArgumentType]
        after = mix(gate(level.own_gate, own, d), states)  # pyright: ignore[reportArgumentType]
        if level.shared_gate is not None:
            shared = mix(gate(level.shared_gate, shared, d), states)  # pyright: ignore[reportArgumentType]
        own = after
    return blocks(net.tower, own, d)


def slow_hinet(net: HiNet, x: Tensor, d: int) -> Tensor:
    beside = torch.cat([net.domain_embedding[d], x])
    parts = [
        mix(gate(part.gate, read, d), experts(part.experts, x, d))
        for part, read in ((net.shared, x), (net.own, x), (net.others, beside))
    ]
    return blocks(net.tower, torch.cat(parts), d)


def layer_norm(norm: nn.LayerNorm, h: Tensor) -> Tensor:
    h = (h - h.mean()) / (h.var(unbiased=False) + norm.eps).sqrt()
    return h * norm.weight + norm.bias


def slow_m3oe(net: M3oE, x: Tensor, d: int) -> Tensor:
    first = net.first
    z = x @ (first.own_weight[d] * first.weight) + first.own_bias[d] + first.bias
    h = linear(first.join, layer_norm(first.norm, z).relu(), d)
    h = h + layer_norm(first.plain_norm, linear(first.plain, x, d)).relu()
    alpha, beta = torch.sigmoid(net.fusion)
    own, other = expert(net.own, 0, h, d), expert(net.other, 0, h, d)
    state = mix(gate(net.gate, h, d), experts(net.shared, h, d))
    return blocks(net.tower, state + alpha * (beta * own + (1 - beta) * other), d)


def slow_adl(net: ADL, x: Tensor, d: int) -> Tensor:
    scale = net.gate.scale
    assert scale.running_mean is not None
    assert scale.running_var is not None
    at = (x - scale.running_mean) / (scale.running_var + scale.eps).sqrt()
    nearest = int((net.gate.centres @ at).argmax())
    return blocks(net.shared, x, d) + blocks(net.clusters, x, nearest)


def shared_bottom() -> SharedBottom:
    return SharedBottom(widths=(5, 4), tower_widths=(3,), **SMALL)


def mmoe() -> MMoE:
    return MMoE(widths=(5, 4), tower_widths=(3,), experts=3, **SMALL)


def ple() -> PLE:
    return PLE(widths=(5, 4, 4), tower_widths=(3,), shared_experts=2, own_experts=3, **SMALL)


def hinet() -> HiNet:
    return HiNet(
        widths=(5, 4), tower_widths=(3, 3), shared_experts=2, own_experts=3, domain_dim=2, **SMALL
    )


def m3oe() -> M3oE:
    return M3oE(widths=(7, 5, 4), tower_widths=(3,), experts=3, **SMALL)


def adl() -> ADL:
    return ADL(widths=(5, 4), clusters=3, **SMALL)


NETWORKS = {
    "shared_bottom": (shared_bottom, slow_shared_bottom),
    "mmoe": (mmoe, slow_mmoe),
    "ple": (ple, slow_ple),
    "hinet": (hinet, slow_hinet),
    "m3oe": (m3oe, slow_m3oe),
    "adl": (adl, slow_adl),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_4_a_network_is_its_formula_row_by_row(name):
    torch.manual_seed(0)
    build, slow = NETWORKS[name]
    net = build()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, WIDTH, generator=generator)

    def run(rows: Tensor, domain: Tensor) -> Tensor:
        return net(x[rows], Routing(domain, N_DOMAINS))

    def formula(rows: Tensor, domain: Tensor) -> Tensor:
        return torch.stack(
            [slow(net, x[r], int(d)) for r, d in zip(rows.tolist(), domain, strict=True)]
        )

    subject = Subject(net, torch.arange(24) % (N_DOMAINS + 1), N_DOMAINS, run)
    testing.check_matches_formula(subject, formula)


@pytest.mark.parametrize("name", NETWORKS)
def test_sites_are_met_once_in_order_with_their_widths(name):
    net: AbstractBackbone = NETWORKS[name][0]()
    visits: list[tuple[int, int]] = []

    def adapt(site: int, h: Tensor) -> Tensor:
        visits.append((site, h.shape[1]))
        return torch.zeros_like(h)

    domain = torch.tensor([0, 1, 2, 3, 1])
    net.eval()
    y = net(torch.randn(5, WIDTH), Routing(domain, N_DOMAINS), adapt)
    assert visits == list(enumerate(net.site_widths))
    assert y.shape == (5, net.out_width)
    assert (y == 0).all()  # what an adapter returns at the last site goes on


def test_a_tower_may_be_the_head_alone():
    net = MMoE(widths=(5, 4), tower_widths=(), **SMALL)
    assert (net.site_widths, net.out_width) == ((4,), 4)


def test_levels_of_ple_are_progressive():
    """A level reads what the one below extracted: its experts' inputs are not x again."""
    torch.manual_seed(0)
    net = ple().eval()
    assert list(net.levels) == ["level_1", "level_2", "level_3"]
    x, routing = torch.randn(8, WIDTH), Routing(torch.arange(8) % 4, N_DOMAINS)
    seen = {}
    for name, level in net.levels.items():
        level.register_forward_hook(
            lambda _, inputs, out, name=name: seen.update({name: (inputs, out)})
        )
    net(x, routing)
    assert torch.equal(seen["level_1"][0][0], x)
    assert torch.equal(seen["level_2"][0][0], seen["level_1"][1][0])
    assert torch.equal(seen["level_2"][0][1], seen["level_1"][1][1])
    assert not torch.equal(*seen["level_1"][1])  # two states: of the domain, and of all
    assert net.levels["level_3"].shared_gate is None


def test_one_level_of_ple_is_cgc():
    net = PLE(widths=(5,), tower_widths=(3,), **SMALL)
    assert [name for name, part in net.named_modules() if isinstance(part, Gate)] == [
        "levels.level_1.own_gate"
    ]


@pytest.mark.parametrize("norm", ["batch", "domain", "layer", "none"])
@pytest.mark.parametrize("own", [False, True])
def test_experts_side_by_side_equal_each_alone(own, norm):
    """With every norm, expert k of a set is what a set of expert k alone says."""
    torch.manual_seed(0)
    size = {"in_width": WIDTH, "widths": (5, 4), "norm": norm, "n_domains": N_DOMAINS, "own": own}
    together = Experts(n_experts=3, **size)
    x, routing = torch.randn(40, WIDTH), Routing(torch.arange(40) % 4, N_DOMAINS)
    for k in range(3):
        alone = Experts(n_experts=1, **size)
        with torch.no_grad():
            for mine, theirs in zip(alone.blocks, together.blocks, strict=True):
                out = theirs.linear.out_width  # pyright: ignore[reportAttributeAccessIssue]
                at = slice(k * out, (k + 1) * out)  # pyright: ignore[reportOperatorIssue]
                whole, one = theirs.linear.weight, mine.linear.weight  # pyright: ignore[reportAttributeAccessIssue]
                if theirs.linear.one_input:  # pyright: ignore[reportAttributeAccessIssue]
                    one.copy_(whole[..., at])  # pyright: ignore[reportCallIssue, reportIndexIssue]
                else:
                    one.copy_(whole[:, k : k + 1] if own else whole[k : k + 1])  # pyright: ignore[reportCallIssue, reportIndexIssue]
        torch.testing.assert_close(
            alone.train()(x, routing).squeeze(1),
            together.train()(x, routing)[:, k],
            rtol=1e-4,
            atol=1e-5,
        )


def test_a_gate_gives_weights_that_sum_to_1_and_starts_with_experts_apart():
    torch.manual_seed(0)
    gate = Gate(WIDTH, ("a", "b", "c"), n_domains=N_DOMAINS)
    x = torch.randn(30, WIDTH)
    weights = gate(x, Routing(torch.arange(30) % 4, N_DOMAINS))
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(30))
    assert set(domain_tensors(gate)) == {"linear.weight", "linear.bias"}
    with pytest.raises(ValueError, match="needs the batch's routing"):
        gate(x)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 6))
def test_mixing_equal_experts_changes_nothing(n_experts, width, rows):
    weights = torch.rand(rows, n_experts).softmax(1)
    state = torch.randn(rows, width)
    states = state.unsqueeze(1).expand(rows, n_experts, width)
    torch.testing.assert_close(mixed(weights, states), state)


@pytest.mark.parametrize("names", [(), ("a", "a")])
def test_experts_of_a_gate_have_names_of_their_own(names):
    with pytest.raises(ValueError, match="each by a name of its own, got"):
        Gate(WIDTH, names)


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="n_experts=0"):
        ExpertLinear(n_experts=0, in_width=2, out_width=2, one_input=True)
    with pytest.raises(ValueError, match="widths must hold at least one"):
        Experts(n_experts=2, in_width=2, widths=())
    with pytest.raises(ValueError, match="n_domains must be given"):
        Experts(n_experts=2, in_width=2, widths=(2,), own=True)
    with pytest.raises(ValueError, match=r"first layer and those of an expert, got \(3,\)"):
        M3oE(in_width=2, n_domains=2, widths=(3,))
    with pytest.raises(ValueError, match="clusters must be 2 or more, got 1"):
        ADL(in_width=2, clusters=1)
    with pytest.raises(ValueError, match="one number for each level"):
        PLE(in_width=2, n_domains=2, widths=())


def test_a_fresh_m3oe_bends_no_domain():
    """The first layer of every domain starts at the shared one."""
    torch.manual_seed(0)
    net = m3oe()
    x = torch.randn(8, WIDTH)
    states = [net.first(x, Routing(torch.full((8,), d), N_DOMAINS)) for d in range(4)]
    for state in states[1:]:
        torch.testing.assert_close(state, states[0])


# The config.


@pytest.mark.parametrize("name", NETWORKS)
def test_towers_per_domain_are_refused_where_the_network_says_itself(name):
    raw = {
        "data": {"domain": "d", "label": "y", "features": {"a": "categorical"}},
        "model": {"backbone": {"name": name}, "towers": "per_domain"},
    }
    with pytest.raises(ConfigError) as fault:
        load_config(raw)
    assert str(fault.value) == (
        f"model: towers must be shared for backbone '{name}', which says itself what belongs to"
        " domains, got 'per_domain'"
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_a_config_scales_all_its_widths(name):
    backbone = ModelConfig.model_validate({"backbone": {"name": name}}).backbone
    assert backbone.scaled(0.5).sizes == tuple(width // 2 for width in backbone.sizes)
    assert set(backbone.scaled(1e-3).sizes) == {2}
    assert backbone.scaled(1.0) == backbone
