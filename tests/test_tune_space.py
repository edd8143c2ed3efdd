"""The search space and the portfolio: the config is a point, and every point is a valid config."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.config import Config, validate
from isthmus.data import Dataset
from isthmus.errors import ConfigError
from isthmus.tuning.portfolio import PORTFOLIO, PortfolioRecipe
from isthmus.tuning.space import NO_L2, Bounds, Options, Space, changed_config, point
from isthmus.tuning.tune_plan import TrialBudget, chosen_recipes
from small_runs import clicks, settings

DIMS = {"user": 4, "item": 4, "history": 4, "tab": 4}


def config_of(model: dict[str, Any] | None = None, **train: Any) -> Config:
    raw = settings(**train)
    for name, dim in DIMS.items():  # deepfm wants one width
        raw["data"]["features"][name]["dim"] = dim
    return validate(Config, raw if model is None else {**raw, "model": model})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.from_table(config_of().data, clicks(), cache=tmp_path_factory.mktemp("cache"))


ODD: dict[str, Config] = {
    "small run": config_of(),
    "defaults": config_of({}),
    "no penalty": config_of(embedding_l2=0.0),
    "outside": config_of(
        {"backbone": {"name": "mlp", "dropout": 0.9, "norm": "domain"}, "towers": "per_domain"},
        lr=0.5,
        batch_rows=1000,
        embedding_l2=1e-9,
    ),
    "crosses": config_of(
        {"backbone": {"name": "wide_deep", "crosses": [["user", "tab"]], "widths": [8, 8, 4]}}
    ),
    "own settings": config_of(
        {
            "backbone": {"name": "dcn", "cross_layers": 3, "version": 1},
            "adapter": {"name": "hamur", "bottleneck": 5, "rank": 3, "sites": [0, 1]},
            "head": "per_domain",
        }
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_the_config_as_it_stands_is_a_point_of_the_space(name: str, dataset: Dataset):
    config = ODD[name]
    space = Space.of(config, dataset)
    stands = point(config)
    assert list(stands) == list(space.parameters)
    for key, value in stands.items():
        assert space.parameters[key].holds(value), key
    assert space.configured(stands) == config
    assert space.changes(stands) == {}


def values(of: Bounds | Options) -> st.SearchStrategy[Any]:
    return st.floats(of.low, of.high) if isinstance(of, Bounds) else st.sampled_from(of.values)


@given(st.data())
def test_every_point_is_a_config_that_says_the_same(dataset: Dataset, data: st.DataObject):
    space = Space.of(ODD["own settings"], dataset)
    params = {key: data.draw(values(of), key) for key, of in space.parameters.items()}
    config = space.configured(params)
    assert point(config) == params
    assert config.data == space.config.data
    kept = {"lr", "batch_rows", "embedding_l2"}
    assert config.train.model_dump(exclude=kept) == space.config.train.model_dump(exclude=kept)


def test_what_the_config_names_keeps_its_settings_and_others_take_their_defaults(dataset: Dataset):
    config = ODD["own settings"]
    other = changed_config(config, {**point(config), "model.backbone.name": "mlp"})
    assert other.model.backbone.name == "mlp"
    assert other.model.adapter == config.model.adapter
    back = changed_config(other, {**point(other), "model.adapter.name": "film"})
    assert back.model.adapter.name == "film"
    assert back.model.head == "per_domain"


def test_the_lower_end_of_the_penalty_stands_for_none():
    config = changed_config(config_of(), {**point(config_of()), "train.embedding_l2": NO_L2})
    assert config.train.embedding_l2 == 0
    assert point(config)["train.embedding_l2"] == NO_L2


def test_every_recipe_is_a_point_of_a_large_tables_space():
    # No dataset: bounds alone decide, and each name must be one that configs know.
    config = config_of()
    for recipe in PORTFOLIO:
        changed = changed_config(config, {**point(config), **recipe.changes})
        assert {k: v for k, v in point(changed).items() if k in recipe.changes} == recipe.changes
    names = [recipe.name for recipe in PORTFOLIO]
    assert len(set(names)) == len(names)
    assert PORTFOLIO[0].changes == {}


def test_recipes_that_do_not_fit_or_say_the_same_are_left_out(dataset: Dataset):
    recipes, left_out = chosen_recipes(Space.of(config_of(), dataset))
    assert recipes[0].name == "as it stands"
    assert {recipe.name for recipe in recipes} | left_out.keys() == {r.name for r in PORTFOLIO}
    assert left_out["batch norm"] == "the same as 'as it stands'"
    assert left_out["hamur"] == "the same as 'as it stands'"
    assert "train.batch_rows must be among 32, 64, 128, got 8192" in left_out["large batches"]


def test_a_backbone_that_the_dataset_refuses_is_left_out(tmp_path: Path):
    config = validate(Config, settings())  # tab has another width than the others
    space = Space.of(config, Dataset.from_table(config.data, clicks(), cache=tmp_path))
    assert not space.parameters["model.backbone.name"].holds("deepfm")
    why = space.refusal(PortfolioRecipe("deepfm", {"model.backbone.name": "deepfm"}))
    assert why is not None
    assert "deepfm pairs embeddings" in why


def test_batches_fit_the_table(dataset: Dataset):
    sizes = Space.of(config_of(batch_rows=128), dataset).parameters["train.batch_rows"]
    assert isinstance(sizes, Options)
    assert sizes.values == (32, 64, 128)  # 733 train rows make 8 steps of 91 rows
    assert np.all(np.diff(sizes.values) > 0)


@pytest.mark.parametrize(
    ("trials", "minutes", "why"),
    [
        (5, 1.0, "a budget must be trials or minutes, got trials 5 and minutes 1"),
        (0, None, "trials must be 1 or more, got 0"),
        (None, 0.0, "minutes must be above 0, got 0"),
        (None, float("nan"), "minutes must be above 0, got nan"),
    ],
)
def test_a_budget_is_one_number_above_zero(trials: Any, minutes: Any, why: str):
    with pytest.raises(ConfigError, match=why):
        TrialBudget(trials, minutes)


def test_a_budget_counts_trials_or_their_time():
    assert TrialBudget(trials=3).is_left(2, 1e9)
    assert not TrialBudget(trials=3).is_left(3, 0.0)
    assert TrialBudget(minutes=2).is_left(10**6, 119.9)
    assert not TrialBudget(minutes=2).is_left(0, 120.0)
    assert TrialBudget().most == 40
