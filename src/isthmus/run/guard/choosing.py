"""The guard: which trained model serves each domain, so that no domain is served worse than alone.

The weights are trained and stay as they are, so only the draw of rows is left to chance. The
validation rows are cut in two halves, and a group is never cut. One half stops the trainings
(`isthmus.data.store.rows.stopping_half`). The other half decides here.

A candidate (joint, adapted, tuned) is compared with *solo*, the model of the domain's own rows, on
the deciding rows. d is the paired difference in AUC. SE is the clustered standard error of d, by
DeLong's influence values.

``strict``: a candidate may serve where ``d - q SE > -margin``. q is the quantile 1 - .05 / (3 D) of
Student's t. The t has one degree of freedom less than the domain has clusters. D is the number of
domains with a solo. All 3 D tests err together in at most 5 % of cases (Bonferroni). So the choice
among the candidates that pass is free. The cheapest one within one paired SE of the best is taken.

``balanced``: a candidate may serve where ``d > 0``. Nothing is promised then.

Where no candidate passes, solo serves. Where no solo could be trained, joint serves.

With many clusters q is the normal quantile z. The fewest clusters that are allowed are 30 in a
domain. We simulated 3,000 sets with 30 clusters of 20 rows in each domain, and three candidates in
each of three domains, all planted at exactly -margin. By z a candidate was let through in 6.6 % of
the sets, and by t in 4.0 %.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.special import ndtri, stdtrit

from isthmus.metrics.formulas.auc import segment_auc
from isthmus.metrics.formulas.ranking import Ranking
from isthmus.metrics.intervals import shortfalls
from isthmus.metrics.spread import Cells, Estimate, Seeds

Guard = Literal["strict", "balanced"]
Arm = Literal["joint", "adapted", "tuned", "solo"]
CANDIDATES: tuple[Arm, ...] = ("joint", "adapted", "tuned")  # the cheapest to keep and serve first
ARMS: tuple[Arm, ...] = (*CANDIDATES, "solo")
MARGIN = 0.005
ALPHA = 0.05
PROMISE = (
    "the chance that any domain is truly worse than alone by more than m is at most 5 %"
    " (large samples, no drift)"
)


@dataclass(frozen=True, slots=True)
class Standing:
    """A candidate against solo on the deciding rows of one domain, in AUC. Above 0 is better.

    ``lower``: ``difference - q se``. An undefined value is None, and ``reason`` says why.
    """

    difference: float | None
    se: float | None = None
    lower: float | None = None
    passed: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What serves one domain, and why.

    ``rows``, ``positives``, ``clusters``: how many of each decided. ``standings``: each
    candidate against solo.
    """

    domain: str
    arm: Arm
    why: str
    rows: int
    positives: int
    clusters: int
    standings: Mapping[Arm, Standing]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Labelled rows of several domains, and the logits that each arm gives them.

    ``domain``: from 1 to len(names), or 0 for a row that belongs to no domain. ``logits``: float64
    by arm, nan on the rows of a domain that the arm has no model for. ``cluster``: rows of one
    number were drawn together. A row with a negative number is a cluster of its own, and so is
    every row where ``cluster`` is None. Raises ValueError where lengths differ, where joint is
    missing, or where an arm has logits for a part of a domain's rows.
    """

    label: Bool[np.ndarray, " rows"]
    domain: Int64[np.ndarray, " rows"]
    names: tuple[str, ...]
    logits: Mapping[str, Float64[np.ndarray, " rows"]]
    cluster: Int64[np.ndarray, " rows"] | None = None

    def __post_init__(self) -> None:
        rows = len(self.label)
        for name, values in (("domain", self.domain), ("cluster", self.cluster)):
            if values is not None and values.shape != (rows,):
                raise ValueError(f"{name} must have shape ({rows},), got {values.shape}")
        if "joint" not in self.logits or np.isnan(self.logits["joint"]).any():
            raise ValueError("joint must have a logit for every row")
        for arm, values in self.logits.items():
            if values.shape != (rows,):
                raise ValueError(f"logits of {arm} must have shape ({rows},), got {values.shape}")
            missing = self.counts(np.isnan(values))
            if ((missing > 0) & (missing < self.counts()))[1:].any():
                raise ValueError(f"{arm} must have logits for all rows of a domain, or for none")

    def counts(self, of: Bool[np.ndarray, " rows"] | None = None) -> Int64[np.ndarray, " domains"]:
        """Count the rows of each domain, id 0 first. ``of``: count these rows only."""
        domain = self.domain if of is None else self.domain[of]
        return np.bincount(domain, minlength=len(self.names) + 1)


@dataclass(frozen=True, slots=True, eq=False)
class Areas:
    """The AUC of every arm in every domain, with what intervals need. An undefined AUC is nan."""

    arms: Mapping[str, Seeds]  # of one seed
    clusters: Float64[np.ndarray, " domains"]  # id 0 first

    @staticmethod
    def of(judged: Judged) -> "Areas":
        """Measure every arm in every domain. One sort of the rows serves all domains."""
        n = len(judged.names)
        cells = Cells.of(judged.domain, judged.cluster, n)
        arms: dict[str, Seeds] = {}
        for arm, logits in judged.logits.items():
            absent = np.isnan(logits)
            ranking = Ranking.of(np.where(absent, 0.0, logits), judged.domain, n + 1)
            auc = segment_auc(ranking, judged.label, influence=True)
            assert auc.influence is not None
            value = np.where(judged.counts(absent) == 0, auc.value, np.nan)
            estimate = Estimate(value, pooled=np.nan, influence=cells.cell_sums(auc.influence))
            arms[arm] = Seeds([estimate], cells)
        return Areas(arms, cells.domain_sums(np.ones(len(cells.domain))))

    def difference(
        self, arm: str, other: str
    ) -> tuple[Float64[np.ndarray, " domains"], Float64[np.ndarray, " domains"]]:
        """Give the paired difference ``arm - other`` of each domain, id 0 first, and its SE.

        The clustered standard error is SE^2 = G / (G - 1) * sum over the domain's G clusters of
        (sum of psi)^2. It is nan for G < 2.
        """
        found = (self.arms[arm] - self.arms[other]).domains()
        return found.value, np.sqrt(found.variance)


def quantile(domains: int, clusters: int | None = None) -> float:
    """Give the q of ``strict`` for a domain of so many clusters.

    ``domains``: the number of domains with a solo. ``clusters``: None gives the quantile of the
    normal distribution.

    >>> round(quantile(1), 4), round(quantile(14), 4), round(quantile(14, clusters=30), 4)
    (2.128, 3.0381, 3.3291)
    """
    p = 1 - ALPHA / (len(CANDIDATES) * max(domains, 1))
    return float(ndtri(p) if clusters is None else stdtrit(max(clusters - 1, 1), p))


def choose(
    judged: Judged,
    *,
    guard: Guard = "strict",
    margin: float = MARGIN,
    no_solo: Mapping[str, str] | None = None,
) -> tuple[Choice, ...]:
    """Choose an arm for every domain from the deciding rows.

    ``margin``: the loss of AUC that is put up with, above 0. ``no_solo``: by domain, why there is
    no solo, for the text. A domain has a solo where solo has logits for the domain's rows. A domain
    without deciding rows has a solo where ``no_solo`` does not name the domain. ``strict`` lets no
    candidate pass where fewer than 50 positives, 50 negatives or 30 clusters decide. Raises
    ValueError for a margin that is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"margin must be above 0, got {margin}")
    reasons = no_solo or {}
    solo = _with_solo(judged, reasons)
    solos = int(solo[1:].sum())
    areas = Areas.of(judged)
    counts, positives = judged.counts(), judged.counts(judged.label)
    differences = {
        (a, b): areas.difference(a, b)
        for a in judged.logits
        for b in judged.logits
        if a != b and a != "solo"
    }
    choices = []
    for number, name in enumerate(judged.names, start=1):
        few = too_few(counts[number], positives[number], areas.clusters[number])
        q = quantile(solos, int(areas.clusters[number]))
        standings: dict[Arm, Standing] = {}
        for arm in CANDIDATES:
            if arm in judged.logits and "solo" in judged.logits and solo[number]:
                d, se = (float(part[number]) for part in differences[arm, "solo"])
                standings[arm] = _standing(d, se, q, margin, guard, few)
        arm, why = _decide(
            standings,
            {pair: (float(d[number]), float(se[number])) for pair, (d, se) in differences.items()},
            None if solo[number] else reasons.get(name, "it has no trained model"),
            margin,
            guard,
        )
        choices.append(
            Choice(
                domain=name,
                arm=arm,
                why=why,
                rows=int(counts[number]),
                positives=int(positives[number]),
                clusters=int(areas.clusters[number]),
                standings=standings,
            )
        )
    return tuple(choices)


