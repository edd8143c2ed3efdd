"""ECE: how far predictions and labels lie apart, bin by bin."""

import numpy as np
from jaxtyping import Bool, Float64

from isthmus.metrics.formulas.metric import Metric
from isthmus.metrics.formulas.ranking import Ranking, Segments
from isthmus.metrics.formulas.reliability import reliability_bins
from isthmus.metrics.scored_rows import ScoredRows


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
    bins = reliability_bins(ranking, probability, label, mass)
    total = bins.total
    safe = np.where(total > 0, total, 1.0)
    noise = np.sqrt(2.0 / np.pi * bins.variance).sum(axis=1)
    undefined = np.where(total > 0, 0.0, np.nan)
    return np.abs(bins.gap).sum(axis=1) / safe + undefined, noise / safe + undefined


def _segments(rows: ScoredRows, ranking: Ranking) -> tuple[Segments, ...]:
    found = segment_ece(ranking, rows.chance, rows.label, rows.mass)
    return tuple(Segments(value) for value in found)


ECE = Metric(
    name="ece",
    label="ECE",
    definition="mean |prediction - label| over 15 bins of equal mass; weighted as logloss;"
    " ece_noise: its expectation for a perfectly calibrated model on these rows",
    larger_is_better=False,
    undefined=lambda _: "all weights are 0",
    segments=_segments,
    unthinned=True,
    beside=("ece_noise",),
)
