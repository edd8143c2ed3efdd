"""Adapters at Linears: formulas a row at a time, where a Linear is met, and what is refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fake_batches import EVEN, make_batch
from isthmus.adapters import MLora, Modulation, MoeMLora
from isthmus.backbones import MLP, AbstractPassing, BackboneSpec, MlpConfig, SharedBottom
from isthmus.backbones.mlp import meeting
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.routing import Routing
from isthmus.layers.sites import SiteSpec
from isthmus.models import DomainModel, ModelConfig, build_model
from isthmus.testing import adapter_subject, check_adapter, check_matches_formula

N_DOMAINS = 4
WIDTHS = {0: (7, 12), 1: (12, 9)}


def drawn(kind: Any, **options: Any) -> Any:
    """An adapter whose every parameter is random, so that nothing hides behind a zero."""
    torch.manual_seed(0)
    given = {"linear_widths": WIDTHS, "n_domains": N_DOMAINS, "linears": (-1,)}
    adapter = kind(**(given | options))
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    return adapter


def example(rows: int) -> tuple[Tensor, Tensor]:
    """What `adapter_subject` meets the last Linear with: its input and its output."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 12, generator=generator)
    return x, x @ (torch.randn(12, 9, generator=generator) * 12**-0.5)


def check_formula(adapter: Any, one_row: Any) -> None:
    subject = adapter_subject(adapter, condition_width=3, n_domains=N_DOMAINS, rows=40)
    x, y = example(40)

    def formula(rows: Tensor, domain: Tensor) -> Tensor:
        found = [
            one_row(x[r], y[r], d) for r, d in zip(rows.tolist(), domain.tolist(), strict=True)
        ]
        return torch.stack(found)

    check_matches_formula(subject, formula)


def test_mlora_is_its_formula():
    adapter = drawn(MLora, rank=3)
    cell = adapter.linear_cell(1)
    check_formula(
        adapter, lambda x, y, d: y + x @ cell.map.left[d] @ cell.map.right[d] + cell.bias[d]
    )


def test_moe_mlora_is_its_formula():
    adapter = drawn(MoeMLora, rank=2, experts=3)
    cell, gate = adapter.linear_cell(1), adapter.gate.linear

    def one_row(x: Tensor, y: Tensor, d: int) -> Tensor:
        share = (adapter.code[d] @ gate.weight.t() + gate.bias).softmax(dim=0)
        for k in range(3):
            of_k = slice(2 * k, 2 * k + 2)
            y = y + share[k] * (x @ cell.map.left[:, of_k] @ cell.map.right[of_k] + cell.bias[k])
        return y

    check_formula(adapter, one_row)


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_modulation_is_its_formula_at_every_strength(strength: float):
    adapter = drawn(Modulation, domain_dim=5)
    adapter.strength = strength
    cell = adapter.linear_cell(1)

    def one_row(x: Tensor, y: Tensor, d: int) -> Tensor:
        code = adapter.code[d]
        left = cell.offset + code @ cell.to_left
        right, more = (code @ cell.to_both).chunk(2)
        return (y + strength * (x @ left) * right) * (1 + strength * more)

    check_formula(adapter, one_row)


def test_modulation_at_strength_0_is_the_linear_bit_for_bit():
    adapter = drawn(Modulation)
    adapter.strength = 0.0
    x, y = example(40)
    state = adapter.prepare(x, Routing(torch.arange(40) % 5, N_DOMAINS))
    assert torch.equal(adapter.meet(1, x, y, state), y)


def test_the_public_check_takes_adapters_at_linears():
    def make(n_domains: int) -> MLora:
        torch.manual_seed(0)
        return MLora(linear_widths={0: (24, 32), 1: (32, 40)}, n_domains=n_domains)

    check_adapter(make, condition_width=3)


def test_the_rank_is_given_or_by_reduction_and_at_least_1():
    def ranks(**options: Any) -> list[int]:
        adapter = MLora(linear_widths={0: (7, 256), 1: (256, 8)}, n_domains=2, **options)
        return [adapter.linear_cell(at).map.left.shape[-1] for at in (0, 1)]

    assert ranks() == [16, 1]
    assert ranks(reduction=4) == [64, 2]
    assert ranks(rank=5) == [5, 5]


def test_experts_and_domains_of_moe_mlora_start_apart_and_stay_apart():
    adapter = drawn(MoeMLora, rank=2, experts=3)
    x, y = example(40)
    state = adapter.prepare(x, Routing(torch.arange(40) % 5, N_DOMAINS))
    adapter.meet(1, x, y, state).square().sum().backward()
    gradient = adapter.linear_cell(1).map.right.grad.unflatten(0, (3, 2)).flatten(1)
    assert torch.linalg.matrix_rank(gradient) == 3
    assert torch.linalg.matrix_rank(adapter.code.grad) > 1
    assert len({tuple(row) for row in state.shared.tolist()}) == N_DOMAINS + 1


def build(adapter: dict[str, Any], **model: Any) -> DomainModel:
    torch.manual_seed(0)
    section = {"backbone": {"name": "mlp", "widths": [8, 6]}, "adapter": adapter, **model}
    return build_model(ModelConfig.model_validate(section), EVEN, N_DOMAINS)  # pyright: ignore[reportReturnType]


