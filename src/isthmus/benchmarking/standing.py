"""How contenders stand against the control: paired over test rows and seeds, corrected over contenders.

An effect is a contender minus the control on the same test rows, seed by seed, above 0 better
(`isthmus.metrics.effects`): its interval covers another draw of test rows, in clusters of
``data.group``, and another training seed. Holm's correction holds over all contenders, for each metric
and scope; over contenders and domains together where single domains are told.

The *corrected interval* of an effect has the level of Holm's step: 1 - .05 / h, where h counts the
hypotheses that stand when it is the effect's turn. It holds 0 exactly where Holm's p is above .05. A
contender is *better* or *worse* where its corrected interval leaves 0 out. Else it *ties*.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np

from isthmus.metrics import Effect, Evaluation, ScoredRows, align, evaluate_rows, with_holm
from isthmus.metrics.crossed import Replicate
from isthmus.metrics.effects import MeasuredArm, Reader, macro_effect
from isthmus.metrics.formulas import PAIRED, EffectMetric
from isthmus.metrics.intervals import holm_levels, interval
from isthmus.metrics.scored_rows import corrected

Key = TypeVar("Key", bound=Hashable)
Verdict = Literal["better", "worse", "tie"]
ALARM = 0.05
SCOPES = ("pooled", "macro", "worst")
MARGIN = 0.005  # by which rows_needed is told; nothing here reads it


@dataclass(frozen=True, slots=True)
class Judgement:
    """One contender against the control in one scope and metric.

    ``ci``: the corrected interval, of ``level``. ``verdict``: None where there is no interval, and
    ``effect.reason`` says why.
    """

    effect: Effect
    ci: tuple[float, float] | None
    level: float | None

    @property
    def verdict(self) -> Verdict | None:
        """What may be said."""
        estimate, p = self.effect.estimate, self.effect.p_holm
        if estimate is None or p is None:
            return None
        if p > ALARM:
            return "tie"
        return "better" if estimate > 0 else "worse"

    def to_dict(self) -> dict[str, Any]:
        """Give plain values."""
        of = self.effect
        return {
            "gain": of.estimate,
            "ci": None if self.ci is None else list(self.ci),
            "level": self.level,
            "p": of.p,
            "p_holm": of.p_holm,
            "verdict": self.verdict,
            "detectable": of.detectable,
            "reason": of.reason,
            "note": of.note,
        }


def judged(effects: Mapping[Key, Effect]) -> dict[Key, Judgement]:
    """Correct a family of effects by Holm, and give each its corrected interval."""
    adjusted = with_holm(effects)
    tested = {key: of.p for key, of in adjusted.items() if of.p is not None}
    level = dict(zip(tested, holm_levels(list(tested.values())), strict=True))
    found = {}
    for key, of in adjusted.items():
        ci = None
        if of.estimate is not None and of.se is not None and of.df is not None and key in level:
            ci = interval(of.estimate, of.se**2, of.df, level=level[key])
        found[key] = Judgement(of, ci, level.get(key) if ci is not None else None)
    return found


class Contestants:
    """The test rows of all contenders, a part for each seed.

    ``scored``: by contender, as many parts for each. All must be of the same rows.
    ``control``: the contender that the others are measured against.
    """

    def __init__(self, scored: Mapping[str, Sequence[ScoredRows]], control: str) -> None:
        seeds = {len(parts) for parts in scored.values()}
        if len(seeds) != 1:
            raise ValueError(f"contenders must have as many seeds each, got {sorted(seeds)}")
        aligned = iter(align([one for parts in scored.values() for one in parts]))
        self.scored = {name: [next(aligned) for _ in parts] for name, parts in scored.items()}
        self.control, self.seeds = control, seeds.pop()
        self.rows = self.scored[control][0]

    @cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        """Each contender's own figures, the mean over seeds."""
        return {name: evaluate_rows(parts) for name, parts in self.scored.items()}

    @cached_property
    def worst(self) -> str | None:
        """The domain where the control has its lowest AUC, of those that can be tested."""
        known = {
            name: figures.auc
            for name, figures in self.evaluations[self.control].domains.items()
            if figures.auc is not None and self._reader(name, "auc").untestable is None
        }
        return min(known, key=lambda name: known[name] or 0.0) if known else None

    def scopes(self, metric: EffectMetric) -> dict[str, dict[str, Judgement]]:
        """Give each contender but the control in each of `SCOPES`, by scope and name."""
        others = [name for name in self.scored if name != self.control]
        effects: dict[str, dict[str, Effect]] = {scope: {} for scope in SCOPES}
        for name in others:
            effects["pooled"][name] = self._effect(name, None, metric)
            effects["macro"][name] = self._macro(name, metric)
            if self.worst is None:
                effects["worst"][name] = Effect(None, reason="no domain can be tested")
            else:
                effects["worst"][name] = self._effect(name, self.worst, metric)
        return {scope: judged(of) for scope, of in effects.items()}

    def domains(self, metric: EffectMetric) -> dict[tuple[str, str], Judgement]:
        """Give each contender but the control in each domain, corrected over all of them together."""
        return judged(
            {
                (name, domain): self._effect(name, domain, metric)
                for name in self.scored
                if name != self.control
                for domain in self.rows.names
            }
        )

    def _effect(self, name: str, domain: str | None, metric: EffectMetric) -> Effect:
        reader = self._reader(domain, metric)
        return reader.effect(self._difference(name, domain, metric), MARGIN)

    def _macro(self, name: str, metric: EffectMetric) -> Effect:
        parts = [
            (self._reader(domain, metric), self._difference(name, domain, metric))
            for domain in self.rows.names
            if self.evaluations[self.control].domains[domain].auc is not None
        ]
        if not parts:
            return Effect(None, reason="undefined in every domain")
        return macro_effect(parts, MARGIN)

    def _difference(self, name: str, domain: str | None, metric: EffectMetric) -> MeasuredArm:
        return self._measured(name, domain, metric) - self._measured(self.control, domain, metric)

    def _measured(self, name: str, domain: str | None, metric: EffectMetric) -> MeasuredArm:
        if name == self.control and (domain, metric) in self._of_control:
            return self._of_control[domain, metric]
        at = self._positions(domain)
        logits = [one.logits[at] for one in self.scored[name]]
        if PAIRED[metric].unthinned:
            logits = [corrected(one, self.rows.negative_rate) for one in logits]
        found = self._reader(domain, metric).measure(logits)
        if name == self.control:  # the others' would fill the memory: each is as long as the rows
            self._of_control[domain, metric] = found
        return found

    @cached_property
    def _of_control(self) -> dict[tuple[str | None, EffectMetric], MeasuredArm]:
        return {}

    @cached_property
    def _readers(self) -> dict[tuple[str | None, EffectMetric], Reader]:
        return {}

    def _positions(self, domain: str | None) -> np.ndarray:
        if domain is None:
            return np.arange(len(self.rows))
        return np.flatnonzero(self.rows.domain == self.rows.names.index(domain) + 1)

    def _reader(self, domain: str | None, metric: EffectMetric) -> Reader:
        if (domain, metric) not in self._readers:
            rows = self.rows.take(self._positions(domain))
            one = Replicate(row=rows.row, label=rows.label, cluster=rows.group, weight=rows.weight)
            if PAIRED[metric].unthinned and rows.negative_rate != 1.0:
                one = replace(one, weight=rows.mass)
            self._readers[domain, metric] = Reader([one] * self.seeds, metric)
        return self._readers[domain, metric]
