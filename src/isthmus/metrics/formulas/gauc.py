"""GAUC: the mean over groups of the AUC inside the group."""

import numpy as np

from isthmus.metrics.formulas.auc import segment_auc
from isthmus.metrics.formulas.metric import Metric, ScoredCells
from isthmus.metrics.formulas.ranking import Ranking
from isthmus.metrics.spread import Estimate


def _gauc(scored: ScoredCells) -> tuple[Estimate, Estimate]:
    """GAUC, and the share of rows in groups that have both classes.

    Sum over such groups of mass * AUC, over the sum of mass; mass = rows, or their weights. A
    ratio of sums over groups, so a group's influence is mass * (its AUC - GAUC) / sum of mass.
    """
    rows, cells = scored.rows, scored.cells
    if rows.group is None:
        nothing = Estimate(np.full(cells.n_domains + 1, np.nan), float("nan"))
        return nothing, nothing
    mass = np.ones(len(rows)) if rows.weight is None else rows.weight

    def of(segment: np.ndarray, n_segments: int) -> tuple[np.ndarray, ...]:
        """AUC (0 where undefined), mass, count of rows, and whether the AUC is defined."""
        ranking = Ranking.of(rows.logits, segment, n_segments, scored.order)
        value = segment_auc(ranking, rows.label, rows.weight).value
        both = ~np.isnan(value)
        size = np.bincount(segment, mass, minlength=n_segments) * both
        count = np.bincount(segment, minlength=n_segments).astype(np.float64)
        return np.where(both, value, 0.0), size, count, both

    value, size, count, both = of(cells.cell, len(cells.domain))
    total = cells.domain_sums(size)
    safe = np.where(total > 0, total, 1.0)
    mean = cells.domain_sums(size * value) / safe
    known = cells.domain_sums(count)
    inside = cells.domain_sums(count * both) / np.where(known > 0, known, 1.0)
    psi = size * (value - mean[cells.domain]) / safe[cells.domain]
    whole, whole_size, whole_count, whole_both = of(cells.row_cluster, cells.n_clusters)
    whole_total = float(whole_size.sum())
    pooled = float(whole_size @ whole) / (whole_total or 1.0)
    gauc = Estimate(
        value=np.where(total > 0, mean, np.nan),
        pooled=pooled if whole_total > 0 else float("nan"),
        influence=psi,
        pooled_influence=whole_size * (whole - pooled) / (whole_total or 1.0),
        used=both,
        pooled_used=whole_both,
    )
    share = np.where(known > 0, inside, np.nan)
    return gauc, Estimate(share, float(whole_count @ whole_both) / max(len(rows), 1))


GAUC = Metric(
    name="gauc",
    label="GAUC",
    definition="mean over groups that have both classes of the AUC inside the group, weighted by"
    " rows (by the weight column where there is one); gauc_share: rows in such groups",
    larger_is_better=True,
    undefined=lambda counts: "no group has both classes" if counts.grouped else "no group column",
    estimates=_gauc,
    beside=("gauc_share",),
    scale="logit",
    of_groups=True,
)
