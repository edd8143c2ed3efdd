"""One YAML file is one run: sections ``data``, ``model``, ``train`` and ``trackers``, every key checked.

An unknown key is refused with the nearest known one; a bad value is refused with key, rule and value.
"""

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, Tag, ValidationError, model_validator
from pydantic.fields import FieldInfo
from yaml.constructor import ConstructorError

from isthmus.errors import ConfigError
from isthmus.family import Family, members
from isthmus.models import ModelConfig
from isthmus.models.model_config import OF_NETWORKS
from isthmus.schema import DataConfig, Section
from isthmus.schema.address import Address
from isthmus.tracking import TensorboardConfig, TrackerConfig
from isthmus.train import TrainConfig

AnySection = TypeVar("AnySection", bound=BaseModel)
OF_FAMILIES: dict[str, type[Section]] = {"model": ModelConfig, "train": TrainConfig}
SHOWN = 80  # characters of a refused value that a message repeats
OF_GRADIENTS = (
    "weighting",
    "domain_sampling",
    "objectives",
    "method",
)  # what trees cannot take part in


class Config(Section):
    """Everything that decides a run: the table and its columns, the model, the training.

    ``trackers``: where a fit is shown as well, see `isthmus.tracking`; they decide nothing.
    """

    model_config = ConfigDict(defer_build=True)  # members of other packages are found at first use

    data: DataConfig
    model: ModelConfig = Field(default_factory=ModelConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    trackers: tuple[TrackerConfig, ...] = (TensorboardConfig(),)

    @model_validator(mode="after")
    def _check_trees(self) -> "Config":
        """Give a model of trees its forest, and refuse what changes a network's training alone."""
        if self.model.is_trees:
            plain = TrainConfig()
            for key in OF_GRADIENTS:
                if getattr(self.train, key) != getattr(plain, key):
                    raise ValueError(
                        f"train.{key} must be left out where model.name is 'trees', which learns by"
                        f" no gradient, got {_show(self.train.model_dump(mode='json')[key])}"
                    )
            object.__setattr__(self, "data", self.data.for_trees())
        return self

    def to_yaml(self) -> str:
        """YAML with every default filled in; `load_config` reads it back to an equal config."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def __str__(self) -> str:
        return self.to_yaml()


def load_config(
    source: str | Path | Mapping[str, Any] | Config,
    overrides: Sequence[str] = (),
    *,
    over: Mapping[str, Any] | None = None,
) -> Config:
    """Read a config from a YAML file, a nested dict or a `Config`, and check all of it.

    ``overrides``: texts like ``train.epochs=3``, values read as YAML, applied in order. ``over``:
    values by dotted key, such as those of a recipe, put in before the overrides.
    A relative ``data.table`` is taken from the folder of the file (of a dict: as it stands).
    Raises `ConfigError`: not a YAML mapping, an unknown key, a value that a rule forbids.
    """
    folder = None
    if isinstance(source, Config):
        raw = source.model_dump(mode="json")
    elif isinstance(source, Mapping):
        raw = dict(source)
    else:
        raw = read_yaml(Path(source))
        folder = Path(source).absolute().parent
    # A section whose keys are all commented out is an empty one.
    raw = {key: {} if value is None else value for key, value in raw.items()}
    for key, value in (over or {}).items():
        _put(raw, key.split("."), value)
    raw = apply_overrides(raw, overrides)
    config = validate(Config, raw)
    table = config.data.table
    if folder is None or table is None or Address.of(table) is not None:
        return config
    data = config.data.model_copy(update={"table": str(folder / table)})
    return config.model_copy(update={"data": data})


class _Loader(yaml.SafeLoader):
    """Plain YAML, except that a key given twice is an error: YAML itself keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build one mapping; raises on a key that stands there already."""
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen:
                raise ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML mapping from a file; raises `ConfigError` naming file and line."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"config file must exist, got {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} cannot be read: {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(
            f"config file {path} must hold sections data, model, train, got {_show(raw)}"
        )
    return raw


def apply_overrides(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of ``raw`` with ``a.b=value`` texts put in; values are read as YAML.

    The short forms (a bare kind, a bare label column) are opened where a key goes inside them.
    Raises `ConfigError` where the text has no ``=`` or the path runs through a plain value.
    """
    result = dict(raw)
    for text in overrides:
        path, equals, value_text = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set must look like train.epochs=3, got {text!r}")
        try:
            value = yaml.load(value_text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {path}: value is not valid YAML: {value_text!r}") from error
        _put(result, keys, value)
    return result


def _put(target: dict[str, Any], keys: list[str], value: Any) -> None:
    for depth, key in enumerate(keys[:-1]):
        inner = target.get(key)
        if depth == 2 and keys[:2] == ["data", "features"]:
            if inner is None:
                raise ConfigError(unknown_key("data.features.", key, list(target)))
            inner = {"kind": inner} if isinstance(inner, str) else inner
        elif keys[:2] == ["data", "label"] and depth == 1 and isinstance(inner, str):
            inner = {"column": inner}
        elif keys[:2] == ["data", "trees"] and depth == 1 and isinstance(inner, bool):
            inner = {}
        if inner is not None and not isinstance(inner, Mapping):
            name = ".".join(keys[: depth + 1])
            raise ConfigError(
                f"--set {'.'.join(keys)}: {name} is a value without keys: {_show(inner)}"
            )
        if inner is None and keys[: depth + 1] == ["model", "backbone"]:
            inner = {"name": ModelConfig().backbone.name}
        target[key] = dict(inner or {})
        target = target[key]
    if keys == ["model", "name"] and value == "trees":
        for key in OF_NETWORKS:
            target.pop(key, None)
    elif keys[0] in OF_FAMILIES and keys[2:] == ["name"]:
        _drop_keys_of_others(target, OF_FAMILIES[keys[0]].model_fields.get(keys[1]), value)
    target[keys[-1]] = value


def _drop_keys_of_others(section: dict[str, Any], field: FieldInfo | None, name: Any) -> None:
    """Leave in a family's section what the member of that name knows: the name was changed."""
    family = None if field is None else _type_of(field)
    known = {} if family is None or not _is_family(family) else members(family)
    if name in known and section.get("name") in known:
        for other in [one for one in section if one in known[section["name"]].model_fields]:
            if other not in known[name].model_fields:
                del section[other]


def validate(kind: type[AnySection], raw: Any) -> AnySection:
    """Build one section from plain values; pydantic's complaints become one `ConfigError`."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(kind, details) for details in error.errors()]
        raise ConfigError("\n".join(_join_alternatives(lines))) from None


def _join_alternatives(lines: Sequence[str]) -> list[str]:
    """Complaints of the members of one union, which differ in their rule alone, as one line."""
    joined: dict[tuple[str, str], str] = {}
    for line in lines:
        key, must, rest = line.partition(" must ")
        rule, got, value = rest.rpartition(", got ")
        slot = (key, value) if must and got else (line, "")
        if slot in joined and must and got:
            joined[slot] = joined[slot].removesuffix(got + value) + f" or{must}{rule}{got}{value}"
        else:
            joined.setdefault(slot, line)
    return list(joined.values())


def _explain(root: type[BaseModel], details: Any) -> str:
    """One pydantic complaint as: full key, rule, value."""
    key, owner = _locate(root, details["loc"])
    reason, context = details["type"], details.get("ctx", {})
    if reason == "extra_forbidden" and owner is not None:
        parent, _, last = key.rpartition(".")
        parent = f"{parent}." if parent else ""
        return unknown_key(parent, last, list(owner.model_fields), everywhere=list(_all_keys(root)))
    if reason == "missing":
        return f"key {key!r} is required and missing"
    if reason == "value_error":
        text = str(context["error"])
        return text if key.rpartition(".")[2] in text else f"{key}: {text}"
    if reason == "union_tag_invalid":
        tag = str(context["tag"])
        near = difflib.get_close_matches(
            tag, context["expected_tags"].replace("'", "").split(", "), 1
        )
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return (
            f"{key}.{_word(context)} must be one of {context['expected_tags']}, got {tag!r}{hint}"
        )
    if reason == "union_tag_not_found":
        return f"{key} must be a mapping with {_word(context)!r}, got {_show(details['input'])}"
    if reason == "model_type":
        return f"{key} must be a mapping of keys, got {_show(details['input'])}"
    rule = details["msg"].replace("Input should be", "must be").replace("Input should", "must")
    if not rule.startswith("must"):
        rule = f"is refused: {rule[0].lower()}{rule[1:]}"
    return f"{key} {rule}, got {_show(details['input'])}"


def _word(context: Mapping[str, Any]) -> str:
    """The key that chooses the member of a union: ``name``, or ``kind``."""
    named = str(context["discriminator"]).strip("'")
    return "kind" if named.endswith("()") else named


def unknown_key(parent: str, last: str, siblings: list[str], everywhere: Sequence[str] = ()) -> str:
    """The refusal of a key: its full name, and the nearest known one.

    The nearest is looked for beside it first, then under the same name in another section.
    """
    text = f"unknown key {parent + last!r}"
    near = difflib.get_close_matches(last, siblings, 1)
    if near:
        return f"{text}; did you mean {parent + near[0]!r}?"
    leaves = {key.rpartition(".")[2]: key for key in reversed(everywhere)}
    near = difflib.get_close_matches(last, list(leaves), 1, cutoff=0.8)
    if near:
        return f"{text}; did you mean {leaves[near[0]]!r}?"
    where = f"under {parent[:-1]!r}" if parent else "at the top"
    return f"{text}; known {where}: {', '.join(siblings)}"


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _type_of(field: FieldInfo) -> Any:
    """The type of a field, with the mark of a family, which pydantic keeps apart."""
    marks = tuple(mark for mark in field.metadata if isinstance(mark, Family))
    return Annotated[field.annotation, *marks] if marks else field.annotation


def _is_family(kind: Any) -> bool:
    return any(isinstance(mark, Family) for mark in get_args(kind)[1:])


def _members(kind: Any) -> list[Any]:
    """What a union may be, without None; anything else alone. Tags stay on the members."""
    if get_origin(kind) is Annotated and _is_family(kind):
        return list(members(kind).values())
    while get_origin(kind) is Annotated and not _tag(kind):
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        return [member for member in get_args(kind) if member is not type(None)]
    return [kind]


def _tag(kind: Any) -> str | None:
    metadata = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return next((str(part.tag) for part in metadata if isinstance(part, Tag)), None)


def _tags(kind: Any) -> set[Any]:
    """Words by which pydantic may call a member of a union: its tag, or the name it stands for."""
    fields = getattr(_plain(kind), "model_fields", {})
    return {_tag(kind), *(fields[name].default for name in ("kind", "name") if name in fields)}


def _plain(kind: Any) -> Any:
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind


def _locate(root: type[BaseModel], location: Sequence[int | str]) -> tuple[str, Any]:
    """The dotted key that a user would write for pydantic's location, and the section it is in."""
    key, kind, owner = "", root, None
    for part in location:
        found = _members(kind)
        # Pydantic names the member of a union here: that is no key of the user's.
        if len(found) > 1 or (get_origin(kind) is Annotated and _is_family(kind)):
            kind = next((member for member in found if part in _tags(member)), None)
            continue
        kind = _plain(found[0])
        if isinstance(part, int):
            key += f"[{part}]"
            kind = next(iter(get_args(kind)), None)
            continue
        key += f".{part}" if key else part
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            owner = kind
            field = kind.model_fields.get(part)
            kind = _type_of(field) if field else None
        else:
            owner = None
            kind = get_args(kind)[1] if get_origin(kind) is dict else None
    return key, owner


def _all_keys(kind: Any, prefix: str = "") -> Iterator[str]:
    """Every fixed key below a section, dotted."""
    for name, field in kind.model_fields.items():
        yield prefix + name
        for member in map(_plain, _members(_type_of(field))):
            if isinstance(member, type) and issubclass(member, BaseModel):
                yield from _all_keys(member, f"{prefix}{name}.")


def differences(old: Config, new: Config) -> list[str]:
    """Where two configs differ: ``train.lr was 0.001, is 0.01`` for each key."""
    return list(_differences(old.model_dump(mode="json"), new.model_dump(mode="json"), ""))


def _differences(old: Any, new: Any, key: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        if old.keys() == new.keys() and list(old) != list(new):
            yield f"{key} was in the order {_show(list(old))}, is {_show(list(new))}"
        for name in dict.fromkeys([*old, *new]):
            inner = f"{key}.{name}" if key else name
            yield from _differences(old.get(name), new.get(name), inner)
    elif old != new:
        yield f"{key} was {_show(old)}, is {_show(new)}"
