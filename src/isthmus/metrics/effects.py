"""Effects of one domain over several trainings: estimates, intervals and what could be detected.

A ``Reader`` knows the test rows of one domain in each replicate. It turns an arm's scores into a
``MeasuredArm``, differences of which are paired row by row, and those into an ``Effect``. Influence
values: DeLong's placements for AUC, what a row adds to the mean for logloss and for any other mean
over rows. The variance
is the crossed one of crossed.py, for seeds and for folds. Since a MeasuredArm is linear in its
influence, N+ = T - I holds for the estimates and for everything below them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.special import stdtrit

from isthmus.metrics.crossed import ROUNDING, Grid, Replicate, merge
from isthmus.metrics.formulas import PAIRED, EffectMetric, Metric
from isthmus.metrics.intervals import MIN_CLUSTERS, MIN_ROWS, interval, outside, p_value, shortfalls

FEW_TRAININGS = {
    1: "the interval covers the draw of test rows, not retraining (1 training)",
    # Simulated without a difference: 5 % is 4 to 11 % with 2 trainings, 5 to 7 % with 3 or more.
    2: "two trainings tell little of retraining: the interval is rough",
}


@dataclass(frozen=True, slots=True)
class Effect:
    """A difference between two trained arms on the test rows of one domain; above 0 is better.

    ``estimate`` is a difference of AUCs, or what the logloss falls by, in nats. ``ci`` is the 95 %
    interval, unadjusted. ``ci90`` is the two-sided 90 % interval, for equivalence. ``p`` is the
    two-sided p of no difference, and ``p_holm`` is that p adjusted over the domains. ``detectable``
    is the smallest effect that this many rows and seeds would tell from 0 or from a margin.
    ``rows_needed`` is the number of test rows that a margin needs. An undefined value is None, and
    ``reason`` says why. ``note`` says what an interval leaves out.
    """

    estimate: float | None
    se: float | None = None
    df: float | None = None
    ci: tuple[float, float] | None = None
    ci90: tuple[float, float] | None = None
    p: float | None = None
    p_holm: float | None = None
    detectable: float | None = None
    rows_needed: int | None = None
    reason: str | None = None
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        plain = asdict(self)
        return {name: list(of) if isinstance(of, tuple) else of for name, of in plain.items()}


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredArm:
    """One metric of one arm in every replicate, and how far each row moves it.

    A metric may be undefined in a replicate, as in a fold of one class. There ``values`` is nan and
    the influence is 0. Arms of one Reader may be added and subtracted: rows stay paired.
    """

    values: Float64[np.ndarray, " replicates"]
    influence: tuple[Float64[np.ndarray, " rows"], ...]

    @property
    def mean(self) -> float | None:
        """Mean over the replicates that have a value; None where none has."""
        held = self.values[~np.isnan(self.values)]
        return float(held.mean()) if len(held) else None

    def __sub__(self, other: "MeasuredArm") -> "MeasuredArm":
        """Difference of two arms, or of two differences, on the same rows."""
        return self + other._scaled(-1.0)

    def __add__(self, other: "MeasuredArm") -> "MeasuredArm":
        """Sum of two arms or differences on the same rows."""
        if [len(psi) for psi in self.influence] != [len(psi) for psi in other.influence]:
            raise ValueError("arms must be measured by one reader: their rows differ")
        pairs = zip(self.influence, other.influence, strict=True)
        return MeasuredArm(self.values + other.values, tuple(a + b for a, b in pairs))

    def _scaled(self, factor: float) -> "MeasuredArm":
        return MeasuredArm(self.values * factor, tuple(psi * factor for psi in self.influence))


class Reader:
    """Reads one metric of any arm on the test rows of one domain, replicate by replicate.

    ``replicates`` has one entry per seed or fold. Seeds hold the same rows, folds other ones. A
    cluster is known across replicates by its id, a row by its number. ``metric``: a name, or a
    metric that has ``in_replicate``, such as a `row_mean`. Raises ValueError for an unknown metric
    and for replicates that contradict each other (see ``Grid.of``).
    """

    def __init__(self, replicates: Sequence[Replicate], metric: EffectMetric | Metric) -> None:
        if not isinstance(metric, Metric) and metric not in PAIRED:
            raise ValueError(f"metric must be one of {tuple(PAIRED)}, got {metric!r}")
        self.replicates = tuple(replicates)
        self._formula = metric if isinstance(metric, Metric) else PAIRED[metric]
        formula = self._formula.in_replicate
        if formula is None:
            raise ValueError(f"metric must be one that two models can differ in, got {self.metric}")
        self._in_replicate = formula
        self.grid = Grid.of(self.replicates)

    @property
    def metric(self) -> str:
        """The name of the metric."""
        return self._formula.name

    @property
    def weighted(self) -> bool:
        """Whether rows have weights."""
        return self.replicates[0].weight is not None

    @property
    def untestable(self) -> str | None:
        """Why these rows are too few to test anything; None where they are enough.

        The minimum is 50 positives, 50 negatives and 30 clusters over all distinct test rows. For a
        mean over rows it is 100 rows and 30 clusters.
        """
        grid = self.grid
        negatives = grid.rows - grid.positives
        among = f"in {grid.rows:,} test row{'s' * (grid.rows != 1)}"
        if grid.rows == 0:
            return "no test rows"
        if not self._in_replicate.two_classes:
            return too_few_for_a_mean(grid.rows, grid.clusters)
        if grid.positives == 0 or negatives == 0:
            which = "positives" if grid.positives == 0 else "negatives"
            return f"one class: no {which} {among}{self._in_replicate.one_class}"
        short = [
            f"{count} {what} {among}, {limit} are needed"
            for count, what, limit in shortfalls(grid.positives, negatives, grid.clusters)
        ]
        return f"not testable: {'; '.join(short)}" if short else None

    def measure(self, logits: Sequence[Float64[np.ndarray, " rows"]]) -> MeasuredArm:
        """Measure one arm from its raw logits, (rows_k,) per replicate, in the replicates' order.

        AUC lies in [0, 1]. Logloss is in nats, and lower is better. Both are weighted where the
        rows have weights. Raises ValueError where shapes differ or a logit is not finite.
        """
        if len(logits) != len(self.replicates):
            raise ValueError(f"need {len(self.replicates)} replicates' logits, got {len(logits)}")
        values, influence = [], []
        for k, (replicate, given) in enumerate(zip(self.replicates, logits, strict=True)):
            scores = np.asarray(given, dtype=np.float64)
            if scores.shape != (len(replicate),):
                raise ValueError(
                    f"logits must have shape ({len(replicate)},) in replicate {k},"
                    f" got {scores.shape}"
                )
            if not np.isfinite(scores).all():
                at = int((~np.isfinite(scores)).argmax())
                raise ValueError(
                    f"logits must be finite, got {scores[at]} for row {replicate.row[at]}"
                )
            value, psi = self._in_replicate.read(replicate, scores)
            values.append(value)
            influence.append(psi)
        return MeasuredArm(np.array(values), tuple(influence))

    def effect(self, difference: MeasuredArm, margin: float) -> Effect:
        """Effect of ``difference`` (one arm minus another, as measured); above 0 is better.

        ``margin`` is the smallest effect that matters, in AUC or in nats; ``rows_needed`` answers
        to it. The sign of logloss is turned here, so that a fall of the loss is above 0.
        ``detectable`` is q SE, with q = t.95 + t.90: a one-sided test at 5 % finds such an effect 9
        times in 10. Where df is large, q is 2.93. ``rows_needed`` is rows (detectable / margin)^2,
        as if all spread fell with the rows. Raises ValueError for a margin that is not above 0.
        """
        if not margin > 0:
            raise ValueError(f"margin must be above 0, got {margin}")
        if self.untestable is not None:
            return Effect(None, reason=self.untestable)
        better = difference if self._formula.larger_is_better else difference._scaled(-1.0)
        estimate = better.mean
        if estimate is None:
            return Effect(None, reason=self._in_replicate.nowhere)
        variance, df = self.grid.spread(better.values, better.influence)
        why = self._formula.no_paired_interval(
            estimate, variance, weighted=self.weighted, unit="item", rounding=ROUNDING
        )
        if why is not None:
            return Effect(estimate, reason=why)
        se = variance**0.5
        if se <= ROUNDING:
            estimate = se = 0.0
        detectable = float(stdtrit(df, 0.95) + stdtrit(df, 0.90)) * se
        return Effect(
            estimate=estimate,
            se=se,
            df=df,
            ci=interval(estimate, se**2, df),
            ci90=interval(estimate, se**2, df, level=0.90),
            p=p_value(estimate, se**2, df),
            detectable=detectable,
            rows_needed=max(1, ceil(self.grid.rows * (detectable / margin) ** 2)),
            note=_note(better.values),
        )

    def interval(self, arm: MeasuredArm) -> tuple[float | None, tuple[float, float] | None]:
        """Mean of one arm over replicates, and its 95 % interval; None where undefined.

        An AUC's interval is symmetric on the logit scale. Rows too few to test give the mean alone.
        """
        mean = arm.mean
        if mean is None:
            return None, None
        variance, df = self.grid.spread(arm.values, arm.influence)
        scale = self._formula.scale
        assert scale is not None
        why = self.untestable or outside(mean, scale)
        why = why or self._formula.no_interval(variance, weighted=self.weighted, unit="item")
        return mean, interval(mean, variance, df, scale) if why is None else None


def macro_effect(parts: Sequence[tuple[Reader, MeasuredArm]], margin: float) -> Effect:
    """Mean effect over domains with equal shares, from the reader and the difference of each.

    A user met in several domains is one cluster. Replicate k is joined over the domains. It is left
    out where a domain has no value in it. Raises ValueError where there is no domain, or where the
    metrics, the numbers of replicates or the columns differ.
    """
    if not parts:
        raise ValueError("at least one domain is needed, got none")
    kinds = {(reader.metric, len(reader.replicates)) for reader, _ in parts}
    if len(kinds) > 1:
        raise ValueError(f"domains must share metric and replicates, got {sorted(kinds)}")
    share, many = 1.0 / len(parts), len(parts[0][0].replicates)
    scaled = [difference._scaled(share) for _, difference in parts]
    joined = MeasuredArm(
        np.sum([part.values for part in scaled], axis=0),
        tuple(np.concatenate([part.influence[k] for part in scaled]) for k in range(many)),
    )
    rows = [merge([reader.replicates[k] for reader, _ in parts]) for k in range(many)]
    whole = Reader(rows, parts[0][0]._formula)
    return whole.effect(joined, margin)


def too_few_for_a_mean(rows: int, clusters: int) -> str | None:
    """Say why a mean over so many test rows and clusters cannot be tested, or None."""
    among = f"in {rows:,} test row{'s' * (rows != 1)}"
    short = [f"{rows:,} test rows, {MIN_ROWS} are needed"] if rows < MIN_ROWS else []
    if clusters < MIN_CLUSTERS:
        short.append(f"{clusters} clusters {among}, {MIN_CLUSTERS} are needed")
    return f"not testable: {'; '.join(short)}" if short else None


def _note(values: Float64[np.ndarray, " replicates"]) -> str | None:
    held = int((~np.isnan(values)).sum())
    told = [FEW_TRAININGS[held]] if held in FEW_TRAININGS else []
    if held < len(values):
        told.append(f"{held} of {len(values)} replicates have a value")
    return "; ".join(told) or None
