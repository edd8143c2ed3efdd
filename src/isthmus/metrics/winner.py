"""Naming a winner: only against a control that shows what another seed alone does."""

from dataclasses import dataclass
from math import isclose
from typing import Literal

from isthmus.metrics.comparison import Comparison, Difference
from isthmus.metrics.formulas import EffectMetric


@dataclass(frozen=True, slots=True)
class Winner:
    """Whether b or a wins in one scope; ``winner`` is None where nothing may be claimed."""

    scope: str
    metric: EffectMetric
    winner: str | None
    why: str

    def __str__(self) -> str:
        said = "no winner" if self.winner is None else f"{self.winner} wins"
        return f"{self.scope}, {self.metric}: {said}; {self.why}"


def judge(
    comparison: Comparison, control: Comparison, metric: EffectMetric = "auc"
) -> tuple[Winner, ...]:
    """Name a winner where |b - a| exceeds both its interval's half width and |a' - a|.

    ``control`` compares a with a', the same model trained with another seed. There is one verdict
    per domain, then pooled, macro, weighted and worst. A single control is one draw of the seed's
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
    verdicts = []
    for scope, pair in scopes.items():
        side, why = _winner(pair.differences[metric], controls[scope].differences[metric])
        winner = None if side is None else getattr(comparison, side)
        verdicts.append(Winner(scope, metric, winner, why))
    return tuple(verdicts)


def _winner(of: Difference, seed: Difference) -> tuple[Literal["a", "b"] | None, str]:
    """The side that wins, if any, and why."""
    if of.difference is None or of.half_width is None:
        return None, of.reason or "undefined"
    if seed.difference is None:
        return None, f"the control is undefined: {seed.reason}"
    size, another = abs(of.difference), abs(seed.difference)
    told = f"|b - a| = {size:.4f}"
    if of.better is None:
        return None, f"{told} is within its interval, ± {of.half_width:.4f}"
    if size <= another:
        return None, f"{told} is no more than another seed, {another:.4f}"
    return of.better, (
        f"{told} exceeds its interval, ± {of.half_width:.4f}, and another seed, {another:.4f}"
    )
