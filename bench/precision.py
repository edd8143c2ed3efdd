"""What ``precision: bfloat16`` does to the test AUC, and to the time of a step.

    python -m bench.precision FOLDER

Two tables, each by a random split: InstEval as ``isthmus data insteval`` writes it, and a planted one, two
camps of two domains in conflict with 5,000 rows each. Two networks, five training seeds, in each seed a fit by
either precision. FOLDER keeps the runs, and a run that is there is not trained again. Prints JSON: the
difference of the test AUC with its interval, paired by row and by seed, and the ratio of two epochs' time.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml

import isthmus
from bench.measure import alternate
from isthmus.config import Config, validate
from isthmus.data import Dataset
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train
from isthmus.metrics import compare
from isthmus.run import Run
from isthmus.sources import insteval
from isthmus.sources.planted import conflict, planted
from isthmus.train import Budget, train

PRECISIONS = ("float32", "bfloat16")
ADAPTERS: dict[str, dict[str, Any]] = {"mlp": {"name": "none"}, "hamur": {"name": "hamur"}}
SEEDS = range(5)
TRAIN = {"batch_rows": 1024, "epochs": 12, "patience": 2, "lr": 2e-3, "device": "cpu"}
TURNS = 5


def tables(folder: Path) -> dict[str, dict[str, Any]]:
    """The ``data`` section of each table."""
    file = insteval(folder / "insteval") / "config.yaml"
    real = yaml.safe_load(file.read_text(encoding="utf-8"))["data"]
    real["table"] = str(file.with_name(real["table"]).absolute())
    made = planted(rows=5_000, relation=conflict(4), seed=0, items=200)
    place = folder / "planted.parquet"
    pq.write_table(made.table, place)
    drawn = made.config(str(place.absolute()))
    drawn["split"] = {"by": "random", "fractions": [0.6, 0.2, 0.2], "seed": 0}
    return {"InstEval": real, "planted": drawn}


def config_of(data: dict[str, Any], adapter: dict[str, Any], **train: Any) -> dict[str, Any]:
    model = {"backbone": {"name": "mlp", "widths": [128, 64]}, "adapter": adapter}
    return {"data": data, "model": model, "train": TRAIN | train}


def fitted(config: dict[str, Any], out: Path) -> Run:
    """The run of this config, trained where it is not there."""
    return Run.open(out) if (out / "bundle").exists() else isthmus.fit(config, out=out)


def epoch(config: dict[str, Any], dataset: Dataset) -> Callable[[], object]:
    """One epoch of training with the look at its end."""
    checked = validate(Config, config)
    model = build_to_train(
        Training(model=checked.model, train=checked.train), dataset, dataset.rows("train")
    )
    steps = dataset.rows("train").steps(checked.train.batch_rows)
    return lambda: list(train(model, dataset, checked.train, budget=Budget(steps=steps, looks=1)))


def measured(folder: Path) -> dict[str, Any]:
    """All numbers."""
    found: dict[str, Any] = {}
    for table, data in tables(folder).items():
        for name, adapter in ADAPTERS.items():
            sides = []
            for precision in PRECISIONS:
                place = folder / table / name / precision
                configs = {s: config_of(data, adapter, precision=precision, seed=s) for s in SEEDS}
                runs = [fitted(one, place / f"seed-{seed}") for seed, one in configs.items()]
                sides.append([run.scored("test") for run in runs])
            pair = compare(*sides).pooled.to_dict()
            checked = validate(Config, config_of(data, adapter))
            dataset = Dataset.from_table(checked.data, data["table"])
            contestants = {
                precision: epoch(config_of(data, adapter, precision=precision), dataset)
                for precision in PRECISIONS
            }
            seconds = alternate(contestants, TURNS)
            found[f"{table}, {name}"] = {
                "pooled": pair,
                "rows": len(sides[0][0].row),
                "seconds": seconds,
                "ratio": seconds["bfloat16"] / seconds["float32"],
            }
            (folder / "precision.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    place = parser.parse_args().folder
    place.mkdir(parents=True, exist_ok=True)
    os.environ["ISTHMUS_CACHE"] = str(place / "cache")
    torch.set_num_threads(1)
    print(json.dumps(measured(place), indent=1))
