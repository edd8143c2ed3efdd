"""What a metric declares. One file of this folder holds one metric; ``METRICS`` lists them all.

Evaluations, comparisons and effects know a metric by its declaration only.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float64, Int

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
    def negatives(self) -> int:
        """Rows that are not positive."""
        return self.rows - self.positives

    @property
    def missing_class(self) -> str | None:
        """``one class: no positives``, or of negatives; None where no class alone is there."""
        if self.positives == self.rows == 0 or 0 < self.positives < self.rows:
            return None
        return f"one class: no {'negatives' if self.positives else 'positives'}"

    def rough(self) -> str | None:
        """Remark on an interval of an AUC from too little."""
        low = shortfalls(self.positives, self.negatives, self.clusters)
        few = " and ".join(f"{limit} {what}" for _, what, limit in low)
        return f"fewer than {few}: the interval is rough" if low else None


class AbstractMetric(ABC):
    """One metric: its names, its formula, where it is undefined, what its interval needs.

    ``name``: its key in JSON and its attribute of ``Figures``. ``label``: its name in a table.
    ``larger_is_better``: None where neither is. ``scale``: the scale on which its interval is
    symmetric; None for a metric without an interval. ``undefined``: why it is undefined in a scope
    that has rows. ``with_weights``: why it has no interval where rows have weights; None where it
    has one. ``rough_of_few``: whether an interval from few rows is said to be rough. ``beside``:
    names of further values that its formula gives, without an interval. ``of_groups``: whether it
    reads only groups that have both classes. ``interval_in_table``, ``places``: how the table of an
    evaluation shows it.
    """

    name: str
    label: str
    definition: str
    larger_is_better: bool | None
    undefined: str
    scale: Scale | None = None
    with_weights: str | None = None
    rough_of_few: bool = False
    beside: tuple[str, ...] = ()
    of_groups: bool = False
    interval_in_table: bool = False
    places: int = 4

    @property
    def values(self) -> tuple[str, ...]:
        """Names of all values that the formula gives: the metric's own first."""
        return self.name, *self.beside

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of all that ``Figures`` holds of the metric: its values and their intervals."""
        interval = () if self.scale is None else (f"{self.name}_ci",)
        return self.name, *interval, *self.beside

    def reason(self, counts: ScopeCounts) -> str:
        """Say why the metric is undefined in a scope."""
        return self.undefined if counts.rows else "no rows"

    def no_interval(self, variance: float, *, weighted: bool, unit: str) -> str | None:
        """Say why a defined metric has no interval, or None; ``unit``: what was drawn."""
        if weighted and self.with_weights is not None:
            return self.with_weights
        drawn = f"{unit} with both classes" if self.of_groups else unit
        return f"one {drawn}: nothing to estimate a spread from" if np.isnan(variance) else None

    def note(self, counts: ScopeCounts) -> str | None:
        """Remark on an interval of this metric, or None."""
        return counts.rough() if self.rough_of_few else None


class AbstractRanked(AbstractMetric):
    """A metric of sorted rows, computed for many segments at once."""

    @abstractmethod
    def segments(self, rows: ScoredRows, ranking: Ranking) -> tuple[Segments, ...]:
        """The metric in each segment of ``ranking``, one entry for each of ``values``."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredCells:
    """The rows that one model scored, gathered by domain and cluster.

    ``order``: the rows by ascending logit. ``found``: estimates of the metrics before this one.
    """

    rows: ScoredRows
    cells: Cells
    order: Int[np.ndarray, " rows"]
    found: Mapping[str, Estimate]


class AbstractSummed(AbstractMetric):
    """A metric of sums over clusters."""

    @abstractmethod
    def estimates(self, scored: ScoredCells) -> tuple[Estimate, ...]:
        """The metric per domain and pooled, one entry for each of ``values``."""


class AbstractRatio(AbstractSummed):
    """A metric that is the sum of one value of the rows over the sum of another."""

    @abstractmethod
    def parts(
        self, rows: ScoredRows
    ) -> tuple[Float64[np.ndarray, " rows"], Float64[np.ndarray, " rows"]]:
        """The two values of each row: above and below the line."""

    @final
    def estimates(self, scored: ScoredCells) -> tuple[Estimate]:
        """The ratio per domain and pooled; influence (above - ratio * below) / sum of below."""
        cells = scored.cells
        top, bottom = (cells.cell_sums(part) for part in self.parts(scored.rows))
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


class AbstractPaired(AbstractMetric):
    """A metric in which two models can be compared on the same rows.

    ``thinned``: whether it is told for the table before its negatives were thinned.
    ``in_no_replicate``: why it is undefined over all replicates. ``of_one_class``: what is left to
    say of rows of one class.
    """

    thinned: bool
    in_no_replicate: str
    of_one_class: str = ""

    def no_difference_interval(
        self,
        difference: float,
        variance: float,
        *,
        weighted: bool,
        unit: str,
        rounding: float = 0.0,
    ) -> str | None:
        """Say why a paired difference has no interval, or None; up to ``rounding`` it is 0."""
        why = self.no_interval(variance, weighted=weighted, unit=unit)
        if why is None and variance**0.5 <= rounding < abs(difference):
            why = "no spread among rows: nothing to estimate an interval from"
        return why

    @abstractmethod
    def of_rows(
        self,
        logits: Float64[np.ndarray, " rows"],
        label: Bool[np.ndarray, " rows"],
        weight: Float64[np.ndarray, " rows"] | None,
    ) -> tuple[float, Float64[np.ndarray, " rows"]]:
        """The metric of all rows as one set, nan where undefined, and each row's influence."""
