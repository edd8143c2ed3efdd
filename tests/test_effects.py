"""Effects over seeds and folds: hand-worked and slow versions, oracles, coverage, equivalence."""

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit

from isthmus.metrics import (
    Effect,
    EffectMetric,
    Measured,
    Reader,
    Replicate,
    ScoredRows,
    auc,
    benjamini_hochberg,
    compare,
    logloss,
    macro_effect,
    not_worse,
    same,
    spearman,
    with_holm,
)
from isthmus.metrics.crossed import Grid

METRICS: tuple[EffectMetric, ...] = ("auc", "logloss")
MARGIN = 0.005


def table(rng, rows, users, items=0) -> Replicate:
    """Rows of one domain whose labels follow a signal; users, and items if any, have tastes."""
    user = rng.integers(0, users, rows)
    taste = rng.normal(size=users)[user]
    return Replicate(
        row=rng.permutation(10 * rows)[:rows],
        label=rng.random(rows) < expit(taste + rng.normal(size=rows)),
        cluster=user,
        item=rng.integers(0, items, rows) if items else None,
    )


def scores(rng, rows: Replicate, seeds: int, gain=0.0) -> list[np.ndarray]:
    """Logits of some seeds of one arm: a part they share, a part of the users, a part of each."""
    assert rows.cluster is not None
    common = (0.8 + gain) * rows.label + rng.normal(size=len(rows)) - 0.4
    taste = rng.normal(size=rows.cluster.max() + 1)[rows.cluster]
    return [common + 0.5 * taste + 0.5 * rng.normal(size=len(rows)) for _ in range(seeds)]


# An independent slow version: loops over pairs of rows and over clusters, no shared code.


def slow_value_and_influence(metric, logits, label, weight=None):
    rows = range(len(label))
    if metric == "logloss":
        loss = [np.log1p(np.exp(-logits[i] if label[i] else logits[i])) for i in rows]
        mass = [1.0 if weight is None else weight[i] for i in rows]
        mean = sum(m * x for m, x in zip(mass, loss, strict=True)) / sum(mass)
        return mean, [m * (x - mean) / sum(mass) for m, x in zip(mass, loss, strict=True)]
    positive, negative = [i for i in rows if label[i]], [i for i in rows if not label[i]]

    def wins(i, j):
        return 1.0 if logits[i] > logits[j] else 0.5 if logits[i] == logits[j] else 0.0

    below = {i: sum(wins(i, j) for j in negative) / len(negative) for i in positive}
    above = {j: sum(wins(i, j) for i in positive) / len(positive) for j in negative}
    value = sum(below.values()) / len(positive)
    psi = {i: (below[i] - value) / len(positive) for i in positive}
    psi |= {j: (above[j] - value) / len(negative) for j in negative}
    return value, [psi[i] for i in rows]


def slow_effect(metric, replicates, left, right):
    """Estimate, standard error and df of left - right, by the specification, with dictionaries."""
    values, per_row, user_of, item_of = [], [], {}, {}
    for rows, a, b in zip(replicates, left, right, strict=True):
        one, psi_one = slow_value_and_influence(metric, a, rows.label, rows.weight)
        two, psi_two = slow_value_and_influence(metric, b, rows.label, rows.weight)
        values.append(one - two)
        per_row.append({})
        for i, row in enumerate(rows.row):
            per_row[-1][row] = psi_one[i] - psi_two[i]
            user = -1 if rows.cluster is None else rows.cluster[i]
            user_of[row] = ("user", user) if user >= 0 else ("row", row)
            if rows.item is not None:
                item_of[row] = ("item", rows.item[i]) if rows.item[i] >= 0 else ("row", row)

    def squares(psi, of):
        sums = {}
        for row, value in psi.items():
            sums[of[row]] = sums.get(of[row], 0.0) + value
        return sum(value * value for value in sums.values())

    users = len(set(user_of.values()))
    smaller = min(users, len(set(item_of.values()))) if item_of else users

    def spread(psi):
        raw = squares(psi, user_of)
        if item_of:
            both = raw + squares(psi, item_of) - squares(psi, {row: row for row in psi})
            raw = max(both, raw)
        return raw * smaller / (smaller - 1)

    many = len(values)
    mean = {row: sum(psi.get(row, 0.0) for psi in per_row) / many for row in user_of}
    estimate = sum(values) / many
    if many == 1:
        return estimate, spread(per_row[0]) ** 0.5, smaller - 1
    each, joint = sum(spread(psi) for psi in per_row) / many, spread(mean)
    s2 = sum((value - estimate) ** 2 for value in values) / (many - 1)
    shared = max(0.0, (many * joint - each) / (many - 1))
    variance = s2 / many + shared
    df = variance**2 / ((s2 / many) ** 2 / (many - 1) + shared**2 / (smaller - 1))
    return estimate, variance**0.5, df


