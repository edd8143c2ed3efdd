"""The study: a diagnosis from the plan over the choices to the arms. Each training is run once.

A study knows no model. Its phases list trainings, its engine turns them into outcomes, and its
readings measure outcomes on test rows. `isthmus.diagnosis.study` has the study of our own networks,
`isthmus.diagnosis.learners` the study of any other learner.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from isthmus.diagnosis.abstract_phases import AbstractPhases
from isthmus.diagnosis.abstract_reading import AbstractReading
from isthmus.diagnosis.level import Level
from isthmus.diagnosis.support import Measured
from isthmus.metrics.effects import Effect
from isthmus.metrics.equivalence import with_holm
from isthmus.report.diagnosis.words import MetricWords, duration

T = TypeVar("T")  # a training
O = TypeVar("O")  # noqa: E741  an outcome

Asked = TypeVar("Asked", contravariant=True)  # a training, where it is only taken in

# What an adapter and what tuning add to longer joint training.
REMEDIES = ("adapted_plus", "interference")
SHOWN = 10  # domains that a plan names one by one


class TrainingEngine(Protocol[Asked, O]):
    """What runs trainings. Each training is run once, and its outcome is kept."""

    trained: int
    cached: int
    jobs: int

    def path(self, training: Asked) -> Path:
        """Give the place of a training's outcome, whether it is there or not."""
        ...

    def is_done(self, training: Asked) -> bool:
        """Whether the outcome is there."""
        ...

    def outcome(self, training: Asked) -> O:
        """Give the outcome of a finished training."""
        ...

    def run(self, trainings: Iterable[Asked], what: str) -> list[O]:
        """Train what is missing, and give the outcomes in the order of ``trainings``."""
        ...


