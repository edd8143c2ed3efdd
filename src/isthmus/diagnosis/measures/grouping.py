"""Which domains to train together: groups out of a pairwise matrix, and controls for them.

A grouping is worth the sum over its pairs of ``A_sym - penalty``, where ``A_sym`` is the mean of
what each of the two does for the other. The penalty is the margin below which a gain does not
count: with 0, noise above 0 merges everything. What is found this way must be trained and confirmed
on rows that did not choose it, against random groupings of the same sizes.
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
    """A partition of domains 0 .. n-1: groups and their members ascending.

    ``value``: the sum within groups of (A_sym - penalty), over measured pairs.
    """

    groups: Groups
    penalty: float
    value: float
    method: Literal["exact", "average linkage"]

    def named(self, names: Sequence[str]) -> list[list[str]]:
        """The groups by their domains' names."""
        return [[names[place] for place in group] for group in self.groups]


def symmetric(
    pairwise: Float64[np.ndarray, "targets sources"],
) -> Float64[np.ndarray, "domains domains"]:
    """Mean of A[i, j] and A[j, i]; where one of them is nan the other, where both are, nan.

    The diagonal is nan. Raises ValueError unless ``pairwise`` is square.
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

    ``pairwise[i, j]``: what training with j adds to i's score, above 0 is better; nan where it was
    not measured. Such a pair says nothing: it is left out of sums and means, and two groups without
    a measured pair between them stay apart. ``exact``: by default up to 14 domains, where the best
    of all partitions is found by dynamic programming over subsets; above, the two groups with the
    largest mean over their measured pairs are merged again and again while that mean exceeds the
    penalty (average linkage). Raises ValueError without domains, or when ``exact`` is asked for too
    many.
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
    """Sum of a symmetric ``gain`` over the pairs within groups; nan counts as nothing."""
    known = np.nan_to_num(gain)
    np.fill_diagonal(known, 0.0)
    return sum(float(known[np.ix_(group, group)].sum()) / 2 for group in groups)


def _best(gain: Float64[np.ndarray, "domains domains"]) -> Groups:
    """The best partition: best(S) = max over subsets T of S with S's first member, of T + best(S - T)."""
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
    """Every subset of a set of bits, the empty one included."""
    subsets = np.zeros(1, dtype=np.int64)
    while whole:
        bit = whole & -whole
        subsets = np.concatenate([subsets, subsets | bit])
        whole ^= bit
    return subsets


def _linked(gain: Float64[np.ndarray, "domains domains"]) -> Groups:
    """Average linkage, cut where the mean gain over a link's measured pairs is no longer above 0."""
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
    """Members ascending, groups by their first member.

    >>> canonical([[2, 1], [0]])
    ((0,), (1, 2))
    """
    return tuple(sorted(tuple(sorted(group)) for group in groups))


def random_groupings(
    n: int, sizes: Sequence[int], count: int, seed: int, *, unlike: Iterable[Iterable[int]] = ()
) -> tuple[Groups, ...]:
    """Different random partitions of domains 0 .. n-1 into groups of these sizes.

    ``unlike``: a partition that none of them is, such as the one they are to control. As many as
    there are, where these are fewer than ``count``: groups of one size n or of size 1 alone have no
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
