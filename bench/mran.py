"""MRAN on FDU-MTL: 16 domains of reviews, with each of its parts off, and what the shared part tells.

    python -m bench.mran [--data FILE] [--seeds 5] [--out runs/mran]

FILE is fdu_mtl.parquet (Liu, Qiu and Huang, ACL 2017) with columns domain, split, label and text, as
``../shared/data/fdu_mtl.parquet`` beside the checkout. Its test rows are its own. A tenth of the labelled
train rows, drawn once, are validation rows; they pick the epoch. A text is the set of
its words and pairs of words that at least `LEAST` labelled train texts hold, pooled by their mean.

Each arm is the recipe ``mran`` over one config, with one objective less, or none. For every seed the mean
accuracy over the domains, and how often a fresh logistic regression tells the domain of a test row from
the shared part. Differences are paired by seed. A run that was stopped goes on.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from isthmus.config import Config, load_config
from isthmus.data import Dataset
from isthmus.data.store.rows import Rows
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train
from isthmus.models import AbstractModel
from isthmus.recipe import recipe_of
from isthmus.train import End, score_rows, train

DATA = Path(__file__).parents[2] / "shared" / "data" / "fdu_mtl.parquet"
LEAST = 10
HELD = 0.1  # of the labelled train rows: validation
PROBED = 6_000  # train rows that the probe learns from
SITE = -2  # the shared part
PARTS = {
    "adversary": ("domain_classifier", "domain_mixup"),
    "domain mixup": ("domain_mixup",),
    "category mixup": ("category_mixup",),
    "consistency": ("consistency",),
}
ALL = "mran"
ARMS = ["one network", "no objective", ALL, *(f"without {part}" for part in PARTS)]


def texts(path: Path) -> pl.DataFrame:
    """The table: domain, label, words (list of text), and part: 0 train, 1 validation, 2 test."""
    table = pl.read_parquet(path).with_row_index("row")
    held = pl.lit(pl.Series(np.random.default_rng(0).random(table.height) < HELD))
    part = (
        pl.when(pl.col("split") == "test")
        .then(2)
        .when((pl.col("split") == "train") & held)
        .then(1)
        .otherwise(0)
    )
    table = table.with_columns(part=part, word=pl.col("text").str.split(" "))
    words = table.select("row", "part", "label", "word").explode("word")
    follower = pl.col("word").shift(-1).over("row")
    words = pl.concat(
        [words, words.with_columns(word=pl.col("word") + " " + follower).drop_nulls("word")]
    ).unique(["row", "word"], maintain_order=True)
    known = (
        words.filter((pl.col("part") == 0) & pl.col("label").is_not_null())
        .group_by("word")
        .len()
        .filter(pl.col("len") >= LEAST)
    )
    kept = words.join(known, on="word", how="semi", maintain_order="left")
    lists = kept.group_by("row", maintain_order=True).agg("word")
    return (
        table.drop("word")
        .join(lists, on="row", how="left", maintain_order="left")
        .select("domain", "label", "part", words=pl.col("word").fill_null([]))
    )


def dataset_of(table: pl.DataFrame, cache: Path) -> Dataset:
    """The table encoded, with the splits that ``part`` says."""
    labelled = table.drop_nulls("label")
    shares = np.bincount(labelled["part"].to_numpy(), minlength=3) / labelled.height
    longest = int(table["words"].list.len().max())  # pyright: ignore[reportArgumentType]
    section = {
        "domain": "domain",
        "label": "label",
        "null_label": "unlabelled",
        "time": "part",
        "split": {"by": "time", "fractions": shares.tolist()},
        "features": {"words": {"kind": "categorical_list", "dim": 64, "max_length": longest}},
    }
    return Dataset.from_table(load_config({"data": section}).data, table, cache=cache)


def config_of(arm: str, dataset: Dataset, seed: int) -> Config:
    """The config of an arm: the recipe, without the objectives of the part that is off."""
    raw = {
        "data": dataset.config.model_dump(mode="json"),
        "model": {"backbone": {"name": "mlp", "widths": [128], "norm": "none", "dropout": 0.4}},
        "train": {
            "batch_rows": 256,
            "epochs": 12,
            "patience": 3,
            "looks_per_epoch": 1,
            "monitor": "auc_macro",
            "lr": 1e-3,
            "embedding_l2": 0.0,
            "seed": seed,
            "device": "cpu",
        },
    }
    if arm == "one network":
        return load_config(raw)
    recipe = recipe_of("mran")
    widths = ["model.backbone.widths=[128]", "model.backbone.private_widths=[32]"]
    objectives = recipe.settings["train.objectives"]
    off = PARTS.get(arm.removeprefix("without "), ())
    kept = [] if arm == "no objective" else [one for one in objectives if one["name"] not in off]
    return recipe.over(raw, [*widths, f"train.objectives={json.dumps(kept)}"])


def accuracy(logits: np.ndarray, rows: Rows) -> float:
    """Mean over the domains of the share of rows on the right side of 0."""
    right = (logits > 0) == (np.asarray(rows.label) > 0)
    domain = np.asarray(rows.domain)
    return float(np.mean([right[domain == name].mean() for name in np.unique(domain)]))


def states(model: AbstractModel, rows: Rows, most: int | None = None) -> tuple[np.ndarray, ...]:
    """The shared part and the domain of rows, evenly spaced ones where there are more than ``most``."""
    site = model.spec.resolve((SITE,))[0]
    found = [
        (model.score(batch, {site}).hidden[site].detach().numpy(), batch.domain.numpy())
        for batch in rows.batches(4096)
    ]
    hidden, domain = (np.concatenate(each) for each in zip(*found, strict=True))
    at = np.arange(len(domain))
    if most is not None and most < len(at):
        at = np.linspace(0, len(at) - 1, most).astype(int)
    return hidden[at], domain[at]


def probe(model: AbstractModel, dataset: Dataset) -> float:
    """How often a fresh logistic regression tells the domain of a test row from the shared part."""
    hidden, domain = states(model, dataset.rows("train"), PROBED)
    scaler = StandardScaler().fit(hidden)
    fresh = LogisticRegression(max_iter=1000, tol=1e-3).fit(scaler.transform(hidden), domain)
    hidden, domain = states(model, dataset.rows("test"))
    return float((fresh.predict(scaler.transform(hidden)) == domain).mean())


def trained(arm: str, dataset: Dataset, seed: int) -> dict[str, Any]:
    """Train one arm with one seed."""
    config = config_of(arm, dataset, seed)
    training = Training(model=config.model, train=config.train)
    model = build_to_train(training, dataset, dataset.rows("train"))
    began = time.process_time()
    (end,) = (e for e in train(model, dataset, config.train) if isinstance(e, End))
    seconds = round(time.process_time() - began, 1)
    found = {
        split: accuracy(np.asarray(score_rows(model, dataset.rows(split))), dataset.rows(split))
        for split in ("validation", "test")
    }
    found |= {"epoch": end.best.epoch, "seconds": seconds}
    if arm != "one network":
        found["probe"] = probe(model, dataset)
    return found


def told(found: dict[str, list[dict[str, Any]]]) -> str:
    """The figures as a table, differences paired by seed with Student's t at 95 %."""
    whole = np.array([one["test"] for one in found[ALL]])
    lines = [
        "| arm | seeds | validation | test | minus `mran` | domain told | CPU s |",
        "|---|" * 1,
    ]
    lines[1] = "|---|---:|---:|---:|---:|---:|---:|"
    for arm, runs in found.items():
        test = np.array([one["test"] for one in runs])
        many = min(len(test), len(whole))
        gain = 100 * (test[:many] - whole[:many])
        half = stats.t.ppf(0.975, many - 1) * gain.std(ddof=1) / many**0.5 if many > 1 else np.nan
        against = "" if arm == ALL else f"{gain.mean():+.2f} ± {half:.2f}"
        mean = {
            key: np.mean([one[key] for one in runs]) if key in runs[0] else np.nan
            for key in ("validation", "probe", "seconds")
        }
        probed = "" if np.isnan(mean["probe"]) else f"{mean['probe']:.3f}"
        lines.append(
            f"| {arm} | {len(runs)} | {100 * mean['validation']:.2f} | {100 * test.mean():.2f} |"
            f" {against} | {probed} | {mean['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, write every number, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/mran"))
    given = parser.parse_args()
    if not given.data.exists():
        parser.error(f"--data must be the file fdu_mtl.parquet, got none at {given.data}")
    given.out.mkdir(parents=True, exist_ok=True)
    kept = given.out / "found.json"
    found: dict[str, list[dict[str, Any]]] = (
        json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    )
    dataset = dataset_of(texts(given.data), given.out / "cache")
    for seed in range(given.seeds):
        for arm in ARMS:
            if len(found.setdefault(arm, [])) == seed:
                found[arm].append(trained(arm, dataset, seed))
                kept.write_text(json.dumps(found, indent=1), encoding="utf-8")
                print(seed, arm, found[arm][-1], flush=True)
    print(told(found))


if __name__ == "__main__":
    main()
