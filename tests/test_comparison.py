"""compare(): paired intervals, Holm over domains, refusals, and when a winner may be named."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from isthmus.errors import RunError
from isthmus.metrics import ScoredRows, compare, evaluate_rows, judge


def pair(rng, groups=200, *, gain=0.0, noise=0.3, domains=3):
    """Models a and b that see one signal through noises of their own; b may see it better."""
    user = np.repeat(np.arange(groups), rng.integers(2, 12, groups))
    rows = len(user)
    taste = rng.normal(size=groups)[user]
    signal = rng.normal(size=rows)
    label = rng.random(rows) < expit(signal + taste - 0.5)
    a = ScoredRows(
        split="test",
        row=np.arange(rows),
        logits=(1 - gain) * signal + noise * rng.normal(size=rows) - 0.5,
        label=label,
        domain=rng.integers(1, domains + 1, rows),
        names=tuple(f"d{i}" for i in range(1, domains + 1)),
        group=user,
        source="plain",
    )
    return a, replace(a, logits=signal + noise * rng.normal(size=rows) - 0.5, source="adapted")


def test_differences_are_those_of_the_two_evaluations():
    a, b = pair(np.random.default_rng(0))
    one, two = evaluate_rows(a), evaluate_rows(b)
    both: Any = compare(a, b)
    worst = one.worst.domain
    assert worst is not None
    for scope, of in (both.domains | both.scopes()).items():
        if scope.startswith("worst"):
            left, right = one.worst, two.domains[worst]
        else:
            left, right = (one.domains | one.scopes())[scope], (two.domains | two.scopes())[scope]
        for metric in ("auc", "logloss"):
            got = getattr(of, metric)
            assert got.a == pytest.approx(getattr(left, metric))
            assert got.b == pytest.approx(getattr(right, metric))
            assert got.difference == pytest.approx(getattr(right, metric) - getattr(left, metric))
            assert got.ci[0] < got.difference < got.ci[1]
            assert sum(got.ci) / 2 == pytest.approx(got.difference)
    assert both.worst.domain == worst


def test_swapping_the_models_turns_the_sign():
    a, b = pair(np.random.default_rng(1), 600, gain=0.8)
    one: Any = compare(a, b).macro
    other: Any = compare(b, a).macro
    assert one.auc.difference == pytest.approx(-other.auc.difference)
    assert one.auc.p == pytest.approx(other.auc.p)
    assert (one.auc.better, other.auc.better) == ("b", "a")
    assert (one.logloss.better, other.logloss.better) == ("b", "a")


def test_a_model_equals_itself():
    a, _ = pair(np.random.default_rng(2))
    same = compare(a, a)
    assert same.pooled.auc.difference == 0
    assert same.pooled.auc.ci == (0.0, 0.0)
    assert (same.pooled.auc.p, same.pooled.auc.better) == (1.0, None)
    assert "no difference found on any domain" in same.headline()


def test_standard_error_agrees_with_the_cluster_bootstrap():
    rng = np.random.default_rng(3)
    a, b = pair(rng, 400)
    of = compare(a, b)
    assert a.group is not None
    order = np.argsort(a.group, kind="stable")
    ends = np.searchsorted(a.group[order], np.arange(401))
    shown = {"pooled auc": [], "macro auc": [], "pooled logloss": [], "macro logloss": []}
    for _ in range(250):
        users = rng.integers(0, 400, 400)
        rows = np.concatenate([order[ends[u] : ends[u + 1]] for u in users])
        numbered = {
            "row": np.arange(len(rows)),
            "group": np.repeat(np.arange(400), np.diff(ends)[users]),
        }
        again = compare(replace(a.take(rows), **numbered), replace(b.take(rows), **numbered))
        for key, values in shown.items():
            scope, metric = key.split()
            values.append(getattr(getattr(again, scope), metric).difference)
    for key, values in shown.items():
        scope, metric = key.split()
        mine = getattr(getattr(of, scope), metric).half_width / 1.966
        assert mine == pytest.approx(np.std(values, ddof=1), rel=0.1), key


def test_no_difference_is_found_where_there_is_none():
    """Two equally good models: 95 % intervals hold 0, and Holm keeps the family's alarms."""
    rng = np.random.default_rng(4)
    holds, alarms = 0, 0
    repetitions = 300
    for _ in range(repetitions):
        of: Any = compare(*pair(rng, 120))
        holds += of.macro.auc.better is None
        alarms += any(pair.auc.p_holm <= 0.05 for pair in of.domains.values())
    assert 0.91 <= holds / repetitions <= 0.985
    assert alarms / repetitions <= 0.08


