"""Paired differences as values: one metric, one scope, all scopes of two models."""

from dataclasses import dataclass, field
from typing import Any, Literal

from isthmus.metrics.intervals import LEVEL
from isthmus.metrics.text_table import (
    TextTable,
    count_text,
    largest,
    number,
    p_text,
    with_half_width,
)

Metric = Literal["auc", "logloss"]
ALARM = 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of models a and b on the same rows, and b - a.

    ``ci``: 95 % for this scope alone, symmetric about the difference. ``p``: two-sided, of no
    difference. ``p_holm``: the same, adjusted over all domains (per domain only). What is
    undefined is None and ``reason`` says why; ``note`` says what makes an interval rough.
    """

    a: float | None
    b: float | None
    difference: float | None
    ci: tuple[float, float] | None
    p: float | None
    larger_is_better: bool
    p_holm: float | None = None
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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, nulls with their reason."""
        out: dict[str, Any] = {"a": self.a, "b": self.b, "difference": self.difference}
        out |= {"ci": None if self.ci is None else list(self.ci), "p": self.p}
        out |= {"p_holm": self.p_holm, "better": self.better}
        if self.reason is not None:
            out["reason"] = self.reason
        if self.note is not None:
            out["note"] = self.note
        return out


@dataclass(frozen=True, slots=True)
class Pair:
    """Both metrics of one scope; ``domain`` names the worst domain."""

    rows: int
    positives: int
    auc: Difference
    logloss: Difference
    domain: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        out: dict[str, Any] = {} if self.domain is None else {"domain": self.domain}
        out |= {"rows": self.rows, "positives": self.positives}
        return out | {"auc": self.auc.to_dict(), "logloss": self.logloss.to_dict()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Model b against model a on the same rows: per domain, pooled, macro, weighted, worst.

    ``worst`` is the domain where a has its lowest AUC; b is read there too.
    """

    split: str
    seeds: int
    clusters: str
    a: str
    b: str
    domains: dict[str, Pair]
    pooled: Pair
    macro: Pair
    weighted: Pair
    worst: Pair
    notes: tuple[str, ...] = ()
    level: float = field(default=LEVEL)

    def scopes(self) -> dict[str, Pair]:
        """Pooled, macro, weighted and worst, by the names that tables give them."""
        worst = f"worst ({self.worst.domain})" if self.worst.domain is not None else "worst"
        return {
            "pooled": self.pooled,
            "macro": self.macro,
            "weighted": self.weighted,
            worst: self.worst,
        }

    def headline(self, metric: Metric = "auc") -> str:
        """Say in one sentence where a difference holds after Holm's adjustment over domains."""
        found: dict[str, list[str]] = {"a": [], "b": []}
        tested = 0
        for name, pair in self.domains.items():
            of: Difference = getattr(pair, metric)
            tested += of.p_holm is not None
            if of.p_holm is not None and of.p_holm <= ALARM and of.better is not None:
                found[of.better].append(name)
        what = {"auc": "AUC", "logloss": "logloss"}[metric]
        if not tested:
            return f"{what}: no domain can be tested."
        told = [
            f"{getattr(self, key)} is better on {', '.join(names)}"
            for key, names in found.items()
            if names
        ]
        said = "; ".join(told) if told else "no difference found on any domain"
        return f"{what}: {said} (Holm-adjusted p <= {ALARM}, {count_text(tested, 'domain')})."

    @property
    def title(self) -> str:
        """Who is compared, on which split, over how many seeds."""
        rows, seeds = count_text(self.pooled.rows, "row"), count_text(self.seeds, "seed")
        return (
            f"b - a, a = {self.a}, b = {self.b}: {self.split} split, {rows}, {seeds};"
            f" {self.level:.0%} intervals, {self.clusters}s drawn independently"
        )

    def table(self) -> TextTable:
        """Show the differences as text."""
        names, left = largest({name: pair.rows for name, pair in self.domains.items()})
        scopes = {name: self.domains[name] for name in names} | self.scopes()
        lines = [
            (
                name,
                f"{pair.rows:,}",
                number(pair.auc.a),
                with_half_width(pair.auc.difference, pair.auc.half_width),
                _p(pair.auc),
                number(pair.logloss.a),
                with_half_width(pair.logloss.difference, pair.logloss.half_width),
                _p(pair.logloss),
            )
            for name, pair in scopes.items()
        ]
        header = ("domain", "rows", "AUC a", "AUC b - a", "p", "logloss a", "logloss b - a", "p")
        remarks: dict[str, list[str]] = {}
        for name, pair in scopes.items():
            told = pair.auc.reason or pair.auc.note
            if told:
                remarks.setdefault(f"AUC: {told}", []).append(name)
        return TextTable(
            title=self.title,
            header=header,
            rows=tuple(lines),
            notes=(
                self.headline("auc"),
                self.headline("logloss"),
                *self.notes,
                *(f"{told} ({', '.join(where[:5])})" for told, where in remarks.items()),
                *([left] if left else []),
            ),
            rules=(len(names),),
        )

    def __str__(self) -> str:
        return str(self.table())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "split": self.split,
            "seeds": self.seeds,
            "level": self.level,
            "clusters": self.clusters,
            "a": self.a,
            "b": self.b,
            "domains": {name: pair.to_dict() for name, pair in self.domains.items()},
            "pooled": self.pooled.to_dict(),
            "macro": self.macro.to_dict(),
            "weighted": self.weighted.to_dict(),
            "worst": self.worst.to_dict(),
            "headline": [self.headline("auc"), self.headline("logloss")],
            "notes": list(self.notes),
        }


def _p(of: Difference) -> str:
    """The p of a table: Holm's per domain, the plain one elsewhere."""
    return p_text(of.p if of.p_holm is None else of.p_holm)
