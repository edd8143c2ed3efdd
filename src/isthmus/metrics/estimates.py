"""Every metric of one model, per domain and pooled, with the influence of each cluster on it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from isthmus.metrics.intervals import Cells, Estimate
from isthmus.metrics.losses import (
    corrected,
    effective_weight,
    entropy,
    probability,
    row_logloss,
    segment_ece,
)
from isthmus.metrics.ranking import Ranking, segment_auc
from isthmus.metrics.scored_rows import ScoredRows


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A metric without influence values: per domain (id 0 first) and pooled; nan: undefined."""

    value: Float64[np.ndarray, " domains"]
    pooled: float


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """All metrics of one model on one set of rows."""

    auc: Estimate
    logloss: Estimate
    gauc: Estimate
    calibration: Estimate
    gauc_share: Point
    ne: Point
    ece: Point
    ece_noise: Point


def estimate_auc(scored: ScoredRows, cells: Cells, pooled: Ranking, domains: Ranking) -> Estimate:
    """AUC; influence values by DeLong, all 0 where rows have weights (no interval then)."""
    plain = scored.weight is None
    whole = segment_auc(pooled, scored.label, scored.weight, influence=plain)
    each = segment_auc(domains, scored.label, scored.weight, influence=plain)
    nothing = np.zeros(len(scored))
    psi = nothing if each.influence is None else each.influence
    pooled_psi = nothing if whole.influence is None else whole.influence
    return Estimate(
        value=each.value,
        influence=cells.cell_sums(psi),
        used=np.ones(len(cells.domain), dtype=bool),
        pooled=float(whole.value[0]),
        pooled_influence=np.bincount(cells.row_cluster, pooled_psi, minlength=cells.n_clusters),
        pooled_used=np.ones(cells.n_clusters, dtype=bool),
    )