def folds_of(rows: Replicate, fold: np.ndarray) -> list[Replicate]:
    return [rows.take(fold == k) for k in range(fold.max() + 1)]


def layouts(rng):
    """Replicates by name: seeds, folds that share users and folds that do not, with and without
    items, rows without a user, weights."""
    plain, crossed = table(rng, 260, 60), table(rng, 260, 60, items=40)
    assert plain.cluster is not None
    assert crossed.cluster is not None
    assert crossed.item is not None
    some = replace(
        crossed,
        cluster=np.where(rng.random(260) < 0.3, -1, crossed.cluster),
        item=np.where(rng.random(260) < 0.3, -1 - np.arange(260) % 3, crossed.item),
    )
    anyhow = rng.permutation(260) % 3
    return {
        "one seed": [plain],
        "seeds": [plain] * 3,
        "seeds in other orders": [plain, *(plain.take(rng.permutation(260)) for _ in range(2))],
        "seeds by rows": [replace(plain, cluster=None)] * 4,
        "folds of rows": folds_of(plain, anyhow),
        "folds of users": folds_of(plain, plain.cluster % 3),
        "folds in part the same": [plain.take(anyhow != k) for k in range(3)],
        "two-way seeds": [crossed] * 3,
        "two-way folds": folds_of(crossed, anyhow),
        "some have no user and no item": [some] * 2,
        "weights": [replace(plain, weight=rng.random(260) * 2)] * 3,
    }


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("layout", layouts(np.random.default_rng(0)))
def test_effects_equal_the_slow_version(layout: str, metric: EffectMetric):
    rng = np.random.default_rng(0)
    replicates = layouts(rng)[layout]
    left, right = ([rng.normal(size=len(rows)).round(1) for rows in replicates] for _ in range(2))
    reader = Reader(replicates, metric)
    got = reader.effect(reader.measure(left) - reader.measure(right), MARGIN)
    if metric == "auc" and layout == "weights":
        assert got.estimate is not None
        assert got.ci is None
        return
    estimate, se, df = slow_effect(metric, replicates, left, right)
    assert got.estimate == pytest.approx(estimate if metric == "auc" else -estimate, abs=1e-13)
    assert got.se == pytest.approx(se, rel=1e-9)
    assert got.df == pytest.approx(df, rel=1e-8)
    assert got.ci is not None
    assert got.ci90 is not None
    sign = 1 if metric == "auc" else -1
    for ci, level in ((got.ci, 0.95), (got.ci90, 0.90)):
        expected = stats.t.interval(level, df, loc=sign * estimate, scale=se)
        assert ci == pytest.approx(expected, rel=1e-8)
    assert got.p == pytest.approx(2 * stats.t.sf(abs(estimate) / se, df), rel=1e-8)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seeds", [1, 4])
