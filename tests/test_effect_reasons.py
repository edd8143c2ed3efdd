"""Effects that cannot be told, in whole or in part, say why; contradictions are refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from isthmus.metrics import (
    Effect,
    EffectMetric,
    Reader,
    Replicate,
    auc,
    logloss,
    macro_effect,
    same,
)
from replicates import MARGIN, METRICS, counted, folds_of, scores, table


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
