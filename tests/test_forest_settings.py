"""``data.trees`` as a section: what its keys do to the forest, what is refused, what stays the same."""

from pathlib import Path
from typing import Any

import pytest

import isthmus
from forest_rows import forest_config, forest_table
from isthmus.bundle import Bundle
from isthmus.config import load_config
from isthmus.data import Dataset
from isthmus.data.store.dataset import dataset_key
from isthmus.errors import ConfigError
from isthmus.schema import Forest


def forest_text(trees: Any, cache: Path) -> str:
    """The forest of a small table, in LightGBM's own text."""
    config = load_config(forest_config(trees=trees))
    taught = Dataset.from_table(config.data, forest_table(), cache=cache).encoder.taught
    assert taught.trees is not None
    return taught.trees.to_text()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return forest_text(True, tmp_path_factory.mktemp("cache"))


def kept(text: str) -> dict[str, str]:
    """The parameters at the end of a forest's text."""
    lines = text.partition("parameters:")[2].splitlines()
    pairs = [
        line.strip("[]").split(": ") for line in lines if line.startswith("[") and ": " in line
    ]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def test_a_section_without_settings_is_true_to_the_cache():
    for given in ({}, {"rate": 0.05}, Forest().model_dump()):
        config = load_config(forest_config(trees=given))
        assert config.data.trees is True
        assert dataset_key(config.data, ()) == dataset_key(
            load_config(forest_config(trees=True)).data, ()
        )
    other = load_config(forest_config(trees={"rate": 0.1})).data
    assert dataset_key(other, ()) != dataset_key(load_config(forest_config()).data, ())
    assert other.forest == Forest(rate=0.1)
    assert other.taught


def test_the_key_of_an_encoded_table_is_what_it_was_before_there_were_sections():
    forest = load_config(forest_config()).data
    network = load_config({"data": {**forest_config()["data"], "trees": False}}).data
    assert forest.content()["trees"] is True
    assert network.content()["trees"] is False
    assert [dataset_key(one, ()) for one in (forest, network)] == KEYS


KEYS = ["124eebc87878fbbc73476a58", "b5451f0b6e4a666e7cef6db3"]  # by isthmus before


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("leaves", 4, "num_leaves"),
        ("rate", 0.2, "learning_rate"),
        ("least_rows", 300, "min_data_in_leaf"),
        ("columns", 0.5, "feature_fraction"),
        ("l2", 50.0, "lambda_l2"),
    ],
)
def test_each_key_is_the_one_of_lightgbm(
    key: str, value: float, name: str, plain: str, tmp_path: Path
):
    found = forest_text({key: value}, tmp_path)
    before, after = kept(plain), kept(found)
    assert {one: of for one, of in after.items() if before[one] != of} == {name: f"{value:g}"}
    assert found.partition("Tree=0")[2] != plain.partition("Tree=0")[2]


def test_a_tree_has_the_leaves_that_are_given(tmp_path: Path):
    config = load_config(forest_config(trees={"leaves": 3}))
    taught = Dataset.from_table(config.data, forest_table(), cache=tmp_path).encoder.taught
    assert taught.trees is not None
    assert taught.trees.booster is not None
    trees = taught.trees.booster.dump_model()["tree_info"]
    assert max(tree["num_leaves"] for tree in trees) == 3


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("leaves=1", "data.trees.leaves must be greater than or equal to 2, got 1"),
        ("rate=0", "data.trees.rate must be greater than 0, got 0"),
        ("least_rows=0", "data.trees.least_rows must be greater than or equal to 1, got 0"),
        ("columns=1.5", "data.trees.columns must be less than or equal to 1, got 1.5"),
        ("l2=-1", "data.trees.l2 must be greater than or equal to 0, got -1"),
        ("leafs=9", "unknown key 'data.trees.leafs'; did you mean 'data.trees.leaves'?"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(setting: str, said: str):
    for trees in (True, False, {"rate": 0.1}):
        raw = {"data": {**forest_config()["data"], "trees": trees}}
        with pytest.raises(ConfigError) as refused:
            load_config(raw, [f"data.trees.{setting}"])
        assert str(refused.value) == said


def test_what_is_no_section_is_refused():
    with pytest.raises(ConfigError, match=r"^data\.trees must be a valid boolean.*, got 3$"):
        load_config(forest_config(trees=3))
    with pytest.raises(ConfigError, match=r"data\.trees must be true where model.name is 'trees'"):
        load_config(forest_config(trees=False))


def test_a_network_reads_the_score_of_a_forest_with_settings(tmp_path: Path):
    raw = {"data": forest_config(trees={"leaves": 7, "columns": 0.8})["data"]}
    config = load_config({**raw, "train": {"epochs": 1, "device": "cpu"}}, ["data.group=user"])
    run = isthmus.fit(config, forest_table(), out=tmp_path / "run")
    again = load_config(run.path / "config.yaml")
    assert again.data.trees == Forest(leaves=7, columns=0.8)
    taught = Bundle.load(run.path / "bundle").encoder.taught
    assert taught.trees is not None
    assert kept(taught.trees.to_text())["num_leaves"] == "7"