def _with_solo(judged: Judged, reasons: Mapping[str, str]) -> Bool[np.ndarray, " domains"]:
    """Tell which domains have a solo, id 0 first."""
    if "solo" not in judged.logits:
        return np.zeros(len(judged.names) + 1, dtype=bool)
    has = judged.counts(np.isnan(judged.logits["solo"])) == 0
    has[0] = False
    has[1:] &= [name not in reasons for name in judged.names]
    return has


def too_few(rows: int, positives: int, clusters: float) -> str | None:
    """Say why the rows are too few for an interval. None where there are enough."""
    # Below these counts the quantile would not hold.
    for count, what, least in shortfalls(int(positives), int(rows - positives), int(clusters)):
        return f"{count} {what} in {int(rows)} deciding rows, {least} are needed"
    return None


def _standing(
    difference: float, se: float, q: float, margin: float, guard: Guard, few: str | None
) -> Standing:
    if np.isnan(difference):
        return Standing(None, reason=few or "the AUC is undefined on the deciding rows")
    if guard == "balanced":
        lower = None if np.isnan(se) else difference - q * se
        return Standing(difference, None if np.isnan(se) else se, lower, difference > 0, few)
    if few is not None:
        return Standing(difference, reason=few)
    lower = difference - q * se
    return Standing(difference, se, lower, lower > -margin)


