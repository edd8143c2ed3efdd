"""Recipes: the settings of published systems, put over a config.

A recipe is one file, ``recipes/NAME.yaml``: a head that tells what it is, then values for keys of the
sections ``model`` and ``train``. For example::

    recipe:
      for: few domains that contradict each other
      costs: a second training, of the maps alone
      paper: arXiv:2408.08913
      needs: {domains: 2}
    model:
      adapter: {name: mlora}

A value of the recipe takes the place of the config's; all keys that the recipe does not name stay. A
change by ``--set`` takes the place of the recipe's value.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from isthmus.config import Config, differences, load_config, read_yaml, validate
from isthmus.errors import ConfigError
from isthmus.schema import Section

FOLDER = Path(__file__).with_name("recipes")
SECTIONS = ("model", "train")


class NeedsConfig(Section):
    """What a table must have. ``domains``: as many domains with train rows. ``tag``: the domain is a feature."""

    domains: int = Field(default=1, ge=1)
    tag: bool = False


class RecipeHead(Section):
    """What a recipe says of itself. ``purpose`` (``for`` in the file), ``costs``: in a few words."""

    purpose: str = Field(alias="for", min_length=1)
    costs: str = Field(min_length=1)
    paper: str = Field(min_length=1)
    needs: NeedsConfig = Field(default_factory=NeedsConfig)


@dataclass(frozen=True, slots=True)
class SystemRecipe:
    """The settings of one published system.

    ``settings``: values by dotted key, in the order of the file. ``text``: the file, with its comments.
    """

    name: str
    head: RecipeHead
    settings: Mapping[str, Any]
    text: str

    def told_on(self, backbone: str) -> str:
        """What the system is on a backbone, such as ``mlora on mlp, trained by phases``.

        ``backbone``: for a recipe that names none.
        """
        backbone = self.settings.get("model.backbone.name", backbone)
        adapter = self.settings.get("model.adapter.name")
        method = self.settings.get("train.method.name")
        network = backbone if adapter is None else f"{adapter} on {backbone}"
        return network if method is None else f"{network}, trained by {method}"

    def over(
        self, source: str | Path | Mapping[str, Any] | Config, overrides: Sequence[str] = ()
    ) -> Config:
        """The config with the recipe over it, and ``overrides`` over the recipe.

        Raises ConfigError as `load_config` does, for a config of trees, and for one whose features lack
        the domain where the recipe needs it.
        """
        if (plain := load_config(source)).model.is_trees:
            raise ConfigError(
                f"recipe {self.name} is of a network, so model.name must be 'network', got"
                f" {plain.model.name!r}"
            )
        if self.head.needs.tag and plain.data.domain not in plain.data.features:
            raise ConfigError(
                f"recipe {self.name} reads the domain as a feature, so data.features must have"
                f" {plain.data.domain!r}, got {', '.join(plain.data.features)}"
            )
        return load_config(source, overrides, over=self.settings)

    def check(self, domains: int, table: str) -> None:
        """Raise ConfigError where a table has less than the recipe needs.

        ``domains``: of the table, those with train rows.
        """
        if domains < self.head.needs.domains:
            raise ConfigError(
                f"recipe {self.name} needs {self.head.needs.domains} domains or more, table {table}"
                f" has {domains}"
            )

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class SettledConfig:
    """A config with a recipe over it, or without one. ``replaced``: in words, key and former value."""

    config: Config
    recipe: SystemRecipe | None
    replaced: tuple[str, ...]

    @classmethod
    def of(
        cls,
        source: str | Path | Mapping[str, Any] | Config,
        overrides: Sequence[str] = (),
        recipe: str | None = None,
    ) -> "SettledConfig":
        """Read a config, put the recipe of that name over it, and the overrides over both.

        Raises ConfigError, which names the nearest known one, for an unknown recipe.
        """
        if recipe is None:
            return cls(load_config(source, overrides), None, ())
        found = recipe_of(recipe)
        before, after = load_config(source), found.over(source)
        return cls(found.over(source, overrides), found, tuple(_replaced(before, after, found)))

    def check(self, domains: int, table: str) -> None:
        """Raise ConfigError where a table has less than the recipe needs, where there is a recipe."""
        if self.recipe is not None:
            self.recipe.check(domains, table)

    @property
    def held(self) -> tuple[str, ...]:
        """Keys that the recipe says, which make the system what it is."""
        return () if self.recipe is None else tuple(self.recipe.settings)

    @property
    def told(self) -> str:
        """Which recipe was put over the config, and what it replaced; empty without one."""
        if self.recipe is None:
            return ""
        replaced = ", ".join(self.replaced) or "nothing"
        return f"{self.recipe.name} ({self.recipe.head.paper}); it replaced {replaced}"


def recipes() -> tuple[SystemRecipe, ...]:
    """Every recipe of the package, by name."""
    return tuple(map(recipe_of, _names()))


def recipe_of(name: str) -> SystemRecipe:
    """The recipe of that name. Raises ConfigError, which names the nearest one, for an unknown name."""
    known = _names()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"recipe must be one of {', '.join(known)}, got {name!r}{hint}")
    file = FOLDER / f"{name}.yaml"
    raw = read_yaml(file)
    head = validate(RecipeHead, raw.pop("recipe", {}))
    if others := [key for key in raw if key not in SECTIONS]:
        raise ConfigError(f"{file} must have sections recipe, model and train, got {others[0]!r}")
    return SystemRecipe(name, head, dict(_leaves(raw, "")), file.read_text(encoding="utf-8"))


def _names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values. A list is one value."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _replaced(before: Config, after: Config, recipe: SystemRecipe) -> Iterator[str]:
    """Keys that the recipe names and whose value it changed, with the value of before."""
    for text in differences(before, after):
        key, _, values = text.partition(" was ")
        if key in recipe.settings:
            was = values.partition(", is ")[0]
            yield f"{key} (was {'not there' if was == 'None' else was})"