def test_seeds_give_the_numbers_of_compare(metric: EffectMetric, seeds: int):
    rng = np.random.default_rng(1)
    rows = table(rng, 900, 120)
    a, b = scores(rng, rows, seeds), scores(rng, rows, seeds, gain=0.3)
    models = [
        [
            ScoredRows(
                split="test",
                row=rows.row,
                logits=logits,
                label=rows.label,
                domain=np.ones(900),
                names=("one",),
                group=rows.cluster,
            )
            for logits in arm
        ]
        for arm in (a, b)
    ]
    pair = getattr(compare(models[0], models[1]).domains["one"], metric)
    reader = Reader([rows] * seeds, metric)
    effect: Any = reader.effect(reader.measure(b) - reader.measure(a), MARGIN)
    sign = 1 if metric == "auc" else -1
    assert effect.estimate == pytest.approx(sign * pair.difference, abs=1e-13)
    assert sorted(sign * end for end in effect.ci) == pytest.approx(pair.ci, abs=1e-12)
    assert effect.p == pytest.approx(pair.p, rel=1e-8)
    assert effect.estimate > 0


@pytest.mark.parametrize("metric", METRICS)
def test_standard_errors_agree_with_the_cluster_bootstrap(metric: EffectMetric):
    rng = np.random.default_rng(2)
    rows = table(rng, 2000, 250)
    assert rows.cluster is not None
    a, b = scores(rng, rows, 1)[0], scores(rng, rows, 1, gain=0.2)[0]
    read = auc if metric == "auc" else logloss
    drawn = []
    for _ in range(1500):
        # A user drawn n times counts n times.
        times = np.bincount(rng.integers(0, 250, 250), minlength=250)[rows.cluster]
        weight = times.astype(np.float64)
        drawn.append(read(b, rows.label, weight) - read(a, rows.label, weight))
    spread = float(np.std(drawn))
    for seeds in (1, 3):  # three seeds without any difference among them are one
        reader = Reader([rows] * seeds, metric)
        effect = reader.effect(reader.measure([b] * seeds) - reader.measure([a] * seeds), MARGIN)
        assert effect.se == pytest.approx(spread, rel=0.1)


def test_two_way_clusters_by_hand():
    def grid(count):
        rows = Replicate(np.arange(4), np.array([0, 1, 0, 1]), np.array([7, 7, 9, 9]))
        return Grid.of([replace(rows, item=np.array([5, 3, 5, 3]))] * count)

    def spread(*psi):
        psi = [np.array(each, dtype=np.float64) for each in psi]
        return grid(len(psi)).spread(np.array([0.1, 0.4])[: len(psi)], psi)

    # Users 3^2 + 7^2 = 58, items 4^2 + 6^2 = 52, rows 30; two clusters: twice the sum.
    assert spread([1, 2, 3, 4]) == (2 * (58 + 52 - 30), 1.0)
    # Users 3^2 + 3^2 = 18, items 4^2 + 4^2 = 32, rows 50: zero, so users alone.
    assert spread([1, 2, 3, -6]) == (36, 1.0)
    # Two seeds: W = (160 + 36) / 2 = 98. The mean (1, 2, 3, -1): users 13, items 17, rows 15, so
    # A = 2 * 15 = 30 and c = max(0, 60 - 98) = 0: only s2 / 2 = 0.045 / 2 is left.
    variance, df = spread([1, 2, 3, 4], [1, 2, 3, -6])
    assert (variance, df) == (pytest.approx(0.0225), pytest.approx(1.0))
    # The second seed half the first: W = 160 (1 + 1/4) / 2 = 100, A = 160 * 9/16 = 90, c = 80.
    variance, df = spread([1, 2, 3, 4], [0.5, 1, 1.5, 2])
    assert variance == pytest.approx(80.0225)
    assert df == pytest.approx(80.0225**2 / (0.0225**2 + 80**2))


def test_folds_without_a_user_in_common_have_the_spread_of_their_values():
    rng = np.random.default_rng(3)
    rows = table(rng, 1000, 200)
    assert rows.cluster is not None
    folds = folds_of(rows, rows.cluster % 5)
    reader = Reader(folds, "auc")
    arms = [reader.measure([rng.normal(size=len(f)) + f.label for f in folds]) for _ in range(2)]
    values = (arms[0] - arms[1]).values
    effect = reader.effect(arms[0] - arms[1], MARGIN)
    assert effect.se == pytest.approx(values.std(ddof=1) / 5**0.5)
    assert effect.df == pytest.approx(4)
    assert effect.note is None


