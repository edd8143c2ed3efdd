"""Figures of each scope: a domain, all rows pooled, the mean over domains, the worst domain."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from isthmus.metrics.estimates import Estimates, Point, estimate_all
from isthmus.metrics.intervals import (
    Cells,
    Estimate,
    Spread,
    domain_spread,
    interval,
    mean_spread,
    pooled_spread,
)
from isthmus.metrics.scored_rows import ScoredRows

MIN_POSITIVES = MIN_NEGATIVES = 50
MIN_CLUSTERS = 30

SCALES: dict[str, Literal["plain", "log", "logit"]] = {
    "auc": "logit",
    "gauc": "logit",
    "logloss": "plain",
    "calibration": "log",
}


@dataclass(frozen=True, slots=True)
class Figures:
    """Metrics of one scope; None where undefined, with the why in ``reasons`` under its name.

    ``notes`` says under a metric's name what to keep in mind: an interval from fewer than 50
    positives, 50 negatives or 30 clusters is given, and said to be rough. ``domain`` names the
    worst domain; ``domains`` counts the domains that a mean covers (those with an AUC).
    """

    rows: int
    positives: int
    auc: float | None = None
    auc_ci: tuple[float, float] | None = None
    gauc: float | None = None
    gauc_ci: tuple[float, float] | None = None
    gauc_share: float | None = None
    logloss: float | None = None
    logloss_ci: tuple[float, float] | None = None
    ne: float | None = None
    calibration: float | None = None
    calibration_ci: tuple[float, float] | None = None
    ece: float | None = None
    ece_noise: float | None = None
    domain: str | None = None
    domains: int | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; ``x_reason`` stands beside a null ``x``, ``x_note`` beside a remark on it."""
        out: dict[str, Any] = {}
        if self.domain is not None:
            out["domain"] = self.domain
        if self.domains is not None:
            out["domains"] = self.domains
        for name in ("rows", "positives", *METRICS):
            value = getattr(self, name)
            out[name] = list(value) if isinstance(value, tuple) else value
            if name in self.reasons:
                out[f"{name}_reason"] = self.reasons[name]
            if name in self.notes:
                out[f"{name}_note"] = self.notes[name]
        return out


METRICS = (
    *("auc", "auc_ci", "gauc", "gauc_ci", "gauc_share", "logloss", "logloss_ci"),
    *("ne", "calibration", "calibration_ci", "ece", "ece_noise"),
)


@dataclass(frozen=True, slots=True, eq=False)
class ScopeCounts:
    """Counts of one scope, from which the reasons and notes follow."""

    rows: int
    positives: int
    clusters: int
    grouped: bool
    weighted: bool

    @property
    def negatives(self) -> int:
        """Rows that are not positive."""
        return self.rows - self.positives

    def reason(self, metric: str) -> str:
        """Why a metric is undefined here."""
        one_class = "no positives" if self.positives == 0 else "no negatives"
        if self.rows == 0:
            return "no rows"
        if metric in ("auc", "ne") and self.positives and self.negatives:
            return "one class has weight 0 only"
        if metric == "auc":
            return f"one class: {one_class}"
        if metric == "ne":
            return f"one class: {one_class}, so the base rate has no entropy"
        if metric == "gauc":
            return "no group has both classes" if self.grouped else "no group column"
        if metric == "calibration":
            return "no positives: nothing observed to divide by"
        return "all weights are 0"

    def rough(self) -> str | None:
        """Remark on an interval of an AUC from too little."""
        low = [
            f"{limit} {what}"
            for count, limit, what in (
                (self.positives, MIN_POSITIVES, "positives"),
                (self.negatives, MIN_NEGATIVES, "negatives"),
                (self.clusters, MIN_CLUSTERS, "clusters"),
            )
            if count < limit
        ]
        return f"fewer than {' and '.join(low)}: the interval is rough" if low else None


