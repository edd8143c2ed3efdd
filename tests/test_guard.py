"""The guard: its rule against slow formulas and planted truth."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t

from isthmus.errors import RunError
from isthmus.run.guard.choosing import CANDIDATES, PROMISE, Areas, Choice, Judged, choose, quantile
from isthmus.run.guard.gains import measure_gains, read_guard, served, write_guard

MARGIN = 0.005


def scores(
    rng: np.random.Generator,
    lifts: dict[str, list[float]],
    *,
    rows: int = 4_000,
    solo: float = 0.70,
    shared: float = 0.9,
    rate: float = 0.3,
    per_cluster: int = 1,
) -> Judged:
    """Binormal scores whose true AUC is ``solo`` plus what is asked for in each domain.

    A score is mu * label + noise, AUC = Phi(mu / sqrt 2); the arms' noises correlate by ``shared``.
    """
    n_domains = len(next(iter(lifts.values())))
    n = rows * n_domains
    domain = np.repeat(np.arange(1, n_domains + 1), rows)
    label = rng.random(n) < rate
    clusters = np.arange(n) // per_cluster
    common = rng.standard_normal(n)
    if per_cluster > 1:  # half of the noise is the cluster's
        common = (common + rng.standard_normal(clusters[-1] + 1)[clusters]) / np.sqrt(2)
    logits = {}
    for arm, of in {"solo": [0.0] * n_domains, **lifts}.items():
        area = solo + np.array(of)[domain - 1]
        own = rng.standard_normal(n)
        noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
        logits[arm] = np.sqrt(2) * norm.ppf(area) * label + noise
    return Judged(
        label=label,
        domain=domain,
        names=tuple("abcdefgh"[:n_domains]),
        logits=logits,
        cluster=clusters if per_cluster > 1 else None,
    )


def slow_difference(judged: Judged, arm: str, other: str, number: int) -> tuple[float, float]:
    """Paired AUC difference and clustered standard error, all pairs compared one by one."""
    at = judged.domain == number
    label = judged.label[at]
    cluster = np.arange(len(at))[at] if judged.cluster is None else judged.cluster[at]
    placements = []
    for name in (arm, other):
        logits = judged.logits[name][at]
        wins = (logits[label][:, None] > logits[~label][None]) + 0.5 * (
            logits[label][:, None] == logits[~label][None]
        )
        area = wins.mean()
        psi = np.empty(len(label))
        psi[label] = (wins.mean(axis=1) - area) / label.sum()
        psi[~label] = (wins.mean(axis=0) - area) / (~label).sum()
        placements.append((area, psi))
    (a, psi_a), (b, psi_b) = placements
    sums = [(psi_a - psi_b)[cluster == one].sum() for one in np.unique(cluster)]
    return a - b, float(np.sqrt(len(sums) / (len(sums) - 1) * np.sum(np.square(sums))))


@pytest.mark.parametrize("per_cluster", [1, 4])
def test_differences_and_errors_are_those_of_all_pairs(per_cluster: int):
    judged = scores(
        np.random.default_rng(0),
        {"joint": [0.01, -0.02], "tuned": [0.0, 0.03]},
        rows=240,
        per_cluster=per_cluster,
    )
    areas = Areas.of(judged)
    for pair in (("joint", "solo"), ("tuned", "solo"), ("tuned", "joint")):
        d, se = areas.difference(*pair)
        for number in (1, 2):
            slow = slow_difference(judged, *pair, number)
            np.testing.assert_allclose((d[number], se[number]), slow, rtol=1e-9)


def test_the_quantile_shares_five_percent_among_all_tests():
    assert quantile(1) == pytest.approx(norm.ppf(1 - 0.05 / 3))
    assert quantile(14) == pytest.approx(norm.ppf(1 - 0.05 / 42))
    assert quantile(14, 30) == pytest.approx(t.ppf(1 - 0.05 / 42, 29))
    assert quantile(14, 10**7) == pytest.approx(quantile(14), rel=1e-5)


def planted(rows: int, psi: dict[str, float], positives: int = 200) -> Judged:
    """One domain whose arms order ``rows`` rows at will: arm -> its AUC, made by shifting ranks."""
    label = np.arange(rows) < positives
    logits = {}
    for arm, area in psi.items():
        # Every positive beats the same share of the negatives.
        negatives = np.arange(rows - positives, dtype=np.float64)
        logits[arm] = np.concatenate([np.full(positives, area * len(negatives) - 0.5), negatives])
    return Judged(label=label, domain=np.ones(rows, dtype=np.int64), names=("only",), logits=logits)


def arm_of(judged: Judged, **options) -> str:
    (choice,) = choose(judged, **options)
    return choice.arm


def test_the_cheapest_within_a_standard_error_of_the_best_serves():
    # Joint and tuned both gain for sure. Tuned is better by far more than the paired error ...
    rng = np.random.default_rng(1)
    judged = scores(rng, {"joint": [0.03], "tuned": [0.09]}, rows=8_000)
    assert arm_of(judged) == "tuned"
    # ... and here by nothing, whatever the draw: the same scores.
    same = Judged(
        label=judged.label,
        domain=judged.domain,
        names=judged.names,
        logits={**judged.logits, "adapted": judged.logits["tuned"]},
    )
    assert arm_of(same) == "adapted"


def test_strict_wants_more_than_the_margin_for_sure_and_balanced_more_than_nothing():
    few = scores(np.random.default_rng(2), {"joint": [0.01]}, rows=400)
    (strict,), (balanced,) = choose(few), choose(few, guard="balanced")
    standing = strict.standings["joint"]
    assert standing.difference is not None
    assert standing.se is not None
    assert standing.lower is not None
    assert standing.lower == pytest.approx(standing.difference - quantile(1, 400) * standing.se)
    assert standing.passed == (standing.lower > -MARGIN)
    assert strict.arm == "solo"
    assert "lower bounds: joint -" in strict.why
    assert balanced.arm == ("joint" if standing.difference > 0 else "solo")
    # A margin as wide as the bound lets it pass; the bound itself does not: strictly above.
    assert arm_of(few, margin=-standing.lower + 1e-12) == "joint"
    assert arm_of(few, margin=-standing.lower) == "solo"


def test_equal_scores_pass_with_an_error_of_zero():
    judged = planted(400, {"solo": 0.6, "joint": 0.6})
    (choice,) = choose(judged)
    assert (choice.arm, choice.standings["joint"].se) == ("joint", 0.0)


@pytest.mark.parametrize(
    ("rows", "positives", "clusters", "said"),
    [
        (400, 49, 400, "49 positives in 400 deciding rows, 50 are needed"),
        (400, 360, 400, "40 negatives in 400 deciding rows, 50 are needed"),
        (400, 200, 29, "29 clusters in 400 deciding rows, 30 are needed"),
    ],
)
def test_too_few_deciding_rows_prove_nothing(rows: int, positives: int, clusters: int, said: str):
    judged = planted(rows, {"solo": 0.5, "joint": 0.9}, positives)
    few = Judged(
        label=judged.label,
        domain=judged.domain,
        names=judged.names,
        logits=judged.logits,
        cluster=np.arange(rows) % clusters,
    )
    (choice,) = choose(few)
    assert choice.arm == "solo"
    assert said in choice.why
    assert arm_of(few, guard="balanced") == "joint"


def test_where_no_solo_could_be_trained_joint_serves_and_says_so():
    judged = scores(np.random.default_rng(3), {"joint": [0.0, 0.05]})
    solo = np.where(judged.domain == 1, np.nan, judged.logits["solo"])
    without = Judged(
        label=judged.label,
        domain=judged.domain,
        names=judged.names,
        logits={**judged.logits, "solo": solo},
    )
    first, second = choose(without, no_solo={"a": "it has one class"})
    assert (first.arm, first.standings) == ("joint", {})
    assert first.why == "no model of its own could be trained: it has one class"
    # One domain less is compared, so the quantile is that of one.
    standing = second.standings["joint"]
    assert standing.difference is not None
    assert standing.se is not None
    assert standing.lower == pytest.approx(standing.difference - quantile(1, 4_000) * standing.se)


def test_a_domain_without_deciding_rows_or_with_one_class_stays_alone():
    judged = scores(np.random.default_rng(4), {"joint": [0.05]})
    more = Judged(
        label=np.append(judged.label, np.ones(60, dtype=bool)),
        domain=np.append(judged.domain, np.full(60, 2)),
        names=("a", "one class", "no rows"),
        logits={arm: np.append(values, np.arange(60.0)) for arm, values in judged.logits.items()},
    )
    for guard in ("strict", "balanced"):
        first, second, third = choose(more, guard=guard)
        assert (first.arm, second.arm, third.arm) == ("joint", "solo", "solo")
        assert "0 negatives in 60 deciding rows" in second.why
        assert "0 positives in 0 deciding rows" in third.why
        assert second.standings["joint"].difference is None


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.floats(-5, 5))
def test_the_choice_follows_ranks_and_not_the_order_of_rows(seed: int, slope: float, shift: float):
    rng = np.random.default_rng(seed)
    judged = scores(rng, {"joint": [0.0, 0.02], "tuned": [0.03, 0.0]}, rows=300, per_cluster=3)
    order = rng.permutation(len(judged.label))
    assert judged.cluster is not None
    moved = Judged(
        label=judged.label[order],
        domain=judged.domain[order],
        names=judged.names,
        logits={arm: slope * values[order] + shift for arm, values in judged.logits.items()},
        cluster=judged.cluster[order],
    )
    assert [one.arm for one in choose(judged)] == [one.arm for one in choose(moved)]


def test_wrong_arguments_are_refused():
    judged = planted(200, {"joint": 0.5, "solo": 0.5}, 100)
    with pytest.raises(ValueError, match="margin must be above 0, got 0"):
        choose(judged, margin=0)
    half = judged.logits["solo"].copy()
    half[0] = np.nan
    for logits, text in (
        ({"solo": half}, "joint must have a logit for every row"),
        ({**judged.logits, "solo": half}, "solo must have logits for all rows of a domain"),
        ({**judged.logits, "solo": half[1:]}, r"logits of solo must have shape \(200,\)"),
    ):
        with pytest.raises(ValueError, match=text):
            Judged(label=judged.label, domain=judged.domain, names=("only",), logits=logits)


SETS = 500


@pytest.mark.parametrize("per_cluster", [1, 20])
def test_candidates_that_lose_exactly_the_margin_are_rarely_chosen(per_cluster: int):
    # The worst case that the promise covers: every candidate of every domain is worse by m. With 20
    # rows a cluster there are 30 clusters, the fewest allowed.
    rng = np.random.default_rng(5)
    worse: dict[str, list[float]] = {arm: [-MARGIN] * 3 for arm in CANDIDATES}
    wrong = sum(
        any(
            choice.arm != "solo"
            for choice in choose(scores(rng, worse, rows=600, per_cluster=per_cluster))
        )
        for _ in range(SETS)
    )
    assert wrong <= 0.08 * SETS


def test_planted_gains_are_kept():
    # Two domains gain from company, two lose by it; the guard knows the draw of rows only.
    rng = np.random.default_rng(6)
    lifts = {
        "joint": [0.02, 0.015, -0.03, -0.02],
        "adapted": [0.02, 0.03, -0.01, -0.02],
        "tuned": [0.02, 0.03, 0.0, 0.02],
    }
    best = np.maximum(np.max(list(lifts.values()), axis=0), 0.0)
    kept = harm = 0.0
    for _ in range(100):
        for place, choice in enumerate(choose(scores(rng, lifts, rows=2_500))):
            true = 0.0 if choice.arm == "solo" else lifts[choice.arm][place]
            kept += true
            harm += true < -MARGIN
    assert kept >= 0.8 * 100 * best.sum()
    assert harm <= 0.05 * 100


def test_what_is_served_is_the_chosen_arm_of_each_row():
    logits = {
        arm: np.arange(6.0) + 10 * place for place, arm in enumerate(("joint", "tuned", "solo"))
    }
    domain = np.array([1, 2, 3, 0, 2, 1])
    choices = [
        Choice(name, arm, "", 0, 0, 0, {})
        for name, arm in zip("abc", ("solo", "joint", "tuned"), strict=True)
    ]
    assert served(logits, choices, domain).tolist() == [20, 1, 12, 3, 4, 25]


def test_gains_are_paired_differences_on_the_test_rows():
    judged = scores(np.random.default_rng(7), {"joint": [0.02, -0.03]}, rows=1_500, per_cluster=3)
    arms = [
        Choice(name, arm, "", 0, 0, 0, {})
        for name, arm in zip("ab", ("joint", "solo"), strict=True)
    ]
    both = [Choice(name, "joint", "", 0, 0, 0, {}) for name in "ab"]
    gains = measure_gains(judged, arms, both)
    a, b = gains.domains["a"], gains.domains["b"]
    assert (a.over_joint.estimate, a.over_joint.ci) == (0, (0, 0))
    assert b.over_solo.estimate == 0
    d, se = slow_difference(judged, "joint", "solo", 1)
    assert a.over_solo.estimate == pytest.approx(d)
    assert a.over_solo.ci is not None
    half = (a.over_solo.ci[1] - a.over_solo.ci[0]) / 2
    assert half == pytest.approx(1.965 * se, rel=0.01)
    # b is served by solo where joint would have lost.
    assert b.other_over_served.estimate == pytest.approx(-(b.over_joint.estimate or 0))
    assert gains.over_solo.estimate == pytest.approx(d / 2)
    assert gains.over_solo.ci is not None
    assert a.over_solo.ci[0] / 2 == pytest.approx(gains.over_solo.ci[0], rel=0.01)


def test_the_promise_stands_in_its_exact_words():
    assert PROMISE == (
        "the chance that any domain is truly worse than alone by more than m is at most 5 %"
        " (large samples, no drift)"
    )
    page = Path(__file__).parents[1] / "docs" / "training.md"
    assert PROMISE in " ".join(page.read_text(encoding="utf-8").split())


def test_guard_json_is_read_back_or_refused_by_name(tmp_path: Path):
    with pytest.raises(RunError, match=r"must have guard\.json, got none in"):
        read_guard(tmp_path)
    write_guard(tmp_path, {"guard": "strict", "margin": 0.005})
    assert read_guard(tmp_path) == {"guard": "strict", "margin": 0.005}
    (tmp_path / "guard.json").write_text("{")
    with pytest.raises(RunError, match=r"guard\.json is damaged"):
        read_guard(tmp_path)
