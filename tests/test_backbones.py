import itertools
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from fake_batches import EVEN, MIXED, make_batch, many, one_row, single
from isthmus.backbones import (
    DCN,
    MLP,
    AbstractBackbone,
    BackboneConfig,
    BackboneSpec,
    DcnConfig,
    DeepFM,
    DeepFMConfig,
    MlpConfig,
    WideDeep,
    WideDeepConfig,
)
from isthmus.data.batch import Batch
from isthmus.family import members
from isthmus.layers.blocks import DeepBlock
from isthmus.layers.cross import CrossV1, CrossV2, pairwise_products
from isthmus.layers.domain_norm import DomainNorm
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.inputs.wide import Wide
from isthmus.layers.routing import Routing
from isthmus.schema import FittedField

N_DOMAINS = 3
CONFIGS = {
    "mlp": MlpConfig(widths=(8, 6)),
    "mlp without norm": MlpConfig(widths=(8, 6), norm="none"),
    "mlp with domain norm": MlpConfig(widths=(8, 6), norm="domain"),
    "dcn 1": DcnConfig(version=1, widths=(8, 6)),
    "dcn 2": DcnConfig(version=2, widths=(8, 6), cross_layers=3),
    "wide_deep": WideDeepConfig(widths=(8, 6), crosses=(("user", "item"), ("item", "tab"))),
    "deepfm": DeepFMConfig(widths=(8, 6)),
}


@pytest.fixture(params=["shared", "per_domain"])
def towers(request: pytest.FixtureRequest):
    return request.param


@pytest.fixture(params=list(CONFIGS))
def config(request: pytest.FixtureRequest):
    return CONFIGS[request.param]


@pytest.fixture
def inputs() -> FeatureEmbedding:
    torch.manual_seed(0)
    return FeatureEmbedding(fields=EVEN, std=1.0)


@pytest.fixture
def backbone(config, towers, inputs: FeatureEmbedding) -> AbstractBackbone:
    return config.build(BackboneSpec(inputs, towers, N_DOMAINS))


def test_the_names_of_a_config_lead_to_the_classes():
    reader = TypeAdapter(BackboneConfig)
    classes = {"mlp": MLP, "dcn": DCN, "wide_deep": WideDeep, "deepfm": DeepFM}
    assert list(members(BackboneConfig))[: len(classes)] == list(classes)
    for name, kind in classes.items():
        config = reader.validate_python({"name": name})
        built = config.build(BackboneSpec(FeatureEmbedding(fields=EVEN), "shared", N_DOMAINS))
        assert type(built) is kind
        assert built.site_widths == (256, 128)
        assert config.scaled(0.5).sizes == (128, 64)
        assert config.scaled(1e-3).sizes == (2, 2)


def test_shapes_are_as_announced(backbone: AbstractBackbone, inputs: FeatureEmbedding):
    batch = make_batch(EVEN, 10)
    x = inputs(batch)
    h = backbone(x, Routing(batch.domain, N_DOMAINS))
    assert x.shape == (10, backbone.in_width)
    assert h.shape == (10, backbone.out_width)
    beside = backbone.shortcut(batch, inputs, x)
    assert beside is None or beside.shape == (10,)


def test_every_site_is_visited_once_in_order(backbone: AbstractBackbone, inputs: FeatureEmbedding):
    batch = make_batch(EVEN, 5)
    visits: list[tuple[int, int]] = []

    def adapt(site: int, h: Tensor) -> Tensor:
        visits.append((site, h.shape[1]))
        return h

    backbone(inputs(batch), Routing(batch.domain, N_DOMAINS), adapt)
    assert visits == list(enumerate(backbone.site_widths))


def test_what_an_adapter_returns_goes_on(backbone: AbstractBackbone, inputs: FeatureEmbedding):
    batch = make_batch(EVEN, 5)
    backbone.eval()
    h = backbone(inputs(batch), Routing(batch.domain, N_DOMAINS), lambda _, h: torch.zeros_like(h))
    width = backbone.site_widths[-1]
    assert (h[:, -width:] == 0).all()  # the deep part ends in the last site
    assert backbone.out_width == width or (h[:, :-width] != 0).any()  # crosses are untouched