@dataclass(frozen=True, slots=True, eq=False)
class Scopes:
    """The estimates of some seeds on the same rows, ready to be read scope by scope."""

    estimates: tuple[Estimates, ...]
    cells: Cells
    names: tuple[str, ...]
    rows: np.ndarray  # (domains,) int64, id 0 first
    positives: np.ndarray
    clusters: np.ndarray
    grouped: bool
    weighted: bool

    @staticmethod
    def of(runs: Sequence[ScoredRows]) -> "Scopes":
        """Estimate everything for each of the aligned runs."""
        first = runs[0]
        width = len(first.names) + 1
        cells = Cells.of(first.domain, first.group, len(first.names))
        return Scopes(
            estimates=tuple(estimate_all(run, cells) for run in runs),
            cells=cells,
            names=first.names,
            rows=np.bincount(first.domain, minlength=width),
            positives=np.bincount(first.domain[first.label], minlength=width),
            clusters=np.bincount(cells.domain, minlength=width),
            grouped=first.group is not None,
            weighted=first.weight is not None,
        )

    def _all(self, metric: str) -> list[Any]:
        return [getattr(estimate, metric) for estimate in self.estimates]

    def _support(self, at: int) -> ScopeCounts:
        return ScopeCounts(
            rows=int(self.rows[at]),
            positives=int(self.positives[at]),
            clusters=int(self.clusters[at]),
            grouped=self.grouped,
            weighted=self.weighted,
        )

    def _whole(self) -> ScopeCounts:
        return ScopeCounts(
            rows=int(self.rows.sum()),
            positives=int(self.positives.sum()),
            clusters=self.cells.n_clusters,
            grouped=self.grouped,
            weighted=self.weighted,
        )

    def domains(self) -> list[Figures]:
        """Figures of every domain, in the order of the names."""
        spreads = {metric: domain_spread(self._all(metric), self.cells) for metric in SCALES}
        points = {
            metric: np.mean([point.value for point in self._all(metric)], axis=0)
            for metric in ("gauc_share", "ne", "ece", "ece_noise")
        }
        return [
            _figures(self._support(at), spreads, {k: v[at] for k, v in points.items()}, at)
            for at in range(1, len(self.names) + 1)
        ]

    def pooled(self) -> Figures:
        """Figures of all rows together, those without a domain too."""
        spreads = {metric: pooled_spread(self._all(metric)) for metric in SCALES}
        points = {
            metric: float(np.mean([point.pooled for point in self._all(metric)]))
            for metric in ("gauc_share", "ne", "ece", "ece_noise")
        }
        return _figures(self._whole(), spreads, points, 0)

    def share(self, metric: str, *, by_rows: bool) -> np.ndarray:
        """Share (domains,) of each domain in a mean of the metric: 0 where it is undefined."""
        values: list[Estimate | Point] = self._all(metric)
        defined = ~np.isnan(np.sum([of.value for of in values], axis=0))
        defined[0] = False
        size = defined * (self.rows if by_rows else 1.0)
        return size / max(size.sum(), 1.0)

    def mean(self, *, by_rows: bool) -> Figures:
        """Mean over the domains where each metric is defined: equal shares, or by rows."""
        spreads: dict[str, Spread] = {}
        points: dict[str, float] = {}
        notes: dict[str, str] = {}
        reasons: dict[str, str] = {}
        for metric in (*SCALES, "gauc_share", "ne", "ece", "ece_noise"):
            share = self.share(metric, by_rows=by_rows)
            taken = share > 0
            if not taken.any():
                reasons[metric] = "undefined in every domain"
            elif taken.sum() < len(self.names):
                notes[metric] = f"mean over {taken.sum()} of {len(self.names)} domains"
            if metric in SCALES:
                spreads[metric] = mean_spread(self._all(metric), self.cells, share)
                if not taken.any():
                    spreads[metric] = replace(spreads[metric], value=np.array([np.nan]))
            else:
                values = np.mean([point.value for point in self._all(metric)], axis=0)
                points[metric] = float(values[taken] @ share[taken]) if taken.any() else np.nan
        inside = ScopeCounts(
            rows=int(self.rows[1:].sum()),
            positives=int(self.positives[1:].sum()),
            clusters=int(spreads["auc"].clusters[0]),
            grouped=self.grouped,
            weighted=self.weighted,
        )
        figures = _figures(inside, spreads, points, 0)
        if not self.grouped:
            reasons.pop("gauc", None)
        told = {metric: why for metric, why in reasons.items() if metric in figures.reasons}
        return replace(
            figures,
            domains=int((self.share("auc", by_rows=by_rows) > 0).sum()),
            reasons={**figures.reasons, **told},
            notes={**figures.notes, **notes},
        )

    def worst_at(self) -> int | None:
        """Id of the domain with the lowest AUC, the first of equals; None where there is none."""
        value = np.mean([estimate.value for estimate in self._all("auc")], axis=0)[1:]
        return None if np.isnan(value).all() else int(np.nanargmin(value)) + 1

    def worst(self, domains: Sequence[Figures]) -> Figures:
        """Figures of the domain with the lowest AUC, chosen from those of all domains."""
        at = self.worst_at()
        if at is None:
            why = dict.fromkeys(METRICS, "no domain has an AUC")
            return Figures(rows=0, positives=0, reasons=why)
        figures = domains[at - 1]
        defined = int((self.share("auc", by_rows=False) > 0).sum())
        note = f"lowest of {defined} domains; the interval is not adjusted for that choice"
        notes = {
            **figures.notes,
            "auc": "; ".join([*filter(None, [figures.notes.get("auc")]), note]),
        }
        return replace(figures, domain=self.names[at - 1], notes=notes)


def _figures(
    support: ScopeCounts, spreads: dict[str, Spread], points: dict[str, float], at: int
) -> Figures:
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    notes: dict[str, str] = {}
    for metric, spread in spreads.items():
        value = float(spread.value[at])
        if np.isnan(value):
            reasons[metric] = reasons[f"{metric}_ci"] = support.reason(metric)
            continue
        values[metric] = value
        why = _no_interval(support, metric, spread, at)
        if why is not None:
            reasons[f"{metric}_ci"] = why
            continue
        variance, df = float(spread.variance[at]), float(spread.df[at])
        values[f"{metric}_ci"] = interval(value, variance, df, SCALES[metric])
        rough = support.rough() if metric == "auc" else None
        if rough is not None:
            notes[metric] = rough
    for metric, value in points.items():
        if np.isnan(value):
            reasons[metric] = support.reason(metric)
        elif metric != "gauc_share" or support.grouped:
            values[metric] = float(value)
    if not support.grouped:
        for metric in ("gauc", "gauc_ci", "gauc_share"):
            values.pop(metric, None)
            reasons[metric] = support.reason("gauc")
    return Figures(
        rows=support.rows, positives=support.positives, reasons=reasons, notes=notes, **values
    )


def _no_interval(support: ScopeCounts, metric: str, spread: Spread, at: int) -> str | None:
    """Why a defined metric has no interval here; None where it has one."""
    value = float(spread.value[at])
    if metric == "auc" and support.weighted:
        return "rows have weights: DeLong's variance holds for rows without"
    if np.isnan(spread.variance[at]):
        unit = (
            ("group" if metric != "gauc" else "group with both classes")
            if support.grouped
            else "row"
        )
        return f"one {unit}: nothing to estimate a spread from"
    if SCALES[metric] == "logit" and not 0 < value < 1:
        return "perfect separation: nothing to estimate a spread from"
    if SCALES[metric] == "log" and value <= 0:
        return "no prediction is above 0"
    return None
