"""A dataset of four domains, one of them in the test rows only: shared by tests of subsets."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from isthmus.data import Dataset, Rows
from isthmus.schema import DataConfig

ROWS = 900
NAMES = ["feed", "home", "search", "late"]  # late has test rows only


def make_table() -> pa.Table:
    rng = np.random.default_rng(3)
    tab = rng.choice(["feed", "home", "search"], ROWS, p=[0.6, 0.3, 0.1]).astype(object)
    tab[-40:] = rng.choice(["feed", "late"], 40)
    history = [[f"i{x}" for x in rng.integers(0, 60, n)] for n in rng.integers(0, 4, ROWS)]
    prices = [rng.normal(size=n).tolist() for n in rng.integers(0, 3, ROWS)]
    return pa.table(
        {
            "user": rng.integers(0, 150, ROWS),
            "item": [f"i{x}" for x in rng.integers(0, 60, ROWS)],
            "city": rng.integers(0, 200, ROWS),
            "history": history,
            "prices": prices,
            "age": rng.normal(size=ROWS),
            "tab": tab.tolist(),
            "click": rng.integers(0, 2, ROWS),
            "w": rng.random(ROWS) + 0.5,
            "who": [f"who {x}" for x in rng.integers(0, 120, ROWS)],
            "at": np.arange(ROWS),
        }
    )


def data_config(**changes: Any) -> DataConfig:
    content = {
        "domain": "tab",
        "label": "click",
        "weight": "w",
        "group": "who",
        "time": "at",
        "features": {
            "user": "categorical",
            "item": {"kind": "categorical", "min_count": 3},
            "city": {"kind": "categorical", "hash_buckets": 40},
            "history": {"kind": "categorical_list", "shares": "item"},
            "prices": "numeric_list",
            "age": "numeric",
            "tab": "categorical",
        },
        "split": {"by": "time", "fractions": (0.6, 0.3, 0.1)},
    }
    return DataConfig.model_validate(content | changes)


def make_dataset(cache: Path) -> Dataset:
    made = Dataset.from_table(data_config(), make_table(), cache=cache)
    assert made.domain_names == tuple(NAMES)
    assert made.n_domains == 3
    return made


def plain(rows: Rows) -> list[dict[str, Any]]:
    """Every row as plain values; ``seen``: the domain that the model is shown."""
    arrays, found = rows.arrays, []
    for at in range(len(rows)):
        found.append(
            {
                "ids": arrays.categorical[at].tolist(),
                "numbers": arrays.numeric[at].tolist(),
                "lists": [
                    values[offsets[at] : offsets[at + 1]].tolist()
                    for values, offsets in arrays.lists
                ],
                "seen": int(arrays.domain[at]),
                "domain": int(rows.domain[at]),
                "label": float(rows.label[at]),
                "weight": None if rows.weight is None else float(rows.weight[at]),
                "group": None if rows.group is None else int(rows.group[at]),
                "row": int(rows.row[at]),
            }
        )
    return found