def test_a_row_does_not_see_its_neighbours(backbone: AbstractBackbone, inputs: FeatureEmbedding):
    batch = make_batch(EVEN, 20)
    backbone(inputs(batch), Routing(batch.domain, N_DOMAINS))  # move the running statistics
    backbone.eval()

    def score(part: Batch) -> Tensor:
        x = inputs(part)
        h = backbone(x, Routing(part.domain, N_DOMAINS)).sum(dim=1)
        beside = backbone.shortcut(part, inputs, x)
        return h if beside is None else h + beside

    alone = torch.cat([score(one_row(batch, r)) for r in range(20)])
    torch.testing.assert_close(score(batch), alone, rtol=1e-4, atol=1e-5)


def test_a_tower_of_its_own_moves_no_other_domain(config, inputs: FeatureEmbedding):
    backbone = config.build(BackboneSpec(inputs, "per_domain", N_DOMAINS))
    backbone.eval()
    batch = make_batch(EVEN, 40)
    x, routing = inputs(batch), Routing(batch.domain, N_DOMAINS)
    before = backbone(x, routing)
    wide = {id(p) for name, p in backbone.named_parameters() if "wide" in name or "first" in name}
    with torch.no_grad():
        for parameter in backbone.parameters():
            if id(parameter) not in wide:
                assert parameter.shape[0] == N_DOMAINS + 1
                parameter[2] += 1.0
    changed = (backbone(x, routing) != before).any(dim=1)
    assert torch.equal(changed, batch.domain == 2)


def test_towers_per_domain_equal_one_tower_after_the_other(inputs: FeatureEmbedding):
    per_domain = MLP(
        in_width=inputs.width,
        widths=(8, 6),
        norm="none",
        dropout=0.0,
        towers="per_domain",
        n_domains=N_DOMAINS,
    )
    batch = make_batch(EVEN, 30)
    x = inputs(batch)
    h = per_domain(x, Routing(batch.domain, N_DOMAINS))
    weights = dict(per_domain.named_parameters())
    for r in range(30):
        d = int(batch.domain[r])
        row = x[r]
        for block in (0, 1):
            weight = weights[f"blocks.{block}.linear.weight"][d]
            row = (row @ weight + weights[f"blocks.{block}.linear.bias"][d]).relu()
        torch.testing.assert_close(h[r], row, rtol=1e-4, atol=1e-5)


def test_a_block_is_linear_norm_relu():
    torch.manual_seed(0)
    block = DeepBlock(in_width=4, out_width=3, norm="batch")
    h = torch.randn(50, 4)
    z = h @ block.linear.weight.t()  # type: ignore[operator]
    z = (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(block(h), z.clamp(min=0), rtol=1e-4, atol=1e-5)
    plain = DeepBlock(in_width=4, out_width=3, norm="none")
    y = h @ plain.linear.weight.t() + plain.linear.bias  # type: ignore[operator]
    torch.testing.assert_close(plain(h), y.clamp(min=0))


def test_dropout_works_in_training_only():
    torch.manual_seed(0)
    block = DeepBlock(in_width=4, out_width=100, norm="none", dropout=0.5)
    h = torch.randn(50, 4)
    whole = block.eval()(h)
    dropped = block.train()(h)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * whole[kept], rtol=1e-3, atol=1e-4)
    assert 0.4 < float(kept.sum() / (whole != 0).sum()) < 0.6


def test_a_batch_norm_would_mix_towers_again_so_it_becomes_a_domain_norm():
    block = DeepBlock(
        in_width=4, out_width=3, norm="batch", towers="per_domain", n_domains=N_DOMAINS
    )
    assert isinstance(block.norm, DomainNorm)


def test_parts_with_domains_need_them():
    with pytest.raises(ValueError, match="n_domains must be given"):
        DeepBlock(in_width=4, out_width=3, towers="per_domain")
    with pytest.raises(ValueError, match="n_domains must be given"):
        DeepBlock(in_width=4, out_width=3, norm="domain")
    block = DeepBlock(in_width=4, out_width=3, norm="domain", n_domains=2)
    with pytest.raises(ValueError, match="needs the batch's routing"):
        block(torch.randn(2, 4))


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="widths must hold"):
        MLP(in_width=4, widths=())
    with pytest.raises(ValueError, match="version must be 1 or 2, got 3"):
        DCN(in_width=4, version=3)


