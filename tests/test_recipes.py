"""Recipes: each loads and trains, what stands over what, what a table must have, what is told."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import isthmus
from by_method import make_dataset, moved, settings, states
from command_line import isthmus_in_process, told, written
from isthmus.config import differences
from isthmus.errors import ConfigError
from isthmus.models import ModelConfig, build_network
from isthmus.recipe import SettledConfig, recipe_of
from isthmus.run.texts import parameters_text
from small_runs import clicks, write_table
from small_runs import settings as run_settings

EVERY = [recipe.name for recipe in isthmus.recipes()]
NAMES = [name for name in EVERY if name != "mran"]  # which needs rows without a label: test_mran.py
PHASES = {
    "dynagan": 2,
    "mamdr": 1,
    "mdknet": 1,
    "mlora": 2,
    "moe_mlora": 3,
    "mran": 1,
    "multi_bert": 2,
    "multi_path": 2,
    "sparse_moe": 1,
    "ssctl": 1,
    "tal": 1,
}
LEAST_DOMAINS = {"ssctl": 3}  # 2 of all others
WITHOUT_OWN = {"mdknet", "sparse_moe"}  # in which domains own nothing

pytestmark = pytest.mark.usefixtures("one_thread")


def plain(**train: Any) -> dict[str, Any]:
    """A config without an adapter."""
    raw = run_settings(**train)
    del raw["model"]["adapter"]
    return raw


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table"))


def test_every_recipe_is_known_by_its_file():
    assert sorted(PHASES) == EVERY
    for recipe in isthmus.recipes():
        assert re.fullmatch(r"arXiv:\d{4}\.\d{5}", recipe.head.paper), recipe.name
        assert recipe.head.needs.domains == LEAST_DOMAINS.get(recipe.name, 2)
        assert yaml.safe_load(str(recipe)).keys() == {"recipe", "model", "train"}
        assert str(recipe).startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_trains_a_table(name: str, table: Path, tmp_path: Path):
    fitted = isthmus.fit(plain(epochs=1), table, tmp_path / "run", recipe=name)
    said = {k: v for k, v in recipe_of(name).settings.items() if k.endswith(".name")}
    model, train = fitted.config.model, fitted.config.train
    here = {
        "model.adapter.name": model.adapter.name,
        "model.backbone.name": model.backbone.name,
        "train.method.name": train.method.name,
    }
    assert said
    assert said.items() <= here.items()
    assert not differences(fitted.config, replaced_train(fitted.config, name))
    lines = (fitted.path / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["phase"] for line in lines} == set(range(1, PHASES[name] + 1))
    report = (fitted.path / "report.md").read_text()
    assert f"- Recipe: {name} ({recipe_of(name).head.paper}); it replaced " in report
    before = {
        "model.adapter.name": "none",
        "model.backbone.name": "mlp",
        "train.method.name": "joint",
    }
    for key, value in said.items():
        assert (f"{key} (was '{before[key]}')" in report) == (value != before[key])
    owned = re.search(r"- Model: [\d,]+ parameters, [\d,]+ of them for each domain", report)
    assert (owned is None) == (name in WITHOUT_OWN)
    if name == "sparse_moe":
        used = fitted.gates().to_dict()
        assert "expert 8" in json.dumps(used), "who uses which expert is kept with the run"
        assert "expert 8" in report
    assert np.isfinite(fitted.predict(table)).all()


def replaced_train(config: isthmus.Config, name: str) -> isthmus.Config:
    """The config with the recipe over it a second time, which must change nothing."""
    return recipe_of(name).over(config)


@pytest.mark.parametrize("name", EVERY)
def test_a_recipe_changes_the_keys_that_it_names_and_no_other(name: str):
    raw = plain(lr=0.02, weighting="uniform", seed=7)
    before = isthmus.load_config(raw)
    recipe = recipe_of(name)
    after = recipe.over(raw)
    changed = {text.split(" was ")[0] for text in differences(before, after)}
    families = (
        "model.adapter",
        "model.backbone",
        "train.method",
    )  # another member has keys of its own
    assert {key for key in changed if not key.startswith(families)} <= set(recipe.settings)
    assert after.data == before.data
    assert (after.train.lr, after.train.seed) == (0.02, 7)
    assert raw == plain(lr=0.02, weighting="uniform", seed=7), "the config that was given stays"
    values = after.model_dump(mode="json")
    for key, value in recipe.settings.items():
        found: Any = values
        for part in key.split("."):
            found = found[part]
        if not isinstance(value, list):
            assert found == value, key


def test_set_stands_over_the_recipe_and_the_recipe_over_the_config():
    raw = run_settings()
    raw["model"]["adapter"] = {"name": "mlora", "rank": 3}
    kept = SettledConfig.of(raw, (), "mlora")
    assert kept.config.model.adapter.model_dump()["rank"] == 3, "a key that no recipe names stays"
    assert "model.adapter" not in kept.told
    other = SettledConfig.of(raw, ["model.adapter.name=bottleneck"], "multi_bert")
    assert other.config.model.adapter.name == "bottleneck"
    assert "model.adapter.name (was 'mlora')" in other.told, "what the recipe replaced"
    assert "model.head (was not there)" in other.told
    assert SettledConfig.of(raw).told == ""
    assert SettledConfig.of(raw).config == isthmus.load_config(raw)


def test_a_recipe_that_changes_nothing_says_so():
    applied = recipe_of("mamdr").over(plain())
    assert SettledConfig.of(applied, (), "mamdr").told == (
        "mamdr (arXiv:2202.12524); it replaced nothing"
    )


def test_the_trunk_of_multi_bert_keeps_every_bit_in_its_second_phase(tmp_path: Path):
    dataset = make_dataset(tmp_path)
    base = {
        "data": dataset.config.model_dump(mode="json"),
        "model": {"backbone": {"name": "mlp", "widths": [8, 4], "dropout": 0.2}},
    }
    config = recipe_of("multi_bert").over(base)
    torch.manual_seed(1)
    model = build_network(config.model, dataset.encoder.fields, dataset.n_domains)
    train = settings(method=config.train.method)
    second = [state.model for state in states(model, dataset, train) if state.phase == 2]
    assert len(second) > 3
    trained = moved(second[0], second[-1])
    assert "adapter.cells.input.slots" in trained
    assert {name.partition(".")[0] for name in trained} == {"adapter", "head"}
    for name, tensor in model.state_dict().items():  # the best weights are back: buffers too
        if name.partition(".")[0] in ("inputs", "backbone"):
            assert torch.equal(tensor, second[0][name]), name


def test_the_report_says_how_many_parameters_a_domain_owns(tmp_path: Path):
    dataset = make_dataset(tmp_path)
    model = {"backbone": {"name": "mlp", "widths": [8, 4]}, "head": "per_domain"}
    for adapter, own in (
        ({"name": "prompt", "slots": 2, "dim": 3}, 2 * 3),
        ({"name": "bottleneck", "bottleneck": 2}, 4 * 2 + 2 + 2 * 4 + 4),
        ({"name": "mlora", "rank": 1}, (12 + 8 + 8) + (8 + 4 + 4)),
        ({"name": "none"}, 0),
    ):
        made = ModelConfig.model_validate(model | {"adapter": adapter})
        network = build_network(made, dataset.encoder.fields, dataset.n_domains)
        total = network.parameter_report().total
        own += 4 + 1  # the head
        assert parameters_text(network) == (
            f"{total:,} parameters, {own} of them for each domain and for the unknown one"
        )
    shared = ModelConfig.model_validate(model | {"head": "shared"})
    network = build_network(shared, dataset.encoder.fields, dataset.n_domains)
    assert parameters_text(network) == f"{network.parameter_report().total:,} parameters"


def test_strength_0_of_dynagan_is_its_first_phase(table: Path, tmp_path: Path):
    whole = isthmus.fit(plain(), table, tmp_path / "whole", recipe="dynagan")
    first = 'train.method.phases=[{"trains": ["inputs", "backbone", "head"]}]'
    half = isthmus.fit(plain(), table, tmp_path / "half", recipe="dynagan", set=[first])
    assert np.array_equal(whole.predict(table, strength=0.0), half.predict(table))


def test_a_resumed_run_tells_its_recipe_and_needs_the_same_config(table: Path, tmp_path: Path):
    heard: list[str] = []

    def stop(notice: Any) -> None:
        heard.append(str(notice))
        if "look at" in notice.text:
            raise KeyboardInterrupt

    config, out = plain(checkpoint_minutes=0), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        isthmus.fit(config, table, out, recipe="mlora", progress=stop)
    assert any(text.startswith("train: recipe mlora (arXiv:2408.08913)") for text in heard)
    with pytest.raises(isthmus.RunError, match="must be resumed with the config it began with"):
        isthmus.fit(config, table, out, resume=True, recipe="moe_mlora")
    resumed = isthmus.fit(out / "config.yaml", table, out, resume=True)
    assert "- Recipe: mlora (arXiv:2408.08913); it replaced" in (out / "report.md").read_text()
    assert resumed.state.recipe.startswith("mlora (")


def test_a_table_without_enough_domains_is_refused_before_training(tmp_path: Path):
    one = clicks().filter(pc.field("tab") == "home")
    path = tmp_path / "one.parquet"
    pq.write_table(one, path)
    said = f"recipe mlora needs 2 domains or more, table {path} has 1"
    with pytest.raises(ConfigError, match=re.escape(said)):
        isthmus.fit(plain(), path, tmp_path / "run", recipe="mlora")
    assert not (tmp_path / "run").exists()


def test_the_domain_must_be_a_feature_where_the_recipe_says_so(tmp_path: Path):
    raw = plain()
    del raw["data"]["features"]["tab"]
    said = (
        "recipe sparse_moe reads the domain as a feature, so data.features must have 'tab', got"
        " user, item, history, age"
    )
    with pytest.raises(ConfigError, match=re.escape(said)):
        isthmus.fit(raw, clicks(), tmp_path / "run", recipe="sparse_moe")
    assert recipe_of("ssctl").over(raw).model.backbone.name == "ple"


def test_ssctl_needs_two_small_domains(tmp_path: Path):
    two = clicks().filter(pc.field("tab") != "mail")
    path = tmp_path / "two.parquet"
    pq.write_table(two, path)
    said = f"recipe ssctl needs 3 domains or more, table {path} has 2"
    with pytest.raises(ConfigError, match=re.escape(said)):
        isthmus.fit(plain(), path, tmp_path / "run", recipe="ssctl")
    assert not (tmp_path / "run").exists()


def test_a_recipe_on_another_backbone_says_which():
    assert recipe_of("ssctl").told_on("mlp") == "ple, trained by pseudo_domains"
    assert recipe_of("sparse_moe").told_on("mlp") == "sparse_moe"
    assert recipe_of("mlora").told_on("dcn") == "mlora on dcn, trained by phases"


def test_what_is_no_recipe_and_what_is_no_network_are_refused():
    with pytest.raises(ConfigError, match=r"must be one of .*, got 'mlra'; did you mean 'mlora'\?"):
        recipe_of("mlra")
    raw = plain()
    raw["model"] = {"name": "trees"}
    said = "recipe mlora is of a network, so model.name must be 'network', got 'trees'"
    with pytest.raises(ConfigError, match=re.escape(said)):
        recipe_of("mlora").over(raw)


def test_the_commands_list_show_and_apply_recipes(tmp_path: Path):
    listed = isthmus_in_process("recipes").stdout.splitlines()
    assert [line.split()[0] for line in listed[2::2]] == EVERY
    assert all(" costs " in line for line in listed[3::2])
    assert listed == isthmus_in_process("recipes", "list").stdout.splitlines()
    shown = isthmus_in_process("recipes", "show", "dynagan").stdout
    assert shown == str(recipe_of("dynagan"))
    assert "--strength 0.5" in shown
    assert "did you mean 'mamdr'?" in told(isthmus_in_process("recipes", "show", "mandr"))
    config = written(tmp_path)
    words = ("--out", tmp_path / "run", "--recipe", "multi_bert", "--set", "train.epochs=1")
    result = isthmus_in_process("fit", config, *words)
    assert result.exit_code == 0, result.output
    assert isthmus.Run.open(tmp_path / "run").config.model.adapter.name == "prompt"
    refused = isthmus_in_process("tune", config, "--recipe", "mlor")
    assert "did you mean 'mlora'?" in told(refused)


def test_tune_searches_around_a_recipe_and_not_away_from_it(tmp_path: Path):
    config, heard = written(tmp_path), []
    study = isthmus.tune(
        config,
        tmp_path / "study",
        trials=2,
        set=["train.epochs=1"],
        recipe="mamdr",
        progress=lambda notice: heard.append(notice.text),
    )
    assert any(text.startswith("recipe mamdr (arXiv:2202.12524)") for text in heard)
    best = isthmus.load_config(study.path / "best.yaml")
    assert (best.train.method.name, best.model.adapter.name) == ("mamdr", "mlora")
    space = json.loads((study.path / "study.json").read_text())["space"]
    assert space["model.adapter.name"] == "mlora"
    assert space["model.backbone.norm"] == "none"
    assert "," in space["model.backbone.name"], "the recipe says nothing of the backbone's kind"
    assert all(trial["reason"] is None for trial in study.report["trials"])
