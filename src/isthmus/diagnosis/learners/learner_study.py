"""The study of a learner: its test rows, its readings, and what its report tells."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, Literal

import numpy as np

from isthmus.diagnosis.abstract_reading import AbstractReading
from isthmus.diagnosis.abstract_study import AbstractStudy, DiagnosisPlan
from isthmus.diagnosis.learners.learner_engine import LearnerEngine
from isthmus.diagnosis.learners.learner_phases import LearnerPhases, LearnerWidth
from isthmus.diagnosis.learners.learner_training import LearnerOutcome, LearnerTraining
from isthmus.diagnosis.learners.row_metrics import LearnerMetric
from isthmus.metrics.crossed import Replicate
from isthmus.metrics.effects import Effect, MeasuredArm, Reader
from isthmus.metrics.formulas.auc import auc
from isthmus.version import VERSION


class LearnerReading(AbstractReading[LearnerOutcome]):
    """All arms of one domain on its test rows, which are the same in every replicate.

    ``held``: the test rows, numbered over all domains. ``margins``: by metric; where smaller is
    better, as a share of the solo's mean.
    """

    def __init__(
        self,
        domain: str,
        labels: np.ndarray,
        held: Replicate,
        replicates: int,
        metrics: Sequence[LearnerMetric],
        margins: Mapping[str, float],
    ) -> None:
        self.domain, self.labels, self.held, self.many = domain, labels, held, replicates
        self.metrics = {metric.name: metric for metric in metrics}
        self.margins = margins

    @property
    def readers(self) -> dict[str, Reader]:
        """One reader a metric, in the order of the metrics."""
        return self._readers

    @cached_property
    def _readers(self) -> dict[str, Reader]:
        rows = [self.held] * self.many
        return {name: Reader(rows, metric.metric) for name, metric in self.metrics.items()}

    def measure(self, metric: str, outcomes: Sequence[LearnerOutcome]) -> MeasuredArm:
        """Measure one arm, from its outcome in each replicate."""
        read = self.metrics[metric].read
        values = [
            read(self.labels, one.scores("test", self.domain)) for one in outcomes[: self.many]
        ]
        return self.readers[metric].measure(values)

    def margin_of(self, metric: str, solo: float | None) -> float:
        """Give the margin in the metric's own unit."""
        if self.metrics[metric].larger_is_better:
            return self.margins[metric]
        return self.margins[metric] * (abs(solo or 0.0) or 1.0)


