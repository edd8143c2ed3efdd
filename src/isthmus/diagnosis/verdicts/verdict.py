"""Verdicts: what to do with a domain, by a table that is a pure function of what was measured.

    harm that may matter     -> group | adapt | own tower | own tower, provisional
    not worse than alone     -> adapt | share (gains, same, no harm beyond the margin)
    neither is shown         -> not enough data

There are two kinds of claim, with one rule each. A claim against 0 ("better") holds where the 95 %
interval lies above 0. A claim against the margin ("not worse", "the same", "transfer is smaller")
holds where the two-sided 90 % interval lies on the right side of the margin, which is a one-sided
test at 5 %.

A find among many is adjusted for the search. A domain is harmed where Holm's p over the domains is
at most .05 and the estimate is below 0. A domain that is not harmed is told to adapt where Holm's p
over all remedies of all domains is at most .05. Without the adjustment, two remedies for 20 domains
would find one where nothing is. A remedy for a harmed domain is no such find, since the remedy has
to restore what is shown to be lost.

A loss that is surely there and surely smaller than the margin is no harm that may matter. Large
tables show ever smaller losses, and a tower of its own would be advised for nothing. The verdict is
then ``same``, and the text names the loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scipy.special import ndtr, stdtr

from isthmus.diagnosis.level import LevelName
from isthmus.diagnosis.verdicts.wording import Wording
from isthmus.metrics.effects import Effect
from isthmus.metrics.equivalence import not_worse, same
from isthmus.report.diagnosis.words import MetricWords, listed

Action = Literal[
    "share",
    "adapt",
    "group",
    "own tower",
    "own tower, provisional",
    "not enough data",
    "no verdict of harm at this level",
]
Finding = Literal["gains", "same", "no harm beyond m"]
Remedy = Literal["adapter", "tuning"]

CLAIM_P = 0.05  # Holm's, of harm, and of what a remedy adds where there is none
# How surely a claim holds, by the chance of seeing as much if it did not.
CERTAINTY = ((0.001, "almost certain"), (0.01, "quite sure"), (1.0, "fairly sure"))
CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that one metric says of one domain. Every effect is signed so that above 0 is better.

    ``margin``, and the mean scores ``solo`` and ``joint`` of arms S and J: in the metric's own unit.
    Effects are differences of arms. An effect of an arm that was not trained is None:

    - ``net``: J - S
    - ``transfer``: F - S+
    - ``tuned_solo``: F - S, ``tuned``: F - J, ``tuned_plus``: F - J+, which is the interference
    - ``adapted_solo``: A - S, ``adapted``: A - J, ``adapted_plus``: A - J+
    - ``group_solo``, ``group_joint``: joint training of a group, minus S and minus J, on test rows.
      The group was chosen on validation rows, and ``group`` names its other members.

    ``net`` has ``p_holm``, over all domains, wherever it has a ``p``. ``tuned_plus`` and
    ``adapted_plus`` have ``p_holm``, too, over both effects of all domains. Hand over an adapter
    only where its weights were really trained. With the ``level`` ``quick`` there is no verdict of
    harm. Raises ValueError for a margin that is not above 0, and for a ``p`` without ``p_holm``.
    """

    metric: MetricWords
    margin: float
    solo: float | None
    joint: float | None
    net: Effect
    transfer: Effect | None = None
    tuned_solo: Effect | None = None
    tuned: Effect | None = None
    tuned_plus: Effect | None = None
    adapted_solo: Effect | None = None
    adapted: Effect | None = None
    adapted_plus: Effect | None = None
    group_solo: Effect | None = None
    group_joint: Effect | None = None
    group: tuple[str, ...] = ()
    level: LevelName = "standard"
    replicates: int = 5
    kind: Literal["seeds", "folds"] = "seeds"
    rows: int | None = None

    def __post_init__(self) -> None:
        if self.margin <= 0:
            raise ValueError(f"margin must be above 0, got {self.margin}")
        for name in ("net", "tuned_plus", "adapted_plus"):
            effect: Effect | None = getattr(self, name)
            if effect is not None and effect.p is not None and effect.p_holm is None:
                raise ValueError(
                    f"{name} must carry p_holm, adjusted over the domains, got p alone"
                )

    @property
    def wording(self) -> Wording:
        """The sentences for this metric's numbers."""
        return Wording(self.metric, self.margin, self.replicates, self.kind, self.rows)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one metric advises for a domain.

    ``finding`` goes with ``share``, ``remedy`` with ``adapt``, ``group`` with ``group``.
    ``testable``: there was an interval to judge by.
    """

    action: Action
    certainty: str
    why: str
    finding: Finding | None = None
    remedy: Remedy | None = None
    group: tuple[str, ...] = ()
    testable: bool = True


@dataclass(frozen=True, slots=True)
class DomainVerdict:
    """The verdict of a domain: that of the leading metric, and whether the other metrics agree.

    ``each``: by metric, in the order of the metrics.
    """

    leading: str
    verdict: Verdict
    each: Mapping[str, Verdict]
    agree: bool
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Give the keys of a domain in ``report.json`` that a verdict fills."""
        return {
            "verdict": self.verdict.action,
            "finding": self.verdict.finding,
            "remedy": self.verdict.remedy,
            "certainty": self.verdict.certainty,
            "why": self.why,
            "with": list(self.verdict.group),
            "leading": self.leading,
            **{f"verdict_{metric}": verdict.action for metric, verdict in self.each.items()},
            "agree": self.agree,
        }


