"""A table whose domains disagree, and a benchmark of it that takes seconds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

import isthmus
from isthmus.benchmarking import measured_cost
from isthmus.benchmarking.contest import Contest
from isthmus.data import Dataset
from isthmus.sources.planted import conflict, planted

TRIALS = SEEDS = 2
MODELS = ("mlp_no_domain", "solo")


def written_conflict(folder: Path) -> Path:
    """The config file of a table in which one domain likes what the other dislikes."""
    made = planted(
        rows=[2500, 2000], relation=conflict(), items=30, users=120, seed=4, strength=1.5
    )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(made.table, folder / "table.parquet")
    data = made.config("table.parquet")
    data["split"]["fractions"] = [0.6, 0.2, 0.2]
    for name in data["features"]:
        data["features"][name] = {"kind": "categorical", "dim": 8}
    config = {
        "data": data,
        "model": {"backbone": {"name": "mlp", "widths": [16], "dropout": 0.1, "norm": "none"}},
        "train": {
            "batch_rows": 128,
            "epochs": 3,
            "lr": 0.02,
            "looks_per_epoch": 1,
            "device": "cpu",
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder / "config.yaml"


@contextmanager
def quick_costs() -> Iterator[None]:
    """Measure costs in this process and in a moment. Their numbers mean nothing then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured_cost, "SECONDS", 0.01)
        patch.setattr(Contest, "_alone", lambda _, job, __: job.run(Dataset.open))
        yield


def small_benchmark(
    config: Path,
    out: Path,
    models: tuple[str, ...] = MODELS,
    progress: Callable[[Any], None] | None = None,
    **options: Any,
) -> isthmus.Benchmark:
    chosen = {"trials": TRIALS, "seeds": SEEDS, **options}
    with quick_costs():
        return isthmus.benchmark(config, out, models=models, progress=progress, **chosen)


def without_costs(report: dict[str, Any]) -> dict[str, Any]:
    """A report without what the clock and the memory said."""
    models = [{k: v for k, v in model.items() if k != "cost"} for model in report["models"]]
    return {**report, "models": models}
