"""Intervals and p values from an estimate, its variance and its degrees of freedom."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.special import expit, logit, stdtr, stdtrit

LEVEL = 0.95
MIN_POSITIVES = MIN_NEGATIVES = 50  # below these counts an interval of an AUC is rough
MIN_CLUSTERS = 30
MIN_ROWS = 100  # of a mean over rows: as many as the two classes of an AUC have together
Scale = Literal["plain", "log", "logit"]


def shortfalls(positives: int, negatives: int, clusters: int) -> list[tuple[int, str, int]]:
    """Counts that are below the minimum: the count, what is counted, and the minimum."""
    counts = (
        (positives, "positives", MIN_POSITIVES),
        (negatives, "negatives", MIN_NEGATIVES),
        (clusters, "clusters", MIN_CLUSTERS),
    )
    return [found for found in counts if found[0] < found[2]]


def outside(value: float, scale: Scale) -> str | None:
    """Why a value has no place on a scale, or None."""
    if scale == "logit" and not 0 < value < 1:
        return "perfect separation: nothing to estimate a spread from"
    if scale == "log" and value <= 0:
        return "no prediction is above 0"
    return None


def interval(
    value: float,
    variance: float,
    df: float,
    scale: Scale = "plain",
    level: float = LEVEL,
) -> tuple[float, float]:
    """Student's t interval at ``level``, symmetric on ``scale`` and carried back from it.

    ``logit`` keeps an AUC inside (0, 1), ``log`` a ratio above 0; both by the delta method.
    """
    half = float(stdtrit(df, (1 + level) / 2)) * variance**0.5
    if scale == "logit":
        middle, reach = float(logit(value)), half / (value * (1 - value))
        return float(expit(middle - reach)), float(expit(middle + reach))
    if scale == "log":
        return value * float(np.exp(-half / value)), value * float(np.exp(half / value))
    return value - half, value + half


def p_value(difference: float, variance: float, df: float) -> float:
    """Two-sided p of Student's t for a difference of 0; 1 where nothing differs at all."""
    if variance == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stdtr(df, -abs(difference) / variance**0.5))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: the chance of any false alarm among all p is held.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    stepped = np.asarray(p, dtype=np.float64)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted.tolist()


def holm_levels(p: Sequence[float]) -> list[float]:
    """Levels of intervals that agree with `holm`: one holds 0 exactly where its adjusted p is above .05.

    The level is that of Holm's step, 1 - .05 / h. Here h counts the hypotheses that stand when it is the
    turn of this one; those that are never rejected all have the h at which Holm stopped.

    >>> [round(level, 4) for level in holm_levels([0.01, 0.04, 0.03])]
    [0.9833, 0.975, 0.975]
    """
    alarm = 1 - LEVEL
    rejected = sum(one <= alarm for one in holm(p))
    levels = np.empty(len(p))
    for place, at in enumerate(np.argsort(p, kind="stable")):
        levels[at] = 1 - alarm / (len(p) - min(place, rejected))
    return levels.tolist()
