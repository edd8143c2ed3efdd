"""Recipes on planted tables: each against one shared network, paired, on test rows.

    python bench/systems.py OUT.json

Two camps of two domains in conflict, 5,000 rows a domain, three tables with a training seed each. The
control is a shared MLP that reads the domain as a field, trained jointly; each system is its recipe over
the control's config. Nothing is chosen: rate, batch and patience are the control's. Validation rows stop
the trainings. A run that was stopped goes on.
"""

import json
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from isthmus.config import Config, load_config
from isthmus.data import Dataset
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train
from isthmus.metrics.formulas.auc import auc
from isthmus.recipe import recipe_of
from isthmus.sources.planted import conflict, planted
from isthmus.train import End, score_rows, train

ROWS = 5_000
DOMAINS = 4
SEEDS = (0, 1, 2)
REVERSED = {"name": "domain_classifier", "site": -1, "reverse": True, "weight": 0.5}
SYSTEMS: dict[str, tuple[str | None, list[str]]] = {
    "control": (None, []),
    "dynagan": ("dynagan", []),
    "mlora": ("mlora", []),
    "moe_mlora": ("moe_mlora", []),
    "multi_bert": ("multi_bert", []),
    "multi_bert, mlora": ("multi_bert", ["model.adapter.name=mlora"]),
    "multi_bert, bottleneck": ("multi_bert", ["model.adapter.name=bottleneck"]),
    "mamdr": ("mamdr", []),
    "reversed domain_classifier": (None, [f"train.objectives=[{json.dumps(REVERSED)}]"]),
}


def dataset_of(seed: int, folder: Path) -> Dataset:
    """One table; a fifth of its rows are validation rows, a fifth test rows."""
    made = planted(rows=ROWS, relation=conflict(DOMAINS), seed=seed, items=200)
    section = made.config()
    section["split"] = {"by": "random", "fractions": [0.6, 0.2, 0.2], "seed": seed}
    return Dataset.from_table(load_config({"data": section}).data, made.table, cache=folder)


def config_of(name: str, dataset: Dataset, seed: int) -> Config:
    """The control's config with a recipe over it."""
    control = {
        "data": dataset.config.model_dump(mode="json"),
        "model": {"backbone": {"name": "mlp", "widths": [64, 32], "norm": "none"}},
        "train": {
            "batch_rows": 256,
            "epochs": 40,
            "patience": 8,
            "looks_per_epoch": 1,
            "monitor": "auc_macro",
            "lr": 3e-3,
            "seed": seed,
            "device": "cpu",
        },
    }
    recipe, changes = SYSTEMS[name]
    if recipe is None:
        return load_config(control, changes)
    return recipe_of(recipe).over(control, changes)


def trained(name: str, dataset: Dataset, seed: int) -> dict[str, Any]:
    """Train, and give the macro AUC of the test rows, what a domain owns, the steps and the seconds."""
    config = config_of(name, dataset, seed)
    training = Training(model=config.model, train=config.train)
    model = build_to_train(training, dataset, dataset.rows("train"))
    (end,) = (e for e in train(model, dataset, config.train) if isinstance(e, End))
    rows = dataset.rows("test")
    logits = np.asarray(score_rows(model, rows))
    label, domain = np.asarray(rows.label), np.asarray(rows.domain)
    each = [auc(logits[domain == d], label[domain == d]) for d in range(1, DOMAINS + 1)]
    return {
        "auc": float(np.mean(each)),
        "own": sum(bank[0].numel() for bank in model.domain_parameters().values()),
        "parameters": model.parameter_report().total,
        "steps": end.step,
        "brought": [  # what each later phase added on validation rows; 0 gave the phase before back
            last - first
            for first, last in pairwise(
                max(look.metrics["auc_macro"] or 0.0 for look in end.history if look.phase == phase)
                for phase in sorted({look.phase for look in end.history})
            )
        ],
        "seconds": round(end.seconds, 1),
    }


def main(out: Path) -> None:
    """Train, and write every number."""
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    with tempfile.TemporaryDirectory() as cache:
        tables = {seed: dataset_of(seed, Path(cache)) for seed in SEEDS}
        for name in SYSTEMS:
            if name not in found:
                found[name] = {"runs": [trained(name, tables[seed], seed) for seed in SEEDS]}
                out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    control = np.array([run["auc"] for run in found["control"]["runs"]])
    for name, of in found.items():
        gain = np.array([run["auc"] for run in of["runs"]]) - control
        half = float(stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5)
        of["mean"], of["minus control"] = float(np.mean(gain + control)), [float(gain.mean()), half]
        print(
            f"{name:28} {of['mean']:.4f} {gain.mean():+.4f} ± {half:.4f}"
            f" steps {np.mean([run['steps'] for run in of['runs']]):,.0f}"
            f" own {of['runs'][0]['own']:,} of {of['runs'][0]['parameters']:,}"
            f" s {np.mean([run['seconds'] for run in of['runs']]):.1f}"
        )
    out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
