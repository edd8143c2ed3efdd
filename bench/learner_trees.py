"""The diagnosis of boosted trees, a learner that is not ours, on nycflights13 by airport.

    python -m bench.learner_trees [--out runs/learner-trees]

A second stage boosts on: new trees are put on top of those of the first. Rows, sizes, margin and
seeds were fixed before any result was seen. Give the same ``--out`` again, and finished trainings
are taken from it.
"""

import argparse
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import polars as pl

import isthmus
from bench.accuracy.tables import flights
from isthmus.diagnosis import DomainRows

SEEDS = 3
MARGIN = 0.005
ROUNDS, PATIENCE = 3_000, 50  # trees of a first stage at most; trees without a better look
SECOND = 80  # trees of a second stage
LOOKS = 8
RATE = 0.05
LEAVES = (7, 31, 127)
TRAIN, VALIDATION, TEST = 15_000, 5_000, 10_000  # rows of each domain


@dataclass(frozen=True, slots=True)
class Table:
    """Features (rows, columns) float32, with codes for texts, and labels (rows,) of 0 and 1."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True, slots=True)
class Boosted:
    """LightGBM with the domain as a category. ``texts``: positions of columns that hold codes."""

    names: tuple[str, ...]
    texts: tuple[int, ...]
    leaves: int = 31

    def fingerprint(self) -> str:
        return f"boosted 1 {self.names} {self.texts} {self.leaves} {lightgbm.__version__}"

    def identify(self, rows: Table) -> str:
        return hashlib.blake2b(rows.x.tobytes() + rows.y.tobytes(), digest_size=16).hexdigest()

    def count(self, rows: Table) -> int:
        return len(rows.y)

    def train(
        self,
        rows: Mapping[str, Table],
        *,
        watch: Mapping[str, Table],
        seed: int,
        start: Mapping[str, np.ndarray] | None,
        steps: int | None,
    ) -> dict[str, np.ndarray]:
        held = lightgbm.Dataset(*self._joined(rows), categorical_feature=list(self.texts))
        seen = lightgbm.Dataset(*self._joined(watch), reference=held)
        losses: dict[str, dict[str, list[float]]] = {}
        calls = [lightgbm.record_evaluation(losses)]
        if steps is None:
            calls.append(lightgbm.early_stopping(PATIENCE, verbose=False))
        before = None if start is None else _booster(start)
        model = lightgbm.train(
            {
                "objective": "binary",
                "num_leaves": self.leaves,
                "learning_rate": RATE,
                "min_data_in_leaf": 50,
                "cat_smooth": 50,
                "bagging_fraction": 0.8,
                "bagging_freq": 1,
                "feature_fraction": 0.8,
                "seed": seed,
                "deterministic": True,
                "force_row_wise": True,
                "num_threads": 1,
                "verbose": -1,
            },
            held,
            num_boost_round=ROUNDS if steps is None else steps,
            valid_sets=[seen],
            valid_names=["watch"],
            init_model=before,
            callbacks=calls,
        )
        found = np.array(losses["watch"]["binary_logloss"])
        every = 1 if steps is None else max(1, steps // LOOKS)
        looks = np.arange(every, len(found) + 1, every)
        best = int(looks[found[looks - 1].argmin()])
        first = 0 if before is None else before.num_trees()
        text = model.model_to_string(num_iteration=first + best)
        return {"text": np.frombuffer(text.encode(), dtype=np.uint8)}

    def score(self, state: Mapping[str, np.ndarray], domain: str, rows: Table) -> np.ndarray:
        x = np.column_stack([rows.x, np.full(len(rows.y), self.names.index(domain))])
        return np.asarray(_booster(state).predict(x, num_threads=1))

    def second_stage_steps(self, rows: Table) -> int:  # noqa: ARG002
        return SECOND

    def at_widths(self) -> dict[int, "Boosted"]:
        return {leaves: replace(self, leaves=leaves) for leaves in LEAVES}

    def _joined(self, rows: Mapping[str, Table]) -> tuple[np.ndarray, np.ndarray]:
        """All rows, with the domain as the last column."""
        numbers = [np.full(len(part.y), self.names.index(name)) for name, part in rows.items()]
        x = np.concatenate([part.x for part in rows.values()])
        y = np.concatenate([part.y for part in rows.values()])
        return np.column_stack([x, np.concatenate(numbers)]), y


def _booster(state: Mapping[str, np.ndarray]) -> lightgbm.Booster:
    return lightgbm.Booster(model_str=state["text"].tobytes().decode())


def airports(folder: Path) -> tuple[dict[str, DomainRows], Boosted]:
    """Rows of three airports, drawn with seed 0, and the learner for them."""
    folder.mkdir(parents=True, exist_ok=True)
    data = flights(folder)
    frame = pl.read_parquet(data["table"])
    used = [name for name in data["features"] if name != data["domain"]]
    texts = [place for place, name in enumerate(used) if frame[name].dtype == pl.String]
    codes = [
        pl.col(name).rank("dense") if place in texts else pl.col(name)
        for place, name in enumerate(used)
    ]
    x = frame.select(codes).to_numpy().astype(np.float32)
    y = frame[data["label"]].to_numpy().astype(np.float64)
    domain = frame[data["domain"]].to_numpy()
    names = tuple(sorted(set(domain.tolist())))
    rng, found = np.random.default_rng(0), {}
    for name in names:
        at = rng.permutation(np.flatnonzero(domain == name))[: TRAIN + VALIDATION + TEST]
        parts = [Table(x[part], y[part]) for part in np.split(at, [TRAIN, TRAIN + VALIDATION])]
        train, validation, test = parts
        found[name] = DomainRows(
            train=train, validation=validation, test=test,
            labels=test.y, validation_labels=validation.y,
        )  # fmt: skip
    return found, Boosted(names, (*texts, len(used)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("runs/learner-trees"))
    parser.add_argument("--level", default="full")
    given = parser.parse_args()
    domains, learner = airports(given.out.parent / "tables")
    found: Any = isthmus.diagnose(
        learner=learner,
        domains=domains,
        out=given.out,
        level=given.level,
        seeds=SEEDS,
        metrics=["auc", "logloss"],
        margin=MARGIN,
    )
    sys.stdout.write(f"{found}\n")


if __name__ == "__main__":
    main()
