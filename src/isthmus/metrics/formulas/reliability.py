"""Reliability: what was promised and what came true, in bins of equal mass.

ECE is the mass-weighted mean of the bins' gaps (`isthmus.metrics.formulas.ece`). A reliability diagram
draws the same bins, one by one.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from isthmus.metrics.formulas.ranking import Ranking
from isthmus.metrics.intervals import interval
from isthmus.metrics.scored_rows import ScoredRows

BINS = 15


@dataclass(frozen=True, slots=True, eq=False)
class ReliabilityBins:
    """Sums over the rows of each bin of each segment. A bin without rows has mass 0.

    ``mass``: effective weight. ``promised``: mass * prediction. ``gap``: mass * (prediction - label).
    ``variance``: of the gap, were the model perfectly calibrated: mass^2 * p (1 - p). ``rows``: counted.
    """

    rows: Int64[np.ndarray, "segments bins"]
    mass: Float64[np.ndarray, "segments bins"]
    promised: Float64[np.ndarray, "segments bins"]
    gap: Float64[np.ndarray, "segments bins"]
    variance: Float64[np.ndarray, "segments bins"]

    @property
    def total(self) -> Float64[np.ndarray, " segments"]:
        """Mass of each segment."""
        return self.mass.sum(axis=1)

    def diagram(self, segment: int) -> list["ReliabilityPoint"]:
        """The points of a segment's diagram, by rising prediction; bins without mass are left out."""
        return [self._point(segment, int(at)) for at in np.flatnonzero(self.mass[segment] > 0)]

    def _point(self, segment: int, at: int) -> "ReliabilityPoint":
        mass = float(self.mass[segment, at])
        promised = float(self.promised[segment, at]) / mass
        variance = float(self.variance[segment, at]) / mass**2
        low, high = interval(promised, variance, df=np.inf)
        return ReliabilityPoint(
            rows=int(self.rows[segment, at]),
            mass=mass,
            promised=promised,
            observed=promised - float(self.gap[segment, at]) / mass,
            noise=(max(low, 0.0), min(high, 1.0)),
        )


@dataclass(frozen=True, slots=True)
class ReliabilityPoint:
    """One bin. ``promised``: mean prediction; ``observed``: mean label; both in [0, 1].

    ``noise``: where the mean label of a perfectly calibrated model lies in 95 % of draws of these labels,
    each bin's gap taken as normal.
    """

    rows: int
    mass: float
    promised: float
    observed: float
    noise: tuple[float, float]


def reliability_bins(
    ranking: Ranking,
    probability: Float64[np.ndarray, " rows"],
    label: Bool[np.ndarray, " rows"],
    mass: Float64[np.ndarray, " rows"],
) -> ReliabilityBins:
    """Sum the rows of each segment over 15 bins of equal mass; rows with one score share a bin."""
    run_mass = ranking.run_sums(mass)
    total = ranking.segment_sums(run_mass)
    safe = np.where(total > 0, total, 1.0)
    middle = ranking.below(run_mass) / safe[ranking.run_segment]
    bins = np.minimum((middle * BINS).astype(np.int64), BINS - 1)
    key = ranking.run_segment.astype(np.int64) * BINS + bins

    def per_bin(values: np.ndarray) -> np.ndarray:
        length = ranking.n_segments * BINS
        return np.bincount(key, ranking.run_sums(values), minlength=length).reshape(-1, BINS)

    return ReliabilityBins(
        rows=per_bin(np.ones(len(mass))).astype(np.int64),
        mass=per_bin(mass),
        promised=per_bin(mass * probability),
        gap=per_bin(mass * (probability - label)),
        variance=per_bin(mass * mass * probability * (1.0 - probability)),
    )


def reliability(rows: ScoredRows) -> tuple[ReliabilityBins, ReliabilityBins]:
    """The bins of all rows, one segment, and of each domain by report id, 0 for rows without one."""
    given = rows.chance, rows.label, rows.mass
    whole = Ranking.of(rows.logits)
    domains = Ranking.of(rows.logits, rows.domain, len(rows.names) + 1, whole.order)
    return reliability_bins(whole, *given), reliability_bins(domains, *given)
