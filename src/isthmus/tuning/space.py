"""The search space: what a study changes in a config, and between which bounds.

    train.lr                  1e-4 to 1e-2, on a log scale
    train.batch_rows          powers of two that make 8 to 4,000 steps an epoch
    train.embedding_l2        1e-7 to 1e-3, on a log scale; the lower end stands for 0
    model.backbone.name       mlp, dcn, deepfm
    model.backbone.widths     a quarter, half, once and twice the config's widths
    model.backbone.dropout    0 to 0.5
    model.backbone.norm       none, batch
    model.adapter.name        none, film, hamur
    model.towers              shared, per_domain

The space is widened where the config lies outside, so the config as it stands is a point of the
space. All other keys stay as the config has them. Nothing of ``data`` is in the space, so all
trials read one encoded dataset. Widths keep their number, because sites count the layers.

Trees have a space of their own, `isthmus.tuning.forest_space`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from isthmus.adapters import AdapterConfig
from isthmus.backbones import AbstractDeepConfig, BackboneConfig, MlpConfig
from isthmus.config import Config, validate
from isthmus.data import Dataset
from isthmus.errors import ConfigError
from isthmus.experiments import Training
from isthmus.experiments.outcome import build
from isthmus.family import members
from isthmus.tuning.forest_space import forest_parameters, forest_point, with_forest, with_leaves
from isthmus.tuning.portfolio import PortfolioRecipe, Value
from isthmus.tuning.ranges import Bounds, Options, around

LR = (1e-4, 1e-2)
NO_L2 = 1e-7  # stands for no penalty: a log scale has no 0
L2 = (NO_L2, 1e-3)
DROPOUT = (0.0, 0.5)
BATCH_ROWS = tuple(2**power for power in range(5, 18))
STEPS = (8, 4000)  # of an epoch
WIDTHS = (0.25, 0.5, 1.0, 2.0)  # times the config's own
BACKBONES = ("mlp", "dcn", "deepfm")
NORMS = ("none", "batch")
ADAPTERS = ("none", "film", "hamur")
TOWERS = ("shared", "per_domain")


@dataclass(frozen=True, slots=True)
class Space:
    """The parameters of a study for one config and one dataset.

    ``parameters``: bounds or options by key. ``left_out``: options that the dataset refuses, with
    the reason.
    """

    config: Config
    parameters: Mapping[str, Bounds | Options]
    left_out: Mapping[str, str]

    @classmethod
    def of(cls, config: Config, dataset: Dataset, held: Collection[str] = ()) -> "Space":
        """Make the space that holds the config. Each network is built once, to see that it fits.

        ``held``: keys that stay as the config has them, in the space or beside it. Of trees, nothing is held or built.
        """
        if config.model.is_trees:
            settled = with_leaves(config, dataset)
            return cls(settled, forest_parameters(settled), {})
        stands = point(config)
        refused: dict[str, str] = {}

        def fitting(key: str, names: Iterable[str]) -> Options:
            if key in held:
                return Options((stands[key],))
            kept = []
            for name in dict.fromkeys([str(stands[key]), *names]):
                try:
                    changed = changed_config(config, {**stands, key: name})
                    training = Training(model=changed.model, train=changed.train)
                    changed.train.method.check(build(training, dataset), changed.train)
                except ConfigError as fault:
                    if name == stands[key]:
                        raise
                    refused[f"{key} {name}"] = str(fault)
                else:
                    kept.append(name)
            return Options(tuple(kept))

        norms, own = fitting("model.backbone.norm", NORMS), stands["model.backbone.norm"]
        own = () if own in NORMS else (own,)
        rows = len(dataset.rows("train"))
        batches = {size for size in BATCH_ROWS if STEPS[0] <= rows / size <= STEPS[1]}
        widths = _deep(config).widths
        sizes = (tuple(max(2, round(width * factor)) for width in widths) for factor in WIDTHS)
        parameters = {
            "train.lr": around(stands["train.lr"], *LR, log=True),
            "train.batch_rows": Options(tuple(sorted({*batches, config.train.batch_rows}))),
            "train.embedding_l2": around(stands["train.embedding_l2"], *L2, log=True),
            "model.backbone.name": fitting("model.backbone.name", BACKBONES),
            "model.backbone.widths": Options(tuple(dict.fromkeys(map(_widths_text, sizes)))),
            "model.backbone.dropout": around(stands["model.backbone.dropout"], *DROPOUT),
            "model.backbone.norm": Options(
                tuple(norm for norm in (*NORMS, *own) if norm in norms.values)
            ),
            "model.adapter.name": fitting("model.adapter.name", ADAPTERS),
            "model.towers": fitting("model.towers", TOWERS),
        }
        alone = {key: Options((value,)) for key, value in stands.items() if key in held}
        return cls(config, parameters | alone, refused)

    def params(self, recipe: PortfolioRecipe) -> dict[str, Value]:
        """Give the point of a recipe: the config's own, with the recipe's changes."""
        return {**point(self.config), **recipe.changes}

    def refusal(self, recipe: PortfolioRecipe) -> str | None:
        """Say why a recipe is no point of the space, or None where the recipe is one."""
        for key, value in recipe.changes.items():
            if not self.parameters[key].holds(value):
                known = self.left_out.get(f"{key} {value}")
                return known or f"{key} must be among {self.parameters[key]}, got {value}"
        return None

    def configured(self, params: Mapping[str, Value]) -> Config:
        """Give the config of a point."""
        return changed_config(self.config, params)

    def changes(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """Give the values in which a point differs from the config as it stands."""
        stands = point(self.config)
        return {key: value for key, value in params.items() if value != stands[key]}

    def to_dict(self) -> dict[str, str]:
        """Give the bounds and options as text, by key."""
        return {key: str(of) for key, of in self.parameters.items()}


def point(config: Config) -> dict[str, Value]:
    """Give the config as a point: a value for each key of the space.

    A backbone may have no widths, dropout or norm. The defaults then stand in their place, for the
    backbones that have them.
    """
    if config.model.is_trees:
        return forest_point(config)
    deep, backbone = _deep(config), config.model.backbone
    return {
        "train.lr": config.train.lr,
        "train.batch_rows": config.train.batch_rows,
        "train.embedding_l2": config.train.embedding_l2 or NO_L2,
        "model.backbone.name": config.model.backbone.name,
        "model.backbone.widths": _widths_text(deep.widths),
        "model.backbone.dropout": getattr(backbone, "dropout", deep.dropout),
        "model.backbone.norm": getattr(backbone, "norm", deep.norm),
        "model.adapter.name": config.model.adapter.name,
        "model.towers": config.model.towers,
    }


def changed_config(config: Config, params: Mapping[str, Value]) -> Config:
    """Give the config with the values of a point. Raises ConfigError where they do not fit.

    A backbone or an adapter that the config names keeps the config's settings. Any other begins
    with its defaults.
    """
    if config.model.is_trees:
        return with_forest(config, params)
    raw = config.model_dump(mode="json")
    model, train = raw["model"], raw["train"]
    l2 = params["train.embedding_l2"]
    train["lr"], train["batch_rows"] = params["train.lr"], params["train.batch_rows"]
    train["embedding_l2"] = 0.0 if l2 == NO_L2 else l2
    model["towers"] = params["model.towers"]
    for part, family in (("backbone", BackboneConfig), ("adapter", AdapterConfig)):
        name = params[f"model.{part}.name"]
        if model[part]["name"] != name:
            model[part] = {"name": name}
        known = members(family)[str(name)].model_fields
        for key, read in _OF_BACKBONE.items() if part == "backbone" else ():
            if key in known:
                model[part][key] = read(params[f"model.backbone.{key}"])
    return validate(Config, raw)


def _deep(config: Config) -> AbstractDeepConfig:
    backbone = config.model.backbone
    return backbone if isinstance(backbone, AbstractDeepConfig) else MlpConfig()


def _widths_text(widths: Iterable[int]) -> str:
    return " ".join(map(str, widths))


def _widths(text: Value) -> list[int]:
    return [int(width) for width in str(text).split()]


_OF_BACKBONE: Mapping[str, Callable[[Value], Any]] = {
    "widths": _widths,
    "dropout": lambda value: value,
    "norm": lambda value: value,
}
