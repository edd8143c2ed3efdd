"""DynaGAN's modulation with and without its contrastive part, turned down, and for a new domain.

    python -m bench.contrast OUT.json

Five domains of two camps in conflict, 3,000 rows each, three tables with a training seed each, figures of test
rows. Four domains train, two of each camp. "field" is the recipe `dynagan`, where the domain is a
field. "blind" networks know a domain by its code alone, and learn with their modulation, since a frozen network
that never told the camps apart has nothing to modulate. Each is trained with and without `domain_contrast`.

Measured are the AUC of the four domains at strengths from 0 to 1, and how well domains can be told from the
hidden state behind the last block: by a logistic regression on half of the test rows, counted on the other
half (chance .25), and by the mean silhouette of cosines.

Then the fifth domain joins a blind network: its code alone is trained on its first 50, 200 or 1,000 rows by a
second call of `train` with all else frozen, 300 steps and no validation rows. Beside it stand the answer for
unknown domains, and a network of these rows alone, which its validation rows stop. Nothing is chosen. A run
that was stopped goes on.
"""

import json
import sys
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_score

from isthmus.adapters import NoAdapterConfig
from isthmus.bundle.strength import turned
from isthmus.config import Config, load_config
from isthmus.data import Dataset, Rows, Subset
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train
from isthmus.metrics.formulas.auc import auc
from isthmus.models import AbstractModel
from isthmus.recipe import recipe_of
from isthmus.sources.planted import angles, planted
from isthmus.train import Budget, End, score_rows, train

Numbers = dict[str, Any]

ROWS, SEEDS, OLD, NEW = 3_000, (0, 1, 2), ("d0", "d1", "d2", "d3"), "d4"
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
FEW = (50, 200, 1_000)
CONTRAST = {"name": "domain_contrast", "weight": 0.1}
OBJECTIVES: dict[str, list[Numbers]] = {
    "field": [],
    "field, contrast": [CONTRAST],
    "blind": [],
    "blind, contrast": [CONTRAST],
    "blind, contrast, labels ignored": [{**CONTRAST, "labels": "ignored"}],
}
LAST = 1  # the site behind the last block


def dataset_of(seed: int, folder: Path) -> Dataset:
    """One table; a fifth of its rows are validation rows, a fifth test rows."""
    relation = angles([180 * (number % 2) for number in range(len(OLD) + 1)])
    made = planted(rows=ROWS, relation=relation, seed=seed, items=100)
    section = made.config()
    section["split"] = {"by": "random", "fractions": [0.6, 0.2, 0.2], "seed": seed}
    return Dataset.from_table(load_config({"data": section}).data, made.table, cache=folder)


def config_of(name: str, dataset: Dataset, seed: int) -> Config:
    """The recipe over the config of `bench.systems`; without its phases for a blind network."""
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
            "objectives": OBJECTIVES[name],
        },
    }
    if "blind" in name:
        return load_config(
            {**control, "model": {**control["model"], "adapter": {"name": "modulation"}}}
        )
    return recipe_of("dynagan").over(control)


def fitted(training: Training, dataset: Dataset) -> AbstractModel:
    """Train."""
    part = training.subset(dataset)
    model = build_to_train(training, dataset, part.rows("train"))
    (_,) = (event for event in train(model, part, training.train) if isinstance(event, End))
    return model


def aucs(model: AbstractModel, rows: Rows) -> list[float]:
    """The AUC of each domain's rows."""
    logits, label = np.asarray(score_rows(model, rows)), np.asarray(rows.label)
    domain = np.asarray(rows.domain)
    return [float(auc(logits[domain == d], label[domain == d])) for d in np.unique(domain)]


def apart(model: AbstractModel, rows: Rows) -> tuple[float, float]:
    """How often a logistic regression tells the domain of a hidden state, and the silhouette."""
    with torch.no_grad():
        states = [model.eval().score(batch, (LAST,)).hidden[LAST] for batch in rows.batches(4096)]
    h, domain = torch.cat(states).numpy(), np.asarray(rows.domain)
    half = np.random.default_rng(0).permutation(len(h)) % 2 == 0
    probe = LogisticRegression(max_iter=2_000).fit(h[half], domain[half])
    said = float(probe.score(h[~half], domain[~half]))
    live = np.linalg.norm(h, axis=1) > 0
    return said, float(silhouette_score(h[live], domain[live], metric="cosine"))


