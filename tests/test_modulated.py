"""The networks in which the domain changes what a shared network does: what each promises."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from fake_batches import EVEN, MIXED, make_batch, single
from isthmus import testing
from isthmus.backbones import BackboneSpec
from isthmus.backbones.modulated.m2m import FieldAttention, FieldTokens
from isthmus.backbones.modulated.star_block import StarLinear
from isthmus.data.batch import Batch
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.gates import AbstractGate
from isthmus.layers.per_domain import domain_parameters
from isthmus.layers.routing import Routing
from isthmus.models import ModelConfig, build_model
from isthmus.schema import FittedField
from modulated_parts import (
    GATED,
    N_DOMAINS,
    NAMES,
    normal_rows,
    small_config,
    small_network,
)

SHARING = tuple(name for name in NAMES if name not in GATED)  # towers of domains mean nothing here


@pytest.mark.parametrize("name", NAMES)
def test_contracts_hold_on_features_of_every_kind(name):
    def make(n_domains: int):
        torch.manual_seed(0)
        spec = BackboneSpec(FeatureEmbedding(fields=MIXED), "shared", n_domains)
        return small_config(name, norm="domain").build(spec)

    testing.check_backbone(make)


@pytest.mark.parametrize("name", NAMES)
def test_everything_learns(name):
    torch.manual_seed(0)
    model = build_model(ModelConfig(backbone=small_config(name)), EVEN, N_DOMAINS)  # pyright: ignore[reportArgumentType]
    batch = make_batch(EVEN, 96, n_domains=N_DOMAINS)
    testing.check_everything_learns(testing.model_subject(model, batch))


FACTORS = {
    "star": ("blocks.0.linear.weight", "blocks.0.linear.own", "blocks.1.linear.own"),
    "sar_net": ("shared.blocks.0.linear.weight", "own.blocks.0.linear.weight"),
    "m2m": ("tokens.maps.0", "attention.read.weight", "gate.unit.base", "tower.0.made"),
    "adasparse": ("pruners.0.linear.weight", "pruners.1.linear.weight"),
    "adaptdhm": ("blocks.0.linear.weight",),
    "epnet": ("gate.gate.hidden.weight", "gate.gate.last.weight", "deep.blocks.0.linear.weight"),
    "ppnet": ("deep.gates.0.hidden.weight", "deep.gates.1.last.weight"),
    "pepnet": ("gate.gate.last.weight", "deep.gates.0.last.weight"),
}


@pytest.mark.parametrize("name", NAMES)
def test_hidden_units_learn_different_things(name):
    subject = testing.backbone_subject(small_network(name), n_domains=N_DOMAINS)
    testing.check_hidden_units_differ(subject, factors=FACTORS[name])


@pytest.mark.parametrize(("name", "part"), [("sar_net", "shared"), ("m2m", "experts")])
def test_experts_start_apart_and_stay_apart(name, part):
    net = small_network(name)
    linear = net.get_submodule(f"{part}.blocks.0.linear")
    testing.train_a_little(testing.backbone_subject(net, n_domains=N_DOMAINS), steps=5)
    weight = linear.get_parameter("weight")
    assert weight.grad is not None
    for numbers in (linear.per_expert(weight.detach()), linear.per_expert(weight.grad)):  # type: ignore[operator]
        values = torch.linalg.svdvals(numbers)
        assert values[-1] > 1e-3 * values[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_mixed_batch_in_any_order_equals_its_domains_one_by_one(name):
    net = small_network(name)
    testing.train_a_little(testing.backbone_subject(net, n_domains=N_DOMAINS))
    x = normal_rows(net, 60)
    domain = torch.randint(0, N_DOMAINS + 1, (60,), generator=torch.Generator().manual_seed(2))
    mixed = net(x, Routing(domain, N_DOMAINS))
    for d in domain.unique().tolist():
        rows = (domain == d).nonzero().flatten().flip(0)
        alone = net(x[rows], Routing(domain[rows], N_DOMAINS))
        torch.testing.assert_close(mixed[rows], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_moves_the_parameters_of_its_own_domain_alone(name):
    net = small_network(name, norm="none")  # a norm over a batch joins its rows in training
    x = normal_rows(net, 40)
    domain = torch.arange(40) % (N_DOMAINS + 1)
    rows = net(x, Routing(domain, N_DOMAINS))[domain == 2]
    own = domain_parameters(net)
    assert own
    gradients = torch.autograd.grad(rows.square().sum(), list(own.values()), allow_unused=True)
    for key, gradient in zip(own, gradients, strict=True):
        if gradient is None:  # of the shortcut of star
            assert name == "star"
            assert key == "domain.weight"
            continue
        moved = gradient.flatten(1).abs().sum(dim=1) > 0
        assert moved.nonzero().flatten().tolist() in ([2], []), key
    assert any(g is not None and bool(g[2].any()) for g in gradients) or name == "adaptdhm"


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_are_trained_through_every_network(name):
    net = small_network(name)
    x = normal_rows(net, 30).requires_grad_()
    net(x, Routing(torch.arange(30) % 3, N_DOMAINS)).square().sum().backward()
    assert x.grad is not None
    assert bool((x.grad.abs().sum(dim=0) > 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_hidden_states_pass_the_sites(name):
    net = small_network(name).eval()
    routing = Routing(torch.arange(10) % 3, N_DOMAINS)
    for site in range(len(net.site_widths)):
        out = net(normal_rows(net, 10), routing, lambda s, h, at=site: h * 0 if s == at else h)
        assert not torch.equal(out, net(normal_rows(net, 10), routing)), site


def conflict(rows: int, seed: int) -> tuple[Batch, Tensor]:
    """An item that is liked in domain 1 is disliked in domain 2, and the other way round."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 12, (rows, 2), generator=draw, dtype=torch.int32)
    domain = torch.randint(1, 3, (rows,), generator=draw)
    liked = (ids[:, 0] % 2 == 0) == (domain == 1)
    label = torch.bernoulli(torch.where(liked, 0.95, 0.05), generator=draw)
    return Batch(ids, torch.zeros(rows, 0), (), domain, label), label


