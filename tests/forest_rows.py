"""A small planted table that trees learn quickly, and a config of trees alone for it."""

from typing import Any

import numpy as np
import pyarrow as pa

ROWS = 3000


def forest_table(rows: int = ROWS, *, strength: float = 1.5) -> pa.Table:
    """Numbers that act by thresholds, cities that act the other way round in ``c``, many users."""
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=rows), rng.exponential(size=rows)
    tab, city = rng.choice(["a", "b", "c"], rows, p=[0.4, 0.3, 0.3]), rng.integers(0, 8, rows)
    sign = np.where(tab == "c", -1, 1)
    logit = strength * ((x > 0.3) ^ (y > 1)) + 1.5 * strength * sign * (city % 2) - strength
    history = [rng.integers(0, 30, size).tolist() for size in rng.integers(0, 4, rows)]
    return pa.table(
        {
            "x": x,
            "y": y,
            "pair": rng.normal(size=(rows, 2)).tolist(),
            "city": city,
            "user": rng.integers(0, 400, rows),
            "history": history,
            "tab": tab.tolist(),
            "click": (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int8),
            "at": np.arange(rows),
        }
    )


def forest_config(**data: Any) -> dict[str, Any]:
    """Trees alone on every kind of column that a forest reads. ``data``: keys to add or change."""
    features = {
        "x": "numeric",
        "y": {"kind": "numeric", "scale": "log"},
        "pair": {"kind": "vector", "width": 2},
        "city": "categorical",
        "user": {"kind": "categorical", "dim": 4},
        "history": "categorical_list",
        "tab": "categorical",
    }
    section = {
        "domain": "tab",
        "label": "click",
        "time": "at",
        "features": features,
        "split": {"fractions": [0.6, 0.2, 0.2]},
    }
    return {"data": {**section, **data}, "model": {"name": "trees"}}
