"""Logloss, normalised entropy, calibration and ECE of many segments at once.

Every one is weighted: by the weight column, and a negative also by 1 / negative_rate, so that a
table whose negatives were thinned gives the figures of the table before it was. The logits they
read are corrected to match: logit + log(negative_rate).
"""

import numpy as np
from jaxtyping import Bool, Float64, Int
from scipy.special import expit

from isthmus.metrics.ranking import Ranking

ECE_BINS = 15


def softplus(z: Float64[np.ndarray, " rows"]) -> Float64[np.ndarray, " rows"]:
    """log(1 + exp(z)), without overflow and without clipping."""
    return np.logaddexp(0.0, z)


def row_logloss(
    logits: Float64[np.ndarray, " rows"], label: Bool[np.ndarray, " rows"]
) -> Float64[np.ndarray, " rows"]:
    """-log of the probability that the logit gives to the label, in nats; no clipping."""
    return softplus(np.where(label, -logits, logits))


def logloss(
    logits: Float64[np.ndarray, " rows"],
    label: Bool[np.ndarray, " rows"] | Int[np.ndarray, " rows"] | Float64[np.ndarray, " rows"],
    weight: Float64[np.ndarray, " rows"] | None = None,
) -> float:
    """Mean of -log p(label) over rows, in nats, from float64 logits; nan without rows.

    >>> round(logloss(np.array([0.0, 0.0]), np.array([0, 1])), 6)
    0.693147
    """
    loss = row_logloss(np.asarray(logits, dtype=np.float64), np.asarray(label) > 0)
    total = float(len(loss)) if weight is None else float(np.sum(weight))
    if total == 0:
        return float("nan")
    return float((loss if weight is None else loss * weight).sum() / total)


def effective_weight(
    label: Bool[np.ndarray, " rows"],
    weight: Float64[np.ndarray, " rows"] | None,
    negative_rate: float,
) -> Float64[np.ndarray, " rows"]:
    """Weight of each row, times 1 / negative_rate where it is a negative."""
    mass = np.where(label, 1.0, 1.0 / negative_rate)
    return mass if weight is None else mass * weight


def entropy(rate: Float64[np.ndarray, " segments"]) -> Float64[np.ndarray, " segments"]:
    """Entropy of a base rate in nats: the logloss of predicting that rate for every row."""
    inside = np.clip(rate, 1e-300, 1.0)
    outside = np.clip(1.0 - rate, 1e-300, 1.0)
    return -(rate * np.log(inside) + (1.0 - rate) * np.log(outside))


def segment_ece(
    ranking: Ranking,
    probability: Float64[np.ndarray, " rows"],
    label: Bool[np.ndarray, " rows"],
    mass: Float64[np.ndarray, " rows"],
) -> tuple[Float64[np.ndarray, " segments"], Float64[np.ndarray, " segments"]]:
    """Expected calibration error of each segment over 15 bins of equal mass, and its noise.

    Sum over bins of (mass of the bin / mass) * |mean prediction - mean label|; rows with one score
    share a bin. Noise: what a perfectly calibrated model is expected to show on these rows (each
    bin's gap taken as normal), since ECE is above 0 by chance alone. nan without mass.
    """
    run_mass = ranking.run_sums(mass)
    total = ranking.segment_sums(run_mass)
    safe = np.where(total > 0, total, 1.0)
    middle = ranking.below(run_mass) / safe[ranking.run_segment]
    bins = np.minimum((middle * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    key = ranking.run_segment.astype(np.int64) * ECE_BINS + bins

    def per_bin(values: np.ndarray) -> np.ndarray:
        length = ranking.n_segments * ECE_BINS
        return np.bincount(key, ranking.run_sums(values), minlength=length).reshape(-1, ECE_BINS)

    gap = per_bin(mass * (probability - label))
    spread = per_bin(mass * mass * probability * (1.0 - probability))
    noise = np.sqrt(2.0 / np.pi * spread).sum(axis=1)
    undefined = np.where(total > 0, 0.0, np.nan)
    return np.abs(gap).sum(axis=1) / safe + undefined, noise / safe + undefined


def corrected(
    logits: Float64[np.ndarray, " rows"], negative_rate: float
) -> Float64[np.ndarray, " rows"]:
    """Logits of the table before its negatives were thinned: logit + log(negative_rate)."""
    return logits + np.log(negative_rate) if negative_rate != 1.0 else logits


def probability(logits: Float64[np.ndarray, " rows"]) -> Float64[np.ndarray, " rows"]:
    """Logistic function of the logits."""
    return expit(logits)
