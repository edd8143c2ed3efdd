"""Bottleneck, norm, instance modulation and prompt: formulas a row at a time, and what each reads."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fake_batches import EVEN, make_batch
from isthmus import testing
from isthmus.adapters import Bottleneck, InstanceModulation, Normalised, Prompt
from isthmus.data.batch import Batch
from isthmus.layers.routing import Routing
from isthmus.layers.sites import SiteSpec
from isthmus.models import DomainModel, ModelConfig, build_model
from isthmus.schema import FittedField
from isthmus.testing import adapter_subject, check_matches_formula

N_DOMAINS = 4


def drawn(adapter: Any) -> Any:
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.5)
    return adapter


def example(rows: int, width: int = 9, condition: int = 6) -> tuple[Tensor, Tensor]:
    """The rows and conditions that `adapter_subject` draws."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(rows, width, generator=generator)
    return h, torch.randn(rows, condition, generator=generator)


def check_formula(adapter: Any, one_row: Any) -> None:
    subject = adapter_subject(adapter, condition_width=6, n_domains=N_DOMAINS, rows=40)
    h, e = example(40)

    def formula(rows: Tensor, domain: Tensor) -> Tensor:
        pairs = zip(rows.tolist(), domain.tolist(), strict=True)
        return torch.stack([one_row(h[r], e[r], d) for r, d in pairs])

    check_matches_formula(subject, formula)


def test_bottleneck_is_its_formula():
    torch.manual_seed(0)
    adapter = drawn(Bottleneck(site_widths=(12, 9), n_domains=N_DOMAINS, bottleneck=5))
    cell = adapter.cell(1)

    def one_row(h: Tensor, e: Tensor, d: int) -> Tensor:
        z = (h @ cell.map.left[d] + cell.down_bias[d]).relu()
        return h + z @ cell.map.right[d] + cell.up_bias[d]

    check_formula(adapter, one_row)


def test_instance_modulation_is_its_formula():
    torch.manual_seed(0)
    adapter = drawn(
        InstanceModulation(
            site_widths=(12, 9), condition_width=6, n_domains=2, branches=3, rank=2, hidden_width=5
        )
    )
    cell = adapter.cell(1)

    def one_row(h: Tensor, e: Tensor, d: int) -> Tensor:
        latent = adapter.reader(e)
        y = h
        for k, branch in enumerate(cell.maps):
            units = slice(9 * k, 9 * k + 9)
            # In eval: running statistics, which training has moved.
            gate = F.batch_norm(
                (cell.to_gates.weight[units] @ latent).unsqueeze(0),
                cell.norm.running_mean[units],
                cell.norm.running_var[units],
                cell.norm.weight[units],
                cell.norm.bias[units],
            ).sigmoid()[0]
            y = y + cell.gain[units] * (h @ branch.left @ branch.right).relu() * gate / 3
        return y

    check_formula(adapter, one_row)


def test_instance_modulation_reads_the_row_and_not_its_domain():
    torch.manual_seed(0)
    adapter = drawn(InstanceModulation(site_widths=(9,), condition_width=6, n_domains=N_DOMAINS))
    adapter.eval()
    h, e = example(2)

    def answer(domain: int, row: int) -> Tensor:
        state = adapter.prepare(e[row : row + 1], Routing(torch.tensor([domain]), N_DOMAINS))
        return adapter(0, h[:1], state)

    assert torch.equal(answer(1, 0), answer(0, 0))
    assert not torch.allclose(answer(1, 0), answer(1, 1))


def test_an_instance_norm_is_its_formula():
    torch.manual_seed(0)
    adapter = drawn(Normalised(site_widths=(9,), n_domains=N_DOMAINS, statistics="instance"))
    norm = adapter.cell(0).norm

    def one_row(h: Tensor, e: Tensor, d: int) -> Tensor:
        own = (h - h.mean()) / (h.var(correction=0) + 1e-5).sqrt()
        return h + norm.gain[d] * own + norm.bias[d]

    check_formula(adapter, one_row)


def test_norms_differ_by_whose_rows_they_count():
    """Domain 1 lies around 10, domain 2 around -10; every gain is 1."""
    domain = torch.tensor([1, 2] * 400)
    torch.manual_seed(0)
    h = torch.randn(800, 3) + torch.where(domain == 1, 10.0, -10.0).unsqueeze(1)
    means = {}
    for statistics in ("pooled", "domain", "instance"):
        adapter = Normalised(site_widths=(3,), n_domains=2, statistics=statistics)
        norm = adapter.cell(0).norm
        nn.init.ones_(norm.gain)  # pyright: ignore[reportArgumentType]
        added = adapter(0, h, adapter.prepare(h, Routing(domain, 2))) - h
        means[statistics] = added[domain == 1].mean().item()
    assert means["pooled"] == pytest.approx(1.0, abs=0.02)  # one standard deviation of all rows
    # Shrunk to all rows by 32 rows' worth of 400: 10 * 32 / 432 above the domain's mean.
    assert 0 < means["domain"] < 0.4
    assert means["instance"] == pytest.approx(0.0, abs=1e-5)  # over a row's units, always


@pytest.mark.parametrize("statistics", ["pooled", "domain", "instance"])
def test_every_norm_keeps_the_contracts(statistics: Any):
    for check in (
        testing.check_rows_do_not_see_neighbours,
        testing.check_fresh_adapter_is_identity,
        testing.check_identity_is_left_smoothly,
        testing.check_domains_are_apart,
        testing.check_unknown_domain_is_answered,
    ):
        adapter = Normalised(site_widths=(16,), n_domains=5, statistics=statistics)
        check(adapter_subject(adapter, condition_width=3, n_domains=5))