def loss_after_training(model: nn.Module, steps: int = 60) -> float:
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        batch, label = conflict(256, step)
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(model(batch), label).backward()
        optimiser.step()
    batch, label = conflict(2000, steps)
    with torch.no_grad():
        return float(F.binary_cross_entropy_with_logits(model.eval()(batch), label))


CONFLICT = (single("item", 12, width=8), single("user", 12, width=8))  # no feature tells the domain


@pytest.mark.parametrize("name", NAMES)
def test_two_domains_in_conflict_are_told_apart(name):
    torch.manual_seed(0)
    backbone = small_config(name, **({} if name == "m2m" else {"widths": [48, 24]}))
    model = build_model(ModelConfig(backbone=backbone), CONFLICT, 2)  # pyright: ignore[reportArgumentType]
    assert loss_after_training(model) < 0.3  # the best is 0.20


def test_a_network_without_the_domain_cannot_tell_them_apart():
    torch.manual_seed(0)
    model = build_model(ModelConfig(), CONFLICT, 2)
    assert loss_after_training(model) > 0.65


def test_a_fresh_star_is_one_shared_network():
    torch.manual_seed(0)
    layer = StarLinear(in_width=5, out_width=3, sets=4, of_domains=True)
    h = torch.randn(20, 5)
    y = layer(h, Routing(torch.arange(20) % 4, 3))
    torch.testing.assert_close(y, h @ layer.weight)
    assert set(domain_parameters(layer)) == {"own", "own_bias"}
    assert not domain_parameters(StarLinear(in_width=5, out_width=3, sets=4, of_domains=False))


def test_gates_say_what_share_of_each_expert_a_row_takes():
    for name, experts in (
        ("sar_net", ("shared 1", "shared 2", "shared 3", "own 1")),
        ("m2m", ("shared 1", "shared 2", "shared 3", "shared 4")),
        ("adaptdhm", ("cluster 1", "cluster 2", "cluster 3")),
    ):
        net = small_network(name).eval()
        (gate,) = (part for part in net.modules() if isinstance(part, AbstractGate))
        assert gate.experts == experts
        seen: list[Tensor] = []
        gate.register_forward_hook(lambda _, __, share, seen=seen: seen.append(share))
        net(normal_rows(net, 12), Routing(torch.arange(12) % 3, N_DOMAINS))
        (share,) = seen
        assert share.shape == (12, len(experts))
        torch.testing.assert_close(share.sum(dim=1), torch.ones(12))