def test_crosses_match_their_formulas():
    torch.manual_seed(0)
    x0, x = torch.randn(7, 5), torch.randn(7, 5)
    one = CrossV1(width=5)
    torch.nn.init.normal_(one.bias)
    w, b = one.weight[0], one.bias[0]
    slow = torch.stack([x0[r] * (x[r] @ w) + b + x[r] for r in range(7)])
    torch.testing.assert_close(one(x0, x), slow)
    two = CrossV2(width=5)
    assert isinstance(two.linear, torch.nn.Linear)
    w, b = two.linear.weight, two.linear.bias
    slow = torch.stack([x0[r] * (w @ x[r] + b) + x[r] for r in range(7)])
    torch.testing.assert_close(two(x0, x), slow)


@pytest.mark.parametrize("version", [CrossV1, CrossV2])
def test_crosses_per_domain_are_those_of_the_rows_domain(version):
    torch.manual_seed(0)
    x0, x = torch.randn(9, 5), torch.randn(9, 5)
    domain = torch.tensor([0, 1, 2, 2, 1, 0, 2, 2, 2])
    own: Any = version(width=5, n_domains=2)
    torch.nn.init.normal_((own if version is CrossV1 else own.linear).bias)
    y = own(x0, x, Routing(domain, 2))
    for d in range(3):
        alone: Any = version(width=5)
        with torch.no_grad():
            if version is CrossV1:
                alone.weight.copy_(own.weight[d : d + 1])
                alone.bias.copy_(own.bias[d : d + 1])
            else:
                alone.linear.weight.copy_(own.linear.weight[d].t())
                alone.linear.bias.copy_(own.linear.bias[d])
        rows = domain == d
        torch.testing.assert_close(y[rows], alone(x0[rows], x[rows]), rtol=1e-4, atol=1e-5)


def test_the_cross_network_stands_beside_the_deep_part(inputs: FeatureEmbedding):
    dcn = DCN(in_width=inputs.width, widths=(8, 6), version=2, cross_layers=2).eval()
    x = inputs(make_batch(EVEN, 4))
    crossed = dcn.crosses[1](x, dcn.crosses[0](x, x))
    torch.testing.assert_close(dcn(x), torch.cat([crossed, dcn.deep(x)], dim=1))


def test_the_square_trick_equals_all_pairs():
    v = torch.randn(6, 5, 3)
    slow = sum(
        ((v[:, i] * v[:, j]).sum(1) for i, j in itertools.combinations(range(5), 2)),
        torch.zeros(6),
    )
    torch.testing.assert_close(pairwise_products(v), slow)


def wide_slowly(wide: Wide, fields: tuple[FittedField, ...], batch: Batch) -> Tensor:
    """The wide logit without crosses, value by value."""
    tables = {
        key.removeprefix("tables."): weights.flatten() for key, weights in wide.state_dict().items()
    }
    numbers = tables.pop("numbers", torch.zeros(0))
    logits = []
    for r in range(batch.rows):
        singles, lists = iter(batch.categorical[r].tolist()), iter(batch.lists)
        logit, pooled = torch.zeros(()), list(batch.numeric[r])
        for field in fields:
            if field.kind == "categorical":
                logit = logit + tables[field.name][next(singles)]
            elif field.kind in ("categorical_list", "numeric_list"):
                column = next(lists)
                items = column.values[column.offsets[r] : column.offsets[r + 1]]
                weights = tables[field.name][items.long()] if field.table else items
                value = torch.zeros(())
                if len(items):
                    value = weights.amax() if field.pooling == "max" else weights.mean()
                if field.table:
                    logit = logit + value
                else:
                    pooled.append(value)
        logits.append(logit + torch.stack(pooled) @ numbers)
    return torch.stack(logits)


def test_the_wide_part_adds_one_weight_per_value():
    torch.manual_seed(0)
    wide = Wide(fields=MIXED)
    for parameter in wide.parameters():
        torch.nn.init.normal_(parameter)
    batch = make_batch(MIXED, 25)
    torch.testing.assert_close(wide(batch), wide_slowly(wide, MIXED, batch))


