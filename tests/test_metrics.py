"""Logloss, NE, calibration, ECE, scored rows, shards: against scikit-learn and by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss

from isthmus.errors import RunError
from isthmus.metrics import Partial, ScoredRows, align, auc, concatenate, evaluate_rows, logloss
from isthmus.metrics.formulas.ece import segment_ece
from isthmus.metrics.formulas.normalised_entropy import entropy
from isthmus.metrics.formulas.ranking import Ranking


def scored_rows(rows=600, seed=0, *, groups=40, **changes) -> Any:
    rng = np.random.default_rng(seed)
    label = rng.random(rows) < 0.3
    made = ScoredRows(
        split="test",
        row=np.arange(rows),
        logits=rng.normal(size=rows) + label - 1,
        label=label,
        domain=rng.integers(1, 4, rows),
        names=("a", "b", "c"),
        group=rng.integers(0, groups, rows),
    )
    return replace(made, **changes)


def test_logloss_equals_scikit_learn():
    rows = scored_rows()
    weight = np.random.default_rng(1).random(len(rows))
    chance = expit(rows.logits)
    assert logloss(rows.logits, rows.label) == pytest.approx(log_loss(rows.label, chance))
    expected = log_loss(rows.label, chance, sample_weight=weight)
    assert logloss(rows.logits, rows.label, weight) == pytest.approx(expected)


def test_logloss_is_not_clipped():
    assert logloss(np.array([-800.0]), np.array([1])) == 800.0
    assert logloss(np.array([40.0]), np.array([1])) == pytest.approx(np.exp(-40), rel=1e-9)
    assert np.isnan(logloss(np.array([]), np.array([])))


def test_entropy_of_a_base_rate():
    np.testing.assert_allclose(entropy(np.array([0.5, 0.0, 1.0])), [np.log(2), 0, 0], atol=1e-12)


def test_figures_by_hand():
    rows = ScoredRows(
        split="test",
        row=np.arange(4),
        logits=np.array([0.0, np.log(3), 0.0, -np.log(3)]),  # 1/2, 3/4, 1/2, 1/4
        label=np.array([1, 1, 0, 0]),
        domain=np.ones(4),
        names=("only",),
    )
    of = evaluate_rows(rows).domains["only"]
    assert (of.rows, of.positives) == (4, 2)
    assert of.auc == pytest.approx(3.5 / 4)  # three wins and a tie
    assert of.logloss == pytest.approx((2 * np.log(2) + 2 * np.log(4 / 3)) / 4)
    assert of.ne == pytest.approx(of.logloss / np.log(2))
    assert of.calibration == pytest.approx(1.0)
    # Bins: 1/4 (label 0), two times 1/2 (labels 1, 0: no gap), 3/4 (label 1).
    assert of.ece == pytest.approx((0.25 + 0.0 + 0.25) / 4)


def test_ece_written_out():
    rng = np.random.default_rng(2)
    chance = rng.random(1500)
    label = rng.random(1500) < chance**2
    got, noise = segment_ece(Ranking.of(chance), chance, label, np.ones(1500))
    order = np.argsort(chance)
    gaps = [abs(chance[part].mean() - label[part].mean()) for part in np.split(order, 15)]
    assert got[0] == pytest.approx(np.mean(gaps))
    assert noise[0] < got[0] / 3


def test_ece_noise_is_what_a_calibrated_model_shows():
    rng = np.random.default_rng(3)
    chance = rng.beta(2, 5, 600)
    shown = [
        segment_ece(Ranking.of(chance), chance, rng.random(600) < chance, np.ones(600))
        for _ in range(300)
    ]
    assert np.mean([ece[0] for ece, _ in shown]) == pytest.approx(shown[0][1][0], rel=0.03)


def test_weights_count_as_copies_of_rows():
    rows = scored_rows(weight=np.random.default_rng(4).integers(0, 4, 600))
    times = rows.weight.astype(int)
    copies = rows.take(np.repeat(np.arange(600), times))
    copies = replace(copies, row=np.arange(len(copies)), weight=None)
    weighted, repeated = evaluate_rows(rows).pooled, evaluate_rows(copies).pooled
    for metric in ("auc", "gauc", "logloss", "ne", "calibration", "ece"):
        assert getattr(weighted, metric) == pytest.approx(getattr(repeated, metric)), metric


def test_thinned_negatives_give_the_figures_of_the_whole_table():
    rng = np.random.default_rng(5)
    rows = 400_000
    chance = rng.beta(1, 6, rows)
    label = rng.random(rows) < chance
    kept = label | (rng.random(rows) < 0.2)
    whole = ScoredRows(
        split="test",
        row=np.arange(rows),
        logits=np.log(chance / (1 - chance)),
        label=label,
        domain=np.ones(rows),
        names=("all",),
    )
    # A model trained on the thinned table sees odds that are 1 / 0.2 times as large.
    thinned = replace(whole, logits=whole.logits - np.log(0.2), negative_rate=0.2)
    full: Any = evaluate_rows(whole).pooled
    part: Any = evaluate_rows(thinned.take(np.flatnonzero(kept)))
    assert part.pooled.logloss == pytest.approx(full.logloss, rel=0.01)
    assert part.pooled.ne == pytest.approx(full.ne, rel=0.01)
    assert part.pooled.calibration == pytest.approx(1.0, abs=0.01)
    assert part.pooled.ece < 0.005
    assert part.pooled.auc == pytest.approx(full.auc, abs=0.005)
    assert any("negative_rate 0.2" in note for note in part.notes)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"logits": [0, np.nan, 0]}, "logits must be finite, got nan in row 11 of split 'test'"),
        ({"logits": [0, 0, np.inf]}, "got inf in row 12"),
        ({"label": [0, 1, 0.5]}, "label must be 0 or 1, got 0.5 in row 12"),
        ({"domain": [1, 4, 1]}, "domain must be in 0..1, got 4 in row 11"),
        ({"weight": [1, -1, 1]}, "weight must be finite and at least 0, got -1.0 in row 11"),
        ({"group": [1, 2]}, r"group must have shape \(3,\)"),
        ({"names": ("x", "x")}, "names of domains must differ"),
        ({"negative_rate": 0.0}, r"negative_rate must be in \(0, 1\], got 0.0"),
    ],
)
def test_bad_rows_are_refused_by_name(change, told):
    good = {"split": "test", "row": [10, 11, 12], "logits": [0, 0, 0], "label": [0, 1, 0]}
    good |= {"domain": [1, 1, 0], "names": ("x",)}
    ScoredRows(**good)
    with pytest.raises(ValueError, match=told):
        ScoredRows(**good | change)


def test_shards_joined_are_exact_and_in_any_order():
    rows = scored_rows()
    parts = [rows.take(np.arange(start, 600, 3)) for start in range(3)]
    assert evaluate_rows(concatenate(parts[::-1])) == evaluate_rows(rows)
    with pytest.raises(ValueError, match="one split, got 'test' and 'validation'"):
        concatenate([parts[0], replace(parts[1], split="validation")])
    with pytest.raises(ValueError, match="all have a group"):
        concatenate([parts[0], replace(parts[1], group=None)])


def test_partial_sums_merge_within_their_stated_error():
    rows = scored_rows(20_000)
    rows = replace(rows, logits=rows.logits * np.where(rows.domain == 3, 30.0, 1.0))
    parts = [Partial.of(rows.take(np.arange(start, 20_000, 4))) for start in range(4)]
    merged = parts[2].merge(parts[0]).merge(parts[3].merge(parts[1])).finish()
    exact = evaluate_rows(rows)
    assert merged.names == ("a", "b", "c", "pooled")
    for at, of in enumerate([*exact.domains.values(), exact.pooled]):
        assert abs(merged.auc[at] - of.auc) <= merged.auc_error[at]
        assert (merged.rows[at], merged.positives[at]) == (of.rows, of.positives)
        assert merged.logloss[at] == pytest.approx(of.logloss)
        assert merged.ne[at] == pytest.approx(of.ne)
        assert merged.calibration[at] == pytest.approx(of.calibration)
    assert merged.auc_error[0] < 5e-4
    assert merged.auc_error[2] > 0.01  # logits off the grid: the bound says so
    with pytest.raises(ValueError, match="one split"):
        parts[0].merge(Partial.of(replace(rows, split="validation")))


def test_partial_of_one_class_is_undefined():
    rows = scored_rows(label=np.zeros(600))
    assert np.isnan(Partial.of(rows).finish().auc).all()
    assert np.isnan(Partial.of(rows).finish().calibration).all()


def test_align_sorts_rows_and_renumbers_domains():
    a = scored_rows()
    order = np.random.default_rng(6).permutation(600)
    other = np.array([0, 3, 1, 2])[a.domain]
    b = replace(a, domain=other, names=("b", "c", "a"), group=a.group * 10 + 3).take(order)
    first, second = align([a, b])
    np.testing.assert_array_equal(second.row, first.row)
    np.testing.assert_array_equal(second.logits, first.logits)
    np.testing.assert_array_equal(second.domain, first.domain)
    assert second.names == first.names


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda a: replace(a, split="external"), "one split, got 'test' and 'external'"),
        (lambda a: a.take(np.arange(599)), "600 and 599; 1 are in one only, the first is row 599"),
        (lambda a: replace(a, row=a.row + 1), "same rows .* the first is row 0"),
        (lambda a: replace(a, label=~a.label), "agree on the label of every row"),
        (lambda a: replace(a, names=("a", "b", "z")), "agree on the domain .* got c and z"),
        (lambda a: replace(a, weight=np.ones(600)), "all have a weight column, or none"),
        (lambda a: replace(a, group=a.group // 2), "the same group column"),
        (lambda a: replace(a, negative_rate=0.5), "one negative_rate, got 1.0 and 0.5"),
        (lambda a: replace(a, fingerprint="2"), "one table .*, got '1' and '2'"),
    ],
)
def test_rows_that_do_not_match_are_refused(change, told):
    a = scored_rows(fingerprint="1")
    with pytest.raises(RunError, match=told):
        align([a, change(a)])


def test_a_row_that_occurs_twice_is_refused():
    rows = scored_rows()
    with pytest.raises(ValueError, match="must occur once, got row 3 twice"):
        evaluate_rows(rows.take(np.array([5, 3, 3])))


def test_float32_scores_keep_their_ties():
    score = np.array([0.1, 0.1, 0.3], dtype=np.float32)
    assert auc(score, np.array([1, 0, 0])) == 0.25