def test_the_linear_is_met_before_norm_and_activation():
    model = build({"name": "mlora", "rank": 2}).eval()
    batch = make_batch(EVEN, 30, n_domains=N_DOMAINS)
    adapter: Any = model.adapter
    for at in (0, 1):
        nn.init.normal_(adapter.linear_cell(at).map.right)
        nn.init.normal_(adapter.linear_cell(at).bias)
    routing = Routing(batch.domain, N_DOMAINS)
    h = model.inputs(batch)
    for at, block in enumerate(model.backbone.blocks):  # pyright: ignore[reportArgumentType]
        cell = adapter.linear_cell(at)
        y = block.linear(h) + cell.map(h, routing) + cell.bias[batch.domain]
        h = block.norm(y).relu()
    output = model.score(batch, {1})
    torch.testing.assert_close(output.logits, model.head(h, routing))
    # An objective reads the same state.
    torch.testing.assert_close(output.hidden[1], h)


def test_only_the_named_linears_are_met():
    adapter: Any = build({"name": "mlora", "linears": [-1]}).adapter
    assert adapter.linears == (1,)
    assert list(adapter.cells) == ["linear_1"]


COMPILED = """
import torch
from fake_batches import EVEN, make_batch
from isthmus.models import ModelConfig, build_model
torch.manual_seed(0)
backbone = {"name": "mlp", "widths": [8, 4]}
config = ModelConfig.model_validate({"backbone": backbone, "adapter": {"name": "moe_mlora"}})
model = build_model(config, EVEN, 3).eval()
torch.nn.init.normal_(model.adapter.linear_cell(0).map.right)
batch = make_batch(EVEN, 20, n_domains=3)
compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
torch.testing.assert_close(compiled(batch), model(batch))
"""


def test_a_compiled_model_meets_its_linears():
    # A process of its own: compilation does not get through the shape checks of a test run.
    run = [sys.executable, "-c", COMPILED]
    done = subprocess.run(run, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("adapter", "model", "text"),
    [
        ({"linears": [2]}, {}, r"adapter\.linears must be 'all' or lie in -2\.\.1 .*, got 2"),
        ({"linears": []}, {}, r"adapter\.linears must name each Linear once, got \(\)"),
        ({"linears": [1, -1]}, {}, r"adapter\.linears must name each Linear once, got \(1, -1\)"),
        ({}, {"towers": "per_domain"}, r"adapter\.linears must lie in a network with deep blocks"),
        (
            {},
            {"backbone": {"name": "mmoe", "widths": [4], "tower_widths": [4]}},
            r"adapter\.linears must lie in a network with deep blocks",
        ),
    ],
)
def test_linears_that_are_not_there_are_refused(adapter: dict, model: dict, text: str):
    with pytest.raises(ValueError, match=text):
        build({"name": "mlora", **adapter}, **model)


def test_sizes_below_1_are_refused():
    for options in ({"rank": 0}, {"reduction": 0}):
        with pytest.raises(ValueError, match="sizes must be at least 1"):
            MLora(linear_widths=WIDTHS, n_domains=2, **options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="sizes must be at least 1"):
        Modulation(linear_widths=WIDTHS, n_domains=2, domain_dim=0)
    with pytest.raises(ValueError, match="sizes must be at least 1"):
        MoeMLora(linear_widths=WIDTHS, n_domains=2, experts=0)


class Recorded(AbstractPassing):
    """Writes down what passes."""

    def __init__(self) -> None:
        self.linears: list[tuple[int, int, int]] = []

    def __call__(self, site: Any, h: Tensor) -> Tensor:
        return h

    def meet(self, linear: int) -> Any:
        def met(x: Tensor, y: Tensor) -> Tensor:
            self.linears.append((linear, x.shape[1], y.shape[1]))
            return y

        return met


def test_a_backbone_lists_the_linears_that_it_lets_meet():
    inputs = FeatureEmbedding(fields=EVEN)
    x, routing = torch.randn(9, inputs.width), Routing(torch.arange(9) % 5, N_DOMAINS)
    spec = BackboneSpec(inputs, "shared", N_DOMAINS)
    built = [
        ModelConfig.model_validate({"backbone": {"name": name, "widths": [8, 6]}}).backbone.build(
            spec
        )
        for name in ("mlp", "dcn", "wide_deep", "deepfm", "shared_bottom")
    ]
    for backbone in built:
        seen = Recorded()
        backbone(x, routing, seen)
        assert seen.linears == [(at, *pair) for at, pair in backbone.linears.items()]
        assert backbone.linears == {0: (inputs.width, 8), 1: (8, 6)}
    towers = MlpConfig(widths=(8,)).build(BackboneSpec(inputs, "per_domain", N_DOMAINS))
    assert not towers.linears
    assert not SharedBottom(in_width=3, n_domains=2).tower.__dict__.get("linears")


def test_a_plain_function_meets_no_linear():
    assert meeting(lambda _, h: h, 0) is None
    assert MLP(in_width=3, widths=(4,))(torch.randn(5, 3)).shape == (5, 4)


def test_a_site_adapter_leaves_linears_alone_and_the_other_way_round():
    x, y = example(3)
    adapter = drawn(MLora)
    state = adapter.prepare(x, Routing(torch.tensor([1, 2, 0]), N_DOMAINS))
    assert adapter(1, y, state) is y
    assert adapter.meet(0, x, y, state) is y
    assert SiteSpec((4,), 2, linears={0: (3, 4)}).resolve_linears("all") == (0,)
