"""Effects over seeds and folds: hand-worked and slow versions, and independent oracles."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from isthmus.metrics import (
    Effect,
    EffectMetric,
    Reader,
    Replicate,
    ScoredRows,
    auc,
    compare,
    logloss,
    macro_effect,
    with_holm,
)
from isthmus.metrics.crossed import Grid
from replicates import MARGIN, METRICS, folds_of, scores, table

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
