"""Recipes as contenders of a benchmark: named, sized, trained by their own method."""

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import isthmus
from isthmus.benchmarking.contenders import contenders
from isthmus.errors import ConfigError
from small_benchmarks import small_benchmark, written_conflict
from small_runs import clicks, settings

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_recipe_has_a_name_that_no_adapter_has():
    found = {one.name: one for one in contenders(["mlora", "recipe:mlora", " recipe:mlora"])}
    assert list(found) == ["mlp", "trees", "mlp+mlora", "recipe:mlora"]
    assert found["recipe:mlora"].told == "mlora on mlp, trained by phases (arXiv:2408.08913)"
    assert found["mlp+mlora"].recipe is None
    with pytest.raises(ConfigError, match=r"got 'mlra'; did you mean 'mlora'\?"):
        contenders(["recipe:mlra"])


def test_the_plan_sizes_a_recipe_to_the_trunk_and_says_what_it_is(tmp_path: Path):
    config = written_conflict(tmp_path)
    names = ["mlora", "recipe:mlora", "recipe:multi_bert"]
    changes = ["train.weighting=uniform", "model.backbone.dropout=0.3"]
    plan = isthmus.plan_benchmark(config, models=names, trunk=4000, trials=1, seeds=1, set=changes)
    terms = {one.name: one for one in plan.terms}
    for name in ("recipe:mlora", "recipe:multi_bert"):
        sizes = terms[name].sizes
        assert sizes is not None
        assert 3000 < sizes.trunk <= 4000
    of = terms["recipe:multi_bert"].config
    assert (of.train.method.name, of.model.head, of.model.adapter.name) == (
        "phases",
        "per_domain",
        "prompt",
    )
    assert of.train.weighting == "uniform", "what the recipe does not name is the config's"
    assert of.model.backbone.model_dump()["dropout"] == 0.3
    assert terms["mlp+mlora"].config.train.method.name == "joint"
    text = str(plan)
    assert "mlora on mlp, trained by phases (arXiv:2408.08913)" in text
    assert "by phases: recipe:mlora, recipe:multi_bert" in text


def test_a_recipe_that_names_a_backbone_stands_on_it(tmp_path: Path):
    raw = settings()
    del raw["model"]["adapter"]
    pq.write_table(clicks(), tmp_path / "clicks.parquet")
    raw["data"]["table"] = str(tmp_path / "clicks.parquet")
    names = ["recipe:ssctl", "recipe:sparse_moe"]
    plan = isthmus.plan_benchmark(raw, models=names, trunk=6000, trials=1, seeds=1)
    terms = {one.name: one.config for one in plan.terms}
    ssctl, sparse = terms["recipe:ssctl"], terms["recipe:sparse_moe"]
    assert (ssctl.model.backbone.name, ssctl.train.method.name) == ("ple", "pseudo_domains")
    assert (sparse.model.backbone.name, sparse.train.domain_dropout) == ("sparse_moe", 0.2)
    assert "ple, trained by pseudo_domains (arXiv:2511.01404)" in str(plan)


def test_what_a_recipe_says_is_not_searched(tmp_path: Path):
    config = written_conflict(tmp_path)
    found = small_benchmark(config, tmp_path / "b", models=("recipe:mamdr",), trials=2, seeds=1)
    (one,) = [one for one in found.report["models"] if one["name"] == "recipe:mamdr"]
    assert (one["method"], one["tuned"]["study"]) == ("mamdr", "studies/recipe-mamdr")
    best = isthmus.load_config(found.path / "studies" / "recipe-mamdr" / "best.yaml")
    assert best.model.adapter.name == "mlora"
    assert best.model.backbone.model_dump()["norm"] == "none"
    assert best.train.method.name == "mamdr"
    assert one["told"] == "mlora on mlp, trained by mamdr (arXiv:2202.12524)"


def test_a_recipe_that_the_table_does_not_suit_is_left_out(tmp_path: Path):
    config = written_conflict(tmp_path)
    file = tmp_path / "table.parquet"
    rows = pq.read_table(file)
    pq.write_table(rows.filter(pc.field("domain") == "d0"), file)
    plan = isthmus.plan_benchmark(config, models=["recipe:mlora"], trials=1, seeds=1)
    assert "recipe:mlora" not in {one.name for one in plan.terms}
    assert plan.left_out["recipe:mlora"] == (
        f"recipe mlora needs 2 domains or more, table {file} has 1"
    )
