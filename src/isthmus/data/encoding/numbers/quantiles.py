"""``scale: quantile``: the train quantile of a number, as the standard normal has it.

An example: of five train rows with 0, 0, 0, 7 and 9, the value 0 has the middle of its mass, .3, and
becomes -.52; 7 has .7 and becomes .52. A number halfway between 0 and 7 becomes 0.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64
from scipy.special import ndtri

KNOTS = 1000


@dataclass(frozen=True)
class QuantileScaler:
    """A rising map, linear between ``values``, which become ``scores``; flat outside of them.

    ``values``, ``scores``: of equal length, both in rising order; empty where every train row was null, and
    then every number becomes 0. ``fill``: what a null becomes, the middle of the standard normal.
    Raises ValueError where the lengths differ, or where a list does not rise.
    """

    values: tuple[float, ...]
    scores: tuple[float, ...]
    fill: float = 0.0
    scale: str = "quantile"

    def __post_init__(self) -> None:
        if len(self.values) != len(self.scores):
            raise ValueError(
                f"a quantile scale must have one score for each value, got {len(self.scores)} scores"
                f" and {len(self.values)} values"
            )
        for side in self._knots:
            if not np.isfinite(side).all() or (np.diff(side) <= 0).any():
                raise ValueError(
                    "the values and scores of a quantile scale must be finite and rise"
                )

    @cached_property
    def _knots(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.values, dtype=np.float64), np.array(self.scores, dtype=np.float64)

    def apply(self, x: Float64[np.ndarray, " rows"]) -> Float32[np.ndarray, " rows"]:
        """Scale numbers; nan and inf stay what they are."""
        values, scores = self._knots
        found = np.interp(x, values, scores) if len(values) else np.zeros(len(x))
        return np.where(np.isfinite(x), found, x).astype(np.float32)


def quantile_scaler(x: Float64[np.ndarray, " rows"], knots: int = KNOTS) -> QuantileScaler:
    """The map of these train numbers, which are in rising order.

    A value's quantile is the middle of its mass: the share of smaller numbers, and half of its own
    share. Every distinct value has a knot where there are at most ``knots`` of them. Else the knots
    lie at so many equal steps of the share, and at the two neighbours of each value that holds more
    than one step: a number just above many zeros must not be taken for a zero.
    """
    if not len(x):
        return QuantileScaler((), ())
    values, counts = np.unique(x, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / len(x)
    if len(values) > knots:
        steps = x[np.linspace(0, len(x) - 1, knots).round().astype(np.int64)]
        heavy = np.flatnonzero(counts > len(x) / knots)
        near = np.concatenate([np.searchsorted(values, steps), heavy - 1, heavy + 1])
        kept = np.unique(near[(near >= 0) & (near < len(values))])
        values, middle = values[kept], middle[kept]
    return QuantileScaler(tuple(values.tolist()), tuple(ndtri(middle).tolist()))
