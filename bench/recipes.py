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
BOUNDS = {"mran": 2.5, "mdknet": 1.3, "tal": 2.2}
MODEL = {"backbone": {"name": "mlp", "widths": [256, 128]}}


def steps(folder: Path) -> list[Row]:
    """Every recipe of the package."""
    rows = []
    for recipe in recipes():
        work: dict[str, Callable[[], object]] = {}
        spent: dict[str, list[float]] = {"plain": [], **{str(n): [] for n in DOMAINS}}
        for n_domains in DOMAINS:
            config, plain, dataset = settled(recipe, n_domains, folder)
            work[str(n_domains)] = partial(run, config, dataset, spent[str(n_domains)])
            if n_domains == DOMAINS[0]:
                work["plain"] = partial(run, plain, dataset, spent["plain"])
        alternate(work, RUNS)
        seconds = {who: statistics.median(taken[1:]) for who, taken in spent.items()}
        few, many = (seconds[str(n)] for n in DOMAINS)
        told = {"recipe": milliseconds(few), "plain": milliseconds(seconds["plain"])}
        what = f"11 {recipe.name}, training step over its plain backbone's"
        bound = BOUNDS.get(recipe.name)
        ratio = few / seconds["plain"]
        rows.append(
            informative(what, ratio, **told)
            if bound is None
            else at_most(what, ratio, bound, **told)
        )
        grown = {f"{n} domains": milliseconds(seconds[str(n)]) for n in DOMAINS}
        what = f"11 {recipe.name}, training step: {DOMAINS[1]} domains over {DOMAINS[0]}"
        rows.append(at_most(what, many / few, MOST_GROWTH, **grown))
    return rows


def settled(recipe: SystemRecipe, n_domains: int, folder: Path) -> tuple[Config, Config, Dataset]:
    """The recipe over the control, the plain backbone of the recipe, and the encoded table."""
    made = planted(
        rows=ROWS // n_domains, relation=np.ones((n_domains, n_domains)), items=2_000, users=2_000, seed=1
    )  # fmt: skip
    data, table = made.config("table"), made.table
    if getattr(recipe.head.needs, "unlabelled", False):
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
    plain = load_config(
        config, ["model.adapter={name: none}", "train.objectives=[]", "train.method={name: joint}"]
    )
    return config, plain, Dataset.from_table(config.data, path)


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
