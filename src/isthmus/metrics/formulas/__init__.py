"""Every metric, one file each: formula, names, influence values, where it is undefined.

A new metric is one file here, one line in ``METRICS`` and its typed fields in ``Figures``.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from isthmus.metrics.formulas.auc import AUC
from isthmus.metrics.formulas.calibration_ratio import CALIBRATION
from isthmus.metrics.formulas.ece import ECE
from isthmus.metrics.formulas.gauc import GAUC
from isthmus.metrics.formulas.logloss import LOGLOSS
from isthmus.metrics.formulas.metric import Metric, ScoredCells
from isthmus.metrics.formulas.normalised_entropy import NE
from isthmus.metrics.formulas.ranking import Ranking, Segments
from isthmus.metrics.formulas.row_mean import row_mean as row_mean
from isthmus.metrics.scored_rows import ScoredRows
from isthmus.metrics.spread import Cells, Estimate, Seeds

METRICS: tuple[Metric, ...] = (AUC, GAUC, LOGLOSS, NE, CALIBRATION, ECE)
EffectMetric = Literal["auc", "logloss"]
"""The metrics in which two models are compared."""
PAIRED: Mapping[EffectMetric, Metric] = {"auc": AUC, "logloss": LOGLOSS}


def seeds_of(
    runs: Sequence[ScoredRows],
    cells: Cells,
    metrics: Sequence[Metric] = METRICS,
) -> dict[str, Seeds]:
    """Estimate metrics for each of the runs, which scored the same rows; by names of values."""
    found = [_estimates(run, cells, metrics) for run in runs]
    return {name: Seeds([one[name] for one in found], cells) for name in found[0]}


def _estimates(
    rows: ScoredRows,
    cells: Cells,
    metrics: Sequence[Metric],
) -> dict[str, Estimate]:
    """Estimates of one run.

    One sort of all rows, then one stable sort for each kind of segment. At most two sorted orders
    live at once, to spare memory: some 140 bytes a row in all.
    """
    found: dict[str, Estimate] = {}
    ranked = [(of.values, of.segments) for of in metrics if of.segments is not None]
    ranking = Ranking.of(rows.logits)
    order = ranking.order
    whole = [segments(rows, ranking) for _, segments in ranked]
    ranking = Ranking.of(rows.logits, rows.domain, cells.n_domains + 1, order)
    for (names, segments), pooled in zip(ranked, whole, strict=True):
        pairs = zip(segments(rows, ranking), pooled, strict=True)
        found |= zip(names, [_joined(*pair, cells) for pair in pairs], strict=True)
        del pairs  # as long as the rows
    del ranking, whole
    for metric in metrics:
        if metric.estimates is not None:
            of = metric.estimates(ScoredCells(rows, cells, order, found))
            found |= zip(metric.values, of, strict=True)
    return found


def _joined(domains: Segments, whole: Segments, cells: Cells) -> Estimate:
    """The estimate of a metric whose value is known in every domain and in the whole table."""
    psi, pooled_psi = domains.influence, whole.influence
    return Estimate(
        value=domains.value,
        pooled=float(whole.value[0]),
        influence=None if psi is None else cells.cell_sums(psi),
        pooled_influence=None if pooled_psi is None else cells.row_sums(pooled_psi),
    )
