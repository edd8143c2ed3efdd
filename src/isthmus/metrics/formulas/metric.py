"""What a metric declares. One file of this folder holds one metric; ``METRICS`` lists them all.

Evaluations, comparisons and effects know a metric by its declaration only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from isthmus.metrics.crossed import Replicate
from isthmus.metrics.formulas.ranking import Ranking, Segments
from isthmus.metrics.intervals import Scale, shortfalls
from isthmus.metrics.scored_rows import ScoredRows
from isthmus.metrics.spread import Cells, Estimate


@dataclass(frozen=True, slots=True, eq=False)
class ScopeCounts:
    """Counts of one scope, from which reasons and notes follow."""

    rows: int
    positives: int
    clusters: int
    grouped: bool
    weighted: bool

    @property
    def missing_class(self) -> str | None:
        """``one class: no positives``, or no negatives; None where both classes are there."""
        if 0 < self.positives < self.rows:
            return None
        return f"one class: no {'negatives' if self.positives else 'positives'}"

    def rough(self) -> str | None:
        """Remark on an interval of an AUC from too little."""
        low = shortfalls(self.positives, self.rows - self.positives, self.clusters)
        few = " and ".join(f"{limit} {what}" for _, what, limit in low)
        return f"fewer than {few}: the interval is rough" if low else None


@dataclass(frozen=True, slots=True, eq=False)
class ScoredCells:
    """The rows that one model scored, gathered by domain and cluster.

    ``order``: the rows by ascending logit. ``found``: estimates of the metrics before this one.
    """

    rows: ScoredRows
    cells: Cells
    order: Int[np.ndarray, " rows"]
    found: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True, eq=False)
class InReplicate:
    """How effects read a metric in one replicate.

    ``read``: from the rows and their float64 logits, the metric of all rows as one set (nan where
    undefined) and each row's influence on it. ``nowhere``: why it is undefined in all replicates.
    ``one_class``: what is left to say where the rows have one class. ``two_classes``: whether the
    metric reads labels of two classes. Any other one is a mean over rows.
    """

    read: Callable[[Replicate, np.ndarray], tuple[float, np.ndarray]]
    nowhere: str
    one_class: str = ""
    two_classes: bool = True


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Metric:
    """One metric: its names, its formula, where it is undefined, what its interval needs.

    A formula is one of two. ``segments``: of sorted rows, in each segment of a ranking.
    ``estimates``: of sums over cells, in each domain and pooled. Both give one entry for each of
    ``values``. ``in_replicate``: set where two models can be compared in this metric.
    """

    name: str  # its key in JSON and its attribute of Figures
    label: str  # its name in a table
    definition: str
    larger_is_better: bool | None  # None: neither is
    undefined: Callable[[ScopeCounts], str]  # why, in a scope that has rows
    segments: Callable[[ScoredRows, Ranking], tuple[Segments, ...]] | None = None
    estimates: Callable[[ScoredCells], tuple[Estimate, ...]] | None = None
    in_replicate: InReplicate | None = None
    unthinned: bool = False  # whether it is told of the table before its negatives were thinned
    beside: tuple[str, ...] = ()  # names of further values of its formula, without an interval
    scale: Scale | None = None  # where its interval is symmetric; None: it has none
    with_weights: str | None = None  # why there is no interval where rows have weights
    rough_of_few: bool = False  # whether an interval from few rows is said to be rough
    of_groups: bool = False  # whether it reads only groups that have both classes
    interval_in_table: bool = False  # of an evaluation, as ``places``
    places: int = 4

    @property
    def values(self) -> tuple[str, ...]:
        """Names of all values that the formula gives: the metric's own first."""
        return self.name, *self.beside

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of all that ``Figures`` holds of the metric: its values and its interval."""
        interval = () if self.scale is None else (f"{self.name}_ci",)
        return self.name, *interval, *self.beside

    def reason(self, counts: ScopeCounts) -> str:
        """Say why the metric is undefined in a scope."""
        return self.undefined(counts) if counts.rows else "no rows"

    def no_interval(self, variance: float, *, weighted: bool, unit: str) -> str | None:
        """Say why a defined metric has no interval, or None; ``unit``: what was drawn."""
        if weighted and self.with_weights is not None:
            return self.with_weights
        drawn = f"{unit} with both classes" if self.of_groups else unit
        return f"one {drawn}: nothing to estimate a spread from" if np.isnan(variance) else None

    def no_paired_interval(
        self, difference: float, variance: float, *, weighted: bool, unit: str, rounding: float = 0
    ) -> str | None:
        """Say why a paired difference has no interval, or None; up to ``rounding`` it is 0."""
        why = self.no_interval(variance, weighted=weighted, unit=unit)
        if why is None and variance**0.5 <= rounding < abs(difference):
            why = "no spread among rows: nothing to estimate an interval from"
        return why


def ratio(
    scored: ScoredCells, above: Float64[np.ndarray, " rows"], below: Float64[np.ndarray, " rows"]
) -> tuple[Estimate]:
    """Sum of ``above`` over sum of ``below``; influence (above - ratio * below) / sum of below."""
    cells = scored.cells
    top, bottom = cells.cell_sums(above), cells.cell_sums(below)
    total = cells.domain_sums(bottom)
    safe = np.where(total > 0, total, 1.0)
    value = cells.domain_sums(top) / safe
    psi = (top - value[cells.domain] * bottom) / safe[cells.domain] * (total > 0)[cells.domain]
    whole_top, whole_bottom = cells.cluster_sums(top), cells.cluster_sums(bottom)
    whole = float(whole_bottom.sum())
    pooled = float(whole_top.sum()) / (whole or 1.0)
    estimate = Estimate(
        value=np.where(total > 0, value, np.nan),
        pooled=pooled if whole > 0 else float("nan"),
        influence=psi,
        pooled_influence=(whole_top - pooled * whole_bottom) * (whole > 0) / (whole or 1.0),
    )
    return (estimate,)
