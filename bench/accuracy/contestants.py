"""Who is compared on docs/accuracy.md, and the config of each network."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import polars as pl
import yaml

from bench.accuracy.tables import LARGE, TUNED_UP_TO, Subject
from isthmus.config import Config, load_config
from isthmus.inspect.inspection import Column, Inspection
from isthmus.inspect.template import MANY
from isthmus.schema import Label

INIT = "what init writes"
OLD = "shared MLP of 0.1"
PLAIN_FOREST = "LightGBM, columns as they are"
TOLD_FOREST = "LightGBM, value statistics"
FORESTS = (PLAIN_FOREST, TOLD_FOREST)
TUNED_FOREST = "LightGBM, tuned"
TUNED = "tune, 20 trials"
TRIALS = 20
HAMUR = {"name": "hamur", "bottleneck": 32, "rank": 8}
# What isthmus 0.1 wrote, whatever `init` writes today.
BEFORE: dict[str, Any] = {
    "model": {
        "backbone": {"name": "mlp", "widths": [256, 128], "dropout": 0.2, "norm": "batch"},
    },
    "train": {
        "batch_rows": 4096,
        "epochs": 20,
        "looks_per_epoch": 4,
        "lr": 1e-3,
        "embedding_l2": 5e-5,
        "patience": 2,
        "monitor": "auc_pooled",
    },
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A network, and how its config departs from what ``init`` writes.

    ``norm``: of the backbone, where it is another one. ``before``: model and training of 0.1.
    """

    name: str
    statistics: bool = True
    trees: bool = True
    hamur: bool = False
    norm: str | None = None
    before: bool = False


# The candidates for what `init` writes. Where two are as good, the one that stands first is chosen.
RECIPES = (
    Recipe(INIT),
    Recipe("the same without trees", trees=False),
    Recipe("the same without statistics and trees", statistics=False, trees=False),
    Recipe("the same with batch norm", norm="batch"),
    Recipe("the same with HAMUR", hamur=True),
    Recipe("init of 0.1: HAMUR", statistics=False, trees=False, hamur=True, before=True),
    Recipe(OLD, statistics=False, trees=False, before=True),
)
NAMES = (*FORESTS, TUNED_FOREST, *(one.name for one in RECIPES), TUNED)


def seeds_of(subject: Subject, seeds: int) -> int:
    """Fewer seeds for a large table."""
    return 1 if subject.rows > LARGE else seeds


def is_tuned(subject: Subject) -> bool:
    """Whether anything is tuned on a table."""
    return subject.rows <= TUNED_UP_TO


def names_of(subject: Subject) -> tuple[str, ...]:
    """Every contestant of a table, in the order of the page."""
    tuned = (TUNED_FOREST, TUNED)
    return tuple(name for name in NAMES if is_tuned(subject) or name not in tuned)


def written_by_init(subject: Subject) -> dict[str, Any]:
    """What ``init`` writes for a table whose domain, label and kinds of column are given.

    The text is ``init``'s own. Label, group, time and split are those of the subject.
    """
    data = subject.data
    label = data["label"]
    found = Inspection(
        source=subject.name,
        rows=subject.rows,
        drawn=subject.rows,
        domain=data["domain"],
        label=Label(column=label) if isinstance(label, str) else Label(**label),
        columns=tuple(_columns(subject)),
        domains=(),
        warnings=(),
        path=data["table"],
    )
    content = yaml.safe_load(found.config_text())
    content["data"] |= {name: value for name, value in data.items() if name != "features"}
    return content


def _columns(subject: Subject) -> Iterator[Column]:
    """The columns as ``init`` judges them: where there are many values, statistics are inputs."""
    features = subject.data["features"]
    frame = pl.read_parquet(subject.data["table"], columns=list(features))
    for name, feature in features.items():
        settings: dict[str, Any] = {"kind": feature} if isinstance(feature, str) else dict(feature)
        kind = settings.pop("kind")
        if kind == "categorical" and frame[name].n_unique() > MANY:
            settings["statistics"] = True
        if name != subject.data["domain"]:
            yield Column(name, "", kind, "", settings)


def config_of(written: Mapping[str, Any], recipe: Recipe, seed: int) -> Config:
    """The config of one training. ``written``: what ``init`` writes for its table."""
    content = deepcopy(dict(written))
    if recipe.before:
        content |= deepcopy(BEFORE)
    if not recipe.statistics:
        features = content["data"]["features"].items()
        content["data"]["features"] = {
            name: _without_statistics(feature) for name, feature in features
        }
    content["data"]["trees"] = recipe.trees
    if recipe.norm is not None:
        content["model"]["backbone"]["norm"] = recipe.norm
    if recipe.hamur:
        content["model"]["adapter"] = dict(HAMUR)
    content["train"]["seed"] = seed
    return load_config(content)


def _without_statistics(feature: Any) -> Any:
    if isinstance(feature, str):
        return feature
    return {name: value for name, value in feature.items() if name != "statistics"}
