"""Clusters, variances and intervals, all from influence values.

The influence psi of a row says how far the row moves an estimate; an estimate's variance over
the draw of test rows is V(psi) = G / (G - 1) * sum over G clusters of (sum of psi)^2. A cluster is
a group (a user) where the table has groups, otherwise a row. An estimate that joins several
domains adds the influence of one user in all of them before it squares: the user is drawn once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.special import expit, logit, stdtr, stdtrit

LEVEL = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Rows gathered by domain and cluster: one cell is what one cluster does in one domain."""

    cell: Int64[np.ndarray, " rows"]
    domain: Int64[np.ndarray, " cells"]
    cluster: Int64[np.ndarray, " cells"]
    row_cluster: Int64[np.ndarray, " rows"]
    n_domains: int  # ids run from 0 (no domain) to n_domains
    n_clusters: int

    @staticmethod
    def of(
        domain: Int64[np.ndarray, " rows"],
        group: Int64[np.ndarray, " rows"] | None,
        n_domains: int,
    ) -> "Cells":
        """Number the clusters and the cells; a row without a group is a cluster of its own."""
        rows = np.arange(len(domain))
        if group is None:
            return Cells(rows, domain, rows, rows, n_domains, len(rows))
        alone = np.flatnonzero(group < 0)
        key = group.copy()
        key[alone] = -1 - alone
        known, cluster = np.unique(key, return_inverse=True)
        cells, cell = np.unique(domain * len(known) + cluster, return_inverse=True)
        width = max(len(known), 1)
        return Cells(cell, cells // width, cells % width, cluster, n_domains, len(known))

    def cell_sums(self, psi: Float64[np.ndarray, " rows"]) -> Float64[np.ndarray, " cells"]:
        """Sum a value of the rows over each cell; without groups a cell is a row."""
        if self.cell is self.row_cluster:
            return psi
        return np.bincount(self.cell, psi, minlength=len(self.domain))

    def cluster_sums(self, psi: Float64[np.ndarray, " cells"]) -> Float64[np.ndarray, " clusters"]:
        """Sum a value of the cells over each cluster."""
        if self.cell is self.row_cluster:
            return psi
        return np.bincount(self.cluster, psi, minlength=self.n_clusters)

    def row_sums(self, psi: Float64[np.ndarray, " rows"]) -> Float64[np.ndarray, " clusters"]:
        """Sum a value of the rows over each cluster."""
        if self.cell is self.row_cluster:
            return psi
        return np.bincount(self.row_cluster, psi, minlength=self.n_clusters)

    def domain_sums(self, values: Float64[np.ndarray, " cells"]) -> Float64[np.ndarray, " domains"]:
        """Sum a value of the cells over each domain, id 0 first."""
        return np.bincount(self.domain, values, minlength=self.n_domains + 1)


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """One metric of one model: its values and the influence of every cell on them.

    ``value`` is nan where undefined, and ``influence`` 0 there. ``used``: the cells that the
    metric reads at all (GAUC passes by groups of one class); the others are no clusters of it.
    """

    value: Float64[np.ndarray, " domains"]  # id 0 first
    influence: Float64[np.ndarray, " cells"]
    used: Bool[np.ndarray, " cells"]
    pooled: float
    pooled_influence: Float64[np.ndarray, " clusters"]
    pooled_used: Bool[np.ndarray, " clusters"]

    def __sub__(self, other: "Estimate") -> "Estimate":
        """Paired difference: values and influences of the same rows, subtracted."""
        return Estimate(
            self.value - other.value,
            self.influence - other.influence,
            self.used & other.used,
            self.pooled - other.pooled,
            self.pooled_influence - other.pooled_influence,
            self.pooled_used & other.pooled_used,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """Estimates with their variances and degrees of freedom; nan where there is none."""

    value: Float64[np.ndarray, " scopes"]
    variance: Float64[np.ndarray, " scopes"]
    df: Float64[np.ndarray, " scopes"]
    clusters: Float64[np.ndarray, " scopes"]


def domain_spread(estimates: Sequence[Estimate], cells: Cells) -> Spread:
    """Spread of every domain, id 0 first. One estimate per seed."""
    used = np.logical_and.reduce([estimate.used for estimate in estimates])
    clusters = cells.domain_sums(used.astype(np.float64))

    def variance(psi: np.ndarray) -> np.ndarray:
        return _inflate(cells.domain_sums(psi * psi), clusters)

    return _over_seeds(
        np.stack([estimate.value for estimate in estimates]),
        np.mean([variance(estimate.influence) for estimate in estimates], axis=0),
        variance(np.mean([estimate.influence for estimate in estimates], axis=0)),
        clusters,
    )


def pooled_spread(estimates: Sequence[Estimate]) -> Spread:
    """Spread of the estimate over all rows."""
    used = np.logical_and.reduce([estimate.pooled_used for estimate in estimates])
    return _scalar_spread(
        [estimate.pooled for estimate in estimates],
        [estimate.pooled_influence for estimate in estimates],
        int(used.sum()),
    )


def mean_spread(
    estimates: Sequence[Estimate], cells: Cells, share: Float64[np.ndarray, " domains"]
) -> Spread:
    """Spread of a mean over domains; ``share`` (domains,), id 0 first, sums to 1 where defined."""
    taken = share > 0
    used = np.logical_and.reduce([estimate.used for estimate in estimates]) & taken[cells.domain]
    part = share[cells.domain]
    return _scalar_spread(
        [float(estimate.value[taken] @ share[taken]) for estimate in estimates],
        [cells.cluster_sums(estimate.influence * part) for estimate in estimates],
        int(np.count_nonzero(np.bincount(cells.cluster[used], minlength=1))),
    )


def _scalar_spread(values: list[float], psi: list[np.ndarray], clusters: int) -> Spread:
    count = np.array([float(clusters)])
    each = [_inflate(np.array([p @ p]), count) for p in psi]
    mean = np.mean(psi, axis=0)
    return _over_seeds(
        np.array(values)[:, None],
        np.mean(each, axis=0),
        _inflate(np.array([mean @ mean]), count),
        count,
    )


def _inflate(squares: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """G / (G - 1) times the sum of squares; nan for fewer than two clusters."""
    return np.where(clusters > 1, squares * clusters / np.maximum(clusters - 1, 1), np.nan)


def _over_seeds(
    values: Float64[np.ndarray, "seeds scopes"],
    each: Float64[np.ndarray, " scopes"],
    joint: Float64[np.ndarray, " scopes"],
    clusters: Float64[np.ndarray, " scopes"],
) -> Spread:
    """Join the draw of rows and the draw of seeds without counting the rows twice.

    ``each``: mean over seeds of V(psi_k); ``joint``: V(mean over seeds of psi_k). With K seeds,
    s2 the variance of the values, c = max(0, (K joint - each) / (K - 1)): variance s2 / K + c and
    Satterthwaite's degrees of freedom. With one seed: ``joint`` and G - 1.
    """
    seeds = len(values)
    value = values.mean(axis=0)
    rows_df = np.maximum(clusters - 1, 1)
    if seeds == 1:
        return Spread(value, joint, rows_df, clusters)
    between = values.var(axis=0, ddof=1) / seeds
    rows = np.maximum(0.0, (seeds * joint - each) / (seeds - 1))
    variance = between + rows
    below = between**2 / (seeds - 1) + rows**2 / rows_df
    df = np.where(below > 0, variance**2 / np.where(below > 0, below, 1.0), rows_df)
    return Spread(value, variance, df, clusters)


def interval(
    value: float,
    variance: float,
    df: float,
    scale: Literal["plain", "log", "logit"] = "plain",
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
