"""AUC, its influence values and its intervals, against slow and independent versions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from isthmus.metrics import auc, auc_by_domain
from isthmus.metrics.formulas.auc import segment_auc
from isthmus.metrics.formulas.ranking import Ranking
from isthmus.metrics.intervals import holm, interval, p_value
from isthmus.metrics.spread import Cells


def placements_written_out(score, label):
    """DeLong's psi from the full positives x negatives table of wins."""
    above, below = score[label == 1][:, None], score[label == 0][None, :]
    wins = (above > below) + 0.5 * (above == below)
    value = wins.mean()
    psi = np.empty(len(score))
    psi[label == 1] = (wins.mean(axis=1) - value) / wins.shape[0]
    psi[label == 0] = (wins.mean(axis=0) - value) / wins.shape[1]
    return value, psi, wins


def sample(rng, rows, *, ties=True):
    label = (rng.random(rows) < 0.3).astype(int)
    score = rng.normal(size=rows) + label
    return (np.round(score, 1) if ties else score), label


def test_hand_worked_cases():
    assert auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])) == 0.75
    assert auc(np.array([1.0, 1.0, 1.0]), np.array([0, 1, 0])) == 0.5
    assert auc(np.array([1.0, 2.0, 2.0]), np.array([0, 1, 0])) == 0.75  # one win, one tie
    assert auc(np.array([3.0, 1.0]), np.array([0, 1])) == 0.0


@pytest.mark.parametrize("label", [[0, 0], [1, 1], []])
def test_one_class_has_no_auc(label):
    assert np.isnan(auc(np.arange(len(label), dtype=float), np.array(label)))


def test_equals_scikit_learn_with_ties_and_weights():
    rng = np.random.default_rng(0)
    for _ in range(20):
        score, label = sample(rng, 300)
        weight = rng.random(300)
        assert auc(score, label) == pytest.approx(roc_auc_score(label, score), abs=1e-12)
        expected = roc_auc_score(label, score, sample_weight=weight)
        assert auc(score, label, weight) == pytest.approx(expected, abs=1e-12)


def test_domains_are_solved_together_as_one_by_one():
    rng = np.random.default_rng(1)
    score, label = sample(rng, 2000)
    domain = rng.integers(0, 6, 2000)
    label[domain == 4] = 0
    together = auc_by_domain(score, label, domain, 7)
    for d in range(1, 8):
        of = domain == d
        np.testing.assert_equal(together[d - 1], auc(score[of], label[of]))
    assert np.isnan(together[[3, 5, 6]]).all()  # one class; no rows


def test_more_segments_than_a_16_bit_key():
    rng = np.random.default_rng(2)
    score, label = sample(rng, 3000)
    segment = rng.integers(0, 300, 3000) * 1000
    many = segment_auc(Ranking.of(score, segment, 300_000), label == 1).value
    few = segment_auc(Ranking.of(score, segment // 1000, 300), label == 1).value
    np.testing.assert_array_equal(many[::1000], few)


def test_influence_equals_the_table_of_wins():
    rng = np.random.default_rng(3)
    score, label = sample(rng, 200)
    domain = rng.integers(0, 3, 200)
    got = segment_auc(Ranking.of(score, domain, 3), label == 1, influence=True)
    for d in range(3):
        of = domain == d
        value, psi, _ = placements_written_out(score[of], label[of])
        assert got.value[d] == pytest.approx(value, abs=1e-14)
        assert got.influence is not None
        np.testing.assert_allclose(got.influence[of], psi, atol=1e-15)


def test_variance_is_near_delong_s_own():
    rng = np.random.default_rng(4)
    score, label = sample(rng, 400)
    _, psi, wins = placements_written_out(score, label)
    classic = np.var(wins.mean(1), ddof=1) / len(wins) + np.var(wins.mean(0), ddof=1) / len(wins.T)
    assert 400 / 399 * (psi @ psi) == pytest.approx(classic, rel=0.01)


def test_influence_with_weights_is_refused():
    ranking = Ranking.of(np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="without weights"):
        segment_auc(ranking, np.array([True, False]), np.ones(2), influence=True)


def test_nan_is_refused_with_its_row():
    with pytest.raises(ValueError, match="got nan in row 1"):
        auc(np.array([0.0, np.nan]), np.array([0, 1]))


scored = st.lists(st.tuples(st.integers(-20, 20), st.booleans()), min_size=1, max_size=60)


@given(scored, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_of_rows_and_monotone_scale_do_not_matter(rows, random):
    score = np.array([row[0] for row in rows], dtype=float)
    label = np.array([row[1] for row in rows])
    order = np.array(random.sample(range(len(rows)), len(rows)))
    np.testing.assert_equal(auc(score[order], label[order]), auc(score, label))
    np.testing.assert_equal(auc(np.exp(score / 7) * 3 - 1, label), auc(score, label))


@given(scored)
@settings(max_examples=60, deadline=None)
def test_reversing_scores_or_labels_reflects_auc(rows):
    score = np.array([row[0] for row in rows], dtype=float)
    label = np.array([row[1] for row in rows])
    np.testing.assert_allclose(auc(-score, label), 1 - auc(score, label), atol=1e-12)
    np.testing.assert_allclose(auc(score, ~label), 1 - auc(score, label), atol=1e-12)


def test_cells_gather_rows_by_domain_and_group():
    domain, group = np.array([1, 1, 2, 2, 1, 2]), np.array([7, 7, 7, 9, -1, -1])
    cells = Cells.of(domain, group, 2)
    assert cells.n_clusters == 4  # groups 7 and 9, and two rows without a group
    assert cells.cell[0] == cells.cell[1] != cells.cell[2]
    assert cells.row_cluster[0] == cells.row_cluster[2]
    assert cells.row_cluster[4] != cells.row_cluster[5]
    np.testing.assert_array_equal(cells.domain[cells.cell], domain)
    np.testing.assert_array_equal(cells.cluster[cells.cell], cells.row_cluster)


def test_intervals_on_each_scale():
    low, high = interval(0.8, 0.01**2, 1e9)
    assert (low, high) == (pytest.approx(0.8 - 0.0196, abs=1e-5), pytest.approx(0.8196, abs=1e-5))
    low, high = interval(0.99, 0.01**2, 1e9, "logit")
    assert 0.9 < low < 0.99 < high < 1
    low, high = interval(2.0, 0.5**2, 1e9, "log")
    assert low * high == pytest.approx(4.0)
    assert interval(0.0, 1.0, 5)[1] == pytest.approx(2.5706, abs=1e-4)  # Student's t with 5 df


def test_p_value_and_holm():
    assert p_value(1.959964, 1.0, 1e9) == pytest.approx(0.05, abs=1e-6)
    assert p_value(0.0, 0.0, 10) == 1.0
    assert holm([0.01, 0.04, 0.03]) == [0.03, 0.06, 0.06]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
