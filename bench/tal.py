"""TAL on domains that training never met, and on those that it met; on planted tables and on InstEval.

    python -m bench.tal OUT [TABLE ...]

Every network is an MLP of one config, trained jointly: ``plain`` without an adapter, ``pooled`` and
``domain`` with a norm beside the last hidden state (`norm`), ``tal`` with the recipe's adapter. All have
domain dropout 0.1, which trains the unknown domain. Nothing is chosen. Validation rows of the domains
that are trained stop a training.

- ``levels``: three pairs of twins. Twins share level and spread of their numbers; the label depends on
  the number within its domain. One twin of each pair is left out in turn. 3 tables, one seed each.
- ``taste``: three pairs of twins that share item effects, 90 degrees apart. Inputs say nothing of the
  domain, so no statistic can find the twin. 3 tables, one seed each.
- ``insteval``: 5 of the 14 departments are left out in turn. One table, 3 seeds.

Trainings lie in OUT/trainings, and a run that was stopped goes on. Intervals are Student's t over seeds.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy import stats

from isthmus.config import load_config
from isthmus.data import Dataset
from isthmus.data.batch import Batch
from isthmus.diagnosis.measures.new_domain import nearest
from isthmus.experiments import Engine, Outcome, Training
from isthmus.metrics.formulas.auc import auc
from isthmus.models import build_model
from isthmus.objectives import binary_cross_entropy
from isthmus.sources import insteval
from isthmus.sources.planted import groups, planted
from isthmus.train import score_rows

SEEDS = (0, 1, 2)
TWINS = ("a", "a2", "b", "b2", "c", "c2")
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {"name": "none"},
    "pooled": {"name": "norm", "statistics": "pooled"},
    "domain": {"name": "norm", "statistics": "domain"},
    "tal": {"name": "tal"},
}
TRAIN = {
    "epochs": 60,
    "patience": 4,
    "looks_per_epoch": 2,
    "lr": 3e-3,
    "monitor": "auc_pooled",
    "domain_dropout": 0.1,
    "device": "cpu",
}
SPLIT = {"by": "random", "fractions": [0.6, 0.2, 0.2]}


def levels(seed: int, rows: int = 1500) -> tuple[pa.Table, dict[str, Any]]:
    """Twins that share level and spread of six numbers; the label reads them within the domain."""
    rng = np.random.default_rng(seed)
    centre, spread = rng.normal(0, 2, (3, 6)), np.exp(rng.normal(0, 0.7, (3, 6)))
    domain = np.repeat(np.arange(6), rows)
    z = rng.standard_normal((len(domain), 6))
    x = centre[domain // 2] + spread[domain // 2] * z
    logit = z @ np.array([1.2, -1.0, 0.8, -0.6, 0.4, 0.2]) + 0.6 * z[:, 0] * z[:, 1]
    label = rng.random(len(domain)) < 1 / (1 + np.exp(-logit))
    columns = {f"x{place}": pa.array(x[:, place].astype(np.float32)) for place in range(6)}
    table = pa.table(
        {**columns, "domain": np.array(TWINS)[domain], "label": label.astype(np.int8)}
    ).take(rng.permutation(len(domain)))
    features = dict.fromkeys(columns, "numeric") | {"domain": "categorical"}
    return table, {"domain": "domain", "label": "label", "features": features}


def taste(seed: int, rows: int = 2500) -> tuple[pa.Table, dict[str, Any]]:
    """Twins that share item effects, and inputs that say nothing of the domain."""
    made = planted(
        rows=rows, relation=groups([2, 2, 2]), seed=seed, items=150, strength=1.5, names=TWINS
    )
    return made.table, made.config()


def planted_table(kind: str, seed: int, cache: Path) -> Dataset:
    """Encode one planted table."""
    table, section = {"levels": levels, "taste": taste}[kind](seed)
    data = load_config({"data": {**section, "split": {**SPLIT, "seed": seed}}}).data
    return Dataset.from_table(data, table, cache=cache)


def trainings(
    dataset: Dataset, replicate: int, seed: int, batch_rows: int, left_out: Sequence[str]
) -> dict[tuple[str, str | None], Training]:
    """By network and domain that is left out: the training. None: all domains are trained."""
    found = {}
    for name, adapter in ADAPTERS.items():
        section = {
            "data": dataset.config.model_dump(mode="json"),
            "model": {
                "backbone": {"name": "mlp", "widths": [64, 32], "norm": "none", "dropout": 0.1},
                "adapter": adapter,
            },
            "train": {**TRAIN, "batch_rows": batch_rows, "seed": seed},
        }
        config = load_config(section)
        for out in (None, *left_out):
            domains = None if out is None else tuple(n for n in dataset.domain_names if n != out)
            found[name, out] = Training(
                model=config.model, train=config.train, replicate=replicate, domains=domains
            )
    return found


def answers(name: str, outcome: Outcome, out: str) -> dict[str, float]:
    """AUC of the domain that was left out, by each answer that the network has for it."""
    dataset = outcome.dataset
    subset, model = outcome.training.subset(dataset), outcome.model()
    near = dataset.domain_names[nearest(model, subset, dataset, out)]
    rows = subset.scored("test", (out,))
    as_near = subset.scored("test", (out,), as_of=near)
    label = np.asarray(rows.label) > 0
    return {
        f"{name}, unknown": auc(score_rows(model, rows), label),
        f"{name}, nearest": auc(score_rows(model, as_near), label),
    }


def seen(outcome: Outcome) -> float:
    """The mean AUC over the domains that were trained, on test rows."""
    rows = outcome.dataset.rows("test")
    label, domain = np.asarray(rows.label) > 0, np.asarray(rows.domain)
    logits = outcome.logits("test")
    numbers = range(1, len(outcome.dataset.domain_names) + 1)
    return float(np.mean([auc(logits[domain == d], label[domain == d]) for d in numbers]))


def measure(kind: str, folder: Path) -> dict[str, list[float]]:
    """By answer, the mean AUC over the domains that were left out, for each seed."""
    if kind == "insteval":
        config = load_config(insteval(folder / kind) / "config.yaml")
        datasets = [Dataset.from_table(config.data, config.data.table, cache=folder / "cache")]
        left_out, batch = list(datasets[0].domain_names[::3]), 1024
    else:
        datasets = [planted_table(kind, seed, folder / "cache") for seed in SEEDS]
        left_out, batch = list(TWINS[::2]), 256
    found: dict[str, list[float]] = {}
    with Engine(datasets, folder / "trainings") as engine:
        for place, seed in enumerate(SEEDS):
            number = min(place, len(datasets) - 1)
            asked = trainings(datasets[number], number, seed, batch, left_out)
            outcomes = dict(zip(asked, engine.run(asked.values(), kind), strict=True))
            told: dict[str, list[float]] = {}
            for (name, out), outcome in outcomes.items():
                parts = (
                    {f"{name}, seen": seen(outcome)} if out is None else answers(name, outcome, out)
                )
                for answer, value in parts.items():
                    told.setdefault(answer, []).append(value)
            for answer, values in told.items():
                found.setdefault(answer, []).append(float(np.mean(values)))
    return found


def cost(cache: Path, *, rows: int = 4096, domains: int = 14, rounds: int = 15) -> dict[str, float]:
    """CPU seconds of a training step, each network in turn; the lowest of the rounds."""
    dataset = planted_table("levels", 0, cache)
    fields = dataset.encoder.fields
    draw = torch.Generator().manual_seed(0)
    batch = Batch(
        categorical=torch.randint(0, 3, (rows, 1), generator=draw, dtype=torch.int32),
        numeric=torch.randn(rows, 6, generator=draw),
        lists=(),
        domain=torch.randint(1, domains + 1, (rows,), generator=draw),
        label=(torch.rand(rows, generator=draw) > 0.5).float(),
    )
    hidden = torch.rand(rows, generator=draw) < 0.1
    asked = trainings(dataset, 0, 0, rows, [])
    models = {
        name: build_model(of.model, fields, domains).train() for (name, _), of in asked.items()
    }
    batch = batch.hide_domain(hidden, models["plain"].domain_places)
    optimisers = {name: torch.optim.Adam(model.parameters()) for name, model in models.items()}
    spent = dict.fromkeys(models, float("inf"))
    for _ in range(rounds):
        for name, model in models.items():
            began = time.process_time()
            optimisers[name].zero_grad()
            binary_cross_entropy(model(batch), batch.label, None).backward()
            optimisers[name].step()
            spent[name] = min(spent[name], time.process_time() - began)
    return {name: seconds / spent["plain"] for name, seconds in spent.items()}


def main(folder: Path, kinds: list[str]) -> None:
    """Measure, and write every number."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tal.json"
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for kind in kinds:
        if kind not in told:
            told[kind] = cost(folder / "cache") if kind == "cost" else measure(kind, folder)
            file.write_text(json.dumps(told, indent=1), encoding="utf-8")
        if kind == "cost":
            print(kind, {name: round(of, 2) for name, of in told[kind].items()})
            continue
        for answer, values in told[kind].items():
            control = "plain, seen" if answer.endswith("seen") else "plain, unknown"
            gain = np.array(values) - np.array(told[kind][control])
            half = stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5
            print(f"{kind:9} {answer:18} {np.mean(values):.4f} {gain.mean():+.4f} ± {half:.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or ["levels", "taste", "insteval", "cost"])