def judge_domain(evidence: Evidence) -> Verdict:
    """Read the table of verdicts from top to bottom for one metric."""
    net, wording = evidence.net, evidence.wording
    if net.estimate is None or net.ci is None or net.ci90 is None:
        return Verdict("not enough data", CANNOT_TELL, wording.untestable(net), testable=False)
    said = wording.net(evidence.solo, evidence.joint, net)
    if _is_harmed(net) and not same(net, evidence.margin):
        if evidence.level == "quick":
            return Verdict(
                "no verdict of harm at this level",
                f"a hint only, from {wording.trainings}",
                f"{said} That looks like harm; the standard level can confirm it.",
            )
        return _cure(evidence, said)
    if not_worse(net, evidence.margin):
        return _keep(evidence, said)
    return Verdict("not enough data", CANNOT_TELL, f"{said} {wording.too_few(net)}")


def _cure(evidence: Evidence, said: str) -> Verdict:
    """Judge a harmed domain: the first remedy that restores it, or a tower of its own."""
    wording = evidence.wording
    harm = evidence.net.p_holm or 0.0
    if evidence.group and _restores(evidence.group_solo, evidence.group_joint, evidence.margin):
        assert evidence.group_solo is not None
        assert evidence.group_joint is not None
        name = f"Trained with {listed(evidence.group)} only"
        return Verdict(
            "group",
            _certainty(
                harm, *_restored(evidence.group_solo, evidence.group_joint, evidence.margin)
            ),
            f"{said} {wording.cure(name, evidence.group_solo, evidence.group_joint)}",
            group=evidence.group,
        )
    arms: tuple[tuple[Remedy, str, Effect | None, Effect | None], ...] = (
        ("adapter", "With an adapter", evidence.adapted_solo, evidence.adapted),
        ("tuning", "Tuned on its own rows", evidence.tuned_solo, evidence.tuned),
    )
    for remedy, name, over_solo, over_joint in arms:
        if _restores(over_solo, over_joint, evidence.margin):
            assert over_solo is not None
            assert over_joint is not None
            return Verdict(
                "adapt",
                _certainty(harm, *_restored(over_solo, over_joint, evidence.margin)),
                f"{said} {wording.cure(name, over_solo, over_joint)}",
                remedy=remedy,
            )
    transfer = evidence.transfer
    if transfer is not None and transfer.ci90 is not None and transfer.ci90[1] < evidence.margin:
        small = _chance(transfer, evidence.margin, above=False)
        return Verdict("own tower", _certainty(harm, small), f"{said} {wording.no_transfer()}")
    return Verdict(
        "own tower, provisional",
        f"{_certainty(harm)} of the harm, not of the cure",
        f"{said} {wording.open_transfer(transfer)}",
    )


