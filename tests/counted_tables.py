"""Planted tables of rare values, and the statistics of their rows: shared by tests of statistics."""

from typing import Any

import numpy as np
import pyarrow as pa

from isthmus.data import Dataset
from isthmus.schema import DataConfig

WITH = {
    "user": {"kind": "categorical", "statistics": True},
    "item": {"kind": "categorical", "min_count": 3},
    "city": {"kind": "categorical", "hash_buckets": 40, "statistics": True},
    "history": {"kind": "categorical_list", "shares": "item", "statistics": True},
    "prices": "numeric_list",
    "age": "numeric",
    "tab": "categorical",
}


def planted(
    seed: int, rows: int = 6000, values: int = 1500, spread: float = 0.0, groups: int = 400
) -> pa.Table:
    """Values that are rare and, with ``spread`` 0, say nothing of the label."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, values, rows)
    effect = spread * rng.normal(size=values)
    label = rng.random(rows) < 1 / (1 + np.exp(1 - effect[user]))
    return pa.table(
        {
            "user": user,
            "who": user % groups,
            "tab": rng.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1]),
            "click": label.astype(np.int8),
            "at": np.arange(rows),
        }
    )


def planted_config(**changes: Any) -> DataConfig:
    content = {
        "domain": "tab",
        "label": "click",
        "group": "who",
        "time": "at",
        "features": {"user": {"kind": "categorical", "statistics": True}, "tab": "categorical"},
        "split": {"fractions": [0.6, 0.2, 0.2]},
    }
    return DataConfig.model_validate(content | changes)


def four(dataset: Dataset, split: str) -> np.ndarray:
    return np.asarray(dataset.rows(split).arrays.numeric)  # type: ignore[arg-type]


def label(dataset: Dataset, split: str) -> np.ndarray:
    return np.asarray(dataset.rows(split).label)  # type: ignore[arg-type]


def crossed(
    seed: int, rows: int = 12_000, *, pair: float = 0.0, side: float = 0.0, values: int = 40
) -> pa.Table:
    """Users and authors in three domains. ``pair``, ``side``: how far each moves the label's log-odds."""
    rng = np.random.default_rng(seed)
    user, author = rng.integers(0, values, (2, rows))
    log_odds = pair * rng.normal(size=(values, values))[user, author] - 1
    log_odds += side * (rng.normal(size=values)[user] + rng.normal(size=values)[author])
    return pa.table(
        {
            "user": user,
            "author": author,
            "who": user % 30,
            "tab": rng.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1]),
            "click": (rng.random(rows) < 1 / (1 + np.exp(-log_odds))).astype(np.int8),
            "at": np.arange(rows),
        }
    )


def crossed_config(**changes: Any) -> DataConfig:
    one = {"kind": "categorical", "statistics": True}
    content = {
        "domain": "tab",
        "label": "click",
        "time": "at",
        "features": {"user": one, "author": one, "tab": "categorical"},
        "crosses": [["user", "author"]],
        "split": {"fractions": [0.6, 0.2, 0.2]},
    }
    return DataConfig.model_validate(content | changes)
