"""Methods of training on planted tables: joint, in phases and MAMDR, paired, on validation rows.

    python bench/methods.py OUT.json

Two camps of two domains in conflict, 5,000 rows a domain, three tables with a training seed each. The
network is a shared MLP with MLoRA. Joint and phases have the better of two learning rates, MAMDR the best of
three outer rates; the choice is made on another table, so that it does not meet the rows that are reported.
A run that was stopped goes on.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from isthmus.config import Config, validate
from isthmus.data import Dataset
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train
from isthmus.sources.planted import conflict, planted
from isthmus.train import End, train

ROWS = 5_000
DOMAINS = 4
SEEDS = (0, 1, 2)
CHOOSING = (100,)
PHASES = [{"trains": ["inputs", "backbone", "head"]}, {"trains": ["adapter"]}]
METHODS: dict[str, list[tuple[dict[str, Any], float]]] = {  # each with the rates to choose from
    "joint": [({"name": "joint"}, lr) for lr in (1e-3, 3e-3)],
    "phases": [({"name": "phases", "phases": PHASES}, lr) for lr in (1e-3, 3e-3)],
    "mamdr": [({"name": "mamdr", "beta": b, "gamma": b}, 3e-3) for b in (0.1, 0.5, 1.0)],
}


def dataset_of(seed: int, folder: Path) -> Dataset:
    """One table; a fifth of its rows are validation rows."""
    made = planted(rows=ROWS, relation=conflict(DOMAINS), seed=seed, items=200)
    section = made.config()
    section["split"] = {"by": "random", "fractions": [0.7, 0.2, 0.1], "seed": seed}
    config = validate(Config, {"data": section})
    return Dataset.from_table(config.data, made.table, cache=folder)


def trained(dataset: Dataset, method: dict[str, Any], lr: float, seed: int) -> dict[str, Any]:
    """Train, and give the best look's macro AUC, the steps and the seconds."""
    config = validate(
        Config,
        {
            "data": dataset.config.model_dump(mode="json"),
            "model": {
                "backbone": {"name": "mlp", "widths": [64, 32], "norm": "none"},
                "adapter": {"name": "mlora", "rank": 4},
            },
            "train": {
                "batch_rows": 256,
                "epochs": 40,
                "patience": 8,
                "looks_per_epoch": 1,
                "monitor": "auc_macro",
                "lr": lr,
                "seed": seed,
                "method": method,
                "device": "cpu",
            },
        },
    )
    training = Training(model=config.model, train=config.train)
    model = build_to_train(training, dataset, dataset.rows("train"))
    (end,) = (e for e in train(model, dataset, config.train) if isinstance(e, End))
    return {
        "auc": end.best.metrics["auc_macro"],
        "steps": end.step,
        "epoch": end.best.epoch,
        "seconds": round(end.seconds, 1),
        "phases": [
            max(look.metrics["auc_macro"] or 0.0 for look in end.history if look.phase == phase)
            for phase in sorted({look.phase for look in end.history})
        ],
    }


def main(out: Path) -> None:
    """Choose, train, and write every number."""
    with tempfile.TemporaryDirectory() as cache:
        tables = {seed: dataset_of(seed, Path(cache)) for seed in (*SEEDS, *CHOOSING)}
        found: dict[str, Any] = {"choices": {}, "runs": {}}
        if out.exists():  # go on where it was stopped
            found = json.loads(out.read_text(encoding="utf-8"))
        for name, variants in METHODS.items():
            tried = []
            if name in found["runs"]:
                continue
            for method, lr in variants:
                runs = [trained(tables[s], method, lr, s) for s in CHOOSING]
                auc = float(np.mean([run["auc"] for run in runs]))
                tried.append({"method": method, "lr": lr, "auc": auc, "runs": runs})
            best = max(tried, key=lambda one: one["auc"])
            found["choices"][name] = tried
            found["runs"][name] = [
                trained(tables[s], best["method"], best["lr"], s) | {"lr": best["lr"]}
                for s in SEEDS
            ]
            out.write_text(json.dumps(found, indent=1), encoding="utf-8")
        joint = np.array([run["auc"] for run in found["runs"]["joint"]])
        for name in ("phases", "mamdr"):
            gain = np.array([run["auc"] for run in found["runs"][name]]) - joint
            half = float(stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5)
            found[f"{name} minus joint"] = [float(gain.mean()), half]
        out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
