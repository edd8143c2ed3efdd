from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fake_batches import EVEN, MIXED, make_batch, one_row, single
from isthmus.data.batch import DomainPlaces
from isthmus.layers import routing
from isthmus.layers.routing import Routing, Tiles
from isthmus.layers.tables import FusedTable
from isthmus.models import DomainModel, Head, ModelConfig, build_network

N_DOMAINS = 3
SMALL = {"widths": (8, 6)}
SECTIONS = {
    "mlp": {"backbone": {"name": "mlp", **SMALL}},
    "domain norm": {"backbone": {"name": "mlp", "norm": "domain", **SMALL}},
    "towers": {"backbone": {"name": "mlp", **SMALL}, "towers": "per_domain"},
    "head per domain": {"backbone": {"name": "mlp", **SMALL}, "head": "per_domain"},
    "one head for all towers": {
        "backbone": {"name": "mlp", **SMALL},
        "towers": "per_domain",
        "head": "shared",
    },
    "dcn": {"backbone": {"name": "dcn", **SMALL}},
    "dcn 1, towers": {"backbone": {"name": "dcn", "version": 1, **SMALL}, "towers": "per_domain"},
    "wide_deep": {"backbone": {"name": "wide_deep", "crosses": [["user", "tab"]], **SMALL}},
    "deepfm": {"backbone": {"name": "deepfm", **SMALL}},
    "hamur": {"backbone": {"name": "mlp", **SMALL}, "adapter": {"name": "hamur", "rank": 3}},
    "hamur on a wide_deep with towers": {
        "backbone": {"name": "wide_deep", **SMALL},
        "towers": "per_domain",
        "adapter": {"name": "hamur", "rank": 3, "condition": ["item", "tab"]},
    },
}


def build(section: dict, fields=EVEN, seed: int = 0) -> DomainModel:
    torch.manual_seed(seed)
    return build_network(ModelConfig.model_validate(section), fields, N_DOMAINS)


@pytest.fixture(params=list(SECTIONS))
def model(request: pytest.FixtureRequest) -> DomainModel:
    return build(SECTIONS[request.param])


def a_step(model: DomainModel, lr: float = 0.05) -> None:
    """One training step, so that nothing stands at its first value."""
    batch = make_batch(EVEN, 64, seed=9)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(model(batch), batch.label)
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= lr * parameter.grad.sign()


def test_every_model_gives_one_finite_logit_a_row(model: DomainModel):
    for rows in (1, 7, 64):
        logits = model.eval()(make_batch(EVEN, rows))
        assert logits.shape == (rows,)
        assert logits.isfinite().all()


def test_in_eval_a_score_does_not_depend_on_the_batch(model: DomainModel):
    a_step(model)
    model.eval()
    batch = make_batch(EVEN, 25)
    alone = torch.cat([model(one_row(batch, r)) for r in range(25)])
    torch.testing.assert_close(model(batch), alone, rtol=1e-4, atol=1e-5)


def test_an_unknown_domain_gets_a_score_that_trains(model: DomainModel):
    batch = make_batch(EVEN, 16)
    batch = batch.hide_domain(torch.ones(16, dtype=torch.bool), model.domain_places)
    assert (batch.categorical[:, 2] == 0).all()
    assert (batch.domain == 0).all()
    logits = model(batch)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert model.head.weight.grad is not None
    assert model.head.weight.grad[0].abs().sum() > 0


def test_the_state_comes_back_through_a_file(model: DomainModel, tmp_path: Path):
    a_step(model)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(1)
    other = build_twin(model)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    batch = make_batch(EVEN, 12)
    assert torch.equal(model.eval()(batch), other.eval()(batch))


def build_twin(model: DomainModel) -> DomainModel:
    for section in SECTIONS.values():
        twin = build(section, seed=5)
        if [*twin.state_dict()] == [*model.state_dict()]:
            same = zip(twin.state_dict().values(), model.state_dict().values(), strict=True)
            if all(a.shape == b.shape for a, b in same):
                return twin
    raise AssertionError("no section gives this model")


