"""The contenders of a benchmark: what a name stands for, and which are there where none are named.

mlp                the control: a shared MLP that reads the domain as a field
mlp_no_domain      the same without the domain
mlp_wide           the same, widened to the total parameters of the largest network
solo               one MLP for each domain, trained on the domain's own rows
trees              a boosted forest
ple, star, ...     a backbone, without an adapter
hamur, film, ...   an adapter on the control; the same as mlp+hamur
ple+hamur          an adapter on a backbone
recipe:mlora, ...  a published system, on the control where the recipe names no backbone
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from isthmus.adapters import AdapterConfig
from isthmus.backbones import BackboneConfig
from isthmus.errors import ConfigError
from isthmus.family import members
from isthmus.recipe import SystemRecipe, recipe_of

Kind = Literal["network", "blind", "wide", "solo", "trees"]
CONTROL = "mlp"
TREES = "trees"
SPECIAL: dict[str, tuple[Kind, str]] = {
    "mlp_no_domain": ("blind", "the control without the domain"),
    CONTROL: ("network", "the control: MLP, the domain a field"),
    "mlp_wide": ("wide", "the control, as large as the largest"),
    "solo": ("solo", "an MLP for each domain, on its own rows"),
    TREES: ("trees", "boosted trees (LightGBM)"),
}
RECIPE = "recipe:"  # before a recipe's name: adapters have some of the names too
ADAPTED = ("hamur",)  # adapters on the control, where no models are named


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table. ``name``: as the table shows it. ``told``: what it is, in words.

    ``backbone``, ``adapter``: members of their families; ``mlp`` and ``none`` for special ones.
    ``recipe``: whose settings are put over the control's; None for all that are no recipe.
    """

    name: str
    kind: Kind
    told: str
    backbone: str = CONTROL
    adapter: str = "none"
    recipe: SystemRecipe | None = None


def contenders(names: Sequence[str] | None) -> tuple[Contender, ...]:
    """Give the contenders of these names; None: every backbone, HAMUR on the control, the controls.

    The control and the trees are always there. A name that stands twice counts once. Raises
    ConfigError, which names the nearest known one, for an unknown name.
    """
    if names is None:
        names = [*SPECIAL, *(name for name in _backbones() if name not in SPECIAL), *ADAPTED]
    found = [contender(name) for name in (CONTROL, TREES, *names)]
    place = {name: number for number, name in enumerate(SPECIAL)}
    once = {one.name: one for one in found}
    return tuple(sorted(once.values(), key=lambda one: place.get(one.name, len(place))))


def contender(name: str) -> Contender:
    """Give the contender of one name. Raises ConfigError for an unknown name."""
    name = name.strip()
    if name in SPECIAL:
        kind, told = SPECIAL[name]
        return Contender(name, kind, told)
    if name.startswith(RECIPE):
        recipe = recipe_of(name.removeprefix(RECIPE).strip())
        return _of_recipe(recipe)
    backbones, adapters = _backbones(), _adapters()
    if name in adapters:
        name = f"{CONTROL}+{name}"
    backbone, plus, adapter = name.partition("+")
    if backbone not in backbones:
        known = [*SPECIAL, *backbones, *adapters] if not plus else backbones
        raise ConfigError(_unknown("model", backbone, known, name))
    if not plus:
        return Contender(name, "network", f"backbone {backbone}", backbone)
    if adapter not in adapters:
        raise ConfigError(_unknown("adapter", adapter, adapters, name))
    return Contender(name, "network", f"{adapter} on {backbone}", backbone, adapter)


def _of_recipe(recipe: SystemRecipe) -> Contender:
    backbone = recipe.settings.get("model.backbone.name", CONTROL)
    adapter = recipe.settings.get("model.adapter.name", "none")
    told = f"{recipe.told_on(backbone)} ({recipe.head.paper})"
    return Contender(f"{RECIPE}{recipe.name}", "network", told, backbone, adapter, recipe)


def _backbones() -> list[str]:
    return list(members(BackboneConfig))


def _adapters() -> list[str]:
    return [name for name in members(AdapterConfig) if name != "none"]


def _unknown(what: str, name: str, known: Iterable[str], whole: str) -> str:
    known = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    of = "" if whole == name else f" in {whole!r}"
    return f"unknown {what} {name!r}{of}; {hint}"
