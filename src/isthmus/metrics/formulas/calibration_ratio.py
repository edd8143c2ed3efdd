"""Calibration: how many positives the model promises for each one that was observed."""

import numpy as np
from jaxtyping import Float64

from isthmus.metrics.formulas.metric import AbstractRatio
from isthmus.metrics.scored_rows import ScoredRows


class Calibration(AbstractRatio):
    """Sum of predictions over sum of labels, with effective weights; 1 is right."""

    name = "calibration"
    label = "calib."
    definition = "sum of predictions / sum of labels; weighted as logloss"
    larger_is_better = None
    undefined = "no positives: nothing observed to divide by"
    scale = "log"
    places = 3

    def parts(
        self, rows: ScoredRows
    ) -> tuple[Float64[np.ndarray, " rows"], Float64[np.ndarray, " rows"]]:
        """Mass * prediction and mass * label."""
        return rows.mass * rows.chance, rows.mass * rows.label


CALIBRATION = Calibration()
