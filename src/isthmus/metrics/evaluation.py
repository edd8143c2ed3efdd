"""evaluate(): an honest number for every domain, and for all of them together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from isthmus.metrics.formulas import AUC, METRICS, seeds_of
from isthmus.metrics.formulas.metric import Metric
from isthmus.metrics.intervals import interval, outside
from isthmus.metrics.scopes import (
    AbstractResult,
    Scope,
    Scopes,
    coverage_note,
    names_by_remark,
    worst_domain,
)
from isthmus.metrics.scored_rows import ScoredRows, align
from isthmus.metrics.text_table import count_text, number, with_interval

DEFINITIONS = {metric.name: metric.definition for metric in METRICS} | {
    "macro": "unweighted mean over the domains where the metric is defined",
    "weighted": "mean over the same domains, weighted by rows",
    "worst": "the domain with the lowest AUC",
}
"""What each metric and each mean over domains is, as text by name."""
FIGURES = tuple(name for metric in METRICS for name in metric.figures)


@dataclass(frozen=True, slots=True)
class Figures:
    """Metrics of one scope. An undefined metric is None, and ``reasons`` says why, by its name.

    ``notes`` says by a metric's name what to keep in mind. One example: an interval from fewer than
    50 positives, 50 negatives or 30 clusters is given, and said to be rough. ``domain`` names the
    worst domain. ``domains`` counts the domains that a mean covers, which are those with an AUC.
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
        own = {"domain": self.domain, "domains": self.domains}
        out: dict[str, Any] = {name: of for name, of in own.items() if of is not None}
        for name in ("rows", "positives", *FIGURES):
            value = getattr(self, name)
            out[name] = list(value) if isinstance(value, tuple) else value
            if name in self.reasons:
                out[f"{name}_reason"] = self.reasons[name]
            if name in self.notes:
                out[f"{name}_note"] = self.notes[name]
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation(AbstractResult[Figures]):
    """What one model does on one split: figures per domain, pooled, macro, weighted and worst.

    With several seeds every figure is the mean over the seeds, and intervals cover seeds as well.
    ``print`` shows a table, and ``to_dict`` gives the JSON. ``DEFINITIONS`` says what each metric
    is and whether it is weighted.
    """

    source: str = ""

    @property
    def title(self) -> str:
        """Split, seeds and kind of interval, as every table of this evaluation says them."""
        return f"{self.source}: {self._rows_and_seeds}" if self.source else self._rows_and_seeds

    def _in_table(self) -> list[Metric]:
        return [of for of in METRICS if self.clusters == "group" or not of.of_groups]

    def _header(self) -> tuple[str, ...]:
        heads = (
            f"{of.label} [95 %]" if of.interval_in_table else of.label for of in self._in_table()
        )
        return "positives", *heads

    def _cells(self, of: Figures) -> tuple[str, ...]:
        cells = [f"{of.positives:,}"]
        for metric in self._in_table():
            value = getattr(of, metric.name)
            if metric.interval_in_table:
                cells.append(with_interval(value, getattr(of, f"{metric.name}_ci"), metric.places))
            else:
                cells.append(number(value, metric.places))
        return tuple(cells)

    def _remarks(self, shown: Sequence[tuple[str, Figures]]) -> Iterable[str]:
        remarks = (
            (name, of.reasons.get("auc") or of.reasons.get("auc_ci") or of.notes.get("auc"))
            for name, of in shown[:-1]  # the worst domain is among the domains
        )
        found = names_by_remark(remarks)
        return *self.notes, *(f"AUC: {told} ({_few(where)})" for told, where in found.items())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: no nan; what is undefined is null with a reason beside it."""
        return {
            "split": self.split,
            "source": self.source,
            "seeds": self.seeds,
            "level": self.level,
            "clusters": self.clusters,
            **self._scopes_to_dict(),
            "notes": list(self.notes),
        }


def _few(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def evaluate_rows(scored: ScoredRows | Sequence[ScoredRows]) -> Evaluation:
    """Evaluate one model, or the same model trained with several seeds (one element each).

    Raises RunError unless all seeds scored the same rows.
    """
    runs = align([scored] if isinstance(scored, ScoredRows) else scored)
    first, scopes = runs[0], Scopes(runs[0])
    seeds = seeds_of(runs, scopes.cells)
    found = [_figures(scope) for scope in scopes.domains(seeds)]
    domains = dict(zip(first.names, found, strict=True))
    macro = _mean_figures(scopes.mean(seeds, by_rows=False), len(domains))
    notes = [coverage_note(len(runs))]
    if first.negative_rate != 1.0:
        notes.append(
            f"negative_rate {first.negative_rate:g}: logits are corrected by its logarithm and"
            " negatives count 1 / rate in logloss, NE, calibration and ECE."
        )
    lost = int((first.domain == 0).sum())
    if lost:
        notes.append(f"{count_text(lost, 'row')} without a domain count in pooled only.")
    return Evaluation(
        split=first.split,
        seeds=len(runs),
        clusters="row" if first.group is None else "group",
        domains=domains,
        pooled=_figures(scopes.pooled(seeds)),
        macro=macro,
        weighted=_mean_figures(scopes.mean(seeds, by_rows=True), len(domains)),
        worst=_worst(worst_domain(seeds, first.names), domains, macro.domains),
        notes=tuple(notes),
        source=first.source,
    )


def _figures(scope: Scope) -> Figures:
    counts = scope.counts
    unit = "group" if counts.grouped else "row"
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    notes: dict[str, str] = {}
    for metric in METRICS:
        for name in metric.values:
            value = scope.spreads[name][0]
            if np.isnan(value):
                reasons[name] = metric.reason(counts)
            else:
                values[name] = value
        if metric.scale is None:
            continue
        value, variance, df = scope.spreads[metric.name]
        why = reasons.get(metric.name)
        why = why or metric.no_interval(variance, weighted=counts.weighted, unit=unit)
        why = why or outside(value, metric.scale)
        if why is not None:
            reasons[f"{metric.name}_ci"] = why
            continue
        values[f"{metric.name}_ci"] = interval(value, variance, df, metric.scale)
        rough = counts.rough() if metric.rough_of_few else None
        if rough is not None:
            notes[metric.name] = rough
    return Figures(
        rows=counts.rows, positives=counts.positives, reasons=reasons, notes=notes, **values
    )


def _mean_figures(scope: Scope, n_domains: int) -> Figures:
    figures, defined = _figures(scope), scope.defined or {}
    nowhere = {name for name, count in defined.items() if not count}
    if not scope.counts.grouped:
        nowhere -= {metric.name for metric in METRICS if metric.of_groups}
    reasons = dict.fromkeys(nowhere & set(figures.reasons), "undefined in every domain")
    notes = {
        name: f"mean over {count} of {n_domains} domains"
        for name, count in defined.items()
        if 0 < count < n_domains
    }
    return replace(
        figures,
        domains=defined[AUC.name],
        reasons=figures.reasons | reasons,
        notes=figures.notes | notes,
    )


def _worst(name: str | None, domains: dict[str, Figures], with_auc: int | None) -> Figures:
    """The figures of the worst domain, with a remark on its choice; ``with_auc``: out of how many."""
    if name is None:
        return Figures(rows=0, positives=0, reasons=dict.fromkeys(FIGURES, "no domain has an AUC"))
    figures = domains[name]
    note = f"lowest of {with_auc} domains; the interval is not adjusted for that choice"
    rough = figures.notes.get(AUC.name)
    told = f"{rough}; {note}" if rough else note
    return replace(figures, domain=name, notes=figures.notes | {AUC.name: told})


def evaluate(
    *,
    split: str,
    logits: Float[np.ndarray, " rows"],
    label: Bool[np.ndarray, " rows"] | Int[np.ndarray, " rows"] | Float[np.ndarray, " rows"],
    domain: Int[np.ndarray, " rows"],
    names: tuple[str, ...],
    weight: Float64[np.ndarray, " rows"] | None = None,
    group: Int[np.ndarray, " rows"] | None = None,
    negative_rate: float = 1.0,
    row: Int[np.ndarray, " rows"] | None = None,
    source: str = "",
) -> Evaluation:
    """Every metric per domain, pooled, macro, row-weighted and worst, with 95 % intervals.

    ``logits`` are raw, as the model gives them; the correction for ``negative_rate`` is made here.
    ``label`` is 0 or 1. ``domain`` is 0 for none and i for ``names[i - 1]``. ``weight`` is at least
    0. ``group`` holds ids of users or the like; a negative id is no group. ``row`` holds the row
    numbers for error messages. Raises ValueError, naming the row, for a logit that is not finite, a
    label outside {0, 1}, a domain id out of range or a bad weight. Time O(rows log rows).
    """
    return evaluate_rows(
        ScoredRows(
            split=split,
            row=np.arange(len(logits)) if row is None else row,
            logits=logits,
            label=label,  # pyright: ignore[reportArgumentType]  # any dtype; stored as bool
            domain=domain,
            names=names,
            weight=weight,
            group=group,
            negative_rate=negative_rate,
            source=source,
        )
    )
