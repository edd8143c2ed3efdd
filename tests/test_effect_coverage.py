"""Effects by simulation: few false alarms, and what is called detectable is found."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from isthmus.metrics import Reader
from replicates import MARGIN, folds_of, scores, table


def false_alarms(reader_of, seeds, repetitions=300):
    """Share of p <= .05 where both arms are drawn alike, ours and with seeds as independent."""
    ours = naive = 0
    for repetition in range(repetitions):
        reader, arms = reader_of(np.random.default_rng([5, repetition]))
        difference = reader.measure(arms[0]) - reader.measure(arms[1])
        p = reader.effect(difference, MARGIN).p
        ours += p <= 0.05
        spread = difference.values.std(ddof=1) / seeds**0.5
        naive += abs(difference.values.mean()) > stats.t.ppf(0.975, seeds - 1) * spread
    return ours / repetitions, naive / repetitions


def null_arms(rng, replicates, *, shared: float, own: float, users: float = 0.7):
    """Two arms of one recipe: each finds the signal through noise, of its users and its seeds."""
    taste = rng.normal(size=(2, 200))
    signal = rng.normal(size=10_000)  # by row number, so that all replicates agree
    fixed = rng.normal(size=(2, 10_000))
    arms: list[list[np.ndarray]] = [[], []]
    for rows in replicates:
        for arm in (0, 1):
            noise = 0.7 * fixed[arm][rows.row] + users * taste[arm][rows.cluster]
            part = rng.normal() * 0.3 * signal[rows.row] + rng.normal(size=len(rows))
            arms[arm].append(signal[rows.row] + 1.2 * rows.label + shared * noise + own * part)
    return arms


@pytest.mark.parametrize(("shared", "own"), [(0.0, 0.7), (0.5, 0.5), (0.8, 0.1)])
def test_seeds_of_one_recipe_raise_few_false_alarms(shared: float, own: float):
    def draw(rng):
        rows = table(rng, 700, 120)
        return Reader([rows] * 3, "auc"), null_arms(rng, [rows] * 3, shared=shared, own=own)

    ours, naive = false_alarms(draw, 3)
    assert 0.015 <= ours <= 0.085
    if shared > own:  # what the seeds share, their own spread cannot show
        assert naive > 0.25


@pytest.mark.parametrize("disjoint", [True, False])
def test_folds_of_one_recipe_raise_few_false_alarms(disjoint: bool):
    def draw(rng):
        rows = table(rng, 900, 50)
        assert rows.cluster is not None
        folds = folds_of(rows, rows.cluster % 4 if disjoint else rng.integers(0, 4, 900))
        return Reader(folds, "auc"), null_arms(rng, folds, shared=0.9, own=0.2, users=2.0)

    ours, naive = false_alarms(draw, 4)
    assert 0.015 <= ours <= 0.085
    if not disjoint:  # users who are met in several folds are not drawn anew in each
        assert naive > 0.09


def test_items_in_common_widen_the_interval_as_they_must():
    counts = {True: 0, False: 0}
    for repetition in range(300):
        rng = np.random.default_rng([6, repetition])
        rows = table(rng, 800, 200, items=60)
        assert rows.item is not None
        seen = rng.normal(size=(2, 60))  # each arm misjudges items in a way of its own
        signal = 1.2 * rows.label + rng.normal(size=800)
        arms = [signal + 0.7 * of[rows.item] + 0.2 * rng.normal(size=800) for of in seen]
        for two_way in counts:
            reader = Reader([rows if two_way else replace(rows, item=None)], "auc")
            difference = reader.measure([arms[0]]) - reader.measure([arms[1]])
            p = reader.effect(difference, MARGIN).p
            assert p is not None
            counts[two_way] += p <= 0.05
    assert counts[False] > 2 * counts[True]
    assert 0.015 <= counts[True] / 300 <= 0.085


def test_the_detectable_effect_is_found_nine_times_in_ten():
    """An effect as large as ``detectable`` is told from 0 by a one-sided test at 5 %."""
    rng = np.random.default_rng(9)
    rows = table(rng, 600, 150)
    reader = Reader([rows], "auc")
    effect: Any = reader.effect(
        reader.measure(scores(rng, rows, 1)) - reader.measure(scores(rng, rows, 1)), MARGIN
    )
    found = rng.normal(effect.detectable, effect.se, 20_000) / effect.se
    assert np.mean(found > stats.t.ppf(0.95, effect.df)) == pytest.approx(0.9, abs=0.01)
    assert effect.detectable == pytest.approx(2.93 * effect.se, rel=0.01)
    kappa = effect.se * 600**0.5
    assert effect.rows_needed == pytest.approx((2.93 * kappa / MARGIN) ** 2, rel=0.02)
    wide: Any = reader.effect(reader.measure(scores(rng, rows, 1)), 10.0)
    assert wide.rows_needed == 1


def test_detectable_and_rows_needed_tell_one_story():
    """The margin is detectable exactly where the rows are enough, whatever the seeds."""
    rng = np.random.default_rng(10)
    rows = table(rng, 600, 150)
    for seeds in (1, 2, 5):
        reader = Reader([rows] * seeds, "auc")
        difference = reader.measure(scores(rng, rows, seeds)) - reader.measure(
            scores(rng, rows, seeds)
        )
        for margin in (0.001, 0.01, 0.05, 0.2):
            effect: Any = reader.effect(difference, margin)
            assert (effect.detectable <= margin) == (effect.rows_needed <= 600)
