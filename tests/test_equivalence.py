"""Equal within a margin by simulation (self-check 7), and many domains at once against scipy."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from isthmus.metrics import (
    Effect,
    MeasuredArm,
    Reader,
    Replicate,
    benjamini_hochberg,
    not_worse,
    same,
    spearman,
    with_holm,
)
from replicates import MARGIN


def binormal(rng, rows: Replicate, noise: tuple[float, float], seeds: int) -> list[MeasuredArm]:
    """Two arms that see label + N(0, 1) through a noise of given variance, some seeds each."""
    reader = Reader([rows] * seeds, "auc")
    signal = rows.label + rng.normal(size=len(rows))
    common = rng.normal(size=len(rows))
    return [
        reader.measure(
            [
                signal + variance**0.5 * common + 0.02 * rng.normal(size=len(rows))
                for _ in range(seeds)
            ]
        )
        for variance in noise
    ]


def many_rows(rng, rows: int) -> Replicate:
    return Replicate(np.arange(rows), rng.random(rows) < 0.4)


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_predictor_with_tiny_noise_is_the_same(seeds: int):
    found = 0
    for repetition in range(100):
        rng = np.random.default_rng([7, repetition])
        rows = many_rows(rng, 5000)
        a, b = binormal(rng, rows, (0.1, 0.1), seeds)
        found += same(Reader([rows] * seeds, "auc").effect(a - b, MARGIN), MARGIN)
    assert found >= 95


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_loss_of_exactly_the_margin_is_seldom_called_not_worse(seeds: int):
    def true_auc(variance: float) -> float:
        return float(stats.norm.cdf(1 / np.sqrt(2 * (1 + variance + 0.02**2))))

    # The variance of b's noise for which its true AUC is the margin below that of a.
    reach = 1 / float(stats.norm.ppf(true_auc(0.1) - MARGIN)) ** 2 / 2
    more = reach - 1 - 0.02**2
    assert true_auc(0.1) - true_auc(more) == pytest.approx(MARGIN)
    alarms, told = 0, 0
    for repetition in range(400):
        rng = np.random.default_rng([8, repetition])
        rows = many_rows(rng, 3000)
        a, b = binormal(rng, rows, (0.1, more), seeds)
        reader = Reader([rows] * seeds, "auc")
        alarms += not_worse(reader.effect(b - a, MARGIN), MARGIN)
        told += not_worse(reader.effect(a - a, MARGIN), MARGIN)
    assert alarms <= 0.08 * 400
    assert told == 400


@pytest.mark.parametrize(
    ("ci90", "is_not_worse", "is_same"),
    [
        ((-0.004, 0.004), True, True),
        ((-0.004, 0.006), True, False),
        ((-0.006, 0.004), False, False),
        ((-0.005, 0.004), False, False),
        ((0.006, 0.02), True, False),
        (None, False, False),
    ],
)
def test_margins_are_judged_by_the_ninety_percent_interval(ci90, is_not_worse, is_same):
    effect = Effect(0.0, ci90=ci90)
    assert not_worse(effect, MARGIN) is is_not_worse
    assert same(effect, MARGIN) is is_same


# Many domains at once.


def test_holm_covers_the_domains_that_have_a_p():
    effects = {
        "a": Effect(-0.02, p=0.01),
        "none": Effect(None, reason="no test rows"),
        "b": Effect(0.01, p=0.04),
        "c": Effect(0.0, p=0.03),
    }
    adjusted = with_holm(effects)
    assert list(adjusted) == list(effects)
    assert adjusted["none"] == effects["none"]
    assert [adjusted[name].p_holm for name in "abc"] == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted["a"] == replace(effects["a"], p_holm=adjusted["a"].p_holm)
    assert with_holm({}) == {}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_benjamini_hochberg_is_that_of_scipy(p: list[float]):
    got = benjamini_hochberg(p)
    assert got == pytest.approx(stats.false_discovery_control(p).tolist())
    order = np.argsort(p, kind="stable")
    assert all(got[a] <= got[b] + 1e-12 for a, b in pairwise(order))


def test_benjamini_hochberg_of_nothing_is_nothing():
    assert benjamini_hochberg([]) == []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=20))
def test_spearman_is_that_of_scipy(pairs: list[tuple[int, int]]):
    a, b = np.array(pairs, dtype=np.float64).T
    got = spearman(np.append(a, [np.nan, 1.0]), np.append(b, [1.0, np.nan]))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert got is None
    else:
        assert got == pytest.approx(stats.spearmanr(a, b)[0])
    assert spearman(a[:2], b[:2]) is None
