"""Each modulated network equals its paper's formula, written out row by row."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fake_batches import EVEN, make_batch
from isthmus import testing
from isthmus.backbones import BackboneSpec, Star, StarConfig
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.routing import Routing
from modulated_parts import N_DOMAINS, small_network


def star(net: Any, x: Tensor, d: int) -> Tensor:
    for block in net.blocks:
        linear = block.linear
        x = (x @ (linear.weight * linear.own[d]) + linear.bias + linear.own_bias[d]).relu()
    return x


def expert(block: Any, x: Tensor, number: int, d: int | None = None) -> Tensor:
    """One expert of an `Experts` of a single block."""
    linear = block.blocks[0].linear
    weight, bias = (linear.weight, linear.bias) if d is None else (linear.weight[d], linear.bias[d])
    columns = slice(number * linear.out_width, (number + 1) * linear.out_width)
    return (x @ weight[:, columns] + bias[columns]).relu()


def sar_net(net: Any, x: Tensor, d: int) -> Tensor:
    x = x * net.transformation.scale[d] + net.transformation.shift[d]
    score = net.gate.linear(torch.cat([x, net.domain.weight[d]]))
    share = score.exp() / score.exp().sum()
    states = [expert(net.shared, x, i) for i in range(3)] + [expert(net.own, x, 0, d)]
    h = torch.zeros_like(states[0])
    for g, state in zip(share, states, strict=True):
        h = h + g * state
    for block in net.blocks:
        h = block.linear(h).relu()
    return h


def meta(unit: Any, e: Tensor, h: Tensor) -> Tensor:
    made = unit.base + sum(e[c] * unit.made[c] for c in range(len(e)))
    return h @ made[:-1] + made[-1]


def m2m(net: Any, x: Tensor, d: int) -> Tensor:
    # EVEN: user, item, history and tab of one width, then the number age.
    inputs = FeatureEmbedding(fields=EVEN)
    names = [name for name in inputs.columns if name != "age"]
    tokens = [x[inputs.columns[name]] @ net.tokens.maps[0][i] for i, name in enumerate(names)]
    numbers = x[inputs.columns["age"]]
    tokens.append(numbers @ net.tokens.maps[1][0])
    token = [t + b for t, b in zip(tokens, net.tokens.bias, strict=True)]
    layer = net.attention
    parts = [layer.read(t).view(3, layer.heads, -1) for t in token]
    seen = []
    for query, _, _ in parts:
        heads = []
        for j in range(layer.heads):
            score = torch.stack([query[j] @ key[j] for _, key, _ in parts])
            weight = (score / query.shape[1] ** 0.5).softmax(dim=0)
            heads.append(sum(w * part[2][j] for w, part in zip(weight, parts, strict=True)))
        seen.append(torch.cat(heads))
    found = []
    for t, s in zip(token, seen, strict=True):
        t = layer.first_norm(t + layer.write(s))
        found.append(layer.last_norm(t + layer.back(layer.forth(t).relu())))
    f, e = torch.cat(found), net.gate.domain.weight[d]
    states = [expert(net.experts, f, i) for i in range(4)]
    score = [net.gate.read @ F.leaky_relu(meta(net.gate.unit, e, s)) for s in states]
    share = torch.stack(score).softmax(dim=0)
    h = sum((g * s for g, s in zip(share, states, strict=True)), torch.zeros(()))
    for unit in net.tower:
        h = F.leaky_relu(meta(unit, e, h) + h)
    return h


def adasparse(net: Any, x: Tensor, d: int) -> Tensor:
    alpha = 1.0 + 1e-4 * int(net.steps)
    for block, pruner in zip(net.blocks, net.pruners, strict=True):
        h = block.linear(x).relu()
        v = pruner.linear(torch.cat([h, net.domain.weight[d]]))
        factor = {
            "scaling": 2 * torch.sigmoid(v),
            "binarization": torch.sigmoid(alpha * v),
            "fusion": 2 * torch.sigmoid(alpha * v),
        }[pruner.form]
        x = h * torch.where(factor > pruner.threshold, factor, torch.zeros(()))
    return x


def adaptdhm(net: Any, x: Tensor, d: int) -> Tensor:
    x = torch.cat([x, net.domain.weight[d]])
    scale = net.gate.scale
    z = (x.detach() - scale.running_mean) / (scale.running_var + scale.eps).sqrt()
    cluster = max(range(3), key=lambda k: (z @ net.gate.centres[k]).item())
    return star(net, x, cluster)


def gate(unit: Any, condition: Tensor) -> Tensor:
    return 2 / (1 + (-unit.last(unit.hidden(condition).relu())).exp())


def epnet(net: Any, x: Tensor, d: int) -> Tensor:
    h = x * gate(net.gate.gate, torch.cat([net.gate.domain.weight[d], x.detach()]))
    for block in net.deep.blocks:
        h = block.linear(h).relu()
    return h


def ppnet(net: Any, x: Tensor, d: int) -> Tensor:
    condition = torch.cat([x, net.deep.domain.weight[d]])
    h = x
    for block, unit in zip(net.deep.blocks, net.deep.gates, strict=True):
        h = gate(unit, condition) * block.linear(h).relu()
    return h


def pepnet(net: Any, x: Tensor, d: int) -> Tensor:
    h = x * gate(net.gate.gate, torch.cat([net.gate.domain.weight[d], x.detach()]))
    condition = torch.cat([x, net.deep.domain.weight[d], h.detach()])
    for block, unit in zip(net.deep.blocks, net.deep.gates, strict=True):
        h = gate(unit, condition) * block.linear(h).relu()
    return h


FORMULAS = {
    "star": (star, {}),
    "sar_net": (sar_net, {}),
    "m2m": (m2m, {}),
    "adasparse, scaling": (adasparse, {"form": "scaling"}),
    "adasparse, binarization": (adasparse, {"form": "binarization", "threshold": 0.5}),
    "adasparse, fusion": (adasparse, {"form": "fusion", "threshold": 0.9}),
    "adaptdhm": (adaptdhm, {}),
    "epnet": (epnet, {}),
    "ppnet": (ppnet, {}),
    "pepnet": (pepnet, {}),
}


@pytest.mark.parametrize("case", FORMULAS)
def test_the_fast_form_is_the_formula(case):
    formula, options = FORMULAS[case]
    net = small_network(case.split(",")[0], norm="none", dropout=0.0, **options)
    subject = testing.backbone_subject(net, n_domains=N_DOMAINS, rows=20)
    x = torch.randn(20, net.in_width, generator=torch.Generator().manual_seed(0))  # its rows

    def slowly(rows: Tensor, domain: Tensor) -> Tensor:
        pairs = zip(rows.tolist(), domain.tolist(), strict=True)
        return torch.stack([formula(net, x[r], d) for r, d in pairs])

    testing.check_matches_formula(subject, slowly)


def test_named_priors_and_the_row_without_a_gradient_are_what_the_gates_read():
    net: Any = small_network("ppnet", norm="none", dropout=0.0, prior=("item", "user"))
    columns = FeatureEmbedding(fields=EVEN).columns
    x = torch.randn(6, net.in_width)
    domain = torch.tensor([0, 3, 1, 4, 2, 1])
    prior = torch.cat([x[:, columns["item"]], x[:, columns["user"]]], dim=1)
    condition = torch.cat([prior, net.deep.domain.weight[domain], x], dim=1)
    h = x
    for block, unit in zip(net.deep.blocks, net.deep.gates, strict=True):
        h = gate(unit, condition) * block.linear(h).relu()
    torch.testing.assert_close(net(x, Routing(domain, N_DOMAINS)), h)


def test_the_auxiliary_logit_of_star_is_the_shortcut():
    torch.manual_seed(0)
    inputs = FeatureEmbedding(fields=EVEN, std=1.0)
    net = StarConfig(widths=(9, 7), norm="none").build(BackboneSpec(inputs, "shared", N_DOMAINS))
    assert isinstance(net, Star)
    batch = make_batch(EVEN, 12, n_domains=N_DOMAINS)
    x = inputs(batch)
    first, last = net.auxiliary
    slow = torch.stack(
        [
            last.weight[0] @ first.linear(torch.cat([x[r], net.domain.weight[d]])).relu()  # pyright: ignore[reportCallIssue, reportIndexIssue]
            for r, d in enumerate(batch.domain.tolist())
        ]
    )
    torch.testing.assert_close(net.shortcut(batch, inputs, x), slow)


def test_the_partitioned_norm_is_the_domains_own():
    net = small_network("star", widths=(5,), dropout=0.0)
    assert isinstance(net, Star)
    assert net.partitioned is not None
    x = torch.randn(200, net.in_width)
    domain = torch.arange(200) % 2 + 1
    x[domain == 2] = 3 + 5 * x[domain == 2]
    net.partitioned.shrinkage = 0.0  # trust each domain's rows alone: the paper's batches
    h = net.partitioned(x, Routing(domain, N_DOMAINS))
    for d in (1, 2):
        torch.testing.assert_close(
            h[domain == d].mean(0), torch.zeros(net.in_width), atol=1e-5, rtol=0
        )
        spread = h[domain == d].var(0, unbiased=False)
        torch.testing.assert_close(spread, torch.ones(net.in_width), atol=1e-4, rtol=0)
