"""Calibration: planted slopes and offsets come back, small domains stay near the pooled pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from isthmus.bundle.calibration import SMALLEST_SLOPE, STRENGTH, Calibration, fit_calibration


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def logloss(z, label):
    return np.logaddexp(0, z) - label * z


def planted(rows, slope, offset, seed=0):
    """Model logits and labels whose true logit is ``slope * logit + offset``, by domain 1, 2, ..."""
    rng = np.random.default_rng(seed)
    domain = np.repeat(np.arange(1, len(rows) + 1), rows)
    logits = rng.normal(-1, 1.5, len(domain))
    truth = np.take(slope, domain - 1) * logits + np.take(offset, domain - 1)
    label = (rng.random(len(domain)) < sigmoid(truth)).astype(np.float32)
    order = rng.permutation(len(domain))
    return logits[order], label[order], domain[order]


def auc(score, label):
    positive, negative = score[label == 1], score[label == 0]
    difference = positive[:, None] - negative[None, :]
    return (difference > 0).mean() + 0.5 * (difference == 0).mean()


def test_planted_miscalibration_is_recovered_in_every_domain():
    slope, offset = [0.6, 1.0, 1.5], [0.8, 0.0, -1.0]
    logits, label, domain = planted([60_000] * 3, slope, offset)
    fitted = fit_calibration(logits, label, domain, n_domains=3)
    np.testing.assert_allclose(fitted.slope[1:], slope, atol=0.04)
    np.testing.assert_allclose(fitted.offset[1:], offset, atol=0.04)
    calibrated = fitted.apply(logits, domain)
    for d in (1, 2, 3):
        rows = domain == d
        assert sigmoid(calibrated[rows]).mean() == pytest.approx(label[rows].mean(), abs=0.004)


def test_a_calibrated_model_stays_as_it_is():
    logits, label, domain = planted([40_000, 40_000], [1, 1], [0, 0])
    fitted = fit_calibration(logits, label, domain, n_domains=2)
    np.testing.assert_allclose(fitted.slope, 1, atol=0.03)
    np.testing.assert_allclose(fitted.offset, 0, atol=0.03)


def test_small_domains_stay_near_the_pooled_pair_and_large_ones_do_not():
    logits, label, domain = planted([50_000, 20, 20_000], [1, 1, 1], [0, 3, 3])
    fitted = fit_calibration(logits, label, domain, n_domains=3)
    pooled = fitted.offset[0]
    assert abs(fitted.offset[2] - pooled) < 0.3
    assert abs(fitted.slope[2] - fitted.slope[0]) < 0.1
    assert fitted.offset[3] == pytest.approx(3, abs=0.2)


def test_strength_is_counted_in_rows():
    # A domain with as many rows as the prior weighs ends about half way to its own best offset.
    logits, label, domain = planted([200_000, 500], [1, 1], [0, 1], seed=3)
    free = fit_calibration(logits, label, domain, n_domains=2, strength=1e-3).offset[2]
    half = fit_calibration(logits, label, domain, n_domains=2, strength=STRENGTH).offset[2]
    assert 0.3 < half / free < 0.7


def test_domains_without_rows_and_unknown_rows_get_the_pooled_pair():
    logits, label, domain = planted([5_000, 5_000], [0.7, 0.7], [1, 1])
    domain[domain == 2] = 0
    fitted = fit_calibration(logits, label, domain, n_domains=4)
    for d in (2, 3, 4):
        assert fitted.slope[d] == fitted.slope[0]
        assert fitted.offset[d] == fitted.offset[0]
    assert fitted.slope[0] == pytest.approx(0.7, abs=0.08)


def test_the_minimum_equals_that_of_a_general_optimiser():
    logits, label, domain = planted([3_000, 800], [0.5, 1.4], [0.4, -0.6], seed=5)
    fitted = fit_calibration(logits, label, domain, n_domains=2)

    def fit_slowly(x, y, all_x, centre):
        p = sigmoid(centre[0] * all_x + centre[1])
        features = np.stack([all_x, np.ones_like(all_x)], axis=1)
        fisher = (features * (p * (1 - p))[:, None]).T @ features / len(all_x) + 1e-4 * np.eye(2)

        def objective(theta):
            away = theta - centre
            loss = logloss(theta[0] * x + theta[1], y).sum()
            return loss + STRENGTH / 2 * away @ fisher @ away

        return minimize(objective, centre, method="BFGS", options={"gtol": 1e-4}).x

    pooled = fit_slowly(logits, label, logits, np.array([1.0, 0.0]))
    np.testing.assert_allclose([fitted.slope[0], fitted.offset[0]], pooled, atol=1e-4)
    for d in (1, 2):
        rows = domain == d
        best = fit_slowly(logits[rows], label[rows], logits, pooled)
        np.testing.assert_allclose([fitted.slope[d], fitted.offset[d]], best, atol=1e-4)


def test_order_within_a_domain_stays_even_where_the_scores_are_upside_down():
    logits, label, domain = planted([4_000, 4_000], [1.0, -1.0], [0, 0])
    fitted = fit_calibration(logits, label, domain, n_domains=2)
    assert fitted.slope[2] == SMALLEST_SLOPE
    calibrated = fitted.apply(logits, domain)
    for d in (1, 2):
        rows = np.flatnonzero(domain == d)[:2_000]
        before, after = auc(logits[rows], label[rows]), auc(calibrated[rows], label[rows])
        assert after == before
    # With the slope held, the offset is still the best one.
    rows = domain == 2
    assert sigmoid(calibrated[rows]).mean() == pytest.approx(label[rows].mean(), abs=0.02)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_fitted_rows_never_lose_and_nothing_breaks(data):
    n_domains = data.draw(st.integers(1, 5))
    rows = data.draw(st.integers(1, 60))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    spread = data.draw(st.sampled_from([0.0, 1e-3, 1.0, 30.0]))
    logits = rng.normal(0, 1, rows) * spread + data.draw(st.sampled_from([-20.0, 0.0, 3.0]))
    label = (rng.random(rows) < data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))).astype(np.float32)
    domain = rng.integers(0, n_domains + 1, rows)
    strength = data.draw(st.sampled_from([1e-3, 1.0, 500.0]))
    fitted = fit_calibration(logits, label, domain, n_domains=n_domains, strength=strength)
    assert (fitted.slope > 0).all()
    before = logloss(logits, label).sum()
    after = logloss(fitted.apply(logits, domain), label).sum()
    assert after <= before * (1 + 1e-9) + 1e-9


def test_weights_count_like_repeated_rows():
    logits, label, domain = planted([400, 300], [0.6, 1.2], [0.5, 0], seed=2)
    weight = np.where(np.arange(700) % 3 == 0, 2.0, 1.0)
    again = np.repeat(np.arange(700), weight.astype(int))
    weighted = fit_calibration(logits, label, domain, n_domains=2, weight=weight, strength=1e-6)
    repeated = fit_calibration(
        logits[again], label[again], domain[again], n_domains=2, strength=1e-6
    )
    np.testing.assert_allclose(weighted.slope, repeated.slope, rtol=1e-4)
    np.testing.assert_allclose(weighted.offset, repeated.offset, atol=1e-4)


def test_tensors_carry_it_exactly():
    fitted = Calibration(slope=np.array([1.0, 0.3]), offset=np.array([0.1, -2.0]))
    back = Calibration.from_tensors(fitted.to_tensors())
    np.testing.assert_array_equal(back.slope, fitted.slope)
    np.testing.assert_array_equal(back.offset, fitted.offset)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"logits": np.array([0.0, np.nan])}, "finite"),
        ({"domain": np.array([0, 3])}, r"0\.\.2, got 0\.\.3"),
        ({"strength": 0.0}, "strength must be > 0, got 0.0"),
    ],
)
def test_wrong_arguments_are_refused(change, text):
    arguments = {"logits": np.zeros(2), "label": np.ones(2), "domain": np.array([1, 2])} | change
    with pytest.raises(ValueError, match=text):
        fit_calibration(**arguments, n_domains=2)
    with pytest.raises(ValueError, match="> 0"):
        Calibration(slope=np.array([1.0, -1.0]), offset=np.zeros(2))


def test_a_thousand_domains_take_no_step_each():
    rng = np.random.default_rng(0)
    rows = rng.zipf(1.5, 1000).clip(max=2000)
    logits, label, domain = planted(rows, np.full(1000, 0.8), rng.normal(0, 0.3, 1000))
    fitted = fit_calibration(logits, label, domain, n_domains=1000)
    assert fitted.slope.shape == (1001,)
    after = logloss(fitted.apply(logits, domain), label).mean()
    assert after < logloss(logits, label).mean()