def test_equal_values_in_all_seeds_are_no_certainty():
    """Influences that point apart leave c = 0, and values that agree s2 = 0: rows still vary."""
    psi = [np.array([0.1, -0.1, 0.2, -0.2]), np.array([-0.1, 0.1, 0.2, -0.2])]
    grid = Grid.of([Replicate(np.arange(4), np.array([0, 1, 0, 1]))] * 2)
    variance, df = grid.spread(np.array([0.3, 0.3]), psi)
    # A = 4/3 * 0.08, W = 4/3 * 0.1, so c = 2 A - W = 0.08; turned against each other it is 0.
    assert (variance, df) == (pytest.approx(0.08), pytest.approx(3))
    psi[1][2:] *= -0.5  # mean (0, 0, 0.05, -0.05): A = 4/3 * 0.005, W = 4/3 * 0.07
    for values in ([0.3, 0.3], [0.3, 0.1 + 0.2]):  # which differ by rounding
        assert grid.spread(np.array(values), psi) == (pytest.approx(4 / 3 * 0.005), 3)


def test_net_plus_is_transfer_minus_interference():
    rng = np.random.default_rng(4)
    rows = table(rng, 500, 80)
    for metric in METRICS:
        reader = Reader([rows] * 3, metric)
        tuned, own, every = (reader.measure(scores(rng, rows, 3)) for _ in range(3))
        net: Any = reader.effect(every - own, MARGIN)
        transfer = reader.effect(tuned - own, MARGIN)
        interference = reader.effect(tuned - every, MARGIN)
        assert transfer.estimate is not None
        assert interference.estimate is not None
        assert abs(net.estimate - (transfer.estimate - interference.estimate)) < 1e-12
        joined = reader.effect((tuned - own) - (tuned - every), MARGIN)
        assert joined.se == pytest.approx(net.se, rel=1e-9)
        there_and_back = reader.effect((every - own) + (own - every), MARGIN)
        assert (there_and_back.estimate, there_and_back.ci) == (0.0, (0.0, 0.0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_neither_order_nor_names_nor_monotone_maps_change_an_effect(seed: int):
    rng = np.random.default_rng(seed)
    rows = table(rng, 240, 50)
    assert rows.cluster is not None
    a, b = scores(rng, rows, 2), scores(rng, rows, 2)
    reader = Reader([rows] * 2, "auc")
    before: Any = reader.effect(reader.measure(a) - reader.measure(b), MARGIN)
    orders = [rng.permutation(240) for _ in range(2)]
    renamed = replace(rows, cluster=rng.permutation(10_000)[rows.cluster], row=rows.row + 77)
    other = Reader([renamed.take(order) for order in orders], "auc")
    left = other.measure([np.exp(x)[order] for x, order in zip(a, orders, strict=True)])
    right = other.measure([3 * x[order] - 1 for x, order in zip(b, orders, strict=True)])
    after: Any = other.effect(left - right, MARGIN)
    assert after.estimate == pytest.approx(before.estimate, abs=1e-12)
    assert (after.se, after.df) == (pytest.approx(before.se), pytest.approx(before.df))
    swapped: Any = other.effect(right - left, MARGIN)
    assert swapped.estimate == -after.estimate
    assert swapped.ci == pytest.approx(tuple(-end for end in reversed(after.ci)))


# Coverage, by simulation.


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


# Equivalence: self-check 7.


def binormal(rng, rows: Replicate, noise: tuple[float, float], seeds: int) -> list[Measured]:
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


# What cannot be told, and why.


def counted(positives: int, negatives: int, clusters: int | None = None) -> Replicate:
    rows = positives + negatives
    cluster = None if clusters is None else np.arange(rows) % clusters
    return Replicate(np.arange(rows), np.arange(rows) < positives, cluster)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (counted(31, 179), "not testable: 31 positives in 210 test rows, 50 are needed"),
        (counted(70, 9), "not testable: 9 negatives in 79 test rows, 50 are needed"),
        (counted(60, 60, 12), "not testable: 12 clusters in 120 test rows, 30 are needed"),
        (
            counted(49, 60, 29),
            "not testable: 49 positives in 109 test rows, 50 are needed;"
            " 29 clusters in 109 test rows, 30 are needed",
        ),
        (counted(0, 80), "one class: no positives in 80 test rows"),
        (counted(1, 0), "one class: no negatives in 1 test row"),
        (counted(0, 0), "no test rows"),
    ],
)
@pytest.mark.parametrize("metric", METRICS)
def test_too_few_rows_are_said_and_not_guessed(rows, reason, metric: EffectMetric):
    rng = np.random.default_rng(11)
    reader = Reader([rows] * 2, metric)
    arms = [reader.measure([rng.normal(size=len(rows)) for _ in range(2)]) for _ in range(2)]
    effect = reader.effect(arms[0] - arms[1], MARGIN)
    if reason.startswith("one class") and metric == "logloss":
        reason += "; only calibration is claimed"
    assert (effect.reason, reader.untestable) == (reason, reason)
    assert effect == Effect(None, reason=reason)
    mean, ci = reader.interval(arms[0])
    assert ci is None
    defined = len(rows) > 0 and (metric == "logloss" or not reason.startswith("one class"))
    assert (mean is not None) == defined


