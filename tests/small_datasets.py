"""A small table of clicks, and all that a dataset made of it holds: shared by tests of datasets."""

import numpy as np
import pyarrow as pa

from isthmus.data import SPLITS, Dataset, cache_folder
from isthmus.schema import DataConfig

ROWS = 2000
FEATURES = {
    "user": {"kind": "categorical", "min_count": 2},
    "item": "categorical",
    "history": {"kind": "categorical_list", "shares": "item", "max_length": 3},
    "price": {"kind": "numeric", "scale": "log"},
    "embedding": {"kind": "vector", "width": 2},
    "tab": "categorical",
}


def clicks(rows: int = ROWS, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    history = [[f"i{x}" for x in random.integers(0, 30, n)] for n in random.integers(0, 6, rows)]
    return pa.table(
        {
            "user": random.integers(0, 300, rows) * 10**12,
            "item": pa.array([f"i{x}" for x in random.zipf(1.5, rows) % 40]),
            "history": pa.array(history, pa.list_(pa.string())),
            "price": pa.array(random.exponential(size=rows), mask=random.random(rows) < 0.1),
            "embedding": pa.array(list(random.normal(size=(rows, 2)).astype(np.float32))),
            "tab": pa.array(random.choice(["feed", "search", "home"], rows, p=[0.7, 0.25, 0.05])),
            "click": random.integers(0, 2, rows).astype(np.int8),
            "w": random.random(rows) + 0.5,
            "at": random.integers(0, 10**6, rows),
        }
    )


def config(**changes) -> DataConfig:
    given = {"domain": "tab", "label": "click", "weight": "w", "group": "user", "time": "at"}
    return DataConfig.model_validate(given | {"features": FEATURES} | changes)


def stored(dataset: Dataset) -> dict[str, list]:
    """All that is on disk, as lists, for equality."""
    found = {}
    for split in SPLITS:
        rows = dataset.rows(split)
        arrays = rows.arrays
        for name in ("categorical", "numeric", "domain", "label", "weight"):
            found[f"{split}.{name}"] = getattr(arrays, name).tolist()
        found[f"{split}.lists"] = [[x.tolist() for x in column] for column in arrays.lists]
        assert rows.group is not None
        found[f"{split}.group"], found[f"{split}.row"] = rows.group.tolist(), rows.row.tolist()
    return found


def left_behind() -> list[str]:
    root = cache_folder() / "datasets"
    return [p.name for p in root.iterdir() if p.name != "locks"] if root.is_dir() else []
