"""From influence values to variances: clusters, seeds, and the scopes of one metric.

The influence psi of a row says how far the row moves an estimate; an estimate's variance over
the draw of test rows is V(psi) = G / (G - 1) * sum over G clusters of (sum of psi)^2. A cluster is
a group (a user) where the table has groups, otherwise a row. An estimate that joins several
domains adds the influence of one user in all of them before it squares: the user is drawn once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64


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

    ``value`` is nan where undefined, and ``influence`` 0 there. ``influence`` is None where none is
    known: then there is no interval. ``used``: the cells that the metric reads at all (GAUC passes
    by groups of one class); the others are no clusters of it. None: all. Labels and weights decide
    on it, so all models of the same rows have the same.
    """

    value: Float64[np.ndarray, " domains"]  # id 0 first
    pooled: float
    influence: Float64[np.ndarray, " cells"] | None = None
    pooled_influence: Float64[np.ndarray, " clusters"] | None = None
    used: Bool[np.ndarray, " cells"] | None = None
    pooled_used: Bool[np.ndarray, " clusters"] | None = None

    def __sub__(self, other: "Estimate") -> "Estimate":
        """Paired difference: values and influences of the same rows, subtracted."""
        return Estimate(
            self.value - other.value,
            self.pooled - other.pooled,
            _minus(self.influence, other.influence),
            _minus(self.pooled_influence, other.pooled_influence),
            self.used,
            self.pooled_used,
        )


def _minus(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    return None if a is None or b is None else a - b


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """Values with their variances and degrees of freedom; nan where there is none."""

    value: Float64[np.ndarray, " scopes"]
    variance: Float64[np.ndarray, " scopes"]
    df: Float64[np.ndarray, " scopes"]

    @staticmethod
    def bare(value: Float64[np.ndarray, " scopes"]) -> "Spread":
        """Values of which no variance is known."""
        unknown = np.full(len(value), np.nan)
        return Spread(value, unknown, unknown)

    def at(self, place: int) -> tuple[float, float, float]:
        """Value, variance and degrees of freedom of one scope."""
        return float(self.value[place]), float(self.variance[place]), float(self.df[place])


@dataclass(frozen=True, slots=True, eq=False)
class Seeds:
    """One metric of one model on the same rows: an estimate for each seed, read scope by scope."""

    estimates: Sequence[Estimate]
    cells: Cells

    @property
    def value(self) -> Float64[np.ndarray, " domains"]:
        """Mean over the seeds in every domain, id 0 first; nan where undefined."""
        return np.mean([estimate.value for estimate in self.estimates], axis=0)

    def bare(self) -> "Seeds":
        """The values without what their variances need."""
        return Seeds([Estimate(of.value, of.pooled) for of in self.estimates], self.cells)

    def __sub__(self, other: "Seeds") -> "Seeds":
        """Paired differences, seed by seed."""
        pairs = zip(self.estimates, other.estimates, strict=True)
        return Seeds([a - b for a, b in pairs], self.cells)

    def domains(self) -> Spread:
        """Every domain, id 0 first."""
        psi = [of.influence for of in self.estimates if of.influence is not None]
        if not psi:
            return Spread.bare(self.value)
        clusters = self.cells.domain_sums(self._used.astype(np.float64))

        def variance(psi: np.ndarray) -> np.ndarray:
            return inflated(self.cells.domain_sums(psi * psi), clusters)

        return over_replicates(
            np.stack([of.value for of in self.estimates]),
            np.mean([variance(of) for of in psi], axis=0),
            variance(np.mean(psi, axis=0)),
            clusters,
        )

    def pooled(self) -> Spread:
        """All rows together."""
        values = [of.pooled for of in self.estimates]
        psi = [of.pooled_influence for of in self.estimates if of.pooled_influence is not None]
        if not psi:
            return Spread.bare(np.array([np.mean(values)]))
        used = self.estimates[0].pooled_used
        clusters = self.cells.n_clusters if used is None else used.sum()
        return _joint(values, psi, float(clusters))

    def share(self, rows: Float64[np.ndarray, " domains"]) -> Float64[np.ndarray, " domains"]:
        """Share of each domain in a mean, in proportion to ``rows``; 0 where undefined."""
        defined = ~np.isnan(self.value)
        defined[0] = False
        size = defined * rows
        return size / max(size.sum(), 1.0)

    def mean(self, share: Float64[np.ndarray, " domains"]) -> Spread:
        """A mean over domains; ``share``: id 0 first, sums to 1, or to 0 where none is defined."""
        taken, cells = share > 0, self.cells
        psi = [of.influence for of in self.estimates if of.influence is not None]
        if not taken.any():
            return Spread.bare(np.array([np.nan]))
        if not psi:
            return Spread.bare(np.array([self.value[taken] @ share[taken]]))
        part, used = share[cells.domain], self._used & taken[cells.domain]
        return _joint(
            [float(of.value[taken] @ share[taken]) for of in self.estimates],
            (cells.cluster_sums(of * part) for of in psi),
            float(np.count_nonzero(np.bincount(cells.cluster[used], minlength=1))),
        )

    @property
    def _used(self) -> Bool[np.ndarray, " cells"]:
        used = self.estimates[0].used
        return np.ones(len(self.cells.domain), dtype=bool) if used is None else used


def _joint(values: Sequence[float], psi: Iterable[np.ndarray], clusters: float) -> Spread:
    """The spread of one scope, from the influence of each cluster on it by seed."""
    joint, each = squares(psi)
    count = np.array([clusters])
    return over_replicates(
        np.array(values)[:, None],
        inflated(each[:, None], count).mean(axis=0),
        inflated(np.array([joint]), count),
        count,
    )


def squares(
    psi: Iterable[Float64[np.ndarray, " clusters"]],
) -> tuple[float, Float64[np.ndarray, " replicates"]]:
    """Sum over clusters of psi^2: of the mean psi over the replicates, and of each psi."""
    total, each = np.zeros(()), []
    for of in psi:
        each.append(of @ of)
        total = total + of
    total = total / len(each)
    return float(total @ total), np.array(each)


def inflated(squares: Any, clusters: Any) -> Any:
    """G / (G - 1) times the sum of squares; nan for fewer than two clusters."""
    return np.where(clusters > 1, squares * clusters / np.maximum(clusters - 1, 1), np.nan)


def over_replicates(
    values: Float64[np.ndarray, "replicates *scopes"], each: Any, joint: Any, clusters: Any
) -> Spread:
    """Join the draw of rows and the draw of replicates without counting the rows twice.

    ``each``: mean over replicates of V(psi_k); ``joint``: V(mean over replicates of psi_k). With K
    replicates, s2 the variance of the values, c = max(0, (K joint - each) / (K - 1)): variance
    s2 / K + c and Satterthwaite's degrees of freedom. With one replicate: ``joint`` and G - 1.
    """
    many = len(values)
    value = values.mean(axis=0)
    rows_df = np.maximum(clusters - 1, 1)
    if many == 1:
        return Spread(value, joint, rows_df)
    between = values.var(axis=0, ddof=1) / many
    rows = np.maximum(0.0, (many * joint - each) / (many - 1))
    variance = between + rows
    below = between**2 / (many - 1) + rows**2 / rows_df
    df = np.where(below > 0, variance**2 / np.where(below > 0, below, 1.0), rows_df)
    return Spread(value, variance, df)