def test_the_minimum_counts_distinct_rows_over_all_folds():
    rows = counted(50, 50)
    assert Reader([rows], "auc").untestable is None
    assert Reader(folds_of(rows, np.arange(100) % 5), "auc").untestable is None
    few = counted(20, 80)
    assert Reader([few] * 5, "auc").untestable is not None


def test_a_fold_of_one_class_is_left_out_and_named():
    rng = np.random.default_rng(12)
    rows = table(rng, 400, 80)
    folds = [
        *folds_of(rows, np.arange(400) % 3),
        Replicate(np.arange(9) + 10**6, np.zeros(9), np.arange(9)),
    ]
    logits = [[rng.normal(size=len(f)) for f in folds] for _ in range(2)]
    reader, without = Reader(folds, "auc"), Reader(folds[:3], "auc")
    effect: Any = reader.effect(reader.measure(logits[0]) - reader.measure(logits[1]), MARGIN)
    less: Any = without.effect(
        without.measure(logits[0][:3]) - without.measure(logits[1][:3]), MARGIN
    )
    assert effect.estimate == pytest.approx(less.estimate)
    assert effect.se == pytest.approx(less.se, rel=0.02)
    assert effect.note == "3 of 4 replicates have a value"
    assert less.note is None
    rows = counted(60, 60)
    split = Reader([rows.take(rows.label), rows.take(~rows.label)], "auc")
    arm = split.measure([np.arange(60.0)] * 2)
    assert split.effect(arm - arm, MARGIN).reason == "no replicate has both classes"
    assert split.interval(arm) == (None, None)


def test_one_training_does_not_claim_to_cover_seeds():
    rng = np.random.default_rng(13)
    rows = table(rng, 400, 80)
    reader = Reader([rows], "auc")
    difference = reader.measure(scores(rng, rows, 1)) - reader.measure(scores(rng, rows, 1))
    effect = reader.effect(difference, MARGIN)
    assert rows.cluster is not None
    assert effect.note is not None
    assert "not retraining" in effect.note
    for seeds, words in ((2, "rough"), (3, None)):
        reader = Reader([rows] * seeds, "auc")
        arms = [reader.measure(scores(rng, rows, seeds)) for _ in range(2)]
        note = reader.effect(arms[0] - arms[1], MARGIN).note
        assert (note is None) if words is None else words in (note or "")
    assert effect.df == len(np.unique(rows.cluster)) - 1


