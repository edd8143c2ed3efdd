"""Logloss: the mean of -log of the probability that the model gives to the label, in nats."""

import numpy as np
from jaxtyping import Bool, Float64, Int

from isthmus.metrics.formulas.metric import AbstractPaired, AbstractRatio
from isthmus.metrics.scored_rows import ScoredRows


class Logloss(AbstractRatio, AbstractPaired):
    """Mean of -log p(label) over rows with their effective weights, of the corrected logits."""

    name = "logloss"
    label = "logloss"
    definition = (
        "mean of -log p(label) in nats; weighted by the weight column, negatives also by"
        " 1 / negative_rate"
    )
    larger_is_better = False
    undefined = "all weights are 0"
    scale = "plain"
    thinned = True
    in_no_replicate = undefined
    of_one_class = "; only calibration is claimed"

    def parts(
        self, rows: ScoredRows
    ) -> tuple[Float64[np.ndarray, " rows"], Float64[np.ndarray, " rows"]]:
        """Mass * loss and mass."""
        return rows.mass * row_logloss(rows.corrected, rows.label), rows.mass

    def of_rows(
        self,
        logits: Float64[np.ndarray, " rows"],
        label: Bool[np.ndarray, " rows"],
        weight: Float64[np.ndarray, " rows"] | None,
    ) -> tuple[float, Float64[np.ndarray, " rows"]]:
        """Mean loss in nats, and weight * (loss - mean) / sum of weights."""
        loss = row_logloss(logits, label)
        mass = np.ones(len(loss)) if weight is None else weight
        total = float(mass.sum())
        if total == 0:
            return float("nan"), np.zeros(len(loss))
        mean = float(mass @ loss) / total
        return mean, mass * (loss - mean) / total


LOGLOSS = Logloss()


def row_logloss(
    logits: Float64[np.ndarray, " rows"], label: Bool[np.ndarray, " rows"]
) -> Float64[np.ndarray, " rows"]:
    """-log of the probability that the logit gives to the label, in nats.

    The loss is log(1 + exp(-logit)) of a positive and log(1 + exp(logit)) of a negative, without
    overflow and without clipping.
    """
    return np.logaddexp(0.0, np.where(label, -logits, logits))


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
