"""Scaling of numbers: fitted on train rows, block by block, and applied alike at fit and serve."""

from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import pyarrow as pa

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


class Moments(NamedTuple):
    """What a scaler needs of some numbers."""

    rows: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared distances from the mean
    low: float = np.inf
    high: float = -np.inf

    def with_more(self, more: "Moments") -> "Moments":
        """Those of both (Chan et al. 1979, eq. 2.1). Numbers of another order give other last bits."""
        rows, step = self.rows + more.rows, more.mean - self.mean
        return Moments(
            rows,
            self.mean + step * more.rows / rows,
            self.squares + (more.squares + step * step * self.rows * more.rows / rows),
            min(self.low, more.low),
            max(self.high, more.high),
        )


_MOMENTS = pa.schema(
    {name: pa.int64() if name == "rows" else pa.float64() for name in Moments._fields}
)


class ScalerFit:
    """Mean, spread and range of a column, gathered block by block.

    ``blocks``: of each block by itself, in table order. Processes that read a part of the table each put
    theirs one after another, and find the same bits as one process does.
    """

    def __init__(self, scale: Scale) -> None:
        self.scale: Scale = scale
        self.blocks: list[Moments] = []

    def add(self, x: np.ndarray) -> None:
        """Take in finite numbers, float64 (n,)."""
        if not len(x):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            y = transform(self.scale, x)
            mean = float(y.mean())
            squares = float(np.square(y - mean).sum())
        self.blocks.append(Moments(len(y), mean, squares, float(y.min()), float(y.max())))

    def table(self) -> pa.Table:
        """The moments of the blocks, for `take_in` of another process."""
        columns = zip(*self.blocks, strict=True) if self.blocks else [()] * len(_MOMENTS)
        arrays = (pa.array(each, kind) for each, kind in zip(columns, _MOMENTS.types, strict=True))
        return pa.Table.from_arrays(list(arrays), schema=_MOMENTS)

    def take_in(self, table: pa.Table) -> None:
        """Add the blocks of rows that follow in the table."""
        self.blocks += [Moments(**row) for row in table.to_pylist()]

    def scaler(self) -> Scaler:
        """The scaler; a column with one value only is shifted and not stretched."""
        rows, mean, squares, low, high = reduce(Moments.with_more, self.blocks, Moments())
        if self.scale == "none" or not rows:
            return Scaler(self.scale, 0.0, 1.0, mean)
        if self.scale == "min_max":
            spread = high - low or 1.0
            return Scaler(self.scale, low, spread, (mean - low) / spread)
        spread = float(np.sqrt(squares / rows))
        # Rounding leaves a trace of spread where every value is equal.
        if high == low or not spread > 0:
            return Scaler(self.scale, mean, 1.0, 0.0)
        return Scaler(self.scale, mean, spread, 0.0)