def test_weights_leave_an_auc_without_interval_and_a_logloss_with_one():
    rng = np.random.default_rng(14)
    rows = table(rng, 400, 80)
    times = rng.integers(1, 3, 400)
    weighted = replace(rows, weight=times)
    arms = [scores(rng, rows, 2) for _ in range(2)]
    reader = Reader([weighted] * 2, "auc")
    effect = reader.effect(reader.measure(arms[0]) - reader.measure(arms[1]), MARGIN)
    expected = np.mean(
        [
            auc(a, rows.label, weighted.weight) - auc(b, rows.label, weighted.weight)
            for a, b in zip(*arms, strict=True)
        ]
    )
    assert effect.estimate == pytest.approx(expected)
    assert effect.reason == "rows have weights: DeLong's variance holds for rows without"
    assert (effect.ci, effect.p, effect.rows_needed) == (None, None, None)
    assert reader.interval(reader.measure(arms[0]))[1] is None
    # A row of weight 2 moves a mean as two equal rows of one user do.
    twice = np.repeat(np.arange(400), times)
    copies = replace(rows.take(twice), row=np.arange(len(twice)))
    once, doubled = Reader([weighted] * 2, "logloss"), Reader([copies] * 2, "logloss")
    one: Any = once.effect(once.measure(arms[0]) - once.measure(arms[1]), MARGIN)
    two = doubled.effect(
        doubled.measure([a[twice] for a in arms[0]]) - doubled.measure([b[twice] for b in arms[1]]),
        MARGIN,
    )
    assert (one.estimate, one.se) == (pytest.approx(two.estimate), pytest.approx(two.se))
    nothing = Reader([replace(rows, weight=np.zeros(400))], "logloss")
    arm = nothing.measure([arms[0][0]])
    assert nothing.effect(arm - arm, MARGIN).reason == "all weights are 0"


def test_what_does_not_spread_has_no_interval():
    rows = counted(60, 60)
    reader = Reader([rows], "logloss")
    right = np.where(rows.label, 1.0, -1.0)
    effect = reader.effect(reader.measure([2 * right]) - reader.measure([right]), MARGIN)
    assert effect.estimate is not None
    assert effect.estimate > 0
    assert effect.reason == "no spread among rows: nothing to estimate an interval from"
    one = Reader([replace(rows, item=np.zeros(120))], "auc")
    arm = one.measure([np.arange(120.0)])
    assert one.effect(arm - arm, MARGIN).reason == "one item: nothing to estimate a spread from"
    # Two ways to add up the same leave rounding, which is no difference.
    rounded = np.log(np.expm1(np.log1p(np.exp(right))))
    nothing = reader.effect(reader.measure([right]) - reader.measure([rounded]), MARGIN)
    assert (nothing.estimate, nothing.ci, nothing.p, nothing.reason) == (0.0, (0.0, 0.0), 1.0, None)
    assert same(nothing, MARGIN)


def test_an_arms_interval_stays_inside_what_the_metric_allows():
    rng = np.random.default_rng(15)
    rows = counted(60, 60)
    reader = Reader([rows] * 3, "auc")
    arm = reader.measure([3 * rows.label + rng.normal(size=120) for _ in range(3)])
    mean, ci = reader.interval(arm)
    assert mean == pytest.approx(arm.values.mean())
    assert mean is not None
    assert ci is not None
    assert 0 < ci[0] < mean < ci[1] < 1
    assert reader.interval(reader.measure([1.0 * rows.label] * 3)) == (1.0, None)
    losses = Reader([rows], "logloss")
    logits = rng.normal(size=120)
    mean, ci = losses.interval(losses.measure([logits]))
    assert mean == pytest.approx(logloss(logits, rows.label))
    assert ci is not None
    assert sum(ci) / 2 == pytest.approx(mean)


