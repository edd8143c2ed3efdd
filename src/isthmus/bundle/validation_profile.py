"""How the profile of a bundle is measured: all domains at once, by counts and sums.

A share is a ratio of sums over rows, and its variance is that of a ratio over clusters: with n values in
all, x of them in a cell, p = x / n, and sums over the rows of one cluster marked by ``c``,

    V = sum over clusters of (x_c - p n_c)^2 / n^2

The mix of a column has one V for each cell. The sum over the cells tells how many independent values
would vary as much: ``(1 - sum of p^2) / sum of V``, at most n.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from isthmus.bundle.profile import Profile
from isthmus.bundle.watched_columns import WatchedColumn, watched_columns
from isthmus.data.store.arrays import Arrays
from isthmus.metrics import ScoredRows
from isthmus.metrics.formulas import AUC, CALIBRATION, seeds_of
from isthmus.metrics.formulas.metric import ScoredCells, ratio
from isthmus.metrics.spread import Cells, Seeds
from isthmus.schema import FittedField

ROUNDING = 1e-9
PROFILE_ROWS = 1 << 20  # rows from which the mix of values is measured, evenly spread


def measure_profile(
    encoded: Sequence[FittedField],
    arrays: Arrays,
    scored: ScoredRows,
    columns: tuple[WatchedColumn, ...] | None = None,
) -> Profile:
    """Measure the profile of scored rows.

    ``encoded``: the fields of ``arrays``, which are the same rows, encoded. ``scored``: with calibrated
    logits and the model's ids of domains, 0 for the unknown one. Its weights do not count. ``columns``:
    with the cells of another profile; chosen from these rows by default.
    """
    scored = replace(scored, weight=None)
    n = len(scored.names)
    cells = Cells.of(scored.domain, scored.group, n)
    found = seeds_of([scored], cells, (AUC, CALIBRATION))
    auc, calibration = (found[metric.name].domains() for metric in (AUC, CALIBRATION))
    mass, chance = scored.mass, scored.chance
    mean = ratio(ScoredCells(scored, cells, np.empty(0, dtype=np.int64), {}), mass * chance, mass)
    score = Seeds(mean, cells).domains()
    away = np.where(np.isnan(score.value), 0.0, score.value)[scored.domain] - chance
    total = np.bincount(scored.domain, mass, minlength=n + 1)
    spread = np.bincount(scored.domain, mass * away * away, minlength=n + 1)
    step = -(-len(scored) // PROFILE_ROWS) or 1
    at = np.arange(0, len(scored), step)
    part = cells if step == 1 else Cells.of(scored.domain[at], _of(scored.group, at), n)
    domain = scored.domain[at]
    counts = np.bincount(domain, mass[at], minlength=n + 1)
    if columns is None:
        columns = watched_columns(encoded, arrays, at, mass[at] / counts[domain])
    mixes = [_Mix(column, arrays, at, domain, mass[at], part) for column in columns]

    def side_by_side(name: str) -> np.ndarray:
        held = [getattr(mix, name) for mix in mixes]
        return np.concatenate([np.empty((n + 1, 0)), *held], axis=1)

    return Profile(
        names=scored.names,
        columns=columns,
        rows=np.bincount(scored.domain, minlength=n + 1),
        clusters=_worth(cells),
        score=score.value,
        score_variance=score.variance,
        score_spread=_over(spread, total),
        auc=auc.value,
        auc_variance=auc.variance,
        calibration=calibration.value,
        calibration_variance=calibration.variance,
        cells=side_by_side("counts"),
        unknown_variance=side_by_side("unknown_variance"),
        mix_values=side_by_side("values"),
        mean=side_by_side("mean"),
    )


class _Mix:
    """One column's values by domain: their cells and how sure their shares are.

    ``counts`` (domains, cells); ``unknown_variance``, ``values`` and ``mean`` (domains, 1).
    """

    def __init__(
        self,
        column: WatchedColumn,
        arrays: Arrays,
        at: np.ndarray,
        domain: np.ndarray,
        mass: np.ndarray,
        cells: Cells,
    ) -> None:
        items, lengths = column.values(arrays, at)
        # Whether each value is a cluster of its own.
        self.alone = lengths is None and cells.cell is cells.row_cluster
        cluster = cells.cell  # of the rows: one cluster in one domain
        if lengths is not None:
            domain, mass = np.repeat(domain, lengths), np.repeat(mass, lengths)
            cluster = np.repeat(cluster, lengths)
        self.domain, self.mass, self.cluster, self.of = domain, mass, cluster, cells
        self.cell = column.cells_of(items)
        n, width = cells.n_domains + 1, column.cells
        key = domain.astype(np.int64) * width + self.cell
        self.counts = np.bincount(key, mass, minlength=n * width).reshape(n, width)
        total = self.counts.sum(axis=1)
        self.mean = np.full((n, 1), np.nan)
        if not column.of_ids:
            sums = np.bincount(domain, mass * items.astype(np.float64), minlength=n)
            self.mean = _over(sums, total)[:, None]
        share = np.nan_to_num(_over(self.counts[:, 0], total))
        away = self._sums(mass * ((self.cell == 0) - share[domain]))
        self.unknown_variance = _over(cells.domain_sums(away * away), total**2)[:, None]
        self.values = self._independent(total - self.counts[:, 0])[:, None]

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over each cluster in each domain."""
        return np.bincount(self.cluster, values, minlength=len(self.of.domain))

    def _independent(self, known: np.ndarray) -> np.ndarray:
        """How many independent known values vary as much, by domain."""
        shares = np.nan_to_num(_over(self.counts, known[:, None]))
        shares[:, 0] = 0
        pure = (shares * shares).sum(axis=1)
        # sum over cells of (x_c - p_c n)^2 = sum of x_c^2 - 2 n sum of p_c x_c + n^2 sum of p_c^2
        cluster, cell, held = self._held(shares.shape[1])
        of = self.of.domain
        values = np.bincount(cluster, held, minlength=len(of))
        likely = np.bincount(cluster, held * shares[of[cluster], cell], minlength=len(of))
        alike = np.bincount(cluster, held * held, minlength=len(of))
        squares = self.of.domain_sums(alike - 2 * values * likely + values**2 * pure[of])
        # Where all values are one, the clusters of values say how many there are.
        clusters = _over(known**2, self.of.domain_sums(values * values))
        several = pure < 1 - ROUNDING
        worth = np.where(several, _over((1 - pure) * known**2, squares, np.inf), clusters)
        return np.where(known > 0, np.minimum(worth, known), 0.0)

    def _held(self, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What each cluster holds in each cell of known values: cluster, cell, mass."""
        known = self.cell > 0
        cluster, cell, mass = self.cluster[known], self.cell[known], self.mass[known]
        if self.alone or not len(cell):
            return cluster, cell, mass
        key = cluster * width + cell
        order = np.argsort(key, kind="stable")
        key = key[order]
        first = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
        return key[first] // width, key[first] % width, np.add.reduceat(mass[order], first)


def _worth(cells: Cells) -> np.ndarray:
    """How many clusters of equal size the clusters of each domain are worth."""
    rows = np.bincount(cells.cell, minlength=len(cells.domain)).astype(np.float64)
    return _over(cells.domain_sums(rows) ** 2, cells.domain_sums(rows * rows), 0.0)


def _over(above: np.ndarray, below: np.ndarray, nothing: float = np.nan) -> np.ndarray:
    """A quotient, ``nothing`` where there is nothing below."""
    below = np.broadcast_to(below, above.shape)
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), nothing)


def _of(group: np.ndarray | None, at: np.ndarray) -> np.ndarray | None:
    return None if group is None else group[at]
