"""The table of verdicts, row by row, and the words that carry it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from isthmus.diagnosis.verdicts.verdict import (
    DomainVerdict,
    Evidence,
    Verdict,
    join_verdicts,
    judge_domain,
)
from isthmus.diagnosis.verdicts.wording import Wording, digits_of, plain, round_up, signed
from isthmus.metrics.effects import Effect
from isthmus.report.diagnosis.words import METRICS, listed

M = 0.005
DF = 40.0


def effect(estimate: float, se: float = 0.001, **more: Any) -> Effect:
    """An effect with the intervals that its standard error gives."""
    wide, narrow = t.ppf([0.975, 0.95], DF) * se
    p = 2 * t.sf(abs(estimate) / se, DF)
    return Effect(
        estimate,
        se=se,
        df=DF,
        ci=(estimate - wide, estimate + wide),
        ci90=(estimate - narrow, estimate + narrow),
        p=float(p),
        **{"p_holm": float(p), "detectable": 2.93 * se, "rows_needed": 70_411, **more},
    )


def evidence(net: Effect, **more: Any) -> Evidence:
    return Evidence(
        **{"metric": METRICS["auc"], "margin": M, "solo": 0.712, "joint": 0.724, "net": net, **more}
    )


GAIN, LOSS, NONE = effect(0.012, 0.002), effect(-0.020, 0.002), effect(0.0)
VAGUE = effect(-0.004, 0.006)


def test_untestable_is_not_enough_data_and_repeats_the_reason():
    reason = "not testable: 31 positives in 210 test rows, 50 are needed"
    verdict = judge_domain(evidence(Effect(None, reason=reason)))
    assert (verdict.action, verdict.testable) == ("not enough data", False)
    assert verdict.certainty == "cannot tell"
    assert verdict.why == "Not testable: 31 positives in 210 test rows, 50 are needed."


def test_an_estimate_without_an_interval_is_untestable_too():
    verdict = judge_domain(evidence(Effect(-0.3, reason="rows have weights")))
    assert (verdict.action, verdict.testable) == ("not enough data", False)


def test_gains():
    verdict = judge_domain(evidence(GAIN))
    assert (verdict.action, verdict.finding) == ("share", "gains")
    assert verdict.why == (
        "Training together lifts AUC from .712 to .724"
        " (+.012, 95 % interval +.008 to +.016, 5 seeds)."
    )


def test_the_same():
    verdict = judge_domain(evidence(NONE))
    assert (verdict.action, verdict.finding) == ("share", "same")
    assert "to within the margin of .005" in verdict.why


def test_no_harm_beyond_the_margin():
    verdict = judge_domain(evidence(effect(0.004, 0.003)))  # 90 %: about -.001 to .009
    assert (verdict.action, verdict.finding) == ("share", "no harm beyond m")
    assert "any loss is smaller than the margin" in verdict.why


def test_neither_harm_nor_safety_says_what_would_be_needed():
    verdict = judge_domain(evidence(VAGUE, rows=1240))
    assert verdict.action == "not enough data"
    assert verdict.testable
    assert "moves AUC" in verdict.why
    assert "These 1,240 test rows and 5 seeds can show an effect of .018 or more." in verdict.why
    assert "About 71,000 test rows are needed for the margin of .005." in verdict.why


def test_harm_that_holm_does_not_confirm_is_no_harm():
    net = effect(-0.020, 0.008, p_holm=0.06)
    assert net.p is not None
    assert net.p < 0.05
    assert judge_domain(evidence(net)).action == "not enough data"


def test_a_significant_gain_is_no_harm():
    assert judge_domain(evidence(effect(0.02, 0.002))).action == "share"


def test_own_tower_where_transfer_is_surely_below_the_margin():
    verdict = judge_domain(evidence(LOSS, transfer=effect(0.001)))
    assert (verdict.action, verdict.certainty) == ("own tower", "almost certain")
    assert "lowers AUC" in verdict.why


def test_own_tower_is_provisional_where_transfer_may_be_there():
    for transfer in (None, effect(0.008), effect(0.002, 0.004), Effect(None, reason="no")):
        verdict = judge_domain(evidence(LOSS, transfer=transfer))
        assert verdict.action == "own tower, provisional"
        assert verdict.certainty == "almost certain of the harm, not of the cure"


def test_the_quick_level_gives_no_verdict_of_harm_but_all_others():
    harmed = judge_domain(evidence(LOSS, level="quick", replicates=2, transfer=effect(0.0)))
    assert harmed.action == "no verdict of harm at this level"
    assert "2 seeds" in harmed.certainty
    assert judge_domain(evidence(GAIN, level="quick")).finding == "gains"
    assert judge_domain(evidence(VAGUE, level="quick")).action == "not enough data"


# What a remedy needs: not worse than alone, and better than the joint model.
HOLDS, BEATS = effect(0.001), effect(0.019)
WORSE, LEVEL = effect(-0.010), effect(0.001)


def test_harm_cured_by_a_group():
    verdict = judge_domain(
        evidence(
            LOSS,
            group=("b", "c"),
            group_solo=HOLDS,
            group_joint=BEATS,
            adapted_solo=HOLDS,
            adapted=BEATS,
        )
    )
    assert (verdict.action, verdict.group) == ("group", ("b", "c"))
    assert "Trained with b and c only it is better than that (+.019" in verdict.why


@pytest.mark.parametrize(
    "broken",
    [
        {"group": ()},
        {"group_solo": WORSE},
        {"group_joint": LEVEL},
        {"group_solo": None},
        {"group_joint": Effect(None, reason="one class")},
    ],
)
def test_a_group_that_is_not_confirmed_cures_nothing(broken: dict[str, Any]):
    confirmed = {"group": ("b",), "group_solo": HOLDS, "group_joint": BEATS}
    assert judge_domain(evidence(LOSS, **confirmed)).action == "group"
    assert judge_domain(evidence(LOSS, **(confirmed | broken))).action == "own tower, provisional"


@pytest.mark.parametrize(
    ("remedy", "over_solo", "over_joint"),
    [("adapter", "adapted_solo", "adapted"), ("tuning", "tuned_solo", "tuned")],
)
def test_harm_cured_by_adapting(remedy: str, over_solo: str, over_joint: str):
    cured = {over_solo: HOLDS, over_joint: BEATS, "transfer": effect(0.0)}
    verdict = judge_domain(evidence(LOSS, **cured))
    assert (verdict.action, verdict.remedy) == ("adapt", remedy)
    for broken in ({over_solo: WORSE}, {over_joint: LEVEL}, {over_solo: None}):
        assert judge_domain(evidence(LOSS, **(cured | broken))).action == "own tower"


def test_the_adapter_goes_before_tuning():
    both = {"adapted_solo": HOLDS, "adapted": BEATS, "tuned_solo": HOLDS, "tuned": BEATS}
    assert judge_domain(evidence(LOSS, **both)).remedy == "adapter"


@pytest.mark.parametrize(
    ("remedy", "name"), [("adapter", "adapted_plus"), ("tuning", "tuned_plus")]
)
def test_a_domain_that_gains_may_gain_more_by_adapting(remedy: str, name: str):
    verdict = judge_domain(evidence(GAIN, **{name: effect(0.008)}))
    assert (verdict.action, verdict.remedy) == ("adapt", remedy)
    assert "adds more (+.0080, 95 % interval +.0060 to +.0100)" in verdict.why


@pytest.mark.parametrize(
    "gain", [effect(0.004), effect(0.008, 0.005), effect(0.008, p_holm=0.06), None]
)
def test_adapting_must_add_the_margin_and_stand_out_among_all_remedies(gain: Effect | None):
    assert judge_domain(evidence(GAIN, adapted_plus=gain, tuned_plus=gain)).action == "share"


def test_a_sure_loss_within_the_margin_is_named_as_that():
    verdict = judge_domain(evidence(effect(-0.002, 0.0003), transfer=effect(0.0)))
    assert (verdict.action, verdict.finding) == ("share", "same")
    assert "surely there, but smaller than the margin of .005" in verdict.why


@pytest.mark.parametrize(
    ("se", "certainty"),
    [(0.001, "almost certain"), (0.0018, "quite sure"), (0.0026, "fairly sure")],
)
def test_certainty_follows_the_distance_from_the_margin(se: float, certainty: str):
    # No difference, with less and less behind it.
    verdict = judge_domain(evidence(effect(0.0, se)))
    assert (verdict.action, verdict.certainty) == ("share", certainty)


def test_certainty_is_that_of_the_weakest_claim():
    sure = evidence(LOSS, adapted_solo=effect(0.02), adapted=BEATS)
    less = evidence(LOSS, adapted_solo=effect(0.003, 0.0045), adapted=BEATS)
    assert judge_domain(sure).certainty == "almost certain"
    assert judge_domain(less).certainty == "fairly sure"


def test_arms_that_are_equal_in_every_row_are_the_same_for_certain():
    net = Effect(0.0, se=0.0, df=None, ci=(0.0, 0.0), ci90=(0.0, 0.0), p=1.0, p_holm=1.0)
    verdict = judge_domain(evidence(net))
    assert (verdict.finding, verdict.certainty) == ("same", "almost certain")


def test_logloss_is_told_in_nats_and_the_right_way_round():
    lower = evidence(
        effect(0.012, 0.002), metric=METRICS["logloss"], solo=0.524, joint=0.512, margin=0.0026
    )
    assert judge_domain(lower).why == (
        "Training together lowers logloss from .524 to .512"
        " (better by .012 nats, 95 % interval of the gain +.008 to +.016, 5 seeds)."
    )
    higher = evidence(LOSS, metric=METRICS["logloss"], solo=0.5, joint=0.52, margin=0.0025)
    assert "raises logloss from .500 to .520 (worse by .020 nats" in judge_domain(higher).why


def test_evidence_must_be_adjusted_and_have_a_margin():
    with pytest.raises(ValueError, match="p_holm"):
        evidence(effect(0.0, p_holm=None))
    with pytest.raises(ValueError, match="adapted_plus must carry p_holm"):
        evidence(GAIN, adapted_plus=effect(0.0, p_holm=None))
    with pytest.raises(ValueError, match="margin must be above 0, got 0"):
        evidence(NONE, margin=0)


@settings(max_examples=300, deadline=None)
@given(
    st.floats(-0.05, 0.05),
    st.floats(1e-5, 0.02),
    st.floats(-0.05, 0.05),
    st.floats(-0.05, 0.05),
)
def test_every_domain_gets_one_verdict_that_its_numbers_bear(
    net: float, se: float, transfer: float, adapted: float
):
    effects = {
        "transfer": effect(transfer, se),
        "adapted_solo": effect(net + adapted, se),
        "adapted": effect(adapted, se),
        "adapted_plus": effect(adapted, se),
    }
    whole = evidence(effect(net, se), **effects)
    verdict = judge_domain(whole)
    assert whole.net.ci is not None
    assert whole.net.ci90 is not None
    if verdict.action.startswith("own tower"):
        assert whole.net.ci[1] < 0
    if verdict.action == "share":
        assert whole.net.ci90[0] > -M
    if verdict.action == "adapt":
        assert adapted > 0
        # Either it stands against training alone, or sharing already did.
        assert net + adapted > -M or net > -M
    assert (verdict.finding is not None) == (verdict.action == "share")
    assert (verdict.remedy is not None) == (verdict.action == "adapt")
    assert verdict.why.endswith(".")


def verdict(action: Any, **more: Any) -> Verdict:
    return Verdict(**{"action": action, "certainty": "quite sure", "why": "Because.", **more})


def joined(auc: Verdict, logloss: Verdict) -> DomainVerdict:
    return join_verdicts([(METRICS["auc"], auc), (METRICS["logloss"], logloss)])


def test_auc_leads_and_agreement_needs_no_words():
    joint = joined(verdict("share", finding="gains"), verdict("share", finding="same"))
    assert (joint.leading, joint.agree, joint.why) == ("auc", True, "Because.")
    assert joint.to_dict() == {
        "verdict": "share",
        "finding": "gains",
        "remedy": None,
        "certainty": "quite sure",
        "why": "Because.",
        "with": [],
        "leading": "auc",
        "verdict_auc": "share",
        "verdict_logloss": "share",
        "agree": True,
    }


def test_logloss_leads_where_auc_cannot_be_tested():
    auc = verdict("not enough data", testable=False)
    joint = joined(auc, verdict("adapt", remedy="adapter"))
    assert (joint.leading, joint.verdict.action, joint.agree) == ("logloss", "adapt", False)
    assert joint.why == "Because. AUC could not be tested."


def test_auc_leads_where_it_is_testable_and_undecided():
    joint = joined(verdict("not enough data"), verdict("share", finding="gains"))
    assert (joint.leading, joint.verdict.action) == ("auc", "not enough data")
    assert joint.why == "Because. By logloss alone the verdict would be: share."


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (verdict("not enough data"), "By logloss there is not enough data to tell."),
        (verdict("not enough data", testable=False), "logloss could not be tested."),
        (verdict("own tower"), "By logloss alone the verdict would be: own tower."),
        (verdict("adapt", remedy="tuning"), "would be: adapt by tuning."),
        (
            verdict("no verdict of harm at this level"),
            "By logloss sharing looks harmful, which this level cannot confirm.",
        ),
    ],
)
def test_disagreement_is_said(other: Verdict, said: str):
    joint = joined(verdict("share", finding="gains"), other)
    assert not joint.agree
    assert joint.why.endswith(said)


def test_a_provisional_tower_agrees_with_a_tower_and_tuning_not_with_an_adapter():
    assert joined(verdict("own tower"), verdict("own tower, provisional")).agree
    adapter, tuning = verdict("adapt", remedy="adapter"), verdict("adapt", remedy="tuning")
    assert not joined(adapter, tuning).agree


def test_numbers_read_well():
    assert [digits_of(size) for size in (0.021, 0.005, 0.0034, 0.0004, 1e-9)] == [3, 3, 4, 5, 6]
    assert (plain(0.7124, 3), plain(1.034, 3), plain(-0.5, 2)) == (".712", "1.034", "-.50")
    assert (signed(0.012, 3), signed(-0.0031, 3), signed(-0.0002, 3)) == ("+.012", "-.003", ".000")
    assert (round_up(70_411), round_up(93), round_up(100)) == (71_000, 93, 100)
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert Wording(METRICS["auc"], M, 1, "folds").trainings == "1 fold"