def test_contradictions_are_refused():
    rows = counted(60, 60, 40)
    wrong: Any = "gauc"
    refusals = [
        (lambda: Reader([rows], wrong), "metric must be one of"),
        (lambda: Reader([], "auc"), "at least one replicate"),
        (lambda: Reader([rows, replace(rows, cluster=None)], "auc"), "must have cluster, or none"),
        (lambda: Reader([rows, replace(rows, label=~rows.label)], "auc"), "agree on the label"),
        (
            lambda: Reader([rows, replace(rows, cluster=np.arange(120))], "auc"),
            "agree on the cluster of a row: row 40 differs",
        ),
        (lambda: Reader([rows.take(np.array([0, 5, 5]))], "auc"), "got row 5 twice"),
        (lambda: Reader([rows], "auc").measure([]), "need 1 replicates' logits, got 0"),
        (lambda: Reader([rows], "auc").measure([np.zeros(3)]), r"shape \(120,\) in replicate 0"),
        (lambda: Reader([rows], "auc").measure([np.full(120, np.nan)]), "got nan for row 0"),
        (lambda: Replicate(np.arange(2), np.array([0, 2])), "label must be 0 or 1, got 2"),
        (lambda: Replicate(np.arange(2), np.array([0, 1]), np.zeros(3)), "cluster must have shape"),
        (
            lambda: Replicate(np.arange(1), np.array([0]), weight=np.array([-1.0])),
            "weight must be finite and at least 0, got -1.0",
        ),
        (lambda: macro_effect([], MARGIN), "at least one domain"),
    ]
    for refused, words in refusals:
        with pytest.raises(ValueError, match=words):
            refused()
    reader = Reader([rows], "auc")
    arm = reader.measure([np.arange(120.0)])
    with pytest.raises(ValueError, match="margin must be above 0, got 0"):
        reader.effect(arm, 0)
    other = Reader([counted(60, 61)], "auc").measure([np.arange(121.0)])
    with pytest.raises(ValueError, match="one reader"):
        _ = arm - other


def test_an_effect_becomes_json():
    rng = np.random.default_rng(16)
    rows = table(rng, 400, 80)
    reader = Reader([rows] * 2, "logloss")
    effect = reader.effect(
        reader.measure(scores(rng, rows, 2)) - reader.measure(scores(rng, rows, 2)), MARGIN
    )
    plain = json.loads(json.dumps(with_holm({"one": effect})["one"].to_dict()))
    assert plain["ci"] == list(effect.ci or ())
    assert plain["p_holm"] == plain["p"] == effect.p
    assert set(plain) == set(Effect.__dataclass_fields__)


# Several domains.


def test_a_macro_effect_draws_a_user_once_for_all_domains():
    rng = np.random.default_rng(17)
    rows = table(rng, 1500, 150)
    assert rows.cluster is not None
    domain = rng.integers(0, 3, 1500)
    arms = [scores(rng, rows, 3), scores(rng, rows, 3, gain=0.2)]
    parts = []
    for d in range(3):
        reader = Reader([rows.take(domain == d)] * 3, "logloss")
        before, after = (reader.measure([x[domain == d] for x in arm]) for arm in arms)
        parts.append((reader, after - before))
    effect: Any = macro_effect(parts, MARGIN)
    each: list[Any] = [reader.effect(difference, MARGIN).estimate for reader, difference in parts]
    assert effect.estimate == pytest.approx(np.mean(each))
    # compare() joins domains by its own route.
    scored = [
        [
            ScoredRows(
                split="test",
                row=rows.row,
                logits=logits,
                label=rows.label,
                domain=domain + 1,
                names=("a", "b", "c"),
                group=rows.cluster,
            )
            for logits in arm
        ]
        for arm in arms
    ]
    macro: Any = compare(scored[0], scored[1]).macro.logloss
    assert sorted(-end for end in effect.ci) == pytest.approx(macro.ci)
    two = Reader([rows] * 2, "logloss")
    arm = two.measure(arms[0][:2])
    with pytest.raises(ValueError, match="share metric and replicates"):
        macro_effect([parts[0], (two, arm - arm)], MARGIN)


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
