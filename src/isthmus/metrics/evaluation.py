"""evaluate(): an honest number for every domain, and for all of them together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from isthmus.metrics.intervals import LEVEL
from isthmus.metrics.scopes import Figures, Scopes
from isthmus.metrics.scored_rows import ScoredRows, align
from isthmus.metrics.text_table import (
    TextTable,
    count_text,
    largest,
    number,
    with_interval,
)

DEFINITIONS = {
    "auc": "chance that a random positive outscores a random negative, ties half; weighted by the"
    " weight column, unmoved by negative_rate; interval by DeLong's influence values, clustered by"
    " group where there is one; none with weights",
    "gauc": "mean over groups that have both classes of the AUC inside the group, weighted by rows"
    " (by the weight column where there is one); gauc_share: rows in such groups",
    "logloss": "mean of -log p(label) in nats; weighted by the weight column, negatives also by"
    " 1 / negative_rate",
    "ne": "logloss / entropy of the base rate; below 1 beats the base rate; weighted as logloss",
    "calibration": "sum of predictions / sum of labels; weighted as logloss",
    "ece": "mean |prediction - label| over 15 bins of equal mass; weighted as logloss; ece_noise:"
    " its expectation for a perfectly calibrated model on these rows",
    "macro": "unweighted mean over the domains where the metric is defined",
    "weighted": "mean over the same domains, weighted by rows",
    "worst": "the domain with the lowest AUC",
}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one model does on one split: figures per domain, pooled, macro, weighted and worst.

    With several seeds every figure is the mean over them, and intervals cover seeds as well.
    ``print`` shows it as a table; ``to_dict`` is the JSON. ``DEFINITIONS`` says what each metric
    is and whether it is weighted.
    """

    split: str
    seeds: int
    clusters: str  # "group" or "row": what the intervals treat as drawn independently
    domains: dict[str, Figures]
    pooled: Figures
    macro: Figures
    weighted: Figures
    worst: Figures
    notes: tuple[str, ...] = ()
    source: str = ""
    level: float = field(default=LEVEL)

    @property
    def title(self) -> str:
        """Split, seeds and kind of interval, as every table of this evaluation says them."""
        rows, seeds = count_text(self.pooled.rows, "row"), count_text(self.seeds, "seed")
        named = f"{self.source}: " if self.source else ""
        return (
            f"{named}{self.split} split, {rows}, {seeds};"
            f" {self.level:.0%} intervals, {self.clusters}s drawn independently"
        )

    def scopes(self) -> dict[str, Figures]:
        """Pooled, macro, weighted and worst, by the names that tables give them."""
        worst = f"worst ({self.worst.domain})" if self.worst.domain is not None else "worst"
        return {
            "pooled": self.pooled,
            "macro": self.macro,
            "weighted": self.weighted,
            worst: self.worst,
        }

    def table(self) -> TextTable:
        """Show the figures as text, four decimals (calibration three)."""
        grouped = self.clusters == "group"
        header = ["domain", "rows", "positives", "AUC [95 %]", "GAUC", "logloss", "NE"]
        header += ["calib.", "ECE"]
        names, left = largest({name: of.rows for name, of in self.domains.items()})
        lines: list[list[str]] = []
        for name, of in [*((name, self.domains[name]) for name in names), *self.scopes().items()]:
            line = [name, f"{of.rows:,}", f"{of.positives:,}", with_interval(of.auc, of.auc_ci)]
            line += [number(of.gauc), number(of.logloss), number(of.ne)]
            line += [number(of.calibration, 3), number(of.ece)]
            lines.append(line)
        if not grouped:
            for line in [header, *lines]:
                del line[4]
        return TextTable(
            title=self.title,
            header=tuple(header),
            rows=tuple(tuple(line) for line in lines),
            notes=(*self.notes, *self._remarks(names), *([left] if left else [])),
            rules=(len(names),),
        )

    def _remarks(self, names: list[str]) -> list[str]:
        shown = {name: self.domains[name] for name in names}
        shown |= {"pooled": self.pooled, "macro": self.macro, "weighted": self.weighted}
        lines: dict[str, list[str]] = {}
        for name, of in shown.items():
            told = of.reasons.get("auc") or of.reasons.get("auc_ci") or of.notes.get("auc")
            if told:
                lines.setdefault(f"AUC: {told}", []).append(name)
        return [f"{told} ({_few(where)})" for told, where in lines.items()]

    def __str__(self) -> str:
        return str(self.table())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: no nan; what is undefined is null with a reason beside it."""
        return {
            "split": self.split,
            "source": self.source,
            "seeds": self.seeds,
            "level": self.level,
            "clusters": self.clusters,
            "domains": {name: of.to_dict() for name, of in self.domains.items()},
            "pooled": self.pooled.to_dict(),
            "macro": self.macro.to_dict(),
            "weighted": self.weighted.to_dict(),
            "worst": self.worst.to_dict(),
            "notes": list(self.notes),
        }


def _few(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def coverage_note(seeds: int) -> str:
    """Say what the intervals cover, as every report must."""
    if seeds == 1:
        return "Intervals cover the draw of test rows, not retraining (1 seed)."
    return f"Intervals cover the draw of test rows and retraining ({seeds} seeds)."


def evaluate_rows(scored: ScoredRows | Sequence[ScoredRows]) -> Evaluation:
    """Evaluate one model, or the same model trained with several seeds (one element each).

    Raises RunError unless all seeds scored the same rows.
    """
    runs = align([scored] if isinstance(scored, ScoredRows) else scored)
    first, scopes = runs[0], Scopes.of(runs)
    domains = scopes.domains()
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
        domains=dict(zip(first.names, domains, strict=True)),
        pooled=scopes.pooled(),
        macro=scopes.mean(by_rows=False),
        weighted=scopes.mean(by_rows=True),
        worst=scopes.worst(domains),
        notes=tuple(notes),
        source=first.source,
    )


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

    ``logits``: raw, as the model gives them; the correction for ``negative_rate`` is applied here.
    ``label``: 0 or 1. ``domain``: 0 for none, i for ``names[i - 1]``. ``weight``: at least 0.
    ``group``: ids of users or the like; a negative id is no group. ``row``: numbers that error
    messages use. Raises ValueError, naming the row, for a logit that is not finite, a label
    outside {0, 1}, a domain id out of range or a bad weight. Time O(rows log rows).
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
