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
from isthmus.metrics.ranking import Ranking, SegmentAuc, segment_auc
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


def estimate_auc(scored: ScoredRows, cells: Cells) -> Estimate:
    """AUC; influence values by DeLong, all 0 where rows have weights (no interval then)."""
    ranking = Ranking.of(scored.logits)
    order = ranking.order
    whole = segment_auc(ranking, scored.label, scored.weight, influence=scored.weight is None)
    ranking = Ranking.of(scored.logits, scored.domain, cells.n_domains + 1, order)
    return _auc(scored, cells, ranking, whole)


def _auc(scored: ScoredRows, cells: Cells, domains: Ranking, whole: SegmentAuc) -> Estimate:
    each = segment_auc(domains, scored.label, scored.weight, influence=scored.weight is None)
    nothing = np.broadcast_to(0.0, len(scored))
    return Estimate(
        value=each.value,
        influence=cells.cell_sums(nothing if each.influence is None else each.influence),
        used=_all(len(cells.domain)),
        pooled=float(whole.value[0]),
        pooled_influence=cells.row_sums(nothing if whole.influence is None else whole.influence),
        pooled_used=_all(cells.n_clusters),
    )


def _all(count: int) -> np.ndarray:
    """Trues without their memory."""
    return np.broadcast_to(np.True_, count)


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
    by_cell = np.broadcast_to(0.0, len(cells.domain))
    by_cluster = np.broadcast_to(0.0, cells.n_clusters)
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
        used=_all(len(cells.domain)),
        pooled=pooled if whole > 0 else float("nan"),
        pooled_influence=(whole_top - pooled * whole_bottom) * (whole > 0) / (whole or 1.0),
        pooled_used=_all(cells.n_clusters),
    )


def estimate_logloss(scored: ScoredRows, cells: Cells) -> Estimate:
    """Logloss over rows with their effective weights, of the corrected logits."""
    mass = effective_weight(scored.label, scored.weight, scored.negative_rate)
    loss = row_logloss(corrected(scored.logits, scored.negative_rate), scored.label)
    return estimate_ratio(mass * loss, mass, cells)


def estimate_all(scored: ScoredRows, cells: Cells) -> Estimates:
    """Compute every metric; one sort of all rows, then one stable sort for each kind of segment.

    At most two sorted orders live at once, to spare memory: some 140 bytes a row in all.
    """
    n_segments = cells.n_domains + 1
    ranking = Ranking.of(scored.logits)
    order = ranking.order
    whole = segment_auc(ranking, scored.label, scored.weight, influence=scored.weight is None)
    whole_ece, whole_noise = _ece(scored, ranking)
    ranking = Ranking.of(scored.logits, scored.domain, n_segments, order)
    auc = _auc(scored, cells, ranking, whole)
    ece, noise = _ece(scored, ranking)
    del ranking
    gauc, share = estimate_gauc(scored, cells, order)
    del order
    mass = effective_weight(scored.label, scored.weight, scored.negative_rate)
    hits = scored.label * mass
    logloss = estimate_logloss(scored, cells)
    chance = probability(corrected(scored.logits, scored.negative_rate))
    return Estimates(
        auc=auc,
        logloss=logloss,
        gauc=gauc,
        calibration=estimate_ratio(mass * chance, hits, cells),
        gauc_share=share,
        ne=_normalised(logloss, scored.domain, mass, hits, n_segments),
        ece=Point(ece, float(whole_ece[0])),
        ece_noise=Point(noise, float(whole_noise[0])),
    )


def _ece(scored: ScoredRows, ranking: Ranking) -> tuple[np.ndarray, np.ndarray]:
    mass = effective_weight(scored.label, scored.weight, scored.negative_rate)
    chance = probability(corrected(scored.logits, scored.negative_rate))
    return segment_ece(ranking, chance, scored.label, mass)


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