def test_the_seed_decides(model: DomainModel):
    twin = build_twin(model)
    again = build_twin(model)
    for a, b in zip(twin.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_report_counts_every_parameter_once(model: DomainModel):
    report = model.parameter_report()
    assert report.total == sum(parameter.numel() for parameter in model.parameters())
    assert report.embedding == sum(table.weight.numel() for table in model.tables())
    assert report.dense == report.total - report.embedding
    assert (report.adapter == 0) == (model.adapter is None)


def test_the_wide_weights_are_tables():
    model = build(SECTIONS["wide_deep"])
    assert sorted(table.dim for table in model.tables()) == [1, 4]
    assert model.parameter_report().backbone == (17 * 8 + 2 * 8) + (8 * 6 + 2 * 6) + 1


def test_tables_are_named_in_the_state():
    keys = build(SECTIONS["wide_deep"]).state_dict().keys()
    assert {"inputs.tables.user", "inputs.tables.item", "inputs.tables.tab"} <= keys
    assert {"backbone.wide.tables.user", "backbone.wide.tables.user x tab"} <= keys


def test_the_head_follows_the_towers_unless_told_otherwise():
    heads = {name: build(SECTIONS[name]).head.per_domain for name in SECTIONS}
    assert not heads["mlp"]
    assert heads["towers"]
    assert heads["head per domain"]
    assert not heads["one head for all towers"]


def test_a_head_per_domain_is_each_domains_own():
    torch.manual_seed(0)
    head = Head(width=4, n_domains=2)
    assert torch.equal(head.weight[0].expand(3, 4), head.weight)  # equal at the start
    torch.nn.init.normal_(head.weight)
    torch.nn.init.normal_(head.bias)
    h, domain = torch.randn(6, 4), torch.tensor([0, 1, 2, 2, 0, 1])
    slow = torch.stack([h[r] @ head.weight[d] + head.bias[d, 0] for r, d in enumerate(domain)])
    torch.testing.assert_close(head(h, Routing(domain, 2)), slow)
    shared = Head(width=4)
    torch.testing.assert_close(
        shared(h, Routing(domain, 2)),
        h @ shared.weight[0] + shared.bias[0, 0],
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_head_per_domain_moves_no_other_domain():
    model = build(SECTIONS["head per domain"]).eval()
    batch = make_batch(EVEN, 40)
    before = model(batch)
    with torch.no_grad():
        model.head.weight[2] += 1
        model.head.bias[2] += 1
    assert torch.equal(model(batch) != before, batch.domain == 2)


def test_only_the_sum_of_the_parts_reaches_the_logit():
    model = build(SECTIONS["wide_deep"]).eval()
    a_step(model)
    batch = make_batch(EVEN, 9)
    x = model.inputs(batch)
    deep = model.head(model.backbone(x), Routing(batch.domain, N_DOMAINS))
    beside = model.backbone.shortcut(batch, model.inputs, x)
    assert beside is not None
    torch.testing.assert_close(model(batch), deep + beside)


def test_the_condition_is_all_inputs_or_the_named_ones():
    batch = make_batch(EVEN, 4)
    model = build(SECTIONS["hamur"])
    x = model.inputs(batch)
    assert model.condition(x) is x
    named = build(SECTIONS["hamur on a wide_deep with towers"])
    x = named.inputs(batch)
    columns = named.inputs.columns
    expected = torch.cat([x[:, columns["item"]], x[:, columns["tab"]]], dim=1)
    assert torch.equal(named.condition(x), expected)


def test_a_condition_on_a_feature_that_is_not_there_is_refused():
    for condition in (["nowhere"], []):
        section = {"adapter": {"name": "hamur", "condition": condition}}
        with pytest.raises((ValueError, ValidationError), match="condition"):
            build(section)


def test_the_places_of_the_domain_are_found_among_the_categorical_columns():
    assert build(SECTIONS["mlp"]).domain_places == DomainPlaces((2,))
    assert build(SECTIONS["mlp"], fields=MIXED).domain_places == DomainPlaces((2,))
    assert build(SECTIONS["mlp"], fields=(single("a", 3),)).domain_places == DomainPlaces()


def test_flops_are_two_for_each_product_and_sum():
    model = build({"backbone": {"name": "mlp", "widths": [8, 6], "norm": "none"}})
    products = model.inputs.width * 8 + 8 * 6 + 6
    assert model.flops(make_batch(EVEN, 10)) == 2 * 10 * products


def test_a_site_shows_what_the_adapter_left(monkeypatch: pytest.MonkeyPatch):
    section = {"name": "film", "sites": ["input", 1]}
    model = build({"backbone": {"name": "mlp", **SMALL}, "adapter": section}).eval()
    for site in ("input", 1):
        torch.nn.init.normal_(model.adapter.cell(site).own)  # pyright: ignore[reportOptionalMemberAccess]
    batch = make_batch(EVEN, 9)
    output = model.score(batch, {"input", 0, 1})
    assert set(output.hidden) == {"input", 0, 1}
    assert not output.losses
    assert torch.equal(output.logits, model(batch))
    x = model.inputs(batch)
    gamma, beta = model.adapter.cell("input").own[batch.domain].chunk(2, dim=1)  # pyright: ignore[reportOptionalMemberAccess]
    torch.testing.assert_close(output.hidden["input"], (1 + gamma) * x + beta)
    routing = Routing(batch.domain, N_DOMAINS)
    torch.testing.assert_close(model.head(output.hidden[1], routing), output.logits)
    assert model.score(batch).hidden == {}


def test_rows_are_sorted_by_domain_only_where_it_pays(monkeypatch: pytest.MonkeyPatch):
    laid_out: list[int] = []

    def counted(domain: Tensor, n_domains: int) -> Tiles:
        laid_out.append(len(domain))
        return lay_out(domain, n_domains)

    lay_out = routing._lay_out
    monkeypatch.setattr(routing, "_lay_out", counted)
    times = {}
    for name in ("mlp", "head per domain", "domain norm", "towers", "hamur"):
        laid_out.clear()
        build(SECTIONS[name])(make_batch(EVEN, 9))
        times[name] = len(laid_out)
    assert times == {"mlp": 0, "head per domain": 0, "domain norm": 0, "towers": 1, "hamur": 1}


def test_every_kind_of_column_reaches_the_logit():
    model = build({"backbone": {"name": "wide_deep", **SMALL}}, fields=MIXED)
    with torch.no_grad():
        for table in model.tables():
            torch.nn.init.normal_(table.weight)
        for parameter in model.parameters():
            if parameter.shape == (6, 1):
                torch.nn.init.normal_(parameter)
    batch = make_batch(MIXED, 32)
    logits = model(batch)
    assert logits.shape == (32,)
    logits.square().sum().backward()
    for table in model.tables():
        assert isinstance(table, FusedTable)
        for name in table.slices:
            assert table.weight.grad is not None
            assert table.weight.grad[table.slices[name]].abs().sum() > 0, name


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.usefixtures("without_shape_checks")
# torch looks at every tensor's .grad while it traces, and warns itself of that.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_model_gives_the_same_logits_and_gradients(sparse):
    model = build(SECTIONS["wide_deep"]).eval()
    a_step(model)
    for table in model.tables():
        table.sparse = sparse
    batch = make_batch(EVEN, 16)
    gradients = []
    for run in (model, torch.compile(model, backend="aot_eager", fullgraph=not sparse)):
        model.zero_grad()
        logits = run(batch)
        logits.square().sum().backward()
        gradients.append([logits, *(parameter.grad for parameter in model.parameters())])
    for eager, compiled in zip(*gradients, strict=True):
        assert eager.is_sparse == compiled.is_sparse
        if eager.is_sparse:
            eager, compiled = eager.to_dense(), compiled.to_dense()
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("without_shape_checks")
def test_a_compiled_model_drops_the_same_values():
    model = build({"backbone": {"name": "mlp", "dropout": 0.5, **SMALL}})
    batch = make_batch(EVEN, 16)
    torch.manual_seed(4)
    eager = model(batch)
    torch.manual_seed(4)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)(batch)
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)


def test_sections_are_strict():
    for section in (
        {"backbone": {"name": "mlp", "depth": 3}},
        {"backbone": {"name": "nowhere"}},
        {"backbone": {"name": "mlp", "widths": []}},
        {"backbone": {"name": "mlp", "dropout": 1.0}},
        {"towers": "many"},
    ):
        with pytest.raises(ValidationError):
            ModelConfig.model_validate(section)
    with pytest.raises(ValueError, match="n_domains must be at least 1, got 0"):
        build_network(ModelConfig(), EVEN, 0)


def test_the_default_is_the_plain_shared_mlp():
    config = ModelConfig()
    assert config.backbone.name == "mlp"
    assert config.backbone.widths == (256, 128)
    assert config.towers == "shared"
    assert config.calibration == "none"
