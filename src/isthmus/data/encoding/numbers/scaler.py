"""Scaling of numbers: fitted on train rows, block by block, and applied alike at fit and serve."""

from dataclasses import dataclass

import numpy as np

from isthmus.schema import Scale


def transform(scale: Scale, x: np.ndarray) -> np.ndarray:
    """``sign(x) log(1 + |x|)`` for ``log``, else ``x``; float64 (n,)."""
    return np.copysign(np.log1p(np.abs(x)), x) if scale == "log" else x


@dataclass(frozen=True, slots=True)
class Scaler:
    """``(transform(x) - shift) / spread``; ``fill`` is the scaled number that a null becomes."""

    scale: Scale
    shift: float
    spread: float
    fill: float

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Scale float64 (n,) to float32 (n,); what float32 cannot hold becomes inf."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self.scale == "none":
                return x.astype(np.float32)
            y = transform(self.scale, x) - self.shift
            y /= self.spread
            return y.astype(np.float32)


class ScalerFit:
    """Mean, spread and range of a column, gathered block by block (Chan et al. 1979, eq. 2.1)."""

    def __init__(self, scale: Scale) -> None:
        self.scale: Scale = scale
        self.rows = 0
        self.mean = 0.0
        self.squares = 0.0  # sum of squared distances from the mean
        self.low = np.inf
        self.high = -np.inf

    def add(self, x: np.ndarray) -> None:
        """Take in finite numbers, float64 (n,)."""
        if not len(x):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            y = transform(self.scale, x)
            mean = float(y.mean())
            squares = float(np.square(y - mean).sum())
            rows, step = self.rows + len(y), mean - self.mean
            self.squares += squares + step * step * self.rows * len(y) / rows
            self.mean += step * len(y) / rows
            self.rows = rows
        self.low = min(self.low, float(y.min()))
        self.high = max(self.high, float(y.max()))

    def scaler(self) -> Scaler:
        """The scaler; a column with one value only is shifted and not stretched."""
        if self.scale == "none" or not self.rows:
            return Scaler(self.scale, 0.0, 1.0, self.mean)
        if self.scale == "min_max":
            spread = self.high - self.low or 1.0
            return Scaler(self.scale, self.low, spread, (self.mean - self.low) / spread)
        spread = float(np.sqrt(self.squares / self.rows))
        # Rounding leaves a trace of spread where every value is equal.
        if self.high == self.low or not spread > 0:
            return Scaler(self.scale, self.mean, 1.0, 0.0)
        return Scaler(self.scale, self.mean, spread, 0.0)
