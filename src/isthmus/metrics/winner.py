"""Naming a winner: only against a control that shows what another seed alone does."""

from dataclasses import dataclass
from math import isclose

from isthmus.metrics.differences import Comparison, Difference, Metric, Pair


@dataclass(frozen=True, slots=True)
class Winner:
    """Whether b or a wins in one scope; ``winner`` is None where nothing may be claimed."""

    scope: str
    metric: Metric
    winner: str | None
    why: str

    def __str__(self) -> str:
        said = "no winner" if self.winner is None else f"{self.winner} wins"
        return f"{self.scope}, {self.metric}: {said}; {self.why}"


def judge(
    comparison: Comparison, control: Comparison, metric: Metric = "auc"
) -> tuple[Winner, ...]:
    """Name a winner where |b - a| exceeds both its interval's half width and |a' - a|.

    ``control`` compares a with a', the same model trained with another seed. One verdict per
    domain, then pooled, macro, weighted and worst. A single control is one draw of the seed's
    effect, so a win is a reason to train more seeds, not the end of the matter. Raises ValueError
    unless both comparisons have the same a on the same split.
    """
    if (comparison.split, list(comparison.domains)) != (control.split, list(control.domains)):
        raise ValueError(
            "comparison and control must be of one split and its domains,"
            f" got {comparison.split!r} and {control.split!r}"
        )
    mine, theirs = comparison.pooled.logloss.a, control.pooled.logloss.a
    if mine is not None and theirs is not None and not isclose(mine, theirs):
        raise ValueError(
            "comparison and control must have the same model a, got pooled logloss"
            f" {mine} and {theirs}"
        )
    scopes = {**comparison.domains, **comparison.scopes()}
    controls = {**control.domains, **control.scopes()}
    return tuple(
        _verdict(scope, metric, comparison, pair, controls[scope]) for scope, pair in scopes.items()
    )


def _verdict(
    scope: str, metric: Metric, comparison: Comparison, pair: Pair, control: Pair
) -> Winner:
    of: Difference = getattr(pair, metric)
    seed: Difference = getattr(control, metric)
    if of.difference is None or of.half_width is None:
        return Winner(scope, metric, None, of.reason or "undefined")
    if seed.difference is None:
        return Winner(scope, metric, None, f"the control is undefined: {seed.reason}")
    size = abs(of.difference)
    told = f"|b - a| = {size:.4f}"
    if of.better is None:
        return Winner(scope, metric, None, f"{told} is within its interval, ± {of.half_width:.4f}")
    if size <= abs(seed.difference):
        return Winner(
            scope, metric, None, f"{told} is no more than another seed, {abs(seed.difference):.4f}"
        )
    return Winner(
        scope,
        metric,
        getattr(comparison, of.better),
        f"{told} exceeds its interval, ± {of.half_width:.4f},"
        f" and another seed, {abs(seed.difference):.4f}",
    )
