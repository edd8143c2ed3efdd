"""Grouping: against every partition there is, with missing pairs, and its random controls."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score

from isthmus.diagnosis.measures.grouping import (
    EXACT_DOMAINS,
    canonical,
    group_domains,
    random_groupings,
    symmetric,
)


def adjusted_rand(one: Iterable[Iterable[int]], other: Iterable[Iterable[int]]) -> float:
    """Agreement of two partitions of the same members: 1 for equal ones."""
    labels = [
        {member: label for label, group in enumerate(groups) for member in group}
        for groups in (one, other)
    ]
    assert labels[0].keys() == labels[1].keys()
    return adjusted_rand_score(*([of[member] for member in sorted(of)] for of in labels))


def partitions(members: list[int]):
    """Every partition of some members, one by one."""
    if not members:
        yield []
        return
    first, rest = members[0], members[1:]
    for smaller in partitions(rest):
        yield [[first], *smaller]
        for place, group in enumerate(smaller):
            yield [*smaller[:place], [first, *group], *smaller[place + 1 :]]


def slow_value(pairwise: np.ndarray, groups: list[list[int]], penalty: float) -> float:
    """The sum within groups of (A_sym - penalty), pair by pair."""
    total = 0.0
    for group in groups:
        for a in group:
            for b in group:
                ways = [x for x in (pairwise[a, b], pairwise[b, a]) if not np.isnan(x)]
                if a < b and ways:
                    total += sum(ways) / len(ways) - penalty
    return total


def random_matrix(n: int, seed: int, missing: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    a = rng.normal(0.004, 0.01, (n, n))
    a[rng.random((n, n)) < missing] = np.nan
    np.fill_diagonal(a, np.nan)
    return a


def planted(sizes: list[int], seed: int, loss: float = -0.01) -> tuple[np.ndarray, np.ndarray]:
    """A pairwise matrix of groups that help each other by .02 and hurt the others."""
    member = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(seed)
    a = np.where(member[:, None] == member[None, :], 0.02, loss)
    return a + rng.normal(0, 0.003, a.shape), member


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 0.8]))
def test_the_exact_search_finds_the_best_of_all_partitions(n: int, seed: int, missing: float):
    a = random_matrix(n, seed, missing)
    found = group_domains(a, 0.005)
    best = max(slow_value(a, groups, 0.005) for groups in partitions(list(range(n))))
    assert found.method == "exact"
    assert found.value == pytest.approx(best, abs=1e-9)
    assert slow_value(a, [list(g) for g in found.groups], 0.005) == pytest.approx(best, abs=1e-9)
    assert sorted(place for group in found.groups for place in group) == list(range(n))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(0, 10**6))
def test_average_linkage_is_that_of_scipy_where_every_pair_is_measured(n: int, seed: int):
    a = random_matrix(n, seed)
    mine = group_domains(a, 0.005, exact=False)
    distance = 1.0 - symmetric(a)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance), "average")
    label = fcluster(tree, 1.0 - 0.005, "distance")
    assert mine.groups == canonical(np.flatnonzero(label == one).tolist() for one in set(label))
    assert mine.value <= group_domains(a, 0.005).value + 1e-12


@pytest.mark.parametrize("sizes", [[2, 2, 2], [3, 3, 3, 3], [4, 1, 1], [10, 10, 10]])
def test_planted_groups_come_back(sizes: list[int]):
    a, member = planted(sizes, seed=1)
    found = group_domains(a, 0.005)
    truth = [np.flatnonzero(member == one).tolist() for one in range(len(sizes))]
    assert adjusted_rand(found.groups, truth) == 1.0
    assert found.method == ("exact" if sum(sizes) <= EXACT_DOMAINS else "average linkage")


def test_without_a_penalty_noise_merges_what_is_unrelated():
    a, _ = planted([2, 2, 2], seed=3, loss=0.001)
    truth = [[0, 1], [2, 3], [4, 5]]
    assert adjusted_rand(group_domains(a, 0.0).groups, truth) < 0.5
    assert adjusted_rand(group_domains(a, 0.005).groups, truth) == 1.0


@pytest.mark.parametrize("exact", [True, False])
def test_what_was_not_measured_joins_nothing(exact: bool):
    a = np.full((4, 4), np.nan)
    a[0, 1] = 0.02  # one way is enough
    a[2, 3] = a[3, 2] = 0.02
    assert group_domains(a, 0.005, exact=exact).groups == ((0, 1), (2, 3))
    a[1, 2] = 0.02  # and one good link joins them
    assert group_domains(a, 0.005, exact=exact).groups == ((0, 1, 2, 3),)


@pytest.mark.parametrize("exact", [True, False])
def test_a_pair_worth_just_the_penalty_stays_apart(exact: bool):
    a = np.full((3, 3), 0.005)
    assert group_domains(a, 0.005, exact=exact).groups == ((0,), (1,), (2,))


def test_planted_groups_come_back_from_sampled_pairs():
    a, member = planted([8, 8, 8], seed=5)
    rng = np.random.default_rng(5)
    a[rng.random(a.shape) < 0.5] = np.nan
    truth = [np.flatnonzero(member == one).tolist() for one in range(3)]
    assert adjusted_rand(group_domains(a, 0.005).groups, truth) == 1.0


def test_names_and_faults():
    a, _ = planted([2, 1], seed=0)
    assert group_domains(a, 0.005).named(["x", "y", "z"]) == [["x", "y"], ["z"]]
    with pytest.raises(ValueError, match="square"):
        group_domains(np.zeros((2, 3)), 0.005)
    with pytest.raises(ValueError, match="at least one domain"):
        group_domains(np.zeros((0, 0)), 0.005)
    with pytest.raises(ValueError, match="at most 14 domains, got 15"):
        group_domains(np.zeros((15, 15)), 0.005, exact=True)


def test_symmetric_means_what_is_there():
    a = np.array([[9.0, 1.0, np.nan], [3.0, 9.0, np.nan], [5.0, np.nan, 9.0]])
    np.testing.assert_array_equal(
        symmetric(a), [[np.nan, 2, 5], [2, np.nan, np.nan], [5, np.nan, np.nan]]
    )


def test_random_groupings_keep_the_sizes_and_differ():
    found = random_groupings(9, [4, 3, 2], 20, seed=0)
    assert len(set(found)) == 20
    for groups in found:
        assert sorted(len(group) for group in groups) == [2, 3, 4]
        assert sorted(place for group in groups for place in group) == list(range(9))
    assert found == random_groupings(9, [4, 3, 2], 20, seed=0)
    assert found != random_groupings(9, [4, 3, 2], 20, seed=1)


def test_random_groupings_are_as_many_as_there_are():
    chosen = [[0, 1], [2, 3]]
    assert len(random_groupings(4, [2, 2], 5, seed=0)) == 3
    others = random_groupings(4, [2, 2], 5, seed=0, unlike=chosen)
    assert len(others) == 2
    assert canonical(chosen) not in others
    assert random_groupings(3, [3], 5, seed=0, unlike=[[0, 1, 2]]) == ()
    assert random_groupings(3, [1, 1, 1], 5, seed=0) == (((0,), (1,), (2,)),)
    with pytest.raises(ValueError, match="sum to 4"):
        random_groupings(4, [2, 1], 5, seed=0)


def test_random_groupings_are_drawn_evenly():
    # 6 domains in pairs: 15 partitions; the first of many draws are spread over all.
    first = [random_groupings(6, [2, 2, 2], 1, seed=seed)[0] for seed in range(1500)]
    times = np.unique([str(groups) for groups in first], return_counts=True)[1]
    assert len(times) == 15
    assert times.min() > 60
    assert times.max() < 150
