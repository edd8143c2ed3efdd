"""compare(): the paired difference of two models on the same rows, with its interval."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from isthmus.metrics.formulas import PAIRED, EffectMetric, seeds_of
from isthmus.metrics.formulas.metric import Metric
from isthmus.metrics.intervals import holm, holm_levels, interval, p_value
from isthmus.metrics.scopes import (
    AbstractResult,
    Scope,
    Scopes,
    coverage_note,
    names_by_remark,
    worst_domain,
)
from isthmus.metrics.scored_rows import ScoredRows, align
from isthmus.metrics.text_table import count_text, number, p_text, with_half_width

ALARM = 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of models a and b on the same rows, and b - a.

    ``ci`` is the 95 % interval of this scope alone, symmetric about the difference. ``p`` is the
    two-sided p of no difference. ``p_holm`` is that p adjusted over all domains, and ``ci_holm`` the
    wider interval that goes with it: it holds 0 exactly where ``p_holm`` is above .05. Only a domain
    has these two. An undefined value is None, and ``reason`` says why. ``note`` says why an interval
    is rough.
    """

    a: float | None
    b: float | None
    difference: float | None
    ci: tuple[float, float] | None
    p: float | None
    larger_is_better: bool
    p_holm: float | None = None
    ci_holm: tuple[float, float] | None = None
    reason: str | None = None
    note: str | None = None

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval."""
        return None if self.ci is None else (self.ci[1] - self.ci[0]) / 2

    @property
    def better(self) -> Literal["a", "b"] | None:
        """The model that the interval favours; None where it holds 0 or there is none."""
        if self.ci is None or self.ci[0] <= 0 <= self.ci[1]:
            return None
        return "b" if (self.ci[0] > 0) == self.larger_is_better else "a"

    @property
    def verdict(self) -> Literal["better", "worse", "tie"] | None:
        """What may be said of b: of a domain by its adjusted p, else by p; None where there is no p."""
        p = self.p if self.p_holm is None else self.p_holm
        if p is None or self.difference is None:
            return None
        if p > ALARM:
            return "tie"
        return "better" if (self.difference > 0) == self.larger_is_better else "worse"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, nulls with their reason."""
        out: dict[str, Any] = {"a": self.a, "b": self.b, "difference": self.difference}
        out |= {"ci": _listed(self.ci), "p": self.p}
        out |= {"ci_holm": _listed(self.ci_holm), "p_holm": self.p_holm}
        out |= {"better": self.better, "verdict": self.verdict}
        told = {"reason": self.reason, "note": self.note}
        return out | {name: why for name, why in told.items() if why is not None}


def _listed(ci: tuple[float, float] | None) -> list[float] | None:
    return None if ci is None else list(ci)


