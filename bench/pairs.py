"""Rank correlations of matrices over pairs of domains, with permutations of domains.

Cells of such a matrix are not independent: a domain stands in all pairs that it is part of. So a
permutation moves domains, lines and columns together, and not cells. Mantel, Cancer Research 27 (1967),
with ranks; beside other matrices the correlation is a partial one: Smouse, Long and Sokal, Systematic
Zoology 35 (1986).
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

PERMUTATIONS = 9_999


def symmetric(matrix: np.ndarray) -> np.ndarray:
    """The mean of both directions of every pair, the diagonal 0."""
    both = (matrix + matrix.T) / 2
    np.fill_diagonal(both, 0.0)
    return both


def mantel(
    one: np.ndarray,
    other: np.ndarray,
    beside: Sequence[np.ndarray] = (),
    *,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> tuple[float, float]:
    """Spearman's correlation over pairs, and its two-sided p; (domains, domains), symmetric.

    ``beside``: matrices whose ranks are taken out of both first. The domains of ``one`` are permuted.
    """
    n = len(one)
    above = np.triu_indices(n, 1)
    known = np.column_stack([np.ones(len(above[0])), *(rankdata(m[above]) for m in beside)])
    basis, _ = np.linalg.qr(known)

    def left(ranks: np.ndarray) -> np.ndarray:
        rest = ranks - ranks @ basis @ basis.T
        return rest / np.linalg.norm(rest, axis=1, keepdims=True).clip(min=1e-12)

    ranks = np.zeros((n, n))  # the ranks of permuted pairs are the permuted ranks
    ranks[above] = ranks.T[above] = rankdata(one[above])
    rng = np.random.default_rng(seed)
    orders = np.stack([np.arange(n), *(rng.permutation(n) for _ in range(permutations))])
    moved = ranks[orders[:, above[0]], orders[:, above[1]]]
    found = left(moved) @ left(rankdata(other[above])[None])[0]
    return float(found[0]), float((np.abs(found) >= abs(found[0]) - 1e-12).mean())


def foretold(target: np.ndarray, told: Sequence[np.ndarray]) -> float:
    """How well a line through ranks foretells the pairs of a domain that it has not seen.

    For each domain, a least-squares fit on the pairs without it; the share of the squared error of the
    plain mean that is gone, over all domains: 1 is perfect, 0 the mean, below 0 worse than the mean.
    """
    n = len(target)
    above = np.triu_indices(n, 1)
    y = rankdata(target[above])
    x = np.column_stack([np.ones(len(y)), *(rankdata(m[above]) for m in told)])
    missed = plain = 0.0
    for domain in range(n):
        out = (above[0] == domain) | (above[1] == domain)
        weights = np.linalg.lstsq(x[~out], y[~out], rcond=None)[0]
        missed += float(((y[out] - x[out] @ weights) ** 2).sum())
        plain += float(((y[out] - y[~out].mean()) ** 2).sum())
    return 1 - missed / plain