def build(backbone: dict[str, Any], **prompt: Any) -> DomainModel:
    torch.manual_seed(0)
    section = {"backbone": backbone, "adapter": {"name": "prompt", "slots": 2, "dim": 3, **prompt}}
    return build_model(ModelConfig.model_validate(section), EVEN, N_DOMAINS)  # pyright: ignore[reportReturnType]


def test_a_prompt_is_features_beside_the_others():
    model = build({"name": "mlp", "widths": [8], "norm": "none"}).eval()
    cell: Any = model.adapter.cell("input")  # pyright: ignore[reportOptionalMemberAccess]
    nn.init.normal_(cell.slots)
    batch = make_batch(EVEN, 20, n_domains=N_DOMAINS)
    x = model.inputs(batch)
    features = x.shape[1] - 6
    assert (x[:, features:] == 0).all()
    wide = torch.cat([x[:, :features], cell.slots[batch.domain].flatten(1)], dim=1)
    found = model.score(batch, {"input"})
    assert torch.equal(found.hidden["input"], wide)
    h = model.backbone.blocks[0](wide)  # pyright: ignore[reportCallIssue, reportIndexIssue]
    torch.testing.assert_close(found.logits, model.head(h, Routing(batch.domain, N_DOMAINS)))


@pytest.mark.parametrize("name", ["dcn", "wide_deep", "deepfm", "mmoe", "ple"])
def test_every_backbone_reads_the_slots(name: str):
    model = build({"name": name, "widths": [8, 6]}).eval()
    batch = make_batch(EVEN, 20, n_domains=N_DOMAINS)
    before = model(batch)
    nn.init.normal_(model.adapter.cell("input").slots)  # pyright: ignore[reportOptionalMemberAccess]
    assert ((model(batch) - before).abs() > 0).all()


def test_a_prompt_needs_a_place():
    with pytest.raises(ValueError, match=r"below the input's width, got .*input_width=8"):
        Prompt(input_width=8, n_domains=2, slots=2, dim=4)
    config = ModelConfig.model_validate({"adapter": {"name": "prompt"}}).adapter
    with pytest.raises(ValueError, match="adapter prompt needs site 'input'"):
        config.build(SiteSpec((4,), 2), condition_width=3)


D, M, E, LINEARS = 5, 20, 16, ((48, 32), (32, 20))
SUM, OUT = sum(i + o for i, o in LINEARS), sum(o for _, o in LINEARS)
# docs/adapters.md gives these counts.
COUNTS: dict[str, tuple[dict[str, int], int]] = {
    "norm": ({}, 2 * M * (D + 1)),
    "tal": ({}, 2 * M * (D + 1) + 2 * M + 1),
    "prompt": ({"slots": 3, "dim": 2}, 3 * 2 * (D + 1)),
    "modulation": (
        {"domain_dim": 3},
        3 * (D + 1) + sum(i + 3 * (i + 2 * o) for i, o in LINEARS),
    ),
    "moe_mlora": (
        {"experts": 3, "rank": 2, "domain_dim": 4},
        4 * (D + 1) + 3 * (4 + 1) + 3 * (2 * SUM + OUT),
    ),
    "bottleneck": ({"bottleneck": 7}, (2 * M * 7 + 7 + M) * (D + 1)),
    "mlora": ({"rank": 2}, (2 * SUM + OUT) * (D + 1)),
    "film": ({"hidden_width": 6}, E * 6 + 6 + 2 * M * 6 + 2 * M * (D + 1)),
    "instance_modulation": (
        {"branches": 3, "rank": 2, "hidden_width": 6},
        E * 6 + 6 + 3 * (2 * M * 2 + M * 6 + 3 * M),
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_page_counts_the_parameters(name: str):
    options, expected = COUNTS[name]
    config = ModelConfig.model_validate({"adapter": {"name": name, **options}}).adapter
    spec = SiteSpec((32, M), D, 48, linears=dict(enumerate(LINEARS)))
    adapter: Any = config.build(spec, condition_width=E)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == expected


ROWS = 512
CONFLICT: dict[str, dict[str, Any]] = {
    "none": {},
    "bottleneck": {"sites": [0, 1]},
    "norm": {"sites": [0, 1]},
    "prompt": {},
    "mlora": {"rank": 2},
    "moe_mlora": {"rank": 2},
    "modulation": {},
}


def conflict() -> Batch:
    """Two domains that want opposite signs of the same number; no feature tells them apart."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 4, generator=draw)
    domain = 1 + torch.arange(ROWS) % 2
    wanted = x[:, 0] * torch.where(domain == 1, 1.0, -1.0)
    return Batch(
        categorical=torch.zeros(ROWS, 0, dtype=torch.int32),
        numeric=x,
        lists=(),
        domain=domain,
        label=(wanted > 0).float(),
    )


@pytest.mark.parametrize("name", CONFLICT)
def test_domains_in_conflict_need_an_adapter(name: str):
    torch.manual_seed(0)
    backbone = {"name": "mlp", "widths": [16, 8], "norm": "none", "dropout": 0.0}
    section = {"backbone": backbone, "adapter": {"name": name, **CONFLICT[name]}}
    fields = (FittedField("x", "vector", 4),)
    model = build_model(ModelConfig.model_validate(section), fields, 2)
    batch = conflict()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    loss = torch.tensor(torch.nan)
    for _ in range(120):
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(model(batch), batch.label)
        loss.backward()
        optimiser.step()
    # 0.693 is what a network that cannot tell the domains apart must lose.
    assert (loss < 0.3) == (name != "none"), float(loss)