def _decide(
    standings: Mapping[Arm, Standing],
    differences: Mapping[tuple[str, str], tuple[float, float]],
    no_solo: str | None,
    margin: float,
    guard: Guard,
) -> tuple[Arm, str]:
    """Choose the arm of one domain, and say why in one sentence."""
    if no_solo is not None:
        return "joint", f"no model of its own could be trained: {no_solo}"
    passed: list[Arm] = [arm for arm, standing in standings.items() if standing.passed]
    if not passed:
        return "solo", _why_none(standings, margin, guard)
    best = max(passed, key=lambda arm: standings[arm].difference or 0.0)
    near: list[Arm] = [arm for arm in passed if arm == best or _within(differences[best, arm])]
    arm = near[0]  # the cheapest: they stand in the order of cost
    standing = standings[arm]
    assert standing.difference is not None
    told = f"{arm} minus solo is {standing.difference:+.4f} AUC on the deciding rows"
    if guard == "strict":
        assert standing.lower is not None
        told += f", at least {standing.lower:+.4f}, which is above {-margin:g}"
    else:
        told += ", above 0"
    if arm != best:
        told += f"; {best} is better by no more than its standard error"
    return arm, told


def _within(difference: tuple[float, float]) -> bool:
    """Whether a paired difference is no more than its standard error."""
    return difference[0] <= difference[1]


def _why_none(standings: Mapping[Arm, Standing], margin: float, guard: Guard) -> str:
    strict = guard == "strict"
    reasons = sorted({standing.reason for standing in standings.values() if standing.reason})
    values = {arm: of.lower if strict else of.difference for arm, of in standings.items()}
    shown = ", ".join(f"{arm} {value:+.4f}" for arm, value in values.items() if value is not None)
    if not shown or (strict and reasons):
        return f"nothing can be shown of the others: {'; '.join(reasons) or 'none there'}"
    if strict:
        return f"no other is surely above {-margin:g} AUC of solo; lower bounds: {shown}"
    return f"no other is above solo; differences in AUC: {shown}"
