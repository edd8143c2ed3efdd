"""The constraint per domain: gains by a slow formula, the margin, and which domains are held."""

import numpy as np
import pytest
from scipy.stats import t as student

from isthmus.metrics import ScoredRows, compare
from isthmus.tuning.constraint import TrialGain, metric_of, trial_gains, worst_excess


def scored(logits: np.ndarray, label: np.ndarray, domain: np.ndarray, **more) -> ScoredRows:
    names = tuple(f"d{number}" for number in range(1, domain.max() + 1))
    rows = np.arange(len(label))
    return ScoredRows(
        split="validation", row=rows, logits=logits, label=label, domain=domain, names=names, **more
    )


def drawn(rows: int = 900, domains: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The truth in logits, labels drawn from it, and domains."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=rows) * 1.5
    return truth, rng.random(rows) < 1 / (1 + np.exp(-truth)), rng.integers(1, domains + 1, rows)


def slow_auc(logits: np.ndarray, label: np.ndarray) -> float:
    pairs = logits[label][:, None] - logits[~label][None, :]
    return float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


def slow_variance(before: np.ndarray, after: np.ndarray, label: np.ndarray) -> float:
    """Sum of squared influences of the difference in AUC, G / (G - 1) times."""
    psi = np.zeros(len(label))
    for sign, logits in ((-1, before), (1, after)):
        wins = (logits[label][:, None] > logits[~label][None, :]).astype(float)
        auc = wins.mean()
        psi[label] += sign * (wins.mean(axis=1) - auc) / label.sum()
        psi[~label] += sign * (wins.mean(axis=0) - auc) / (~label).sum()
    return float((psi**2).sum() * len(label) / (len(label) - 1))


def test_gains_and_intervals_are_those_of_the_slow_formula():
    truth, label, domain = drawn()
    noise = np.random.default_rng(1).normal(size=len(truth))
    before, after = truth + noise, truth + 0.5 * noise[::-1]
    gains = trial_gains(scored(before, label, domain), scored(after, label, domain), "auc")
    assert list(gains) == ["d1", "d2", "d3"]
    for number, gain in enumerate(gains.values(), start=1):
        at = domain == number
        auc = [slow_auc(logits[at], label[at]) for logits in (before, after)]
        assert gain.rows == at.sum()
        assert (gain.reference, gain.value) == pytest.approx(auc)
        assert gain.gain == pytest.approx(auc[1] - auc[0])
        # Three domains share the 5 %, so each has a level of 1 - 0.05 / 3.
        quantile = student.ppf(1 - 0.05 / 3 / 2, at.sum() - 1)
        variance = slow_variance(before[at], after[at], label[at])
        assert gain.half == pytest.approx(quantile * variance**0.5)


def test_one_domain_has_the_interval_of_a_comparison():
    truth, label, domain = drawn(domains=1)
    a, b = scored(truth, label, domain), scored(truth[::-1].copy(), label, domain)
    gain, told = trial_gains(a, b, "auc")["d1"], compare(a, b).domains["d1"].auc
    assert gain.gain == pytest.approx(told.difference)
    assert gain.half == pytest.approx(told.half_width)


def test_above_zero_is_better_in_logloss_too():
    truth, label, domain = drawn()
    sides = scored(0.1 * truth, label, domain), scored(truth, label, domain)
    gains = trial_gains(*sides, "logloss")
    assert all(one.gain is not None and one.gain > 0 for one in gains.values())
    assert gains["d1"].reference == pytest.approx(
        np.mean(np.log1p(np.exp(np.where(label, -1, 1) * 0.1 * truth)[domain == 1]))
    )


def test_a_domain_that_is_turned_round_is_refused_and_noise_is_not():
    truth, label, domain = drawn(rows=3000)
    rng = np.random.default_rng(2)
    reference = scored(truth + rng.normal(size=3000), label, domain)
    noisy = scored(truth + rng.normal(size=3000), label, domain)
    worst = worst_excess(trial_gains(reference, noisy, "auc"))
    assert worst is not None
    assert worst[1] <= 0
    turned = scored(np.where(domain == 2, -truth, truth), label, domain)
    worst = worst_excess(trial_gains(reference, turned, "auc"))
    assert worst is not None
    assert worst[0] == "d2"
    assert worst[1] > 0.1


def test_equal_models_are_refused_about_as_seldom_as_promised():
    refused, studies, rows = 0, 200, 600
    for seed in range(studies):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=rows)
        label = rng.random(rows) < 1 / (1 + np.exp(-truth))
        domain = np.arange(rows) % 10 + 1
        before, after = (scored(truth + rng.normal(size=rows), label, domain) for _ in range(2))
        worst = worst_excess(trial_gains(before, after, "auc"))
        assert worst is not None
        refused += worst[1] > 0
    # One side of 95 %, so 2.5 % of 200 are 5; one interval each would give about 45.
    assert refused <= 14


def test_the_reference_itself_is_feasible():
    truth, label, domain = drawn()
    same = scored(truth, label, domain)
    gains = trial_gains(same, same, "auc")
    assert all(one.gain == 0 and one.half == 0 for one in gains.values())
    worst = worst_excess(gains)
    assert worst is not None
    assert worst[1] <= 0


def test_a_domain_of_one_class_is_not_held_and_says_why():
    truth, label, domain = drawn()
    label = label | (domain == 3)
    turned = scored(np.where(domain == 3, -truth, truth), label, domain)
    gains = trial_gains(scored(truth, label, domain), turned, "auc")
    assert gains["d3"] == TrialGain(
        int((domain == 3).sum()), None, None, None, None, "one class: no negatives"
    )
    # Two domains are left to share the 5 %.
    quantile = student.ppf(1 - 0.05 / 2 / 2, (domain == 1).sum() - 1)
    assert gains["d1"].half == pytest.approx(0 * quantile)
    assert worst_excess({"d3": gains["d3"]}) is None


def test_weighted_rows_have_no_interval_of_an_auc():
    truth, label, domain = drawn()
    weight = np.ones(len(truth))
    sides = [scored(of, label, domain, weight=weight) for of in (truth, -truth)]
    gains = trial_gains(sides[0], sides[1], "auc")
    assert {one.reason for one in gains.values()} == {
        "rows have weights: DeLong's variance holds for rows without"
    }
    assert worst_excess(gains) is None
    worst = worst_excess(trial_gains(sides[0], sides[1], "logloss"))
    assert worst is not None
    assert worst[1] > 0


def test_domains_are_compared_in_the_monitors_metric():
    assert metric_of("auc_macro") == "auc"
    assert metric_of("logloss_worst") == "logloss"