def test_features_that_share_an_embedding_have_wide_weights_of_their_own():
    wide = Wide(fields=(single("item", 5), many("history", 5, table="item")))
    assert set(wide.state_dict()) == {"tables.item", "tables.history"}


def test_the_wide_part_starts_at_zero():
    assert (Wide(fields=MIXED, crosses=[["user", "item"]])(make_batch(MIXED, 5)) == 0).all()


def test_a_cross_that_fits_has_one_weight_per_combination():
    fields = (single("a", 3), single("b", 4), single("c", 2))
    wide = Wide(fields=fields, crosses=[["a", "c", "b"]], cross_buckets=24)
    table = wide.state_dict()["tables.a x c x b"]
    assert table.shape == (24, 1)
    with torch.no_grad():
        table.copy_(torch.arange(24.0)[:, None])
    every = torch.tensor(list(itertools.product(range(3), range(4), range(2))), dtype=torch.int32)
    batch = Batch(every, torch.zeros(24, 0), (), torch.zeros(24).long(), torch.zeros(24))
    a, b, c = every.unbind(1)
    assert torch.equal(wide(batch), ((a * 2 + c) * 4 + b).float())


def test_a_cross_that_does_not_fit_is_spread_evenly_and_the_same_everywhere():
    fields = (single("a", 200), single("b", 100))
    buckets = 64
    wide = Wide(fields=fields, crosses=[["a", "b"]], cross_buckets=buckets)
    with torch.no_grad():
        wide.state_dict()["tables.a x b"].copy_(torch.arange(float(buckets))[:, None])
    every = torch.tensor(list(itertools.product(range(200), range(100))), dtype=torch.int32)
    n = len(every)
    batch = Batch(every, torch.zeros(n, 0), (), torch.zeros(n).long(), torch.zeros(n))
    bucket = wide(batch).long()
    sizes = torch.bincount(bucket, minlength=buckets)
    expected = n / buckets
    chi_square = float(((sizes - expected) ** 2 / expected).sum())
    assert chi_square < 63 + 5 * (2 * 63) ** 0.5  # 63 degrees of freedom, five deviations
    # One row of ids in plain integers: a saved model must find its buckets again.
    mask = 2**64 - 1

    def mixed(key: int) -> int:
        key = key * 0x9E3779B97F4A7C15 & mask
        signed = key - 2**64 if key >= 2**63 else key
        return ((key ^ (signed >> 32) & mask) * 0xBF58476D1CE4E5B9) & mask

    key = mixed(mixed(137) + 42 & mask)
    signed = key - 2**64 if key >= 2**63 else key
    assert bucket[137 * 100 + 42] == signed % buckets


@pytest.mark.parametrize("cross", [["a"], ["a", "a"], ["a", "tags"], ["a", "nowhere"]])
def test_a_cross_of_other_things_is_refused(cross):
    with pytest.raises(ValueError, match="two or more different categorical features"):
        Wide(fields=(single("a", 3), single("b", 3), many("tags", 4)), crosses=[cross])


def test_wide_deep_adds_the_wide_logit(inputs: FeatureEmbedding):
    backbone = WideDeep(in_width=inputs.width, fields=EVEN, crosses=[["user", "tab"]])
    for parameter in backbone.wide.parameters():
        torch.nn.init.normal_(parameter)
    batch = make_batch(EVEN, 8)
    x = inputs(batch)
    assert torch.equal(backbone.shortcut(batch, inputs, x), backbone.wide(batch))


def test_deepfm_adds_first_and_second_order(inputs: FeatureEmbedding):
    backbone = DeepFM(in_width=inputs.width, fields=EVEN)
    for parameter in backbone.first_order.parameters():
        torch.nn.init.normal_(parameter)
    batch = make_batch(EVEN, 8)
    x = inputs(batch)
    names = ["user", "item", "history", "tab"]
    second = sum(
        (
            (x[:, inputs.columns[a]] * x[:, inputs.columns[b]]).sum(1)
            for a, b in itertools.combinations(names, 2)
        ),
        torch.zeros(8),
    )
    torch.testing.assert_close(
        backbone.shortcut(batch, inputs, x), backbone.first_order(batch) + second
    )


def test_deepfm_needs_one_width():
    with pytest.raises(ValueError, match="must have one dim, got"):
        DeepFM(in_width=10, fields=MIXED)
