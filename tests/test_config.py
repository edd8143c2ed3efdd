"""Configs: what is refused says key, rule and value; what is accepted is written out in full."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.adapters import FilmConfig, HamurConfig, NoAdapterConfig
from isthmus.backbones import BackboneConfig, MlpConfig
from isthmus.config import Config, differences, load_config
from isthmus.errors import ConfigError
from isthmus.family import members

PLAIN: dict[str, Any] = {
    "data": {
        "table": "clicks.parquet",
        "domain": "tab",
        "label": "click",
        "features": {"user": "categorical", "vector": {"kind": "vector", "width": 3}},
    }
}


def with_section(**sections: Any) -> dict[str, Any]:
    return {**PLAIN, **sections}


def with_data(**keys: Any) -> dict[str, Any]:
    return {"data": {**PLAIN["data"], **keys}}


def refusal(source: Any, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            with_section(train={"batch_row": 3}),
            "unknown key 'train.batch_row'; did you mean 'train.batch_rows'?",
        ),
        (with_section(trian={}), "unknown key 'trian'; did you mean 'train'?"),
        # The right name in the wrong section.
        (
            with_section(train={"towers": "shared"}),
            "unknown key 'train.towers'; did you mean 'model.towers'?",
        ),
        (
            with_section(model={"backbone": {"name": "mlp", "width": [8]}}),
            "unknown key 'model.backbone.width'; did you mean 'model.backbone.widths'?",
        ),
        (
            with_section(model={"adapter": {"name": "hamur", "bottle_neck": 8}}),
            "unknown key 'model.adapter.bottle_neck'; did you mean 'model.adapter.bottleneck'?",
        ),
        (
            with_data(features={"user": {"kind": "categorical", "dims": 8}}),
            "unknown key 'data.features.user.dims'; did you mean 'data.features.user.dim'?",
        ),
        (with_data(labl="x"), "unknown key 'data.labl'; did you mean 'data.label'?"),
    ],
)
def test_an_unknown_key_is_named_in_full_with_the_nearest_known_one(source: Any, text: str):
    assert refusal(source) == text


def test_a_key_like_no_other_is_answered_with_those_that_exist():
    text = refusal(with_data(split={"zzz": 1}))
    known = "by, fractions, seed, rotation"
    assert text == f"unknown key 'data.split.zzz'; known under 'data.split': {known}"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            with_section(train={"batch_rows": 1}),
            "train.batch_rows must be greater than or equal to 2, got 1",
        ),
        (
            with_section(train={"lr": "fast"}),
            "train.lr must be a valid number, unable to parse string as a number, got 'fast'",
        ),
        (
            with_section(model={"towers": "many"}),
            "model.towers must be 'shared' or 'per_domain', got 'many'",
        ),
        (with_section(train=3), "train must be a mapping of keys, got 3"),
        (
            with_data(features={"user": "categoricl"}),
            "data.features.user.kind must be one of 'categorical', 'categorical_list', 'numeric',"
            " 'numeric_list', 'vector', 'time', got 'categoricl'; did you mean 'categorical'?",
        ),
        (
            with_section(model={"backbone": {"name": "wide_dep"}}),
            f"model.backbone.name must be one of {', '.join(map(repr, members(BackboneConfig)))},"
            " got 'wide_dep'; did you mean 'wide_deep'?",
        ),
        (with_data(features={"v": {"kind": "vector"}}), "key 'data.features.v.width' is required"),
        ({"data": {"domain": "d", "features": {"u": "numeric"}}}, "key 'data.label' is required"),
        (
            with_data(split={"fractions": [0.5, 0.5, 0.5]}),
            "split.fractions must be positive and sum to 1, got (0.5, 0.5, 0.5)",
        ),
        (with_data(split={"by": "time"}), "split.by is 'time', so data.time must name a column"),
        (with_data(negative_rate=0), "data.negative_rate must be greater than 0, got 0"),
    ],
)
def test_a_bad_value_is_refused_with_key_rule_and_value(source: Any, text: str):
    assert text in refusal(source)


def test_every_fault_is_told_at_once():
    lines = refusal(with_section(train={"lr": -1, "epochs": 0})).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["train.epochs", "train.lr"]


def test_a_new_name_leaves_out_what_the_new_member_does_not_know():
    hamur = with_section(model={"adapter": {"name": "hamur", "rank": 4, "sites": [0]}})
    film = load_config(hamur, ["model.adapter.name=film"]).model.adapter
    assert film == FilmConfig(sites=(0,))
    assert load_config(hamur, ["model.adapter.name=none"]).model.adapter == NoAdapterConfig()
    wide = with_section(model={"backbone": {"name": "dcn", "version": 1, "widths": [4]}})
    assert load_config(wide, ["model.backbone.name=mlp"]).model.backbone == MlpConfig(widths=(4,))
    # A key that the old member did not know either is a fault, not something to leave out.
    typo = with_section(model={"adapter": {"name": "hamur", "rnak": 4}})
    with pytest.raises(ConfigError, match=r"unknown key 'model\.adapter\.rnak'"):
        load_config(typo, ["model.adapter.name=film"])


def test_a_key_of_another_member_is_refused_but_for_what_0_1_wrote_beside_none():
    with pytest.raises(ConfigError, match=r"unknown key 'model\.adapter\.rank'"):
        load_config(with_section(model={"adapter": {"name": "film", "rank": 4}}))
    old = {"name": "none", "bottleneck": 32, "rank": 8, "hyper_widths": [64], "sites": [-1]}
    config = load_config(with_section(model={"adapter": old | {"condition": "all"}}))
    assert config.model.adapter == NoAdapterConfig()
    assert config.model_dump()["model"]["adapter"] == {"name": "none"}
    with pytest.raises(ConfigError, match=r"unknown key 'model\.adapter\.rank'"):
        load_config(with_section(model={"adapter": {"name": "none", "rank": 4}}))


def test_overrides_are_yaml_values_on_dotted_keys():
    config = load_config(
        PLAIN,
        [
            "train.lr=1e-2",
            "train.epochs=3",
            "model.adapter={name: hamur, rank: 4}",
            "model.adapter.bottleneck=8",
            "model.backbone.widths=[8, 4]",
            "data.label.above=3",
            "data.features.user.dim=8",
            "data.features.age=numeric",
        ],
    )
    assert (config.train.lr, config.train.epochs) == (0.01, 3)
    assert config.model.adapter == HamurConfig(rank=4, bottleneck=8)
    assert config.model.backbone.widths == (8, 4)  # pyright: ignore[reportAttributeAccessIssue]
    assert (config.data.label.column, config.data.label.above) == ("click", 3)
    assert config.data.features["user"].model_dump()["dim"] == 8
    assert list(config.data.features) == ["user", "vector", "age"]
    assert PLAIN["data"]["label"] == "click", "the given dict must stay as it was"


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("train.batch_row=3", "unknown key 'train.batch_row'; did you mean 'train.batch_rows'?"),
        ("trian.lr=3", "unknown key 'trian'; did you mean 'train'?"),
        (
            "data.features.usr.dim=3",
            "unknown key 'data.features.usr'; did you mean 'data.features.user'?",
        ),
        ("train.epochs", "--set must look like train.epochs=3, got 'train.epochs'"),
        ("train..lr=1", "--set must look like train.epochs=3, got 'train..lr=1'"),
        ("train.lr=[", "--set train.lr: value is not valid YAML: '['"),
        (
            "data.table.x=1",
            "--set data.table.x: data.table is a value without keys: 'clicks.parquet'",
        ),
        ("train.lr=0", "train.lr must be greater than 0, got 0"),
    ],
)
def test_an_override_is_refused_as_a_key_in_the_file_is(override: str, text: str):
    assert refusal(PLAIN, override) == text


def test_a_table_is_looked_up_beside_the_config(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(PLAIN))
    assert load_config(path).data.table == str(tmp_path / "clicks.parquet")
    path.write_text(yaml.safe_dump(with_data(table="/data/clicks/*.parquet")))
    assert load_config(path).data.table == "/data/clicks/*.parquet"
    assert load_config(PLAIN).data.table == "clicks.parquet", "a dict stands in no folder"


def test_a_config_written_out_reads_back_equal(tmp_path: Path):
    config = load_config(
        PLAIN,
        [
            "model.backbone.name=dcn",
            "model.adapter={name: hamur, condition: [user]}",
            "train.lr=3e-4",
        ],
    )
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    again = load_config(path)
    assert again.model == config.model
    assert again.train == config.train
    assert "epochs: 20" in config.to_yaml(), "defaults must stand in it"


def test_an_empty_section_is_all_defaults(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(PLAIN) + "train:\n  # lr: 0.1\nmodel:\n")
    assert load_config(path).train == Config.model_validate(PLAIN).train


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("data: {a: 1", "line 1: not valid YAML"),
        ("train:\n  lr: 1\n  lr: 2\n", "line 3: not valid YAML: key 'lr' is given twice"),
        ("- 1\n", "must hold sections data, model, train, got [1]"),
        ("", "must hold sections data, model, train, got None"),
    ],
)
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path: Path, text: str, told: str):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert told in refusal(path)
    assert str(path) in refusal(path)


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"data: \xff\xfe")
    assert refusal(path).startswith(f"config file {path} cannot be read")


def test_a_missing_file_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "none.yaml"
    assert refusal(path) == f"config file must exist, got {path}"


def test_differences_name_each_key_with_both_values():
    a = load_config(PLAIN)
    b = load_config(a, ["train.lr=0.1", "data.features.user.dim=4"])
    assert differences(a, b) == [
        "data.features.user.dim was 16, is 4",
        "train.lr was 0.001, is 0.1",
    ]
    features = dict(reversed(PLAIN["data"]["features"].items()))
    c = load_config(with_data(features=features))
    assert differences(a, c) == [
        "data.features was in the order ['user', 'vector'], is ['vector', 'user']"
    ]
    assert differences(a, a) == []
