"""Calibration: how many positives the model promises for each one that was observed."""

import numpy as np
from jaxtyping import Float64

from isthmus.metrics.formulas.metric import Metric, ratio
from isthmus.metrics.scored_rows import ScoredRows


def promised_and_observed(
    rows: ScoredRows,
) -> tuple[Float64[np.ndarray, " rows"], Float64[np.ndarray, " rows"]]:
    """Effective weight * prediction, and effective weight * label, of each row."""
    mass = rows.mass
    return mass * rows.chance, mass * rows.label


CALIBRATION = Metric(
    name="calibration",
    label="calib.",
    definition="sum of predictions / sum of labels; weighted as logloss",
    larger_is_better=None,
    undefined=lambda _: "no positives: nothing observed to divide by",
    estimates=lambda scored: ratio(scored, *promised_and_observed(scored.rows)),
    unthinned=True,
    scale="log",
    places=3,
)