def test_pairing_is_sharper_than_two_intervals():
    a, b = pair(np.random.default_rng(5), 400, noise=0.1)
    alone: Any = evaluate_rows(a).pooled
    low, high = alone.auc_ci
    paired: Any = compare(a, b).pooled
    assert paired.auc.half_width < 0.3 * (high - low)


def test_seeds_of_one_model_against_seeds_of_the_same():
    """Solo against solo: seeds vary the models, and alarms stay near 5 % (diagnosis of seeds)."""
    rng = np.random.default_rng(6)
    alarms = one_seed = 0
    repetitions = 200
    for _ in range(repetitions):
        a, _ = pair(rng, 150, domains=1)
        truth = a.logits

        def trained(like=a, truth=truth):
            bent = 0.25 * rng.normal() * np.sin(3 * truth) + 0.25 * rng.normal() * (truth > 0)
            return replace(like, logits=truth + bent)

        left, right = [trained() for _ in range(3)], [trained() for _ in range(3)]
        alarms += compare(left, right).pooled.auc.better is not None
        one_seed += compare(left[0], right[0]).pooled.auc.better is not None
    assert alarms / repetitions <= 0.09
    assert one_seed / repetitions > 0.12  # why one seed's interval must say what it covers


def test_seeds_must_be_as_many_on_both_sides():
    a, b = pair(np.random.default_rng(7))
    with pytest.raises(ValueError, match="as many seeds, got 1 and 2"):
        compare(a, [b, b])
    assert compare([a, a], [b, b]).seeds == 2


def test_other_rows_are_refused():
    a, b = pair(np.random.default_rng(8))
    with pytest.raises(RunError, match="one split"):
        compare(a, replace(b, split="validation"))
    with pytest.raises(RunError, match="same rows"):
        compare(a, b.take(np.arange(10)))


def test_a_domain_of_one_class_has_no_auc_difference():
    a, b = pair(np.random.default_rng(9))
    label = a.label & (a.domain != 2)
    of = compare(replace(a, label=label), replace(b, label=label)).domains["d2"]
    assert of.auc.difference is None
    assert of.auc.reason == "one class: no positives"
    assert of.auc.p_holm is None
    assert of.logloss.ci is not None


def test_weights_leave_logloss_with_its_interval():
    a, b = pair(np.random.default_rng(10))
    weight = np.random.default_rng(11).random(len(a))
    of: Any = compare(replace(a, weight=weight), replace(b, weight=weight)).pooled
    assert of.auc.difference is not None
    assert of.auc.ci is None
    assert "weights" in of.auc.reason
    assert of.logloss.ci is not None


def test_headline_and_json():
    of = compare(*pair(np.random.default_rng(12), 800, gain=0.8))
    assert "adapted is better on d1, d2, d3 (Holm-adjusted p <= 0.05, 3 domains)" in of.headline()
    out = of.to_dict()
    assert json.loads(json.dumps(out, allow_nan=False)) == out
    assert out["pooled"]["auc"]["better"] == "b"
    assert any("cover the draw of test rows, not retraining" in note for note in out["notes"])


def control_of(a, size):
    """A model a' whose AUC differs from that of a by about ``size``."""
    rng = np.random.default_rng(13)
    return compare(a, replace(a, logits=a.logits + size * rng.normal(size=len(a)), source="again"))


def test_a_winner_must_exceed_its_interval_and_the_control():
    a, b = pair(np.random.default_rng(14), 800, gain=0.8)
    clear = {of.scope: of for of in judge(compare(a, b), control_of(a, 0.001))}
    assert clear["pooled"].winner == "adapted"
    assert "exceeds its interval" in str(clear["pooled"])
    shaken = {of.scope: of for of in judge(compare(a, b), control_of(a, 3.0))}
    assert shaken["pooled"].winner is None
    assert "no more than another seed" in shaken["pooled"].why
    level = judge(
        compare(*pair(np.random.default_rng(15))),
        control_of(pair(np.random.default_rng(15))[0], 0.001),
    )
    assert {of.scope: of.winner for of in level}["macro"] is None


def test_a_control_of_another_model_is_refused():
    a, b = pair(np.random.default_rng(16))
    with pytest.raises(ValueError, match="the same model a"):
        judge(compare(a, b), compare(b, a))
    with pytest.raises(ValueError, match="one split"):
        judge(compare(a, b), compare(replace(a, split="x"), replace(b, split="x")))
