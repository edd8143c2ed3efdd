"""Rows of one domain in seeds and folds, and arms that score them: shared by tests of effects."""

import numpy as np
from scipy.special import expit

from isthmus.metrics import EffectMetric, Replicate

METRICS: tuple[EffectMetric, ...] = ("auc", "logloss")
MARGIN = 0.005


def table(rng, rows, users, items=0) -> Replicate:
    """Rows of one domain whose labels follow a signal; users, and items if any, have tastes."""
    user = rng.integers(0, users, rows)
    taste = rng.normal(size=users)[user]
    return Replicate(
        row=rng.permutation(10 * rows)[:rows],
        label=rng.random(rows) < expit(taste + rng.normal(size=rows)),
        cluster=user,
        item=rng.integers(0, items, rows) if items else None,
    )


def counted(positives: int, negatives: int, clusters: int | None = None) -> Replicate:
    rows = positives + negatives
    cluster = None if clusters is None else np.arange(rows) % clusters
    return Replicate(np.arange(rows), np.arange(rows) < positives, cluster)


def folds_of(rows: Replicate, fold: np.ndarray) -> list[Replicate]:
    return [rows.take(fold == k) for k in range(fold.max() + 1)]


def scores(rng, rows: Replicate, seeds: int, gain=0.0) -> list[np.ndarray]:
    """Logits of some seeds of one arm: a part they share, a part of the users, a part of each."""
    assert rows.cluster is not None
    common = (0.8 + gain) * rows.label + rng.normal(size=len(rows)) - 0.4
    taste = rng.normal(size=rows.cluster.max() + 1)[rows.cluster]
    return [common + 0.5 * taste + 0.5 * rng.normal(size=len(rows)) for _ in range(seeds)]