def estimate_gauc(scored: ScoredRows, cells: Cells, order: np.ndarray) -> tuple[Estimate, Point]:
    """GAUC and the share of rows in groups that have both classes.

    Sum over such groups of mass * AUC, over the sum of mass; mass = rows, or their weights. A
    ratio of sums over groups, so a group's influence is mass * (its AUC - GAUC) / sum of mass.
    """
    if scored.group is None:
        return _no_gauc(cells)
    rows = np.ones(len(scored))
    mass = rows if scored.weight is None else scored.weight

    def of(segment: np.ndarray, n_segments: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ranking = Ranking.of(scored.logits, segment, n_segments, order)
        value = segment_auc(ranking, scored.label, scored.weight).value
        both = ~np.isnan(value)
        size = np.bincount(segment, mass, minlength=n_segments) * both
        return np.where(both, value, 0.0), size, both

    value, size, both = of(cells.cell, len(cells.domain))
    total = cells.domain_sums(size)
    safe = np.where(total > 0, total, 1.0)
    mean = cells.domain_sums(size * value) / safe
    psi = size * (value - mean[cells.domain]) / safe[cells.domain]
    whole, whole_size, whole_both = of(cells.row_cluster, cells.n_clusters)
    whole_total = float(whole_size.sum())
    pooled = float(whole_size @ whole) / (whole_total or 1.0)
    covered = cells.domain_sums(np.bincount(cells.cell, minlength=len(both)) * both)
    known = cells.domain_sums(np.bincount(cells.cell, minlength=len(both)).astype(np.float64))
    inside = np.bincount(cells.row_cluster, minlength=cells.n_clusters) @ whole_both
    estimate = Estimate(
        value=np.where(total > 0, mean, np.nan),
        influence=psi,
        used=both,
        pooled=pooled if whole_total > 0 else float("nan"),
        pooled_influence=whole_size * (whole - pooled) / (whole_total or 1.0),
        pooled_used=whole_both,
    )
    share = np.where(known > 0, covered / np.where(known > 0, known, 1.0), np.nan)
    return estimate, Point(share, float(inside) / max(len(scored), 1))


def _no_gauc(cells: Cells) -> tuple[Estimate, Point]:
    value = np.full(cells.n_domains + 1, np.nan)
    by_cell, by_cluster = np.zeros(len(cells.domain)), np.zeros(cells.n_clusters)
    none = Estimate(value, by_cell, by_cell > 0, float("nan"), by_cluster, by_cluster > 0)
    return none, Point(value, float("nan"))


def estimate_ratio(
    above: Float64[np.ndarray, " rows"], below: Float64[np.ndarray, " rows"], cells: Cells
) -> Estimate:
    """Sum of ``above`` over sum of ``below``; influence (above - ratio * below) / sum of below."""
    top, bottom = cells.cell_sums(above), cells.cell_sums(below)
    total = cells.domain_sums(bottom)
    safe = np.where(total > 0, total, 1.0)
    value = cells.domain_sums(top) / safe
    psi = (top - value[cells.domain] * bottom) / safe[cells.domain] * (total > 0)[cells.domain]
    whole_top, whole_bottom = cells.cluster_sums(top), cells.cluster_sums(bottom)
    whole = float(whole_bottom.sum())
    pooled = float(whole_top.sum()) / (whole or 1.0)
    return Estimate(
        value=np.where(total > 0, value, np.nan),
        influence=psi,
        used=np.ones(len(cells.domain), dtype=bool),
        pooled=pooled if whole > 0 else float("nan"),
        pooled_influence=(whole_top - pooled * whole_bottom) * (whole > 0) / (whole or 1.0),
        pooled_used=np.ones(cells.n_clusters, dtype=bool),
    )


def estimate_logloss(scored: ScoredRows, cells: Cells) -> Estimate:
    """Logloss over rows with their effective weights, of the corrected logits."""
    mass = effective_weight(scored.label, scored.weight, scored.negative_rate)
    loss = row_logloss(corrected(scored.logits, scored.negative_rate), scored.label)
    return estimate_ratio(mass * loss, mass, cells)


def estimate_all(scored: ScoredRows, cells: Cells) -> Estimates:
    """Compute every metric; one sort of all rows, then one stable sort for each kind of segment."""
    n_segments = cells.n_domains + 1
    pooled = Ranking.of(scored.logits)
    domains = Ranking.of(scored.logits, scored.domain, n_segments, pooled.order)
    mass = effective_weight(scored.label, scored.weight, scored.negative_rate)
    chance = probability(corrected(scored.logits, scored.negative_rate))
    logloss = estimate_logloss(scored, cells)
    hits = scored.label * mass
    gauc, share = estimate_gauc(scored, cells, pooled.order)
    ece, noise = segment_ece(domains, chance, scored.label, mass)
    pooled_ece, pooled_noise = segment_ece(pooled, chance, scored.label, mass)
    return Estimates(
        auc=estimate_auc(scored, cells, pooled, domains),
        logloss=logloss,
        gauc=gauc,
        calibration=estimate_ratio(mass * chance, hits, cells),
        gauc_share=share,
        ne=_normalised(logloss, scored.domain, mass, hits, n_segments),
        ece=Point(ece, float(pooled_ece[0])),
        ece_noise=Point(noise, float(pooled_noise[0])),
    )


def normalised_entropy(
    logloss: Float64[np.ndarray, " domains"], rate: Float64[np.ndarray, " domains"]
) -> Float64[np.ndarray, " domains"]:
    """Logloss over the entropy of the base rate; nan where one class is missing."""
    bound = entropy(rate)
    both = (rate > 0) & (rate < 1)
    return np.where(both, logloss / np.where(both, bound, 1.0), np.nan)


def _normalised(
    logloss: Estimate, domain: np.ndarray, mass: np.ndarray, hits: np.ndarray, n_segments: int
) -> Point:
    total = np.bincount(domain, mass, minlength=n_segments)
    rate = np.bincount(domain, hits, minlength=n_segments) / np.where(total > 0, total, 1.0)
    whole = float(mass.sum())
    pooled_rate = np.array([float(hits.sum()) / (whole or 1.0)])
    return Point(
        normalised_entropy(logloss.value, rate),
        float(normalised_entropy(np.array([logloss.pooled]), pooled_rate)[0]),
    )
