"""Pseudo-domains (SSCTL) on planted tables and on Adult: small domains' AUC at equal steps, on test rows.

    python -m bench.ssctl OUT.json [ADULT_FOLDER]

A planted table has a large domain and three small ones, each with effects of items of its own, and a
feature, the place, that tells the small ones apart in part. In `copies`, half of the large domain's rows
are drawn and labelled as rows of a small domain. In `alike`, the same rows are drawn so, and labelled by
the large domain's own effects. Ten tables of each kind, with a training seed each.

One network for all, that of the recipe `ssctl`: trained jointly; jointly with all domains drawn alike
often; by pseudo-domains; and by pseudo-domains that are dealt out at random among the large domain's rows
of a batch, confidences with them. Nothing is chosen. Every training has the same number of steps, and
validation rows say which of 12 looks is kept. A run that was stopped goes on.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from scipy import stats
from torch import Tensor, nn

from isthmus.config import Config, load_config
from isthmus.data import Batch, Dataset
from isthmus.data.batch import DomainPlaces
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train
from isthmus.metrics.formulas.auc import auc
from isthmus.recipe import recipe_of
from isthmus.train import Budget, score_rows, train
from isthmus.train.methods import AbstractMethodConfig, PseudoDomains, PseudoDomainsConfig

SEEDS = tuple(range(10))  # of planted tables; Adult has the first five
SMALL, ROWS, LARGE = 3, 2_000, 20_000
ITEMS, USERS, PLACES = 200, 500, 40
KINDS = ("copies", "alike")
ARMS: dict[str, list[str]] = {
    "joint": ["train.method.name=joint"],
    "oversampled": ["train.method.name=joint", "train.domain_sampling=uniform"],
    "pseudo-domains": [],
    "random": [],
}
Numbers = dict[str, Any]


class Dealt(nn.Module):
    """A classifier whose answers are dealt out at random among the rows of a batch."""

    def __init__(self, teller: nn.Module, seed: int) -> None:
        super().__init__()
        self.teller, self.random = teller, torch.Generator().manual_seed(seed)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (rows, classes), each row's those of another."""
        logits = self.teller(batch)
        return logits[torch.randperm(len(logits), generator=self.random)]


class RandomDomainsConfig(AbstractMethodConfig):
    """The control: as many copies, pseudo-domains and weights of each size, on the wrong rows."""

    name: Literal["random_domains"] = "random_domains"

    def build(self, *args: Any, **more: Any) -> PseudoDomains:
        """Pseudo-domains with a classifier that has learnt, and whose answers are dealt out."""
        method = PseudoDomainsConfig().build(*args, **more)
        method.partition.learn()
        method.partition.teller = Dealt(method.partition.teller, 7)  # pyright: ignore[reportAttributeAccessIssue]
        return method