@dataclass(frozen=True, slots=True)
class Pair:
    """Both models in one scope, by metric; ``domain`` names the worst domain."""

    rows: int
    positives: int
    differences: Mapping[EffectMetric, Difference]
    domain: str | None = None

    @property
    def auc(self) -> Difference:
        """The difference in AUC."""
        return self.differences["auc"]

    @property
    def logloss(self) -> Difference:
        """The difference in logloss, in nats."""
        return self.differences["logloss"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        out: dict[str, Any] = {} if self.domain is None else {"domain": self.domain}
        out |= {"rows": self.rows, "positives": self.positives}
        return out | {metric: of.to_dict() for metric, of in self.differences.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(AbstractResult[Pair]):
    """Model b against model a on the same rows: per domain, pooled, macro, weighted, worst.

    ``worst`` is the domain where a has its lowest AUC. Model b is read in that domain too.
    """

    a: str
    b: str

    @property
    def title(self) -> str:
        """Who is compared, on which split, over how many seeds."""
        return f"b - a, a = {self.a}, b = {self.b}: {self._rows_and_seeds}"

    def headline(self, metric: EffectMetric = "auc") -> str:
        """Say in one sentence where a difference holds after Holm's adjustment over domains."""
        found: dict[str, list[str]] = {"a": [], "b": []}
        tested = 0
        for name, pair in self.domains.items():
            of = pair.differences[metric]
            tested += of.p_holm is not None
            if of.p_holm is not None and of.p_holm <= ALARM and of.better is not None:
                found[of.better].append(name)
        what = PAIRED[metric].label
        if not tested:
            return f"{what}: no domain can be tested."
        told = [
            f"{getattr(self, key)} is better on {', '.join(names)}"
            for key, names in found.items()
            if names
        ]
        said = "; ".join(told) if told else "no difference found on any domain"
        return f"{what}: {said} (Holm-adjusted p <= {ALARM}, {count_text(tested, 'domain')})."

    def _header(self) -> tuple[str, ...]:
        labels = (of.label for of in PAIRED.values())
        return tuple(head for label in labels for head in (f"{label} a", f"{label} b - a", "p"))

    def _cells(self, of: Pair) -> tuple[str, ...]:
        cells: list[str] = []
        for one in of.differences.values():
            cells += [number(one.a), with_half_width(one.difference, one.half_width)]
            cells.append(p_text(one.p if one.p_holm is None else one.p_holm))
        return tuple(cells)

    def _remarks(self, shown: Sequence[tuple[str, Pair]]) -> Iterable[str]:
        found = names_by_remark((name, of.auc.reason or of.auc.note) for name, of in shown)
        remarks = (f"AUC: {told} ({', '.join(where[:5])})" for told, where in found.items())
        return *map(self.headline, PAIRED), *self.notes, *remarks

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "split": self.split,
            "seeds": self.seeds,
            "level": self.level,
            "clusters": self.clusters,
            "a": self.a,
            "b": self.b,
            **self._scopes_to_dict(),
            "headline": [self.headline(metric) for metric in PAIRED],
            "notes": list(self.notes),
        }


def compare(
    a: ScoredRows | Sequence[ScoredRows], b: ScoredRows | Sequence[ScoredRows]
) -> Comparison:
    """Paired difference b - a of AUC and logloss, with intervals from psi_b - psi_a by clusters.

    Each side is one model, or one model trained with several seeds. Both sides have as many seeds,
    and seed k of a is paired with seed k of b. All must score the same rows of one split, with the
    same labels, domains, weights and groups. Otherwise RunError is raised and says what differs.
    ValueError is raised where the numbers of seeds differ.
    """
    left = [a] if isinstance(a, ScoredRows) else list(a)
    right = [b] if isinstance(b, ScoredRows) else list(b)
    if not left or len(left) != len(right):
        raise ValueError(f"both sides must have as many seeds, got {len(left)} and {len(right)}")
    runs = align([*left, *right])
    first, scopes = runs[0], Scopes(runs[0])
    metrics = tuple(PAIRED.values())
    a_seeds = seeds_of(runs[: len(left)], scopes.cells, metrics)
    b_seeds = seeds_of(runs[len(left) :], scopes.cells, metrics)
    paired = {name: b_seeds[name] - of for name, of in a_seeds.items()}
    a_means, b_means = ({n: of.bare() for n, of in side.items()} for side in (a_seeds, b_seeds))
    sides = a_means, b_means, paired
    each = list(zip(*map(scopes.domains, sides), strict=True))
    found = _with_holm([_pair(*scope) for scope in each], [paired_of for _, _, paired_of in each])
    domains = dict(zip(first.names, found, strict=True))
    worst = worst_domain(a_means, first.names)
    return Comparison(
        split=first.split,
        seeds=len(left),
        clusters="row" if first.group is None else "group",
        a=left[0].source or "a",
        b=right[0].source or "b",
        domains=domains,
        pooled=_pair(*map(scopes.pooled, sides)),
        macro=_pair(*(scopes.mean(side, by_rows=False) for side in sides)),
        weighted=_pair(*(scopes.mean(side, by_rows=True) for side in sides)),
        worst=_worst(worst, domains),
        notes=(
            coverage_note(len(left)),
            "p of a domain is adjusted by Holm over the domains; p of pooled, macro, weighted and worst is not.",
        ),
    )


def _pair(a: Scope, b: Scope, paired: Scope) -> Pair:
    differences: dict[EffectMetric, Difference] = {
        name: _difference(metric, paired, name, a.spreads[name][0], b.spreads[name][0])
        for name, metric in PAIRED.items()
    }
    return Pair(paired.counts.rows, paired.counts.positives, differences)


def _difference(
    metric: Metric, paired: Scope, name: EffectMetric, a: float, b: float
) -> Difference:
    counts = paired.counts
    difference, variance, df = paired.spreads[name]
    if np.isnan(difference):
        return _undefined(metric, metric.reason(counts))
    larger = bool(metric.larger_is_better)
    known = Difference(a, b, difference, None, None, larger_is_better=larger)
    unit = "group" if counts.grouped else "row"
    why = metric.no_paired_interval(difference, variance, weighted=counts.weighted, unit=unit)
    if why is not None:
        return replace(known, reason=why)
    return replace(
        known,
        ci=interval(difference, variance, df),
        p=p_value(difference, variance, df),
        note=counts.rough() if metric.rough_of_few else None,
    )


def _undefined(metric: Metric, why: str) -> Difference:
    larger = bool(metric.larger_is_better)
    return Difference(None, None, None, None, None, larger_is_better=larger, reason=why)


def _with_holm(pairs: list[Pair], paired: Sequence[Scope]) -> list[Pair]:
    """Adjust the p values and intervals of each metric over the domains that have a p."""
    for metric in PAIRED:
        of = [pair.differences[metric] for pair in pairs]
        tested = [one.p for one in of if one.p is not None]
        adjusted = zip(holm(tested), holm_levels(tested), strict=True)
        held = []
        for one, scope in zip(of, paired, strict=True):
            if one.p is not None:
                p_holm, level = next(adjusted)
                ci = interval(*scope.spreads[metric], level=level)
                one = replace(one, p_holm=p_holm, ci_holm=ci)
            held.append(one)
        pairs = [
            replace(pair, differences={**pair.differences, metric: one})
            for pair, one in zip(pairs, held, strict=True)
        ]
    return pairs


def _worst(name: str | None, domains: dict[str, Pair]) -> Pair:
    """The pair of the worst domain without Holm's numbers, which belong to the list of domains."""
    if name is None:
        why = "no domain has an AUC"
        return Pair(0, 0, {metric: _undefined(of, why) for metric, of in PAIRED.items()})
    pair = domains[name]
    plain = {
        metric: replace(of, p_holm=None, ci_holm=None) for metric, of in pair.differences.items()
    }
    return replace(pair, differences=plain, domain=name)
