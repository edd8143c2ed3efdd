"""What effects allow to say: margins, many domains at once, many cells, agreement of rankings."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from jaxtyping import Float64

from isthmus.metrics.effects import Effect
from isthmus.metrics.intervals import holm

Key = TypeVar("Key", bound=Hashable)


def not_worse(effect: Effect, margin: float) -> bool:
    """Whether the two-sided 90 % interval lies above -margin: a one-sided test at 5 %.

    False without an interval: then nothing is shown.
    """
    return effect.ci90 is not None and effect.ci90[0] > -margin


def same(effect: Effect, margin: float) -> bool:
    """Whether the two-sided 90 % interval lies inside -margin..margin.

    Source: Schuirmann, J. Pharmacokin. Biopharm. 15 (1987), two one-sided tests at 5 % each.
    False without an interval.
    """
    return not_worse(effect, margin) and effect.ci90 is not None and effect.ci90[1] < margin


def with_holm(effects: Mapping[Key, Effect]) -> dict[Key, Effect]:
    """Fill ``p_holm``: Holm's adjustment of the two-sided p over the effects that have one.

    Harm to a domain is p_holm <= .05 over the net effects of all domains, with an estimate below 0.
    """
    tested = {name: effect.p for name, effect in effects.items() if effect.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {name: replace(effect, p_holm=adjusted.get(name)) for name, effect in effects.items()}


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Adjusted p: cells at or below q hold at most a share q of false ones, in the mean.

    Source: Benjamini and Hochberg, JRSS B 57 (1995); holds for independent cells and for cells of
    positive dependence.

    >>> benjamini_hochberg([0.01, 0.5, 0.03, 0.04])
    [0.04, 0.5, 0.05333333333333334, 0.05333333333333334]
    """
    order = np.argsort(p, kind="stable")[::-1]
    stepped = np.asarray(p, dtype=np.float64)[order] * len(p) / np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.minimum.accumulate(stepped), 1.0)
    return adjusted.tolist()


def spearman(a: Float64[np.ndarray, " cells"], b: Float64[np.ndarray, " cells"]) -> float | None:
    """Rank correlation over the cells where both are known (not nan); ties share a mean rank.

    The result is None with fewer than 3 such cells, or where one side is constant.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    known = ~(np.isnan(a) | np.isnan(b))
    if known.sum() < 3:
        return None
    left, right = _ranks(a[known]), _ranks(b[known])
    if left.std() == 0 or right.std() == 0:
        return None
    return float(np.corrcoef(left, right)[0, 1])


def _ranks(values: Float64[np.ndarray, " cells"]) -> Float64[np.ndarray, " cells"]:
    _, which, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[which]
