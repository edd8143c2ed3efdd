"""GAUC: the mean over groups of the AUC inside the group."""

import numpy as np

from isthmus.metrics.formulas.auc import segment_auc
from isthmus.metrics.formulas.metric import AbstractSummed, ScopeCounts, ScoredCells
from isthmus.metrics.formulas.ranking import Ranking
from isthmus.metrics.spread import Estimate


class Gauc(AbstractSummed):
    """Sum over groups that have both classes of mass * AUC, over their sum of mass.

    Mass is the group's rows, or their weights. GAUC is a ratio of sums over groups, so a group's
    influence is mass * (its AUC - GAUC) / sum of mass. ``gauc_share``: the share of rows in such
    groups.
    """

    name = "gauc"
    label = "GAUC"
    definition = (
        "mean over groups that have both classes of the AUC inside the group, weighted by rows"
        " (by the weight column where there is one); gauc_share: rows in such groups"
    )
    larger_is_better = True
    undefined = "no group has both classes"
    scale = "logit"
    beside = ("gauc_share",)
    of_groups = True

    def reason(self, counts: ScopeCounts) -> str:
        """There are no groups, or none has both classes."""
        if counts.rows and not counts.grouped:
            return "no group column"
        return super().reason(counts)

    def estimates(self, scored: ScoredCells) -> tuple[Estimate, Estimate]:
        """GAUC, and the share of rows in groups that have both classes."""
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


GAUC = Gauc()
