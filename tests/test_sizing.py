"""Widths from a budget: met as nearly as the proportions allow, never passed, said, and kept."""

import json

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import isthmus
import small_runs
from command_line import isthmus_in_process, told, written
from fake_batches import EVEN, single
from isthmus.adapters import AdapterConfig
from isthmus.backbones import BackboneConfig, MlpConfig
from isthmus.errors import RunError
from isthmus.family import members
from isthmus.models import ModelConfig, build_model, sized
from isthmus.models.sizing import widths_for

N_DOMAINS = 3


def config(trunk: int, **model) -> ModelConfig:
    return ModelConfig.model_validate({"sizes": {"trunk": trunk}, **model})


def trunk_of(model: ModelConfig) -> int:
    return build_model(model, EVEN, N_DOMAINS).parameter_report().trunk


def test_a_trunk_is_counted_by_hand():
    """17 inputs: a Linear and a norm (no bias), then the head's weights and offset."""
    model = {"backbone": {"name": "mlp", "widths": [8]}}
    assert trunk_of(ModelConfig.model_validate(model)) == 17 * 8 + 2 * 8 + 8 + 1
    # 17 w + 2 w + w + 1 <= 1000 for widths of 49 and less.
    found = sized(config(1000, **model), EVEN, N_DOMAINS)
    assert found.backbone.sizes == (49,)
    assert found.sizes is None
    assert trunk_of(found) == 981


@pytest.mark.parametrize("adapter", ["none", "hamur"])
@pytest.mark.parametrize("name", members(BackboneConfig))
def test_a_budget_is_met_and_one_unit_more_would_pass_it(name, adapter):
    asked = config(30_000, backbone={"name": name}, adapter={"name": adapter})
    found = sized(asked, EVEN, N_DOMAINS)
    assert 28_000 < trunk_of(found) <= 30_000
    # The next widths on the ray: a width of 100 grows by a hundredth, so three steps pass a unit.
    larger = asked.backbone.scaled((max(found.backbone.sizes) + 1.5) / max(asked.backbone.sizes))
    assert trunk_of(found.model_copy(update={"backbone": larger})) > 30_000


@settings(max_examples=20, deadline=None)
@given(
    trunk=st.integers(60, 10**7),
    widths=st.lists(st.integers(1, 300), min_size=1, max_size=3).map(tuple),
)
def test_no_factor_gives_more_within_the_budget(trunk, widths):
    """Against every factor at which some width changes, one after the other."""

    def count(backbone) -> int:
        return sum(10 * width for width in backbone.sizes)

    backbone = MlpConfig(widths=widths)
    found = widths_for(backbone, trunk, count)
    assert count(found) <= trunk
    # Half-way between two whole numbers, and just beside, for each width in turn.
    steps = {
        (whole + side) / width
        for width, at in zip(widths, found.sizes, strict=True)
        for whole in range(at - 1, at + 3)
        for side in (0.5 - 1e-6, 0.5 + 1e-6)
        if whole > 0
    }
    reached = [count(backbone.scaled(factor)) for factor in steps]
    assert max((one for one in reached if one <= trunk), default=0) <= count(found)


def test_small_widths_grow_too():
    """A width of 1 is 2 at the factors 1 and 2 alike, and larger at larger ones."""
    found = widths_for(MlpConfig(widths=(1,)), 1000, lambda backbone: 10 * sum(backbone.sizes))
    assert found.sizes == (100,)


def test_a_budget_that_no_size_meets_names_the_smallest():
    with pytest.raises(ValueError) as fault:
        sized(config(40, backbone={"name": "mlp"}), EVEN, N_DOMAINS)
    least = trunk_of(ModelConfig(backbone=MlpConfig(widths=(2, 2))))
    assert str(fault.value) == (
        f"sizes.trunk must be {least} or more here, as many as backbone 'mlp' has with widths of"
        " 2, 2, got 40"
    )
    assert trunk_of(sized(config(least), EVEN, N_DOMAINS)) == least


def test_tables_cost_nothing_and_are_never_built():
    """A table of ten million rows is no part of the trunk, and solving does not fill one."""
    wide = (single("user", 10_000_000), single("tab", 4, 2))
    narrow = (single("user", 3), single("tab", 4, 2))
    asked = config(5000, backbone={"name": "wide_deep", "crosses": [["user", "tab"]]})
    assert sized(asked, wide, N_DOMAINS) == sized(asked, narrow, N_DOMAINS)


def test_solving_draws_nothing():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    sized(config(5000), EVEN, N_DOMAINS)
    assert torch.equal(torch.rand(1), expected)