def _keep(evidence: Evidence, said: str) -> Verdict:
    """Judge a domain without harm beyond the margin: share, or adapt where clearly better."""
    net, margin, wording = evidence.net, evidence.margin, evidence.wording
    fine = _chance(net, -margin)
    arms: tuple[tuple[Remedy, str, Effect | None], ...] = (
        ("adapter", "an adapter", evidence.adapted_plus),
        ("tuning", "tuning on its own rows", evidence.tuned_plus),
    )
    for remedy, name, gain in arms:
        if gain is None or gain.estimate is None or gain.p_holm is None:
            continue
        if gain.p_holm <= CLAIM_P and gain.estimate >= margin:
            return Verdict(
                "adapt",
                _certainty(fine, gain.p_holm),
                f"{said} {wording.extra(name, gain)}",
                remedy=remedy,
            )
    if _above_zero(net):
        return Verdict("share", _certainty(_chance(net, 0.0)), said, finding="gains")
    if same(net, margin):
        chance = max(fine, _chance(net, margin, above=False))
        why = wording.small_loss() if _is_harmed(net) else wording.no_matter()
        return Verdict("share", _certainty(chance), f"{said} {why}", finding="same")
    return Verdict(
        "share", _certainty(fine), f"{said} {wording.no_harm()}", finding="no harm beyond m"
    )


def join_verdicts(each: Sequence[tuple[MetricWords, Verdict]]) -> DomainVerdict:
    """Let the first metric lead that is testable, and say where others disagree.

    ``each``: the metrics in their order. Where none is testable, the first one leads. An own tower
    and a provisional one agree, since the advice is the same. Raises ValueError without a metric.
    """
    if not each:
        raise ValueError("a verdict needs at least one metric, got none")
    leading, lead = next((held for held in each if held[1].testable), each[0])
    others = [held for held in each if held[0] is not leading]
    dissent = [_dissent(one, of.name) for of, one in others if _advice(one) != _advice(lead)]
    return DomainVerdict(
        leading=leading.key,
        verdict=lead,
        each={of.key: one for of, one in each},
        agree=not dissent,
        why=" ".join([lead.why, *dissent]),
    )


def _advice(verdict: Verdict) -> tuple[str, Remedy | None]:
    return verdict.action.removesuffix(", provisional"), verdict.remedy


def _dissent(other: Verdict, name: str) -> str:
    if not other.testable:
        return f"{name} could not be tested."
    if other.action == "not enough data":
        return f"By {name} there is not enough data to tell."
    if other.action == "no verdict of harm at this level":
        return f"By {name} sharing looks harmful, which this level cannot confirm."
    by = {"adapter": " with an adapter", "tuning": " by tuning"}.get(other.remedy or "", "")
    return f"By {name} alone the verdict would be: {other.action}{by}."


def _is_harmed(net: Effect) -> bool:
    return net.p_holm is not None and net.p_holm <= CLAIM_P and (net.estimate or 0.0) < 0


def _above_zero(effect: Effect) -> bool:
    return effect.ci is not None and effect.ci[0] > 0


def _restores(over_solo: Effect | None, over_joint: Effect | None, margin: float) -> bool:
    """Whether an arm is not worse than alone and better than the joint model."""
    if over_solo is None or over_joint is None:
        return False
    return not_worse(over_solo, margin) and _above_zero(over_joint)


def _restored(over_solo: Effect, over_joint: Effect, margin: float) -> tuple[float, float]:
    return _chance(over_solo, -margin), _chance(over_joint, 0.0)


def _chance(effect: Effect, bound: float, *, above: bool = True) -> float:
    """Give the one-sided p of the claim that an effect lies above, or below, ``bound``."""
    estimate, se = effect.estimate, effect.se
    if estimate is None or se is None:
        return 1.0
    distance = estimate - bound if above else bound - estimate
    if se == 0:
        return 0.0 if distance > 0 else 1.0
    return float(ndtr(-distance / se) if effect.df is None else stdtr(effect.df, -distance / se))


def _certainty(*chances: float) -> str:
    """Give words for the weakest of the claims that a verdict stands on."""
    return next(word for limit, word in CERTAINTY if max(chances) <= limit)
