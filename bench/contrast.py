"""DynaGAN's modulation with and without its contrastive part, turned down, and for a new domain.

    python -m bench.contrast OUT.json

Two camps in conflict, 3,000 rows a domain, three tables with a training seed each, figures of test rows.

First, four domains: the recipe `dynagan` with and without `domain_contrast`, where the domain is a field and
where the code alone tells it ("blind"). Scored at strengths from 0 to 1; and how well the domains can be told
from the hidden state behind the last block: by a logistic regression on half of the test rows, counted
on the other half (chance .25), and by the mean silhouette of cosines.

Then a new domain, blind: `dynagan` is trained on four domains. The fifth one's code is trained on its first 50,
200 or 1,000 rows by a second call of `train` with all else frozen, 300 steps and no validation rows. Beside it
the answer for unknown domains, and a network of these rows alone, which its validation rows stop. Nothing is
chosen. A run that was stopped goes on.
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
    "blind, contrast of weight 1": [{**CONTRAST, "weight": 1.0}],
    "blind, contrast, labels ignored": [{**CONTRAST, "labels": "ignored"}],
}
LAST = 1  # the site behind the last block


def dataset_of(domains: int, seed: int, folder: Path) -> Dataset:
    """One table; a fifth of its rows are validation rows, a fifth test rows."""
    relation = angles([180 * (number % 2) for number in range(domains)])
    made = planted(rows=ROWS, relation=relation, seed=seed, items=100)
    section = made.config()
    section["split"] = {"by": "random", "fractions": [0.6, 0.2, 0.2], "seed": seed}
    return Dataset.from_table(load_config({"data": section}).data, made.table, cache=folder)


def config_of(dataset: Dataset, seed: int, objectives: list[Numbers]) -> Config:
    """The recipe over the config of `bench.systems`."""
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
            "objectives": objectives,
        },
    }
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


def turned_down(name: str, dataset: Dataset, seed: int) -> Numbers:
    """One training, at every strength."""
    config = config_of(dataset, seed, OBJECTIVES[name])
    training = Training(model=config.model, train=config.train, hide_domain="blind" in name)
    model = fitted(training, dataset)
    rows = training.subset(dataset).scored("test", OLD)
    told, silhouette = apart(model, rows)
    return {
        "auc": {str(s): aucs(turned(model, s), rows) for s in STRENGTHS},
        "told": told,
        "silhouette": silhouette,
    }


def few_shot(name: str, dataset: Dataset, seed: int) -> Numbers:
    """The new domain: by its code, by the unknown answer, and by itself."""
    config = config_of(dataset, seed, OBJECTIVES[name])
    base = Training(model=config.model, train=config.train, domains=OLD, hide_domain=True)
    model = fitted(base, dataset)
    found: Numbers = {"unknown": aucs(model, base.subset(dataset).scored("test", (NEW,)))[0]}
    for rows in FEW:
        part = Subset(
            dataset, domains=(NEW,), rows_per_domain=rows, hide_domain=True, all_known=True
        )
        method = {"name": "phases", "phases": [{"trains": ["adapter.code"], "lr": 0.03}]}
        changes = {"method": method, "domain_dropout": 0.0, "batch_rows": 50, "objectives": []}
        changed = base.with_recipe(**changes).train
        adapted = deepcopy(model)
        for _ in train(adapted, part, changed, budget=Budget(steps=300, looks=1)):
            pass
        found[f"code, {rows}"] = aucs(adapted, part.scored("test", (NEW,)))[0]
        plain = {"adapter": {"name": "none"}}
        alone = Training(
            model=type(config.model).model_validate(config.model.model_dump() | plain),
            train=config.train.model_copy(
                update={"method": type(config.train)().method, "objectives": (), "batch_rows": 50}
            ),
            domains=(NEW,),
            rows_per_domain=rows,
            hide_domain=True,
        )
        found[f"alone, {rows}"] = aucs(
            fitted(alone, dataset), alone.subset(dataset).scored("test", (NEW,))
        )[0]
    return found


def spread(values: list[float]) -> str:
    """Mean over the tables with Student's 95 % interval."""
    found = np.array(values)
    half = stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5
    return f"{found.mean():+.4f} ± {half:.4f}"


def main(out: Path) -> None:
    """Train, and write every number."""
    found: Numbers = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    parts = {
        "strength": (4, turned_down, OBJECTIVES),
        "few": (5, few_shot, ("blind", "blind, contrast")),
    }
    with tempfile.TemporaryDirectory() as folder:
        for part, (domains, measured, names) in parts.items():
            for place, seed in enumerate(SEEDS):
                dataset = dataset_of(domains, seed, Path(folder))
                for name in names:
                    done = found.setdefault(part, {}).setdefault(name, [])
                    if len(done) == place:
                        done.append(measured(name, dataset, seed))
                        out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    for name, runs in found["strength"].items():
        base = found["strength"][name.split(",")[0]]
        for strength in map(str, STRENGTHS):
            each = np.array([run["auc"][strength] for run in runs])
            less = [
                float(np.mean(run["auc"][strength]) - np.mean(plain["auc"][strength]))
                for run, plain in zip(runs, base, strict=True)
            ]
            domains = " ".join(f"{value:.4f}" for value in each.mean(axis=0))
            print(f"{name:32} {strength:5} {each.mean():.4f} ({domains}) {spread(less)}")
        for key in ("told", "silhouette"):
            less = [run[key] - plain[key] for run, plain in zip(runs, base, strict=True)]
            print(f"{name:32} {key}: {np.mean([run[key] for run in runs]):.3f} {spread(less)}")
    for name, runs in found["few"].items():
        print(f"{name:32} unknown {np.mean([run['unknown'] for run in runs]):.4f}")
        for rows in FEW:
            code = np.array([run[f"code, {rows}"] for run in runs])
            lead = {"unknown": [], "alone": []}
            for run in runs:
                lead["unknown"].append(run[f"code, {rows}"] - run["unknown"])
                lead["alone"].append(run[f"code, {rows}"] - run[f"alone, {rows}"])
            told = ", ".join(f"minus {key} {spread(gain)}" for key, gain in lead.items())
            print(f"{name:32} {rows:5} rows: code {code.mean():.4f}, {told}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
