"""Multi-BERT's two questions on planted tables, test rows, macro AUC: whose row is it, and who must learn.

    python -m bench.detector OUT.json

*told*: four domains in two camps in conflict, 20,000 rows of 2,000 users who each stay in one domain, and
items that domains show unlike often. Users of test rows were never seen. The recipe `multi_bert` with a
detector is scored with the domain as it is, hidden, told by row, and told by user.

*taught*: the recipe's core learns three domains; the fourth then learns from 200, 2,000 or 20,000 rows of
its own, by its prompt and head alone, or by all parameters. Both begin with the unknown domain's sets, and
each has the better of two learning rates by validation rows.

Three tables with a training seed each. A run that was stopped goes on.
"""

import json
import sys
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy import stats
from torch import Tensor

import isthmus
from isthmus.bundle import DetectBy
from isthmus.config import Config, load_config
from isthmus.data import Dataset
from isthmus.data.store.subset import Subset
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train
from isthmus.metrics.formulas.auc import auc
from isthmus.models import AbstractModel
from isthmus.recipe import recipe_of
from isthmus.sources.planted import conflict, planted
from isthmus.train import End, TrainConfig, score_rows, train

SEEDS = (0, 1, 2)
SIZES = (200, 2_000, 20_000)
RATES = (3e-3, 1e-3)
DOMAINS, USERS, ROWS, ITEMS = 4, 2_000, 20_000, 200
Numbers = dict[str, Any]


def settings_of(data: Numbers, seed: int, **changes: Any) -> Numbers:
    """The control's config, which the recipe stands over."""
    train_section = {
        "batch_rows": 256,
        "epochs": 40,
        "patience": 8,
        "looks_per_epoch": 1,
        "monitor": "auc_macro",
        "lr": 3e-3,
        "seed": seed,
        "device": "cpu",
        "domain_dropout": 0.1,
    }
    model = {"backbone": {"name": "mlp", "widths": [64, 32], "norm": "none"}}
    return {"data": data, "model": model, "train": train_section | changes}


def crowd(seed: int) -> pa.Table:
    """Rows of users who each stay in one domain; items tell the domain in part."""
    rng = np.random.default_rng(seed)
    camp = rng.normal(size=ITEMS)
    ends = np.cumsum(np.exp(0.7 * rng.normal(size=(DOMAINS, ITEMS))), axis=1)
    home = rng.integers(DOMAINS, size=USERS)
    user = rng.integers(USERS, size=ROWS)
    domain = home[user]
    item = (rng.random(ROWS)[:, None] * ends[domain, -1:] > ends[domain]).sum(1)
    logit = 1.5 * np.where(domain % 2, -1, 1) * camp[item]
    click = rng.random(ROWS) < 1 / (1 + np.exp(-logit))
    names = np.array([f"d{k}" for k in range(DOMAINS)])
    columns = {"user": user, "item": item, "domain": names[domain], "click": click.astype(np.int8)}
    return pa.table(columns)


def told(seed: int, folder: Path) -> Numbers:
    """AUC with the domain as it is, hidden and told; how often it is told rightly."""
    data = {
        "domain": "domain",
        "label": "click",
        "group": "user",
        "features": {"item": "categorical", "domain": "categorical"},
        "split": {"by": "user", "fractions": [0.6, 0.2, 0.2], "seed": seed},
    }
    table = crowd(seed)
    settings = settings_of(data, seed)
    settings["model"]["detector"] = True
    run = isthmus.fit(settings, table, folder / f"run-{seed}", recipe="multi_bert", cache=folder)
    rows = table.take(pa.array(run.scored("test").row))
    truth, label = rows["domain"].to_numpy(), rows["click"].to_numpy()
    place = rows.schema.get_field_index("domain")
    hidden = rows.set_column(place, "domain", pa.nulls(rows.num_rows, pa.string()))
    found: Numbers = {}
    ways: tuple[tuple[str, pa.Table, DetectBy | None], ...] = (
        ("known", rows, None),
        ("hidden", hidden, None),
        ("row", hidden, "row"),
        ("group", hidden, "group"),
    )
    for name, of, by in ways:
        blocks = list(run.bundle.score_blocks(of, detect_domain=by))
        logits = np.concatenate([one.logits for one in blocks])
        each = [auc(logits[truth == d], label[truth == d].astype(float)) for d in np.unique(truth)]
        found[name] = float(np.mean(each))
        if by is not None:
            names = [n for one in blocks if one.told is not None for n in one.told.to_pylist()]
            found[f"right by {by}"] = float(np.mean(np.array(names) == truth))
    assert run.bundle.detector is not None
    return found | {"accuracy": run.bundle.detector.accuracy, "rows": rows.num_rows}


