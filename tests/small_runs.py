"""Small tables and quick trainings, shared by the tests of runs, bundles and the command line."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import isthmus

ROWS = 1_200


def clicks(rows: int = ROWS, *, seed: int = 0) -> pa.Table:
    """Every kind of column that a config knows, in three domains of unequal size."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 60, rows), rng.integers(0, 40, rows)
    tab = rng.choice(["home", "search", "mail"], rows, p=[0.5, 0.3, 0.2])
    logit = 0.05 * (item - 20) * np.where(tab == "mail", -1, 1) + 0.02 * (user - 30)
    history = [rng.integers(0, 40, size).tolist() for size in rng.integers(0, 4, rows)]
    return pa.table(
        {
            "user": user.astype(np.int32),
            "item": [f"item {number}" for number in item],
            "tab": tab.tolist(),
            "age": rng.normal(40, 10, rows),
            "history": [[f"item {number}" for number in row] for row in history],
            "day": np.arange(rows) // 100,
            "click": (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int8),
        }
    )


def write_table(folder: Path) -> Path:
    """`clicks` as a file."""
    path = folder / "clicks.parquet"
    pq.write_table(clicks(), path)
    return path


def settings(**train: Any) -> dict[str, Any]:
    """A config for `clicks` that trains in a moment, with all that is random switched on."""
    return {
        "data": {
            "domain": "tab",
            "label": "click",
            "group": "user",
            "features": {
                "user": {"kind": "categorical", "dim": 4},
                "item": {"kind": "categorical", "dim": 4},
                "history": {"kind": "categorical_list", "shares": "item", "dim": 4},
                "tab": {"kind": "categorical", "dim": 2},
                "age": "numeric",
            },
            "split": {"by": "random", "fractions": [0.6, 0.2, 0.2]},
        },
        "model": {
            "backbone": {"name": "mlp", "widths": [8], "dropout": 0.2},
            "adapter": {"name": "hamur", "bottleneck": 4, "rank": 2, "hyper_widths": [4]},
        },
        "train": {"batch_rows": 128, "epochs": 2, "looks_per_epoch": 2, "lr": 0.01, **train},
    }


def weights(run: isthmus.Run) -> bytes:
    return (run.path / "bundle" / "weights.safetensors").read_bytes()


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its name inside, to see that nothing moved."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
