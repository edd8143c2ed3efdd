"""Grouping: which domains to train together by a pairwise matrix, and controls for the choice.

A grouping is worth the sum over its pairs of ``A_sym - penalty``. ``A_sym`` is the mean of what
each of the two domains does for the other. The penalty is the margin below which a gain does not
count. With a penalty of 0, noise above 0 merges everything. A grouping that is found this way must
be trained and confirmed, on rows that did not choose it and against random groupings of the same
sizes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import factorial, prod
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

EXACT_DOMAINS = 14  # subsets of more take too long: the search grows as 3^domains
NOTHING = 1e-12  # a merge must earn more than this: ties stay apart
DRAWS_PER_GROUPING = 200

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Grouping:
    """A partition of domains 0 .. n-1. Groups and their members are in ascending order.

    ``value``: the sum of (A_sym - penalty) over the measured pairs within groups.
    """

    groups: Groups
    penalty: float
    value: float
    method: Literal["exact", "average linkage"]

    def named(self, names: Sequence[str]) -> list[list[str]]:
        """Give the groups by the names of their domains."""
        return [[names[place] for place in group] for group in self.groups]


def symmetric(
    pairwise: Float64[np.ndarray, "targets sources"],
) -> Float64[np.ndarray, "domains domains"]:
    """Average A[i, j] and A[j, i].

    Where one of the two is nan, the other one is taken. Where both are nan, the mean is nan. The
    diagonal is nan. Raises ValueError unless ``pairwise`` is square.
    """
    a = np.asarray(pairwise, dtype=np.float64)
    if a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise ValueError(f"pairwise must be square, (domains, domains), got {a.shape}")
    both = np.where(np.isnan(a), a.T, a)
    mean = (both + both.T) / 2
    np.fill_diagonal(mean, np.nan)
    return mean


def group_domains(
    pairwise: Float64[np.ndarray, "targets sources"], penalty: float, *, exact: bool | None = None
) -> Grouping:
    """Choose the grouping of the largest value, or a good one where there are many domains.

    ``pairwise[i, j]``: what training with j adds to i's score. Above 0 is better. The entry is nan
    where the pair was not measured. Such a pair is left out of sums and means, and two groups
    without a measured pair between them stay apart.

    ``exact``: find the best of all partitions, by dynamic programming over subsets. The default is
    True for up to 14 domains. Otherwise groups are merged by average linkage: the two groups with
    the largest mean over their measured pairs are merged, again and again, while that mean exceeds
    the penalty.

    Raises ValueError without domains, and where ``exact`` is asked for more than 14 domains.
    """
    affinity = symmetric(pairwise)
    n = len(affinity)
    if n == 0:
        raise ValueError("a grouping needs at least one domain, got none")
    if exact is None:
        exact = n <= EXACT_DOMAINS
    if exact and n > EXACT_DOMAINS:
        raise ValueError(f"the exact search takes at most {EXACT_DOMAINS} domains, got {n}")
    gain = affinity - penalty
    groups = _best(gain) if exact else _linked(gain)
    return Grouping(
        groups=groups,
        penalty=penalty,
        value=worth(gain, groups),
        method="exact" if exact else "average linkage",
    )


def worth(gain: Float64[np.ndarray, "domains domains"], groups: Iterable[Sequence[int]]) -> float:
    """Sum a symmetric ``gain`` over the pairs within groups. nan counts as nothing."""
    known = np.nan_to_num(gain)
    np.fill_diagonal(known, 0.0)
    return sum(float(known[np.ix_(group, group)].sum()) / 2 for group in groups)


def _best(gain: Float64[np.ndarray, "domains domains"]) -> Groups:
    """Find the best partition.

    best(S) is the maximum of value(T) + best(S - T) over the subsets T that hold S's first member.
    """
    n = len(gain)
    pairs = np.where(np.isnan(gain), 0.0, gain) - NOTHING
    value = np.zeros(1)
    for new in range(n):  # subsets of the domains before it, without and with the new one
        links = np.zeros(1)
        for old in range(new):
            links = np.concatenate([links, links + pairs[new, old]])
        value = np.concatenate([value, value + links])
    best = np.zeros(1 << n)
    chosen = np.zeros(1 << n, dtype=np.int64)
    for whole in range(1, 1 << n):
        first = whole & -whole
        parts = _subsets(whole ^ first) | first
        total = value[parts] + best[whole ^ parts]
        at = int(total.argmax())
        best[whole], chosen[whole] = total[at], parts[at]
    groups = []
    rest = (1 << n) - 1
    while rest:
        part = int(chosen[rest])
        groups.append([place for place in range(n) if part >> place & 1])
        rest ^= part
    return canonical(groups)


def _subsets(whole: int) -> Int64[np.ndarray, " subsets"]:
    """Give every subset of a set of bits, the empty one included."""
    subsets = np.zeros(1, dtype=np.int64)
    while whole:
        bit = whole & -whole
        subsets = np.concatenate([subsets, subsets | bit])
        whole ^= bit
    return subsets


def _linked(gain: Float64[np.ndarray, "domains domains"]) -> Groups:
    """Merge by average linkage while the mean gain over a link's measured pairs is above 0."""
    members = [[place] for place in range(len(gain))]
    total = np.nan_to_num(gain)
    count = (~np.isnan(gain)).astype(np.float64)
    np.fill_diagonal(count, 0.0)
    while len(members) > 1:
        mean = np.divide(total, count, out=np.full_like(total, -np.inf), where=count > 0)
        a, b = sorted(divmod(int(mean.argmax()), len(members)))
        if mean[a, b] <= NOTHING:
            break
        for matrix in (total, count):
            matrix[a] += matrix[b]
            matrix[:, a] = matrix[a]
            matrix[a, a] = 0.0
        members[a] += members.pop(b)
        total, count = (np.delete(np.delete(m, b, 0), b, 1) for m in (total, count))
    return canonical(members)


def canonical(groups: Iterable[Iterable[int]]) -> Groups:
    """Sort members in ascending order, and groups by their first member.

    >>> canonical([[2, 1], [0]])
    ((0,), (1, 2))
    """
    return tuple(sorted(tuple(sorted(group)) for group in groups))


def random_groupings(
    n: int, sizes: Sequence[int], count: int, seed: int, *, unlike: Iterable[Iterable[int]] = ()
) -> tuple[Groups, ...]:
    """Draw ``count`` different random partitions of domains 0 .. n-1 into groups of these sizes.

    ``unlike``: a partition that is not drawn, such as the one that the draws control. Fewer
    partitions are given where fewer exist: a single group of n, or groups of 1 alone, have no
    second partition. Raises ValueError unless the sizes sum to n.
    """
    if sum(sizes) != n or min(sizes, default=0) < 1:
        raise ValueError(f"sizes must be at least 1 and sum to {n}, got {list(sizes)}")
    refused = canonical(unlike)
    alike = prod(factorial(times) for times in Counter(sizes).values())
    possible = factorial(n) // prod(factorial(size) for size in sizes) // alike
    possible -= sorted(map(len, refused)) == sorted(sizes)
    ends = np.cumsum(sizes)[:-1]
    rng = np.random.default_rng(seed)
    found: dict[Groups, None] = {}
    for _ in range(DRAWS_PER_GROUPING * count):
        if len(found) >= min(count, possible):
            break
        groups = canonical(part.tolist() for part in np.split(rng.permutation(n), ends))
        if groups != refused:
            found[groups] = None
    return tuple(found)
