"""Write what follows from the config classes: ``make docs``.

The parts of docs/config.md that tell of a family's members, and the keys that the shell offers after
``--set``. A member's heading is its name, the sentence below it the first line of its config's docstring, and
the table its keys. Members of other packages are left out.
"""

import re
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from isthmus.adapters import AdapterConfig
from isthmus.backbones import BackboneConfig
from isthmus.cli.completing import KEYS
from isthmus.family import Member, name_of
from isthmus.models import ModelConfig, SizesConfig
from isthmus.objectives import ObjectiveConfig
from isthmus.schema import DataConfig, Forest, Label, Split
from isthmus.tracking import TrackerConfig
from isthmus.train import TrainConfig
from isthmus.train.methods import MethodConfig

PAGE = Path(__file__).with_name("config.md")
FAMILIES = {
    "model.backbone": BackboneConfig,
    "model.adapter": AdapterConfig,
    "train.objectives": ObjectiveConfig,
    "train.method": MethodConfig,
    "trackers": TrackerConfig,
}
OF_ONE = ("model.backbone", "model.adapter", "train.method")  # families of which a config has one
SECTIONS: dict[str, type[BaseModel]] = {
    "data": DataConfig,
    "data.label": Label,
    "data.split": Split,
    "data.trees": Forest,
    "model": ModelConfig,
    "model.sizes": SizesConfig,
    "train": TrainConfig,
}
WORDS = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}


def kind_text(schema: dict[str, Any]) -> str:
    """What the page calls the type of a key, from its JSON schema."""
    if "anyOf" in schema or ("oneOf" in schema and "discriminator" not in schema):
        parts = schema.get("anyOf") or schema["oneOf"]
        parts = [kind_text(part) for part in parts if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(parts))  # dates are texts to JSON
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        *most, last = (f"`{value}`" for value in schema["enum"])
        return f"{', '.join(most)} or {last}"
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return f"list of {schema['maxItems']} {plural(kind_text(schema['prefixItems'][0]))}"
        least = ", not empty" if schema.get("minItems") else ""
        of = plural(kind_text(schema["items"])) if is_plain(schema["items"]) else "sections"
        return f"list of {of}{least}"
    if not is_plain(schema):
        return "section"
    rules = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    said = [f"{sign} {schema[name]}" for name, sign in rules.items() if name in schema]
    return " ".join([WORDS[schema["type"]], ", ".join(said)]).strip()


def is_plain(schema: dict[str, Any]) -> bool:
    """Whether a key holds a value or a list, no section."""
    return not ({"$ref", "oneOf", "additionalProperties", "discriminator"} & schema.keys())


def plural(text: str) -> str:
    """The type's first word as several: ``integer >= 1`` becomes ``integers >= 1``."""
    first, *rest = text.split(" ")
    return " ".join([first if first == "text" or "`" in first else f"{first}s", *rest])


def default_text(model: type[BaseModel], key: str) -> str:
    """The default of a key as YAML writes it."""
    if model.model_fields[key].is_required():
        return "required"
    value = model.model_fields[key].get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "none"
    if isinstance(value, tuple):
        inner = ", ".join(f"{one}" for one in value)
        return f"`[{inner}]`"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def section(family: str, member: type[Member]) -> str:
    """One member's part of the page."""
    lines = [f"### `{family}`: name `{name_of(member)}`", "", (member.__doc__ or "").split("\n")[0]]
    lines += ["", "| key | type | default | meaning |", "|---|---|---|---|"]
    schema = member.model_json_schema()["properties"]
    for key, field in member.model_fields.items():
        told = "this member" if key == "name" else field.description
        cells = (f"`{key}`", kind_text(schema[key]), default_text(member, key), told)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def written(family: str) -> str:
    """All members of a family."""
    union = get_args(FAMILIES[family])[0]
    return "\n".join(section(family, member) for member in get_args(union) or (union,))


def page() -> str:
    """The page with its generated parts as they must be."""
    text = PAGE.read_text(encoding="utf-8")
    for family in FAMILIES:
        begin, end = f"<!-- members of {family} -->", f"<!-- end of {family} -->"
        assert begin in text, begin
        part = f"{begin}\n\n{written(family)}\n{end}"
        text = re.sub(f"{begin}.*?{end}", lambda _, part=part: part, text, flags=re.DOTALL)
    return text


def settable() -> str:
    """A line for each key of a config that ``--set`` can reach, and for each of its known values."""
    members = {
        f"{family}.{name_of(one)}": one
        for family, union in FAMILIES.items()
        if family in OF_ONE
        for one in get_args(get_args(union)[0]) or (get_args(union)[0],)
    }
    lines = []
    for place, section in {**SECTIONS, **members}.items():
        parent = place.rpartition(".")[0] if place in members else place
        schema = section.model_json_schema()["properties"]
        for key in section.model_fields:
            lines.append(f"{parent}.{key}=")
            lines += [f"{parent}.{key}={value}" for value in known_values(schema[key])]
    return "\n".join(sorted(set(lines))) + "\n"


def known_values(schema: dict[str, Any]) -> list[str]:
    """The words that a key may be, from its JSON schema; none where it may be anything."""
    if "const" in schema or "enum" in schema:
        return [str(value) for value in schema.get("enum", [schema.get("const")])]
    if schema.get("type") == "boolean":
        return ["true", "false"]
    return [word for part in schema.get("anyOf", ()) for word in known_values(part)]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    KEYS.write_text(settable(), encoding="utf-8")