@dataclass(frozen=True, slots=True)
class DiagnosisPlan:
    """What a diagnosis will train, and about how long that takes.

    ``phases``: the number of trainings of each phase, in order. ``cached``: how many trainings are
    finished already, among those that can be named before the choices are made. ``seconds``: the
    expected time of all others; None where nobody can tell. ``measured``: the domains that are
    trained alone. ``left_out``: why every other domain is not. ``sampled``: which domains were
    drawn, where there are too many.
    """

    level: str
    table: str
    split: str
    replicates: str
    seeds: int
    jobs: int
    phases: dict[str, int]
    cached: int
    seconds: float | None
    measured: tuple[str, ...]
    left_out: dict[str, str]
    sampled: str | None

    @property
    def trainings(self) -> int:
        """The number of all trainings."""
        return sum(self.phases.values())

    def __str__(self) -> str:
        names = ", ".join(self.measured[:12]) + (", ..." if len(self.measured) > 12 else "")
        lines = [
            f"{self.level} diagnosis of {len(self.measured)} domains ({names})",
            f"table {self.table}, {self.split} split, {self.seeds} {self.replicates}",
            *(f"  {count:5,} trainings: {phase}" for phase, count in self.phases.items()),
            f"  {self.trainings:5,} in all, {self.cached:,} of them finished before",
        ]
        if self.seconds is not None:
            told = f"about {duration(self.seconds)} with {self.jobs} processes of one thread each"
            lines.append(told)
        left_out = [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        lines += left_out[:SHOWN]
        lines += [f"left out: {len(left_out) - SHOWN:,} more"] if left_out[SHOWN:] else []
        lines += [self.sampled] if self.sampled else []
        return "\n".join(lines)


class AbstractStudy(ABC, Generic[T, O]):
    """The parts of one diagnosis, and what the diagnosis has found so far.

    ``metrics``: the first one leads. ``choices``: the outcomes of each grid. ``arm_outcomes``: by
    domain and arm, one for each replicate.
    """

    def __init__(
        self,
        *,
        phases: AbstractPhases[T, Any],
        engine: TrainingEngine[T, O],
        metrics: Sequence[MetricWords],
        tell: Callable[[str, float | None], None],
    ) -> None:
        self.phases, self.engine, self.metrics, self.tell = phases, engine, tuple(metrics), tell
        self.measured: Measured = phases.measured
        self.level: Level = phases.level
        self.began = time.perf_counter()
        self.choices: dict[str | None, list[O]] = {}
        self.arm_outcomes: dict[str, dict[str, list[O]]] = {}
        self.joint: list[O] = []

    @property
    def lead(self) -> str:
        """The metric that leads."""
        return self.metrics[0].key

    @property
    @abstractmethod
    def replicates(self) -> Literal["seeds", "folds"]:
        """What a replicate is."""

    @property
    @abstractmethod
    def macro_margin(self) -> float:
        """The margin of a mean over domains, in the metric that leads."""

    @abstractmethod
    def reading(self, name: str, replicates: int | None = None) -> AbstractReading[O]:
        """Give the test rows of a domain as the metrics read them.

        ``replicates``: how many, by default all replicates of N.
        """

    @abstractmethod
    def best(self, outcomes: Sequence[O]) -> T:
        """Give the training of a grid whose outcome is the best on validation rows."""

    @abstractmethod
    def on_validation(self, outcome: O, domain: str, k: int) -> float:
        """Give the leading metric on a domain's validation rows, signed so that more is better.

        nan where it is undefined.
        """

    @abstractmethod
    def seen(self, name: str) -> Mapping[str, Effect | None]:
        """Give by metric the net effect on test rows that hold nothing new to the solo.

        None where nobody can tell which rows these are.
        """

    @abstractmethod
    def parameters(self, width: Any) -> int:
        """Give the number of parameters of the joint model at a point of the capacity curve."""

    @abstractmethod
    def note(self, weighting: str, outcomes: Sequence[O]) -> str | None:
        """Say what is odd about the trainings under a weighting, or None."""

    def planned(self) -> tuple[dict[str, int], list[T], list[T]]:
        """Count the trainings of each phase; give all of them once, and those still to be run.

        The recipes are those that are known so far.
        """
        if all(self.engine.is_done(t) for grid in self.phases.choices().values() for t in grid):
            self.choose()
        seen: dict[str, T] = {}
        phases = {}
        for phase, trainings in self.phases.planned().items():
            new = {self.engine.path(t).name: t for t in trainings}
            new = {key: training for key, training in new.items() if key not in seen}
            if new:
                phases[phase] = len(new)
            seen |= new
        missing = [training for training in seen.values() if not self.engine.is_done(training)]
        return phases, list(seen.values()), missing

    def choose(self) -> None:
        """Train the grids of the first replicate and keep the best of each on validation."""
        grids = self.phases.choices()
        outcomes = self.engine.run([t for grid in grids.values() for t in grid], "choices")
        at = 0
        for name, grid in grids.items():
            self.choices[name] = outcomes[at : at + len(grid)]
            at += len(grid)
            self.phases.choose(name, self.best(self.choices[name]))

    def train_arms(self) -> None:
        """Train the arms: solo and joint, and what else the level has.

        Solo and joint give the net effect N. The second stages give transfer T and interference I.
        """
        phases, names = self.phases, self.measured.names
        self.engine.run(phases.first_stage(), "solo and joint")
        self.joint = [self.engine.outcome(phases.joint(k)) for k in phases.seeds]
        for name in names:
            solos = [self.engine.outcome(phases.solo(k, name)) for k in phases.seeds]
            self.arm_outcomes[name] = {"joint": self.joint, "solo": solos}
        if self.level.stages:
            self.engine.run(phases.second_stage(), "transfer and interference")
            for name in names:
                staged = [phases.stage_two(k, name) for k in phases.seeds]
                for arm in staged[0]:
                    outcomes = [self.engine.outcome(stage[arm]) for stage in staged]
                    self.arm_outcomes[name][arm] = outcomes
        if self.level.adapted:
            adapted = self.engine.run(phases.adapted(), "adapted")
            for name in names:
                self.arm_outcomes[name]["adapted"] = adapted

    def effects(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Give levels and effects, by domain and metric.

        Holm's p is filled in for two families of effects: for the net effect over all domains, and
        for what remedies add to longer joint training over all remedies and domains.
        """
        found = {
            name: self.reading(name).effects(self.arm_outcomes[name])
            for name in self.measured.names
        }
        for name in found:
            seen = self.seen(name)
            for metric in self.metrics:
                found[name][metric.key]["net_seen"] = seen[metric.key]
        for metric in self.metrics:
            for family in (("net",), REMEDIES):
                looks = {
                    (name, key): effect
                    for name in found
                    for key in family
                    if isinstance(effect := found[name][metric.key][key], Effect)
                }
                for (name, key), effect in with_holm(looks).items():
                    found[name][metric.key][key] = effect
        return found

    @abstractmethod
    def flags(self, name: str) -> list[str]:
        """Say what makes a domain's numbers less sure."""

    @abstractmethod
    def told_plan(self, plan: DiagnosisPlan) -> dict[str, Any]:
        """Give the ``plan`` of the report."""

    @abstractmethod
    def told_margins(self) -> dict[str, Any]:
        """Give ``margin``, ``margin_logloss`` and ``metrics`` of the report."""


def named(effects: Mapping[str, Any]) -> dict[str, Any]:
    """Give plain values of levels and effects."""
    return {
        name: value.to_dict() if isinstance(value, Effect) else value
        for name, value in effects.items()
    }