def planted_table(kind: str, seed: int) -> pa.Table:
    """One table; ``truth``: which domain a row was drawn like, the last one for the large one's own."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    effects = rng.normal(size=(SMALL + 1, ITEMS))
    users = rng.normal(size=USERS)
    chances = np.exp(1.5 * rng.normal(size=(SMALL + 1, PLACES)))
    chances[SMALL] = 1.0
    ends = np.cumsum(chances / chances.sum(1, keepdims=True), axis=1)
    domain = np.repeat(np.arange(SMALL + 1), [*[ROWS] * SMALL, LARGE])
    like = domain.copy()
    copied = np.flatnonzero(domain == SMALL)[: LARGE // 2]
    like[copied] = rng.integers(SMALL, size=len(copied))
    place = (rng.random(len(domain))[:, None] > ends[like]).sum(1).clip(max=PLACES - 1)
    item, user = rng.integers(ITEMS, size=len(domain)), rng.integers(USERS, size=len(domain))
    labelled = like if kind == "copies" else domain
    logit = 1.5 * effects[labelled, item] + 0.5 * users[user]
    click = rng.random(len(domain)) < 1 / (1 + np.exp(-logit))
    order = rng.permutation(len(domain))
    names = np.array([*(f"small {k}" for k in range(1, SMALL + 1)), "large"])
    columns = {"user": user, "item": item, "place": place, "truth": like}
    table = {name: column[order] for name, column in columns.items()}
    return pa.table(table | {"tab": names[domain[order]], "click": click[order].astype(np.int8)})


def planted_section(seed: int) -> Numbers:
    """The section ``data`` of a planted table."""
    return {
        "domain": "tab",
        "label": "click",
        "features": dict.fromkeys(("user", "item", "place", "tab"), "categorical"),
        "split": {"by": "random", "fractions": [0.2, 0.2, 0.6], "seed": seed},
    }


def adult_section(folder: Path, seed: int) -> Numbers:
    """The section ``data`` of Adult by class of worker."""
    from bench.accuracy.tables import adult  # only where it is asked for

    data, path = adult(folder), folder / "adult-workclass.parquet"
    if not path.exists():
        idle = pc.field("workclass").isin(["Without-pay", "Never-worked"])  # 31 rows in all
        pq.write_table(pq.read_table(data["table"]).filter(~idle), path)
    split = {"by": "random", "fractions": [0.6, 0.2, 0.2], "seed": seed}
    return data | {"table": str(path), "domain": "workclass", "split": split}


def config_of(dataset: Dataset, arm: str, seed: int, batch_rows: int) -> Config:
    """The recipe over a plain config, changed as the arm says."""
    plain = {
        "data": dataset.config.model_dump(mode="json"),
        "model": {"backbone": {"name": "ple", "widths": [32], "tower_widths": [16]}},
        "train": {
            "batch_rows": batch_rows,
            "monitor": "auc_macro",
            "lr": 3e-3,
            "seed": seed,
            "device": "cpu",
            "checkpoint_minutes": 1e6,
        },
    }
    config = recipe_of("ssctl").over(plain, ARMS[arm])
    if arm == "random":
        changed = config.train.model_copy(update={"method": RandomDomainsConfig()})
        config = config.model_copy(update={"train": changed})
    return config


def trained(dataset: Dataset, arm: str, seed: int, batch_rows: int, steps: int) -> Numbers:
    """Train; AUC of every domain on train and test rows, and the mean over the small ones."""
    config = config_of(dataset, arm, seed, batch_rows)
    training = Training(model=config.model, train=config.train)
    model = build_to_train(training, dataset, dataset.rows("train"))
    *_, end = train(model, dataset, config.train, budget=Budget(steps=steps, looks=12))
    counts = np.bincount(np.asarray(dataset.rows("train").domain))
    large = int(counts[1:].argmax()) + 1
    found: Numbers = {"arm": arm, "seed": seed, "kept": end.best.step, "told": end.best.told}  # pyright: ignore[reportAttributeAccessIssue]
    for split in ("train", "test"):
        rows = dataset.rows(split)
        logits = np.asarray(score_rows(model, rows))
        label, domain = np.asarray(rows.label), np.asarray(rows.domain)
        each = {
            name: auc(logits[domain == d], label[domain == d])
            for d, name in enumerate(dataset.domain_names, start=1)
        }
        small = [each[n] for d, n in enumerate(dataset.domain_names, start=1) if d != large]
        found[split] = {
            "each": each,
            "small": float(np.nanmean(small)),
            "large": each[dataset.domain_names[large - 1]],
        }
    found["seconds"] = round(end.seconds, 1)  # pyright: ignore[reportAttributeAccessIssue]
    return found


def partition_of(dataset: Dataset, table: pa.Table, seed: int) -> Numbers:
    """Whether the right rows get the right pseudo-domain, and the weight."""
    config = config_of(dataset, "pseudo-domains", seed, 256)
    training = Training(model=config.model, train=config.train)
    rows = dataset.rows("train")
    method = config.train.method.build(
        build_to_train(training, dataset, rows),
        rows,
        config.train,
        n_domains=dataset.n_domains,
        places=DomainPlaces.of(dataset.encoder.fields),
    )
    assert isinstance(method, PseudoDomains)
    (batch,) = rows.batches(len(rows))
    method.partition.learn()
    lesson = method.partition.lesson(batch)
    assert lesson.batch.weight is not None
    here = (batch.domain == method.partition.dominant).numpy()
    truth = table["truth"].to_numpy()[rows.row][here]
    names = [f"small {k}" for k in range(1, SMALL + 1)]
    told = [names.index(dataset.domain_names[d - 1]) for d in lesson.domain[batch.rows :].tolist()]
    weight, right = lesson.batch.weight[batch.rows :].numpy(), np.array(told) == truth
    copy = truth < SMALL
    parts = {"right": copy & right, "wrong": copy & ~right, "no copy": ~copy}
    weights = {name: float(weight[part].mean()) for name, part in parts.items()}
    accuracy = float(method.partition.accuracy)
    return {
        "weights": weights,
        "shares": {name: float(part.mean()) for name, part in parts.items()},
        "right of copies": float(right[copy].mean()),
        "right of all, weighted": float((weight * (copy & right)).sum() / weight.sum()),
        "accuracy": accuracy,
    }


def told(runs: list[Numbers]) -> None:
    """Means, and differences to the joint training, paired."""
    by = {arm: [run for run in runs if run["arm"] == arm] for arm in ARMS}
    for of in ("small", "large"):
        base = np.array([run["test"][of] for run in by["joint"]])
        for arm, some in by.items():
            test = np.array([run["test"][of] for run in some])
            gap = np.mean([run["train"][of] - run["test"][of] for run in some])
            gain = test - base[: len(test)]
            half = stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5
            seconds = np.mean([run["seconds"] for run in some])
            print(f"  {of} {arm:15} {test.mean():.4f} {gain.mean():+.4f} ± {half:.4f}", end="")
            print(f" train - test {gap:+.4f} s {seconds:.1f}")


def main(out: Path, adult: Path | None) -> None:
    """Every number, written after each training."""
    found: Numbers = json.loads(out.read_text()) if out.exists() else {}
    with tempfile.TemporaryDirectory() as cache:
        for kind in (*KINDS, *(() if adult is None else ("adult",))):
            of = found.setdefault(kind, {"runs": [], "partition": []})
            for seed in SEEDS[:5] if kind == "adult" else SEEDS:
                missing = [
                    arm
                    for arm in ARMS
                    if not any((run["arm"], run["seed"]) == (arm, seed) for run in of["runs"])
                ]
                if not missing:
                    continue
                if kind == "adult":
                    assert adult is not None
                    config = load_config({"data": adult_section(adult, seed)}).data
                    dataset = Dataset.from_table(config, cache=Path(cache))
                    size, steps = 1_024, 240
                else:
                    table = planted_table(kind, seed)
                    config = load_config({"data": planted_section(seed)}).data
                    dataset = Dataset.from_table(config, table, cache=Path(cache))
                    size, steps = 256, 300
                    of["partition"].append(partition_of(dataset, table, seed))
                for arm in missing:
                    of["runs"].append(trained(dataset, arm, seed, size, steps))
                    out.write_text(json.dumps(found, indent=1), encoding="utf-8")
            print(kind)
            told(of["runs"])
            if of["partition"]:
                print(json.dumps(of["partition"], indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