def taught(seed: int, folder: Path) -> list[Numbers]:
    """AUC of a fourth domain that learns by its own parameters, or by all."""
    sizes = [3_000 * 5 // 3] * (DOMAINS - 1) + [34_000]
    made = planted(rows=sizes, relation=conflict(DOMAINS), seed=seed, items=ITEMS)
    section = made.config()
    section["split"] = {"by": "random", "fractions": [0.6, 0.1, 0.3], "seed": seed}
    dataset = Dataset.from_table(load_config({"data": section}).data, made.table, cache=folder)
    config = recipe_of("multi_bert").over(settings_of(section, seed))
    *others, last = dataset.domain_names
    core = _core(config, Subset(dataset, domains=others, all_known=True), dataset)
    before = _logits(core, dataset)
    found = []
    for rows in SIZES:
        subset = Subset(dataset, domains=[last], watch=[last], rows_per_domain=rows, all_known=True)
        batch = max(32, min(256, rows // 50))
        own = {"name": "phases", "phases": [{"trains": ["adapter", "head"]}]}
        every = {"name": "joint"}
        one: Numbers = {"seed": seed, "rows": rows, "before": _auc(before, dataset, last)}
        for name, method in (("own", own), ("all", every)):
            best: tuple[float, AbstractModel] | None = None
            for lr in RATES:
                changes = config.train.model_dump() | {
                    "batch_rows": batch,
                    "lr": lr,
                    "method": method,
                }
                model = deepcopy(core)
                end = _trained(model, subset, TrainConfig.model_validate(changes))
                value = end.best.metrics["auc_macro"] or 0.0
                if best is None or value > best[0]:
                    best = value, model
            assert best is not None
            after = _logits(best[1], dataset)
            domain = np.asarray(dataset.rows("test").domain)
            elsewhere = domain != dataset.domain_names.index(last) + 1
            one[name] = _auc(after, dataset, last)
            one[f"{name}, others"] = float(
                np.mean([_auc(after, dataset, d) - _auc(before, dataset, d) for d in others])
            )
            one[f"{name}, others' bits"] = bool(np.array_equal(after[elsewhere], before[elsewhere]))
        one["parameters"] = {
            "own": sum(bank[0].numel() for bank in core.domain_parameters().values()),
            "all": core.parameter_report().total,
        }
        found.append(one)
    return found


def _core(config: Config, subset: Subset, dataset: Dataset) -> AbstractModel:
    """The first phase of the recipe on three domains; the fourth gets the unknown domain's sets."""
    training = Training(model=config.model, train=config.train)
    model = build_to_train(training, dataset, subset.rows("train"))
    changes = config.train.model_dump()
    changes["method"]["phases"] = changes["method"]["phases"][:1]
    _trained(model, subset, TrainConfig.model_validate(changes))
    with torch.no_grad():
        for bank in model.domain_parameters().values():
            bank[-1].copy_(bank[0])
    return model


def _trained(model: AbstractModel, subset: Subset, config: TrainConfig) -> End:
    (end,) = (event for event in train(model, subset, config) if isinstance(event, End))
    return end


def _logits(model: AbstractModel, dataset: Dataset) -> np.ndarray:
    return np.asarray(score_rows(model, dataset.rows("test")))


def _auc(logits: np.ndarray | Tensor, dataset: Dataset, domain: str) -> float:
    rows = dataset.rows("test")
    here = np.asarray(rows.domain) == dataset.domain_names.index(domain) + 1
    return auc(np.asarray(logits)[here], np.asarray(rows.label)[here])


def _shown(values: list[float]) -> str:
    gain = np.array(values)
    half = float(stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5)
    return f"{gain.mean():+.4f} ± {half:.4f}"


def main(out: Path) -> None:
    """Every number, written after each table."""
    found: Numbers = json.loads(out.read_text()) if out.exists() else {"told": [], "taught": []}
    with tempfile.TemporaryDirectory() as name:
        for seed in SEEDS:
            if len(found["told"]) <= seed:
                found["told"].append(told(seed, Path(name)))
                out.write_text(json.dumps(found, indent=1), encoding="utf-8")
            if len(found["taught"]) < len(SIZES) * (seed + 1):
                found["taught"] += taught(seed, Path(name))
                out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    for key in found["told"][0]:
        print(key, f"{np.mean([one[key] for one in found['told']]):.4f}")
    for key in ("hidden", "row", "group"):
        print(key, "minus known", _shown([one[key] - one["known"] for one in found["told"]]))
        if key != "hidden":
            print(key, "minus hidden", _shown([one[key] - one["hidden"] for one in found["told"]]))
    for rows in SIZES:
        some = [one for one in found["taught"] if one["rows"] == rows]
        means = {
            k: round(float(np.mean([one[k] for one in some])), 4) for k in ("before", "own", "all")
        }
        print(rows, means, "own minus all", _shown([one["own"] - one["all"] for one in some]))
        print("  others", {k: [one[k] for one in some] for k in some[0] if "others" in k})
    print(found["taught"][0]["parameters"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