def test_attention_of_m2m_is_among_the_fields_of_a_row():
    torch.manual_seed(0)
    attention = FieldAttention(dim=6, heads=2)
    tokens = torch.randn(4, 3, 6, requires_grad=True)
    # A layer norm ends the attention: the plain sum of a token is the same whatever comes in.
    (attention(tokens)[1, 0] * torch.arange(6.0)).sum().backward()
    assert tokens.grad is not None
    felt = tokens.grad.abs().sum(dim=2) > 0
    assert felt[1].all()
    assert not felt[[0, 2, 3]].any()


def test_m2m_sees_no_neighbour_in_training_either():
    net: Any = small_network("m2m", norm="none", dropout=0.0)
    x, domain = normal_rows(net, 8), torch.arange(8) % 3
    before = net(x, Routing(domain, N_DOMAINS))
    x[1:] = 7.0
    torch.testing.assert_close(net(x, Routing(domain, N_DOMAINS))[0], before[0])


def test_every_column_is_in_one_token_of_m2m():
    torch.manual_seed(0)
    tokens = FieldTokens(fields=MIXED, dim=5)
    # user, history, item, city are of width 4; tab, tags of width 2; the numbers fill 6 columns.
    assert [tuple(weight.shape) for weight in tokens.maps] == [(4, 4, 5), (2, 2, 5), (1, 6, 5)]
    width = sum(field.width for field in MIXED)
    assert tokens.in_width == width
    columns = torch.cat([b.flatten() for key, b in tokens.named_buffers() if "columns" in key])
    assert sorted(columns.tolist()) == list(range(width))
    only_numbers = FieldTokens(fields=(FittedField("a", "numeric", 1),) * 2, dim=5)
    assert only_numbers(torch.randn(3, 2)).shape == (3, 1, 5)


def test_the_sharpness_of_adasparse_moves_in_training_only():
    net: Any = small_network("adasparse")
    x, routing = normal_rows(net, 8), Routing(torch.arange(8) % 3, N_DOMAINS)
    assert float(net.alpha) == 1.0
    for _ in range(3):
        net(x, routing)
    assert float(net.alpha) == pytest.approx(1.0003)
    net.eval()
    for _ in range(3):
        net(x, routing)
    assert int(net.steps) == 3
    other: Any = small_network("adasparse")
    other.load_state_dict(net.state_dict())
    assert float(other.alpha) == float(net.alpha)
    net.steps.fill_(10**6)
    assert float(net.alpha) == 5.0


@pytest.mark.parametrize("form", ["scaling", "binarization", "fusion"])
def test_a_unit_below_the_threshold_of_adasparse_is_exactly_0(form):
    net: Any = small_network("adasparse", form=form).eval()
    with torch.no_grad():
        net.pruners[-1].linear.bias[:3] = -20.0
        net.pruners[-1].linear.bias[3:] = 20.0
    h = net(normal_rows(net, 40), Routing(torch.arange(40) % 3, N_DOMAINS))
    assert (h[:, :3] == 0).all()
    assert (h[:, 3:] > 0).any(dim=0).all()
    highest = 1.0 if form == "binarization" else 2.0
    factor = net.pruners[-1](torch.zeros(1, 7), torch.zeros(1, 8), net.alpha)
    torch.testing.assert_close(factor, torch.tensor([[0.0] * 3 + [highest] * 4]))


def test_adaptdhm_finds_groups_of_rows_that_are_alike():
    torch.manual_seed(0)
    net: Any = small_network("adaptdhm", clusters=2)
    middle = torch.randn(net.in_width)
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        group = torch.randint(0, 2, (256,), generator=draw)
        x = torch.randn(256, net.in_width, generator=draw) * 0.7
        x = x + torch.where(group == 1, 1.0, -1.0).unsqueeze(1) * middle
        net(x, Routing(torch.ones_like(group), N_DOMAINS))
    seen: list[Tensor] = []
    net.gate.register_forward_hook(lambda _, __, share: seen.append(share.argmax(dim=1)))
    before = net.gate.centres.clone()
    net.eval()(x, Routing(torch.ones_like(group), N_DOMAINS))  # pyright: ignore[reportPossiblyUnboundVariable]
    right = float((seen[0] == group).float().mean())  # pyright: ignore[reportPossiblyUnboundVariable]
    assert max(right, 1 - right) > 0.97
    assert torch.equal(net.gate.centres, before)
    assert "gate.centres" in net.state_dict()


