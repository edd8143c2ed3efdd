"""docs/config.md cannot drift: its tables are the pydantic models, its example and errors are run."""

import re
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from config_page import FAMILIES, PAGE, kind_text, page, settable
from isthmus.adapters import HamurConfig
from isthmus.cli.completing import KEYS
from isthmus.config import Config, load_config
from isthmus.errors import ConfigError
from isthmus.family import members
from isthmus.models import ModelConfig, SizesConfig
from isthmus.schema import (
    Categorical,
    CategoricalList,
    DataConfig,
    Forest,
    Label,
    Numeric,
    NumericList,
    Section,
    Split,
    Time,
    Vector,
)
from isthmus.train import TrainConfig
from isthmus.train.methods import PhaseConfig, PriorityConfig

# Heading of the page -> the model that its table describes.
SECTIONS: dict[str, type[BaseModel]] = {
    "`data`": DataConfig,
    "`data.label`": Label,
    "`data.features`: kind `categorical`": Categorical,
    "`data.features`: kind `categorical_list`": CategoricalList,
    "`data.features`: kind `numeric`": Numeric,
    "`data.features`: kind `numeric_list`": NumericList,
    "`data.features`: kind `vector`": Vector,
    "`data.features`: kind `time`": Time,
    "`data.split`": Split,
    "`data.trees`": Forest,
    "`model`": ModelConfig,
    "`model.sizes`": SizesConfig,
    "`train`": TrainConfig,
    "`train.domain_sampling`": PriorityConfig,
    "`train.method.phases`": PhaseConfig,
}


def table(heading: str) -> dict[str, tuple[str, str]]:
    """Type and default by key of the first table under a heading."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(
        rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", text, flags=re.MULTILINE | re.DOTALL
    )
    assert found is not None, f"no heading {heading!r}"
    rows = {}
    for line in found[1].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            assert len(cells) == 4, line
            rows[cells[0].strip("`")] = (cells[1], cells[2])
    return rows


def default_of(model: type[BaseModel], key: str) -> Any:
    field = model.model_fields[key]
    value = field.get_default(call_default_factory=True, validated_data={})
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_table_of_a_section_is_its_model(heading: str):
    rows, model = table(heading), SECTIONS[heading]
    assert list(rows) == list(model.model_fields)
    schema = model.model_json_schema()["properties"]
    for key, (kind, default) in rows.items():
        assert kind == kind_text(schema[key]), key
        found = default_of(model, key)
        if found is PydanticUndefined:
            assert default == "required", key
        elif found is None:
            assert default == "none", key
        elif kind == "section":  # the defaults stand in the table of that section
            assert default == "its defaults", key
        else:
            value = yaml.safe_load(default.strip("`"))
            found = list(found) if isinstance(found, tuple) else found
            assert (type(value), value) == (type(found), found), key


def test_every_section_of_the_config_has_a_table():
    todo: list[type[BaseModel]] = [Config]
    seen: set[type[BaseModel]] = set()
    while todo:
        model = todo.pop()
        seen.add(model)
        for field in model.model_fields.values():
            todo += [part for part in _sections(field.annotation) if part not in seen]
    generated = {kind for family in FAMILIES.values() for kind in members(family).values()}
    assert seen - {Config} - generated == set(SECTIONS.values())


def test_the_keys_that_the_shell_offers_are_as_make_docs_writes_them():
    assert KEYS.read_text(encoding="utf-8") == settable(), "make docs writes them again"
    lines = settable().splitlines()
    assert {"train.epochs=", "train.monitor=auc_macro", "model.backbone.name=star"} <= set(lines)
    assert "model.backbone.widths=" in lines
    # A list is set as a whole.
    assert not [line for line in lines if line.startswith(("train.objectives.", "trackers."))]


def test_the_members_of_families_are_as_make_docs_writes_them():
    assert PAGE.read_text(encoding="utf-8") == page(), "make docs writes them again"
    for name, family in FAMILIES.items():
        for member in members(family):
            assert f"### `{name}`: name `{member}`" in PAGE.read_text(encoding="utf-8")
            for key, field in members(family)[member].model_fields.items():
                assert key == "name" or field.description, (member, key)


def _sections(kind: Any) -> list[Any]:
    if isinstance(kind, type) and issubclass(kind, Section):
        return [kind]
    return [found for part in getattr(kind, "__args__", ()) for found in _sections(part)]


def blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def example() -> dict[str, Any]:
    (text,) = [block for block in blocks("yaml") if block.startswith("data:")]
    return yaml.safe_load(text)


def test_the_example_is_accepted_and_shows_every_key():
    raw = example()
    config = load_config(raw)
    assert config.train == TrainConfig()  # it shows the defaults
    assert set(raw["train"]) == set(TrainConfig.model_fields)
    assert set(raw["model"]) == set(ModelConfig.model_fields)
    assert set(raw["model"]["adapter"]) == set(HamurConfig.model_fields)
    assert set(raw["data"]) == set(DataConfig.model_fields)
    assert set(raw["data"]["split"]) == set(Split.model_fields)
    shown: dict[str, set[str]] = {}
    for feature in raw["data"]["features"].values():
        if isinstance(feature, dict):
            shown.setdefault(feature["kind"], set()).update(feature)
    for model in (Categorical, CategoricalList, Numeric, NumericList, Vector):
        assert shown[model.model_fields["kind"].default] <= set(model.model_fields)
    assert shown["categorical"] | shown["categorical_list"] == set(CategoricalList.model_fields)
    assert shown["numeric_list"] == set(NumericList.model_fields)


def test_the_errors_are_those_that_are_raised():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    shown = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `--set ")]
    assert len(shown) >= 5
    for change, told in shown:
        with pytest.raises(ConfigError) as fault:
            load_config(example(), [change.strip("`").removeprefix("--set ").strip("'")])
        assert str(fault.value) == told.strip("`")
