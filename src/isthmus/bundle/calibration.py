"""Calibration: per domain, the slope and offset of the logits that fit held-out rows best.

A model with the right order of scores can still promise 3 % where 5 % click. The calibrated logit of
domain d is ``a_d * logit + b_d`` (Platt, 1999). The pair (a_d, b_d) is fitted on validation rows by
penalised maximum likelihood. First one pooled pair is fitted and drawn towards (1, 0). Then the pair
of every domain is fitted and drawn towards the pooled pair:

    minimise over (a, b)  sum_i w_i loss_i(a, b) + strength / 2 * (theta - theta_0)' F (theta - theta_0)

theta is (a, b), and theta_0 is the pair that theta is drawn towards. F is the Fisher information of
one average row at ``theta_0``. So ``theta_0`` counts like ``strength`` rows of evidence. A domain of 50
rows stays near the pooled pair. A domain of 50,000 rows goes its own way.

Both problems are convex and both begin at ``theta_0``. So the fit never raises the summed loss of its
rows above the summed loss of the logits as they were.

Calibrate before the correction for ``negative_rate``, on the scale on which the model was trained.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

STRENGTH = 500.0  # rows of evidence that the pooled pair counts for
SMALLEST_SLOPE = 0.05  # above 0, so that the order of scores within a domain stays
ITERATIONS = 50
TOLERANCE = 1e-12  # of the loss, per row: where Newton's method stops
HALVINGS = 20


@dataclass(frozen=True, slots=True)
class Calibration:
    """A slope and an offset for each domain; index 0, the unknown domain, holds the pooled pair."""

    slope: np.ndarray  # (n_domains + 1,) float64, > 0
    offset: np.ndarray  # (n_domains + 1,) float64, in logits

    def __post_init__(self) -> None:
        """Refuse a pair that would turn the order of scores round or make scores nan."""
        if self.slope.ndim != 1 or self.slope.shape != self.offset.shape:
            raise ValueError(
                "slope and offset must be of one shape (n_domains + 1,),"
                f" got {self.slope.shape} and {self.offset.shape}"
            )
        if not (np.isfinite(self.slope) & np.isfinite(self.offset) & (self.slope > 0)).all():
            raise ValueError(
                f"slopes must be finite and > 0, offsets finite, got {self.slope}, {self.offset}"
            )

    def apply(
        self, logits: Float[np.ndarray, " rows"], domain: Int[np.ndarray, " rows"]
    ) -> Float[np.ndarray, " rows"]:
        """Calibrate logits, float64. ``domain``: model ids from 0, the unknown, to n_domains."""
        return self.slope[domain] * logits + self.offset[domain]

    def to_tensors(self) -> dict[str, Tensor]:
        """Give two float64 tensors for a bundle: ``slope`` and ``offset``."""
        return {"slope": torch.from_numpy(self.slope), "offset": torch.from_numpy(self.offset)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "Calibration":
        """Undo `to_tensors`. Raises ValueError where the tensors are no calibration."""
        return cls(slope=tensors["slope"].numpy(), offset=tensors["offset"].numpy())


def fit_calibration(
    logits: Float[np.ndarray, " rows"],
    label: Float[np.ndarray, " rows"],
    domain: Int[np.ndarray, " rows"],
    *,
    n_domains: int,
    weight: Float[np.ndarray, " rows"] | None = None,
    strength: float = STRENGTH,
) -> Calibration:
    """Fit a slope and an offset for each domain on held-out rows.

    ``label``: 0 or 1. ``domain``: model ids; rows of the unknown domain 0 count for the pooled pair
    only. ``weight``: >= 0, scaled to mean 1 first. ``strength``: > 0, the rows of evidence that the
    starting pair counts for. A domain without rows gets the pooled pair. A domain with few rows of a
    single class gets very nearly the pooled pair. Raises ValueError on no rows, on ids out of range,
    on logits that are not finite and on a strength that is not above 0.
    """
    if len(logits) == 0:
        raise ValueError("calibration needs at least one row, got none")
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite, got nan or inf")
    if domain.min() < 0 or domain.max() > n_domains:
        raise ValueError(
            f"domain ids must be in 0..{n_domains}, got {domain.min()}..{domain.max()}"
        )
    if strength <= 0:
        raise ValueError(f"strength must be > 0, got {strength}")
    x = logits.astype(np.float64)
    y = label.astype(np.float64)
    w = np.ones_like(x) if weight is None else weight / weight.mean(dtype=np.float64)
    everywhere = np.zeros(len(x), dtype=np.int64)
    identity = np.array([1.0, 0.0])
    pooled = _Problem(x, y, w, everywhere, 1, identity, strength).solve()[0]
    pairs = _Problem(x, y, w, domain.astype(np.int64), n_domains + 1, pooled, strength).solve()
    pairs[0] = pooled
    return Calibration(slope=pairs[:, 0].copy(), offset=pairs[:, 1].copy())


def fit_later_pair(
    calibration: Calibration,
    logits: Float[np.ndarray, " rows"],
    label: Float[np.ndarray, " rows"],
    weight: Float[np.ndarray, " rows"] | None = None,
    strength: float = STRENGTH,
) -> Calibration:
    """The calibration with the last domain's pair fitted on held-out rows of that domain.

    The pair is drawn towards the pooled pair, index 0, as in `fit_calibration`. All others stay.
    """
    x, y = logits.astype(np.float64), label.astype(np.float64)
    w = np.ones_like(x) if weight is None else weight / weight.mean(dtype=np.float64)
    everywhere = np.zeros(len(x), dtype=np.int64)
    pooled = np.array([calibration.slope[0], calibration.offset[0]])
    pair = _Problem(x, y, w, everywhere, 1, pooled, strength).solve()[0]
    return Calibration(
        slope=np.append(calibration.slope[:-1], pair[0]),
        offset=np.append(calibration.offset[:-1], pair[1]),
    )


class _Problem:
    """Many small logistic regressions side by side: one (slope, offset) for each part of the rows."""

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        w: np.ndarray,
        part: np.ndarray,
        n_parts: int,
        centre: np.ndarray,
        strength: float,
    ) -> None:
        self.x, self.y, self.w, self.part, self.n_parts = x, y, w, part, n_parts
        self.centre = centre
        p = _sigmoid(centre[0] * x + centre[1])
        information = w * p * (1 - p)
        fisher = np.array(
            [
                [(information * x * x).mean(), (information * x).mean()],
                [(information * x).mean(), information.mean()],
            ]
        )
        # The small diagonal serves where it is singular: all logits equal, or all probabilities 0.
        self.precision = strength * (fisher + 1e-4 * np.eye(2))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Weighted sums (n_parts,) of ``values`` (rows,) over the rows of each part."""
        return np.bincount(self.part, weights=self.w * values, minlength=self.n_parts)

    def objective(self, theta: np.ndarray) -> np.ndarray:
        """Penalised loss (n_parts,) at ``theta`` (n_parts, 2)."""
        z = theta[self.part, 0] * self.x + theta[self.part, 1]
        away = theta - self.centre
        penalty = 0.5 * np.einsum("di,ij,dj->d", away, self.precision, away)
        return self.sums(np.logaddexp(0, z) - self.y * z) + penalty

    def solve(self) -> np.ndarray:
        """The minimum (n_parts, 2) over slopes of at least the smallest allowed.

        The problem is convex: where the free minimum has a smaller slope than allowed, the smallest
        allowed one is best, and the offset is fitted to it.
        """
        start = np.tile(self.centre, (self.n_parts, 1))
        theta = self._descend(start, held=np.zeros(self.n_parts, dtype=bool))
        held = theta[:, 0] < SMALLEST_SLOPE
        if held.any():
            theta[held] = [SMALLEST_SLOPE, self.centre[1]]
            theta = self._descend(theta, held=held)
        return theta

    def _descend(self, theta: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Newton's method from ``theta`` (n_parts, 2), halving steps that overshoot.

        ``held`` (n_parts,): parts whose slope stays as it is.
        """
        value = self.objective(theta)
        rows = self.sums(np.ones_like(self.x))
        for _ in range(ITERATIONS):
            gradient, hessian = self._derivatives(theta)
            gradient[held, 0] = hessian[held, 0, 1] = hessian[held, 1, 0] = 0
            step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
            promise = (gradient * step).sum(axis=1)  # twice the decrease that Newton expects
            if (promise <= TOLERANCE * (1 + rows)).all():
                break
            reached = self.objective(theta - step)
            for _ in range(HALVINGS):
                worse = reached > value
                if not worse.any():
                    break
                step[worse] /= 2
                reached = self.objective(theta - step)
            # What is still worse is so by rounding: it has arrived.
            step[reached > value] = 0
            theta = theta - step
            value = np.minimum(reached, value)
        return theta

    def _derivatives(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (n_parts, 2) and Hessian (n_parts, 2, 2) of `objective`."""
        x = self.x
        p = _sigmoid(theta[self.part, 0] * x + theta[self.part, 1])
        error, information = p - self.y, p * (1 - p)
        gradient = np.stack([self.sums(error * x), self.sums(error)], axis=1)
        gradient += (theta - self.centre) @ self.precision
        hessian = np.empty((self.n_parts, 2, 2))
        hessian[:, 0, 0] = self.sums(information * x * x)
        hessian[:, 0, 1] = hessian[:, 1, 0] = self.sums(information * x)
        hessian[:, 1, 1] = self.sums(information)
        return gradient, hessian + self.precision


def _sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * z))