class LearnerStudy(AbstractStudy[LearnerTraining, LearnerOutcome]):
    """The parts of a learner's diagnosis.

    ``rows``: by domain, the test rows. ``labels``, ``checked``: by domain, the labels of the test
    rows and of the validation rows.
    """

    def __init__(
        self,
        *,
        phases: LearnerPhases,
        engine: LearnerEngine,
        metrics: Sequence[LearnerMetric],
        margins: Mapping[str, float],
        rows: Mapping[str, Replicate],
        labels: Mapping[str, np.ndarray],
        checked: Mapping[str, np.ndarray],
        clustered: bool,
        notes: Sequence[str],
        tell: Callable[[str, float | None], None],
    ) -> None:
        words = [metric.words for metric in metrics]
        super().__init__(phases=phases, engine=engine, metrics=words, tell=tell)
        self.learner_phases, self.learner_metrics, self.margins = phases, metrics, margins
        self.rows, self.labels, self.checked = rows, labels, checked
        self.clustered, self.notes = clustered, tuple(notes)

    @property
    def replicates(self) -> Literal["seeds", "folds"]:
        """Seeds: the rows are split by whoever brings them."""
        return "seeds"

    @property
    def macro_margin(self) -> float:
        """The mean of the domains' margins."""
        margins = []
        for name in self.measured.names:
            reading = self.reading(name)
            solo = reading.measure(self.lead, self.arm_outcomes[name]["solo"]).mean
            margins.append(reading.margin_of(self.lead, solo))
        return float(np.mean(margins))

    def reading(self, name: str, replicates: int | None = None) -> LearnerReading:
        """Give the test rows of a domain as the metrics read them."""
        many = replicates or self.level.seeds
        return LearnerReading(
            name, self.labels[name], self.rows[name], many, self.learner_metrics, self.margins
        )

    def best(self, outcomes: Sequence[LearnerOutcome]) -> LearnerTraining:
        """Give the training with the best mean over the watched domains; of equals, the first."""
        if len(outcomes) == 1:
            return outcomes[0].training
        means = [
            np.nanmean([self.on_validation(one, name, 0) for name in one.training.watch])
            for one in outcomes
        ]
        return outcomes[int(np.argmax(means))].training

    def on_validation(self, outcome: LearnerOutcome, domain: str, k: int) -> float:  # noqa: ARG002
        """Give the leading metric on validation rows, more being better; nan without labels."""
        labels, metric = self.checked.get(domain), self.learner_metrics[0]
        if labels is None:
            return float("nan")
        values = metric.read(labels, outcome.scores("validation", domain))
        if metric.name == "auc":
            return auc(values, labels)
        return float(values.mean()) * (1.0 if metric.larger_is_better else -1.0)

    def seen(self, name: str) -> Mapping[str, Effect | None]:  # noqa: ARG002
        """Nobody can tell which rows of a learner hold nothing new."""
        return dict.fromkeys(self.margins)

    def parameters(self, width: LearnerWidth) -> int:
        """Count the values in the joint state."""
        return self.engine.outcome(self.phases.at_width(0, width, None)).values

    def note(self, weighting: str, outcomes: Sequence[LearnerOutcome]) -> str | None:  # noqa: ARG002
        """Nothing is known of a learner's weightings."""
        return None

    def flags(self, name: str) -> list[str]:
        """Say where every seed came to the same scores."""
        solos = [one.scores("test", name) for one in self.arm_outcomes[name]["solo"]]
        if all(np.array_equal(solos[0], other) for other in solos[1:]):
            return [
                "every seed gives the same solo: intervals of N cover retraining of joint alone"
            ]
        return []

    def plan(self) -> DiagnosisPlan:
        """Tell what will be trained. Nobody can tell how long a learner takes."""
        phases, seen, missing = self.planned()
        if "choices of batch and rate" in phases:
            one = phases.pop("choices of batch and rate")
            phases = {"settings, on the first seed": one, **phases}
        return DiagnosisPlan(
            level=self.level.name,
            table=type(self.learner_phases.learner).__name__,
            split="given",
            replicates=self.replicates,
            seeds=self.level.seeds,
            jobs=1,
            phases=phases,
            cached=len(seen) - len(missing),
            seconds=None,
            measured=self.measured.names,
            left_out=self.measured.left_out,
            sampled=self.measured.sampled,
        )

    def told_plan(self, plan: DiagnosisPlan) -> dict[str, Any]:
        """Give the ``plan`` of the report."""
        nothing = ("jobs", "threads", "monitor", "looks_per_epoch", "choices", "item", "torch")
        return {
            "level": self.level.name,
            "table": plan.table,
            "split": plan.split,
            "replicates": plan.replicates,
            "seeds": plan.seeds,
            "trainings": self.engine.trained + self.engine.cached,
            "trained": self.engine.trained,
            "cached": self.engine.cached,
            "estimate_seconds": None,
            "seconds": round(time.perf_counter() - self.began, 1),
            **dict.fromkeys(nothing),
            "stage_two": self._told_stages(),
            "measured": list(self.measured.names),
            "left_out": dict(self.measured.left_out),
            "sampled": plan.sampled,
            "clusters": "clusters" if self.clustered else "row",
            "notes": [*self.notes, *self._told_settings()],
            "isthmus": VERSION,
        }

    def _told_stages(self) -> dict[str, Any] | None:
        if not self.level.stages:
            return None
        return {
            name: {
                "steps": self.learner_phases.steps(name),
                "looks": None,
                "batch_rows": None,
                "lr": None,
            }
            for name in self.measured.names
        }

    def _told_settings(self) -> list[str]:
        """Say which setting each arm took, where the learner has several."""
        settings = self.learner_phases.settings
        if len(settings) == 1:
            return []
        chosen = self.learner_phases.chosen
        told = {
            arm: next(n for n, of in settings.items() if of is one) for arm, one in chosen.items()
        }
        solos = ", ".join(f"{arm} {name}" for arm, name in told.items() if arm is not None)
        return [
            f"settings chosen on validation rows, of {', '.join(settings)}: joint {told[None]}; alone {solos}"
        ]

    def told_margins(self) -> dict[str, Any]:
        """Give the metrics with their margins."""
        return {
            "margin": self.margins[self.lead],
            "margin_logloss": None,
            "metrics": [asdict(one) | {"margin": self.margins[one.key]} for one in self.metrics],
        }