def test_a_model_with_a_budget_is_the_one_with_the_widths_it_leads_to():
    asked = config(20_000, backbone={"name": "mmoe"}, adapter={"name": "hamur"})
    states = []
    for one in (asked, sized(asked, EVEN, N_DOMAINS)):
        torch.manual_seed(0)
        states.append(build_model(one, EVEN, N_DOMAINS).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(
        torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True)
    )


def test_every_adapter_can_be_counted():
    for name in members(AdapterConfig):
        assert trunk_of(sized(config(20_000, adapter={"name": name}), EVEN, N_DOMAINS)) <= 20_000


# In a run.


def budgeted(trunk: int = 3000, **train):
    raw = small_runs.settings(**train)
    raw["model"] = {"backbone": {"name": "mmoe", "widths": [8, 4]}, "sizes": {"trunk": trunk}}
    return raw


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return small_runs.write_table(tmp_path_factory.mktemp("sizes"))


@pytest.fixture(scope="module")
def told_run(table, tmp_path_factory):
    told = []
    out = tmp_path_factory.mktemp("run") / "run"
    return isthmus.fit(budgeted(), table, out=out, progress=told.append), [n.text for n in told]


def test_a_run_says_what_it_chose(told_run):
    run, notices = told_run
    model = run.bundle.model
    widths = run.config.model.backbone.sizes
    said = (
        f"widths {', '.join(map(str, widths))} give a trunk of"
        f" {model.parameter_report().trunk:,} parameters, at most 3,000 were asked for"
    )
    assert said in notices
    assert f"- Sizes: {said}." in (run.path / "report.md").read_text()
    saved = yaml.safe_load((run.path / "config.yaml").read_text())["model"]
    assert "sizes" not in saved
    assert saved["backbone"]["widths"] == list(widths[:2])
    assert 2700 < model.parameter_report().trunk <= 3000


def test_a_bundle_rebuilds_the_network(told_run, table):
    run, _ = told_run
    assert run.bundle.config.model == run.config.model
    raw = small_runs.clicks().slice(0, 50)
    assert (isthmus.Run.open(run.path).predict(raw) == run.predict(raw)).all()


def test_a_run_is_resumed_with_the_budget_it_began_with(told_run, table):
    run, _ = told_run
    again = isthmus.fit(budgeted(), table, out=run.path, resume=True)
    assert again.state == run.state
    with pytest.raises(RunError, match=r"model\.sizes\.trunk was 3000, is 2000"):
        isthmus.fit(budgeted(2000), table, out=run.path, resume=True)
    other = budgeted()
    other["model"]["backbone"]["dropout"] = 0.5
    with pytest.raises(RunError, match=r"model\.backbone\.dropout was 0\.2, is 0\.5"):
        isthmus.fit(other, table, out=run.path, resume=True)
    # The widths in place of the budget are the same config.
    plain = budgeted()
    plain["model"] = run.config.model.model_dump()
    assert isthmus.fit(plain, table, out=run.path, resume=True).state == run.state


def test_other_proportions_are_refused_once_the_table_is_known(told_run, table, tmp_path):
    run, _ = told_run
    (tmp_path / "run").mkdir()
    for name in ("config.yaml", "run.json"):  # as a fit that was stopped at once leaves them
        text = (run.path / name).read_text().replace('"finished"', '"running"')
        (tmp_path / "run" / name).write_text(text)
    other = budgeted()
    other["model"]["backbone"]["widths"] = [4, 8]
    with pytest.raises(RunError, match=r"resumed with the config .*model\.backbone\.widths was"):
        isthmus.fit(other, table, out=tmp_path / "run", resume=True)
    done = isthmus.fit(budgeted(), table, out=tmp_path / "run", resume=True)
    assert small_runs.weights(done) == small_runs.weights(run)


def test_a_budget_too_small_leaves_no_folder(tmp_path):
    file = written(tmp_path / "data")
    result = isthmus_in_process(
        "fit", file, "--out", tmp_path / "run", "--set", "model.sizes.trunk=10"
    )
    assert told(result).startswith("model: sizes.trunk must be ")
    assert not (tmp_path / "run").exists()
    json.dumps(result.output)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("{trunk: 0}", "model.sizes.trunk must be greater than or equal to 1, got 0"),
        (
            "{trunk: 5, trnk: 5}",
            "unknown key 'model.sizes.trnk'; did you mean 'model.sizes.trunk'?",
        ),
        ("{}", "key 'model.sizes.trunk' is required and missing"),
        ("100000", "model.sizes must be a mapping of keys, got 100000"),
    ],
)
def test_a_budget_that_is_none_is_refused_by_name(tmp_path, value, text):
    file = written(tmp_path)
    assert told(isthmus_in_process("fit", file, "--set", f"model.sizes={value}")) == text
