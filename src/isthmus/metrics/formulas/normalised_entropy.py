"""Normalised entropy: the logloss, as a share of what the base rate alone reaches."""

import numpy as np
from jaxtyping import Float64

from isthmus.metrics.formulas.logloss import LOGLOSS
from isthmus.metrics.formulas.metric import Metric, ScopeCounts, ScoredCells
from isthmus.metrics.spread import Estimate


def normalised_entropy(
    logloss: Float64[np.ndarray, " domains"], rate: Float64[np.ndarray, " domains"]
) -> Float64[np.ndarray, " domains"]:
    """Logloss over the entropy of the base rate; nan where one class is missing."""
    bound = entropy(rate)
    both = (rate > 0) & (rate < 1)
    return np.where(both, logloss / np.where(both, bound, 1.0), np.nan)


def entropy(rate: Float64[np.ndarray, " segments"]) -> Float64[np.ndarray, " segments"]:
    """Entropy of a base rate in nats: the logloss of predicting that rate for every row."""
    inside = np.clip(rate, 1e-300, 1.0)
    outside = np.clip(1.0 - rate, 1e-300, 1.0)
    return -(rate * np.log(inside) + (1.0 - rate) * np.log(outside))


def _estimates(scored: ScoredCells) -> tuple[Estimate]:
    """From the logloss that was found before."""
    rows, loss, width = scored.rows, scored.found[LOGLOSS.name], scored.cells.n_domains + 1
    mass = rows.mass
    hits = rows.label * mass
    total = np.bincount(rows.domain, mass, minlength=width)
    rate = np.bincount(rows.domain, hits, minlength=width) / np.where(total > 0, total, 1.0)
    pooled_rate = np.array([float(hits.sum()) / (float(mass.sum()) or 1.0)])
    pooled = normalised_entropy(np.array([loss.pooled]), pooled_rate)
    return (Estimate(normalised_entropy(loss.value, rate), float(pooled[0])),)


def _undefined(counts: ScopeCounts) -> str:
    missing = counts.missing_class
    return (
        f"{missing}, so the base rate has no entropy" if missing else "one class has weight 0 only"
    )


NE = Metric(
    name="ne",
    label="NE",
    definition="logloss / entropy of the base rate; below 1 beats the base rate; weighted as"
    " logloss",
    larger_is_better=False,
    undefined=_undefined,
    estimates=_estimates,
    unthinned=True,
)
