"""Number 11: a training step of each recipe over that of its plain backbone, by the real loop.

A step is the mean over the phases of a training. The plain backbone is the recipe's own, without adapter
and objectives, trained jointly. At 100 domains, a step of the recipe over its own step at 4. The steps
are those of one planted table of each size, of batches of 4,096 rows.
"""

import statistics
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.adapters import milliseconds
from bench.measure import Row, alternate, at_most, informative
from isthmus.config import Config, load_config
from isthmus.data.store.dataset import Dataset
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train
from isthmus.recipe import SystemRecipe, recipes
from isthmus.sources.planted import planted
from isthmus.train import Budget, End, train

STEPS = 12
RUNS = 5
DOMAINS = (4, 100)
ROWS = 60_000  # of all domains
UNLABELLED = 0.3  # of the train rows, for a recipe that reads them
MOST_GROWTH = 2.0  # from 4 domains to 100
BOUNDS = {"mran": 2.5, "tal": 2.2}
OBJECTIVES = {"mdknet": 1.3}  # over the same recipe without its objectives
MODEL = {"backbone": {"name": "mlp", "widths": [256, 128]}}


def steps(folder: Path) -> list[Row]:
    """Every recipe of the package."""
    rows = []
    few, many = (str(n) for n in DOMAINS)
    for recipe in recipes():
        (config, dataset), larger = (settled(recipe, n, folder) for n in DOMAINS)
        asked = {few: (config, dataset), many: larger, "plain": (plain_of(config), dataset)}
        if config.train.objectives:
            asked["bare"] = (load_config(config, ["train.objectives=[]"]), dataset)
        seconds = measured(asked)
        told = {who: milliseconds(taken) for who, taken in seconds.items()}
        what, taken = f"11 {recipe.name}, training step", seconds[few]
        rows.append(
            bounded(
                f"{what} over its plain backbone's",
                taken / seconds["plain"],
                BOUNDS.get(recipe.name),
                recipe=told[few],
                plain=told["plain"],
            )
        )
        if "bare" in seconds:
            rows.append(
                bounded(
                    f"{what} over the same without its objectives",
                    taken / seconds["bare"],
                    OBJECTIVES.get(recipe.name),
                    recipe=told[few],
                    without=told["bare"],
                )
            )
        grown = {f"{n} domains": told[n] for n in (few, many)}
        name = f"{what}: {many} domains over {few}"
        rows.append(at_most(name, seconds[many] / taken, MOST_GROWTH, **grown))
    return rows


def bounded(name: str, ratio: float, bound: float | None, **told: str) -> Row:
    """A row with a bound, where there is one."""
    return (
        informative(name, ratio, **told) if bound is None else at_most(name, ratio, bound, **told)
    )


def measured(asked: dict[str, tuple[Config, Dataset]]) -> dict[str, float]:
    """Median seconds of a step of each, taking turns."""
    spent: dict[str, list[float]] = {who: [] for who in asked}
    work: dict[str, Callable[[], object]] = {
        who: partial(run, *what, spent[who]) for who, what in asked.items()
    }
    alternate(work, RUNS)
    return {who: statistics.median(taken[1:]) for who, taken in spent.items()}


def plain_of(config: Config) -> Config:
    """The backbone of a recipe alone."""
    changes = ("model.adapter={name: none}", "train.objectives=[]", "train.method={name: joint}")
    return load_config(config, changes)


def settled(recipe: SystemRecipe, n_domains: int, folder: Path) -> tuple[Config, Dataset]:
    """The recipe over the control, and the encoded table."""
    made = planted(
        rows=ROWS // n_domains, relation=np.ones((n_domains, n_domains)), items=2_000, users=2_000, seed=1
    )  # fmt: skip
    data, table = made.config("table"), made.table
    if recipe.head.needs.unlabelled:
        table, data = without_some_labels(table, data)
    path = (
        folder
        / f"recipes-{n_domains}-{'unlabelled' if table is not made.table else 'whole'}.parquet"
    )
    if not path.exists():
        pq.write_table(table, path)
    data = {**data, "table": str(path)}
    base = {"data": data, "model": MODEL, "train": {"batch_rows": 4096, "epochs": 50}}
    config = recipe.over(base)
    return config, Dataset.from_table(config.data, path)


def without_some_labels(table: pa.Table, data: dict[str, Any]) -> tuple[pa.Table, dict[str, Any]]:
    """The table with null labels, and a data section that takes them for unlabelled rows."""
    label = table[data["label"]].to_numpy().astype(np.float64)
    hidden = np.random.default_rng(0).random(len(label)) < UNLABELLED
    nulls = pa.array(label, mask=hidden)
    at = table.column_names.index(data["label"])
    return table.set_column(at, data["label"], nulls), {**data, "null_label": "unlabelled"}


def run(config: Config, dataset: Dataset, spent: list[float]) -> None:
    """Take `STEPS` steps of each phase, and add the seconds of a step to ``spent``."""
    training = Training(model=config.model, train=config.train)
    part = training.subset(dataset)
    model = build_to_train(training, dataset, part.rows("train"))
    with closing(train(model, part, config.train, budget=Budget(steps=STEPS, looks=1))) as events:
        (end,) = (event for event in events if isinstance(event, End))
    spent.append(end.seconds / end.step)