def test_the_gate_of_epnet_sends_no_gradient_into_the_row_it_reads():
    net: Any = small_network("epnet")
    x, routing = normal_rows(net, 6).requires_grad_(), Routing(torch.arange(6) % 3, N_DOMAINS)
    net.gate(x, routing).sum().backward()
    read = torch.cat([net.gate.domain(routing.domain), x], dim=1)
    torch.testing.assert_close(x.grad, net.gate.gate(read).detach())


@pytest.mark.parametrize("name", GATED)
def test_gates_leave_values_about_as_they_are_at_first(name):
    net = small_network(name)
    gates: list[Tensor] = []
    for part in net.modules():
        if type(part).__name__ == "GateUnit":
            part.register_forward_hook(lambda _, __, gate: gates.append(gate))  # pyright: ignore[reportArgumentType]
    net(normal_rows(net, 50), Routing(torch.arange(50) % 3, N_DOMAINS))
    assert len(gates) == {"epnet": 1, "ppnet": 2, "pepnet": 3}[name]
    for gate in gates:
        assert 0.8 < float(gate.detach().mean()) < 1.2
        assert bool(((gate > 0) & (gate < 2)).all())


# What a config refuses, and what a size means.


@pytest.mark.parametrize("name", NAMES)
def test_defaults_work_on_a_table_of_one_number(name):
    fields = (FittedField("age", "numeric", 1),)
    config = small_config(name, widths=[256, 128]) if name not in ("m2m",) else small_config(name)
    net = config.build(BackboneSpec(FeatureEmbedding(fields=fields), "shared", 1))
    assert net(torch.randn(5, 1), Routing(torch.tensor([0, 1, 1, 0, 1]), 1)).shape[0] == 5


@pytest.mark.parametrize("name", SHARING)
def test_towers_of_domains_are_refused_where_the_network_says_what_is_shared(name):
    spec = BackboneSpec(FeatureEmbedding(fields=EVEN), "per_domain", N_DOMAINS)
    with pytest.raises(ValueError, match=r"towers must be shared .*, got 'per_domain'"):
        small_config(name).build(spec)


@pytest.mark.parametrize("name", GATED)
def test_towers_of_domains_share_the_gates(name):
    spec = BackboneSpec(FeatureEmbedding(fields=EVEN), "per_domain", N_DOMAINS)
    own = set(domain_parameters(small_config(name, norm="none").build(spec)))
    assert {"deep.blocks.0.linear.weight", "deep.blocks.1.linear.bias"} <= own
    assert not [key for key in own if "hidden" in key or "last" in key]


def test_scaled_changes_every_number_of_hidden_units():
    star: Any = small_config("star", widths=[256, 128], aux_width=32).scaled(0.5)
    assert (star.widths, star.aux_width, star.sizes) == ((128, 64), 16, (128, 64))
    pepnet: Any = small_config("pepnet", gate_width=64).scaled(2.0)
    assert (pepnet.widths, pepnet.gate_width) == ((18, 14), 128)
    m2m: Any = small_config("m2m", width=64).scaled(0.25)
    assert (m2m.width, m2m.sizes, m2m.scaled(1e-3).width) == (16, (16,), 2)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("ppnet", {"prior": ["user", "nobody"]}), r"prior must be 'all' or name .*'nobody'"),
        (("pepnet", {"prior": ["user", "user"]}), "each once"),
        (("ppnet", {"prior": []}), "prior must be 'all'"),
        (("m2m", {"heads": 4}), "heads must divide the width of a token, got heads=4, dim=6"),
    ],
)
def test_what_does_not_fit_is_named(options, text):
    name, values = options
    with pytest.raises(ValueError, match=text):
        small_network(name, **values)


@pytest.mark.parametrize(
    "section",
    [
        {"name": "adasparse", "form": "cutting"},
        {"name": "adasparse", "threshold": 1.0},
        {"name": "adaptdhm", "clusters": 1},
        {"name": "sar_net", "own_experts": 0},
        {"name": "star", "gate_width": 3},
        {"name": "m2m", "widths": [8]},
    ],
)
def test_a_wrong_key_or_value_is_an_error(section):
    with pytest.raises(ValidationError):
        small_config(section.pop("name"), **section)
