"""Logloss: the mean of -log of the probability that the model gives to the label, in nats."""

import numpy as np
from jaxtyping import Bool, Float64, Int

from isthmus.metrics.crossed import Replicate
from isthmus.metrics.formulas.metric import InReplicate, Metric, ratio
from isthmus.metrics.formulas.row_mean import mean_and_influence
from isthmus.metrics.scored_rows import ScoredRows


def row_logloss(
    logits: Float64[np.ndarray, " rows"], label: Bool[np.ndarray, " rows"]
) -> Float64[np.ndarray, " rows"]:
    """-log of the probability that the logit gives to the label, in nats.

    The loss is log(1 + exp(-logit)) of a positive and log(1 + exp(logit)) of a negative, without
    overflow and without clipping.
    """
    return np.logaddexp(0.0, np.where(label, -logits, logits))


def loss_and_mass(
    rows: ScoredRows,
) -> tuple[Float64[np.ndarray, " rows"], Float64[np.ndarray, " rows"]]:
    """Effective weight * loss of the corrected logits, and effective weight, of each row."""
    mass = rows.mass
    return mass * row_logloss(rows.corrected, rows.label), mass


def _in_replicate(rows: Replicate, logits: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean loss in nats, and weight * (loss - mean) / sum of weights."""
    return mean_and_influence(rows, row_logloss(logits, rows.label))


LOGLOSS = Metric(
    name="logloss",
    label="logloss",
    definition="mean of -log p(label) in nats; weighted by the weight column, negatives also by"
    " 1 / negative_rate",
    larger_is_better=False,
    undefined=lambda _: "all weights are 0",
    estimates=lambda scored: ratio(scored, *loss_and_mass(scored.rows)),
    in_replicate=InReplicate(
        _in_replicate,
        nowhere="all weights are 0",
        one_class="; only calibration is claimed",
    ),
    unthinned=True,
    scale="plain",
)


def logloss(
    logits: Float64[np.ndarray, " rows"],
    label: Bool[np.ndarray, " rows"] | Int[np.ndarray, " rows"] | Float64[np.ndarray, " rows"],
    weight: Float64[np.ndarray, " rows"] | None = None,
) -> float:
    """Mean of -log p(label) over rows, in nats, from float64 logits; nan without rows.

    ``weight``: at least 0; the mean is weighted by it, and nan where all weights are 0.

    >>> round(logloss(np.array([0.0, 0.0]), np.array([0, 1])), 6)
    0.693147
    """
    loss = row_logloss(np.asarray(logits, dtype=np.float64), np.asarray(label) > 0)
    total = float(len(loss)) if weight is None else float(np.sum(weight))
    if total == 0:
        return float("nan")
    return float((loss if weight is None else loss * weight).sum() / total)
