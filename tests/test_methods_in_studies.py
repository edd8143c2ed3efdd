"""Methods beyond one fit: the search keeps them, a benchmark trains by them what they suit."""

from pathlib import Path
from typing import Any

import pytest

from isthmus.benchmarking.contenders import contenders
from isthmus.benchmarking.contest_command import with_domain
from isthmus.benchmarking.equal_terms import terms_of
from isthmus.config import Config, load_config, validate
from isthmus.data import Dataset
from isthmus.errors import ConfigError
from isthmus.experiments import Training
from isthmus.experiments.arms import of_few
from isthmus.experiments.cost import steps
from isthmus.tuning.attempt import SeenLook, attempt
from isthmus.tuning.portfolio import PortfolioRecipe
from isthmus.tuning.space import Space
from small_benchmarks import written_conflict
from small_runs import clicks, settings

SHARED_THEN_ADAPTER = {
    "name": "phases",
    "phases": [
        {"trains": ["inputs", "backbone", "head"]},
        {"trains": ["adapter"], "epochs": 1, "lr": 0.001},
    ],
}

pytestmark = pytest.mark.usefixtures("one_thread")


def config_of(method: dict[str, Any], adapter: str = "mlora", **train: Any) -> Config:
    raw = settings(epochs=2, method=method, **train)
    raw["model"] = {"backbone": {"name": "mlp", "widths": [8]}, "adapter": {"name": adapter}}
    return validate(Config, raw)


def dataset_of(config: Config, cache: Path) -> Dataset:
    return Dataset.from_table(config.data, clicks(), cache=cache)


def test_a_search_keeps_the_method_and_leaves_out_networks_that_it_does_not_suit(tmp_path: Path):
    config = config_of(SHARED_THEN_ADAPTER)
    space = Space.of(config, dataset_of(config, tmp_path))
    assert not space.parameters["model.adapter.name"].holds("none")
    why = space.refusal(PortfolioRecipe("plain", {"model.adapter.name": "none"}))
    assert why is not None
    assert "train.method.phases[1].trains must name parts of the network" in why
    film = PortfolioRecipe("film", {"model.adapter.name": "film"})
    assert space.configured(space.params(film)).train.method == config.train.method


def test_a_trial_hears_of_each_look_once(tmp_path: Path):
    config = config_of(SHARED_THEN_ADAPTER)
    seen: list[SeenLook] = []
    found = attempt(config, dataset_of(config, tmp_path), lambda look: not seen.append(look))
    assert found is not None
    moments = [look.moment for look in seen]
    assert moments == sorted(set(moments))
    assert found.looks == len(seen) + 1, "the start of phase 2 is no news"


def test_a_training_of_one_domain_is_joint(tmp_path: Path):
    config = config_of({"name": "mamdr"})
    dataset = dataset_of(config, tmp_path)
    whole = Training(model=config.model, train=config.train)
    watched = dataset.summary()["validation"]
    alone = Training(model=config.model, train=config.train, domains=("home",))
    assert of_few(alone, watched).train.method.name == "joint"
    assert of_few(whole, watched).train.method.name == "mamdr"
    joint = whole.trained_with(method=of_few(alone, watched).train.method)
    assert steps(whole, dataset) > steps(joint, dataset)
    assert "method" not in joint.describe()["train"]
    assert whole.describe()["train"]["method"]["name"] == "mamdr"


def test_a_benchmark_trains_by_the_method_what_it_suits_and_says_so(tmp_path: Path):
    written = load_config(written_conflict(tmp_path))
    names = ("mlora", "star", "mlp_no_domain")
    for method, suited in (
        (SHARED_THEN_ADAPTER, {"mlp+mlora"}),
        ({"name": "mamdr"}, {"mlp+mlora", "star", "mlp"}),
    ):
        raw = written.model_dump(mode="json")
        config = with_domain(validate(Config, {**raw, "train": raw["train"] | {"method": method}}))
        dataset = Dataset.from_table(config.data)
        terms, _ = terms_of(config, contenders(names), 20_000, dataset)
        by = {one.name: one.config.train.method.name for one in terms if one.sizes is not None}
        assert {name for name, of in by.items() if of != "joint"} == suited
        assert {of for of in by.values() if of != "joint"} == {method["name"]}


def test_trees_learn_by_no_method():
    raw = settings(method={"name": "mamdr"})
    with pytest.raises(ConfigError, match=r"train\.method must be left out .* 'trees'"):
        validate(Config, {**raw, "model": {"name": "trees"}})
