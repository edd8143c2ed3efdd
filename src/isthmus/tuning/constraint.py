"""The constraint of a trial: no domain may surely be worse than with the config as it stands.

A study compares each trial with its reference, which is the first trial that ends, on the same
validation rows, domain by domain. The gain of a domain is the paired difference in AUC, or in logloss
where the monitor is a logloss; above 0 is better. Its interval is Student's, from DeLong's
influence values of the difference (`isthmus.metrics.spread`), at a level of 1 - 0.05 / D for D
domains. So all D intervals cover with 95 % together (Bonferroni), and one interval each would not do:
with 100 domains, two trials without any difference would fall out in every second comparison.

A trial is feasible where the upper end of each domain's interval is 0 or more. The margin of a
domain is then half its interval: wide where the domain has few rows, narrow where it has many.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.special import stdtrit

from isthmus.config import Config
from isthmus.data import Dataset
from isthmus.metrics import ScoredRows
from isthmus.metrics.formulas import PAIRED, EffectMetric, seeds_of
from isthmus.metrics.intervals import LEVEL
from isthmus.metrics.scopes import Scope, Scopes
from isthmus.run.external import group_numbers
from isthmus.train import Monitor


@dataclass(frozen=True, slots=True)
class TrialGain:
    """One domain of a trial against the reference, on the same validation rows.

    ``reference``, ``value``: the AUC or the logloss of each. ``gain``: above 0 is better. ``half``:
    half the interval of the gain, at the level that holds for all domains together. An undefined
    value is None, and ``reason`` says why. A domain without an interval is not held to anything.
    """

    rows: int
    reference: float | None
    value: float | None
    gain: float | None
    half: float | None
    reason: str | None = None

    @property
    def excess(self) -> float | None:
        """How far the domain is below what chance allows; at most 0 where it is not."""
        return None if self.gain is None or self.half is None else -(self.gain + self.half)

    def to_dict(self) -> dict[str, Any]:
        """Give plain values."""
        return asdict(self)


def metric_of(monitor: Monitor) -> EffectMetric:
    """Give the metric in which domains are compared: the monitor's own.

    >>> metric_of("auc_worst")
    'auc'
    """
    return "logloss" if monitor.startswith("logloss") else "auc"


def validation_rows(
    config: Config, dataset: Dataset, logits: Float64[np.ndarray, " rows"]
) -> ScoredRows:
    """Give the validation rows with their logits, as every metric reads them."""
    rows = dataset.rows("validation")
    return ScoredRows(
        split="validation",
        row=rows.row,
        logits=logits,
        label=rows.label > 0,
        domain=rows.domain,
        names=dataset.domain_names,
        weight=rows.weight,
        group=group_numbers(rows.group),
        negative_rate=config.data.negative_rate,
    )


def trial_gains(
    reference: ScoredRows, trial: ScoredRows, metric: EffectMetric
) -> dict[str, TrialGain]:
    """Compare a trial with the reference in each domain that has rows.

    ``reference``, ``trial``: the same rows in the same order. All domains cost one pass.
    """
    of, scopes = PAIRED[metric], Scopes(reference)
    before = seeds_of([reference], scopes.cells, (of,))
    after = seeds_of([trial], scopes.cells, (of,))
    paired = scopes.domains({name: after[name] - before[name] for name in after})
    bare = ({name: one.bare() for name, one in side.items()} for side in (before, after))
    values = [[scope.spreads[metric][0] for scope in scopes.domains(side)] for side in bare]
    whys = [_no_interval(scope, metric) for scope in paired]
    held = [scope.counts.rows > 0 and why is None for scope, why in zip(paired, whys, strict=True)]
    level = 1 - (1 - LEVEL) / max(1, sum(held))
    return {
        name: _gain(was, now, scope, metric, why, level)
        for name, was, now, scope, why in zip(reference.names, *values, paired, whys, strict=True)
        if scope.counts.rows
    }


def worst_excess(gains: Mapping[str, TrialGain]) -> tuple[str, float] | None:
    """Give the domain that is the furthest below what chance allows, and by how much.

    A trial is feasible where the excess is 0 or less. None: no domain has an interval.
    """
    excesses = {name: one.excess for name, one in gains.items()}
    known = {name: excess for name, excess in excesses.items() if excess is not None}
    return max(known.items(), key=lambda pair: pair[1]) if known else None


def _gain(
    reference: float,
    value: float,
    paired: Scope,
    metric: EffectMetric,
    why: str | None,
    level: float,
) -> TrialGain:
    difference, variance, df = paired.spreads[metric]
    rows = paired.counts.rows
    if np.isnan(difference):
        return TrialGain(rows, None, None, None, None, why)
    sign = 1.0 if PAIRED[metric].larger_is_better else -1.0
    half = float(stdtrit(df, (1 + level) / 2) * variance**0.5) if why is None else None
    return TrialGain(rows, float(reference), float(value), sign * difference, half, why)


def _no_interval(paired: Scope, metric: EffectMetric) -> str | None:
    """Say why the difference of a domain has no interval, or None."""
    of, counts = PAIRED[metric], paired.counts
    difference, variance, _ = paired.spreads[metric]
    if np.isnan(difference):
        return of.reason(counts)
    unit = "group" if counts.grouped else "row"
    return of.no_paired_interval(difference, variance, weighted=counts.weighted, unit=unit)