def measured(name: str, dataset: Dataset, seed: int) -> Numbers:
    """One training, at every strength, and what a new domain makes of it."""
    config = config_of(name, dataset, seed)
    base = Training(
        model=config.model, train=config.train, domains=OLD, hide_domain="blind" in name
    )
    model, part = fitted(base, dataset), base.subset(dataset)
    rows = part.scored("test", OLD)
    told, silhouette = apart(model, rows)
    found: Numbers = {
        "auc": {str(s): aucs(turned(model, s), rows) for s in STRENGTHS},
        "told": told,
        "silhouette": silhouette,
    }
    if "blind" in name:
        found["unknown"] = aucs(model, part.scored("test", (NEW,)))[0]
        found |= {f"code, {few}": joined(model, base, dataset, few) for few in FEW}
    return found


def joined(model: AbstractModel, base: Training, dataset: Dataset, few: int) -> float:
    """The AUC of the new domain, whose code alone was trained on so many rows."""
    part = Subset(dataset, domains=(NEW,), rows_per_domain=few, hide_domain=True, all_known=True)
    method = {"name": "phases", "phases": [{"trains": ["adapter.code"], "lr": 0.03}]}
    changes = {"method": method, "domain_dropout": 0.0, "batch_rows": 50, "objectives": []}
    adapted = deepcopy(model)
    for _ in train(adapted, part, base.with_recipe(**changes).train, budget=Budget(300, 1)):
        pass
    return aucs(adapted, part.scored("test", (NEW,)))[0]


def alone(dataset: Dataset, seed: int) -> Numbers:
    """The AUC of the new domain by a network of so many rows alone."""
    control = config_of("blind", dataset, seed)
    model = control.model.model_copy(update={"adapter": NoAdapterConfig()})
    found = {}
    for few in FEW:
        training = Training(
            model=model,
            train=control.train.model_copy(update={"batch_rows": 50}),
            domains=(NEW,),
            rows_per_domain=few,
            hide_domain=True,
        )
        rows = training.subset(dataset).scored("test", (NEW,))
        found[str(few)] = aucs(fitted(training, dataset), rows)[0]
    return found


def spread(values: list[float]) -> str:
    """Mean over the tables with Student's 95 % interval."""
    found = np.array(values)
    half = stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5
    return f"{found.mean():+.4f} ± {half:.4f}"


def main(out: Path) -> None:
    """Train, and write every number."""
    found: Numbers = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for place, seed in enumerate(SEEDS):
            dataset = dataset_of(seed, Path(folder))
            for name in ("alone", *OBJECTIVES):
                done = found.setdefault(name, [])
                if len(done) == place:
                    run = alone(dataset, seed) if name == "alone" else measured(name, dataset, seed)
                    done.append(run)
                    out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    solos = found.pop("alone")
    for name, runs in found.items():
        base = found[name.split(",")[0]]
        for strength in map(str, STRENGTHS):
            each = np.array([run["auc"][strength] for run in runs])
            more = [
                float(np.mean(run["auc"][strength]) - np.mean(plain["auc"][strength]))
                for run, plain in zip(runs, base, strict=True)
            ]
            domains = " ".join(f"{value:.4f}" for value in each.mean(axis=0))
            print(f"{name:32} {strength:5} {each.mean():.4f} ({domains}) {spread(more)}")
        for key in ("told", "silhouette"):
            more = [run[key] - plain[key] for run, plain in zip(runs, base, strict=True)]
            print(f"{name:32} {key}: {np.mean([run[key] for run in runs]):.3f} {spread(more)}")
        if "unknown" not in runs[0]:
            continue
        print(f"{name:32} unknown {np.mean([run['unknown'] for run in runs]):.4f}")
        for few in FEW:
            code = np.array([run[f"code, {few}"] for run in runs])
            own = np.array([solo[str(few)] for solo in solos])
            unknown = np.array([run["unknown"] for run in runs])
            print(
                f"{name:32} {few:5} rows: code {code.mean():.4f}, alone {own.mean():.4f}, minus"
                f" unknown {spread(list(code - unknown))}, minus alone {spread(list(code - own))}"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
