"""The study: a diagnosis from the plan over the choices to the arms. Each training is run once."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from isthmus.config import Config
from isthmus.data.store.dataset import Dataset
from isthmus.diagnosis.level import Level
from isthmus.diagnosis.phases import Phases
from isthmus.diagnosis.reading import METRICS, DomainReading, Margins, ReplicateRows
from isthmus.diagnosis.recipes import ArmTrainings, Recipe
from isthmus.diagnosis.support import Measured
from isthmus.experiments import Engine, Outcome, Training
from isthmus.experiments.arms import best, has_adapter
from isthmus.experiments.cost import Pace, steps
from isthmus.metrics.effects import Effect
from isthmus.metrics.equivalence import with_holm
from isthmus.report.diagnosis.words import duration
from isthmus.version import VERSION

# What an adapter and what tuning add to longer joint training.
REMEDIES = ("adapted_plus", "interference")
SHOWN = 10  # domains that a plan names one by one


@dataclass(frozen=True, slots=True)
class DiagnosisPlan:
    """What a diagnosis will train, and about how long that takes.

    ``phases``: the number of trainings of each phase, in order. ``cached``: how many trainings are
    finished already, among those that can be named before the choices are made. ``seconds``: the
    expected time of all others. ``measured``: the domains that are trained alone. ``left_out``: why
    every other domain is not. ``sampled``: which domains were drawn, where there are too many.
    """

    level: str
    table: str
    split: str
    replicates: str
    seeds: int
    jobs: int
    phases: dict[str, int]
    cached: int
    seconds: float
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
            f"about {duration(self.seconds)} with {self.jobs} processes of one thread each",
        ]
        left_out = [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        lines += left_out[:SHOWN]
        lines += [f"left out: {len(left_out) - SHOWN:,} more"] if left_out[SHOWN:] else []
        lines += [self.sampled] if self.sampled else []
        return "\n".join(lines)


class Study:
    """The parts of one diagnosis, and what the diagnosis has found so far.

    ``datasets``: one for each replicate where replicates are folds, otherwise a single one.
    ``config``: the config of the encoded rows. ``original``: the user's own config.
    """

    def __init__(
        self,
        *,
        original: Config,
        config: Config,
        datasets: Sequence[Dataset],
        measured: Measured,
        level: Level,
        engine: Engine,
        margins: Margins,
        item: str | None,
        tell: Callable[[str, float | None], None],
    ) -> None:
        self.original, self.config = original, config
        self.measured, self.level, self.margins, self.item = measured, level, margins, item
        self.engine, self.tell = engine, tell
        self.folds = len(datasets) > 1
        hide = original.data.domain not in original.data.features
        self.arms = ArmTrainings(config, datasets, hide_domain=hide)
        self.phases = Phases(self.arms, measured, level)
        per_replicate = [self.arms.dataset(k) for k in range(level.seeds)]
        self.rows = ReplicateRows(per_replicate, item)
        self.began = time.perf_counter()
        self.pace = Pace(1.0)
        self.work = 0.0
        self.done_work = 0.0
        self.choices: dict[str | None, list[Outcome]] = {}
        self.arm_outcomes: dict[str, dict[str, list[Outcome]]] = {}
        self.joint: list[Outcome] = []

    def plan(self, pace: Pace) -> DiagnosisPlan:
        """Tell what will be trained, by the recipes that are known so far."""
        if all(self.engine.is_done(t) for grid in self.phases.choices().values() for t in grid):
            self.choose()
        planned = self.phases.planned()
        seen: dict[str, Training] = {}
        phases = {}
        for phase, trainings in planned.items():
            new = {self.engine.path(t).name: t for t in trainings}
            new = {key: training for key, training in new.items() if key not in seen}
            if new:
                phases[phase] = len(new)
            seen |= new
        missing = [training for training in seen.values() if not self.engine.is_done(training)]
        self.pace = pace
        self.work = sum(pace.work(t, self.arms.dataset(t.replicate)) for t in missing)
        return DiagnosisPlan(
            level=self.level.name,
            table=Path(self.original.data.table or "(given)").name,
            split=self.config.data.split.by,
            replicates="folds" if self.folds else "seeds",
            seeds=self.level.seeds,
            jobs=self.engine.jobs,
            phases=phases,
            cached=len(seen) - len(missing),
            seconds=pace.seconds(missing, self.arms.datasets, self.engine.jobs),
            measured=self.measured.names,
            left_out=self.measured.left_out,
            sampled=self.measured.sampled,
        )

    def progress(self, what: str, done: int, of: int, training: Training) -> None:
        """Tell how far the trainings are, and how long the rest may take."""
        self.done_work += self.pace.work(training, self.arms.dataset(training.replicate))
        spent = time.perf_counter() - self.began
        share = min(self.done_work / self.work, 0.999) if self.work else 0.999
        left = spent * (1 - share) / max(share, 1e-9)
        self.tell(f"{what}: {done} of {of}; about {duration(left)} left", share)

    def choose(self) -> None:
        """Train the grids of the first replicate and keep the best of each on validation."""
        grids = self.phases.choices()
        outcomes = self.engine.run([t for grid in grids.values() for t in grid], "choices")
        at = 0
        for name, grid in grids.items():
            self.choices[name] = outcomes[at : at + len(grid)]
            at += len(grid)
            self.phases.recipes[name] = Recipe.of(best(self.choices[name]).training)

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

    def reading(self, name: str, replicates: int | None = None) -> DomainReading:
        """Give the test rows of a domain as the metrics read them.

        ``replicates``: how many, by default all replicates of N.
        """
        return DomainReading(self.rows, name, replicates or self.level.seeds, self.margins)

    def effects(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Give levels and effects, by domain and metric.

        Holm's p is filled in for two families of effects: for the net effect over all domains, and
        for what remedies add to longer joint training over all remedies and domains.
        """
        found = {
            name: dict(self.reading(name).effects(self.arm_outcomes[name]))
            for name in self.measured.names
        }
        for name in found:
            seen = self._seen(name)
            for metric in METRICS:
                found[name][metric]["net_seen"] = seen[metric]
        for metric in METRICS:
            for family in (("net",), REMEDIES):
                looks = {
                    (name, key): effect
                    for name in found
                    for key in family
                    if isinstance(effect := found[name][metric][key], Effect)
                }
                for (name, key), effect in with_holm(looks).items():
                    found[name][metric][key] = effect
        return found  # type: ignore[return-value]

    def _seen(self, name: str) -> dict[str, Effect]:
        """Give the net effect on the test rows whose values the solo had all seen."""
        arms = self.arm_outcomes[name]
        keep = [self.rows.seen(name, k, solo) for k, solo in enumerate(arms["solo"])]
        reading = DomainReading(self.rows, name, self.level.seeds, self.margins, keep=keep)
        if not any(mask.any() for mask in keep):
            why = "no test row holds only values that the solo had seen"
            return {metric: Effect(None, reason=why) for metric in METRICS}
        return {
            metric: reading.difference(arms["joint"], arms["solo"], metric) for metric in METRICS
        }

    def flags(self, name: str) -> list[str]:
        """Say what makes a domain's numbers less sure."""
        solos = self.arm_outcomes[name]["solo"]
        capped = sum(one.told.stopped == "epochs" for one in solos)
        told = []
        if capped:
            told.append(f"{capped} of {len(solos)} solos ended at the epoch cap, not by patience")
        restarts = sum(one.told.restarts for arm in self.arm_outcomes[name].values() for one in arm)
        if restarts:
            told.append(
                f"{restarts} restarts from other first weights: the network had answered every row"
                " alike"
            )
        if any(one.training.train.monitor != self.config.train.monitor for one in solos):
            told.append(
                f"solo chosen by logloss: {self.config.train.monitor} is undefined on its"
                " validation rows"
            )
        return told

    def told_plan(self, plan: DiagnosisPlan) -> dict[str, Any]:
        """Give the ``plan`` of the report."""
        train = self.config.train
        choices = {
            name: self._told_choice(name, outcomes) for name, outcomes in self.choices.items()
        }
        return {
            "level": self.level.name,
            "table": plan.table,
            "split": plan.split,
            "replicates": plan.replicates,
            "seeds": plan.seeds,
            "trainings": self.engine.trained + self.engine.cached,
            "trained": self.engine.trained,
            "cached": self.engine.cached,
            "estimate_seconds": round(plan.seconds, 1),
            "seconds": round(time.perf_counter() - self.began, 1),
            "jobs": self.engine.jobs,
            "threads": 1 if self.engine.jobs > 1 else torch.get_num_threads(),
            "monitor": train.monitor,
            "looks_per_epoch": self.joint[0].training.train.looks_per_epoch,
            "choices": {
                "joint": choices[None],
                "solo": {name: choices[name] for name in self.measured.names},
            },
            "stage_two": self._told_stages(),
            "measured": list(self.measured.names),
            "left_out": dict(self.measured.left_out),
            "sampled": plan.sampled,
            "clusters": self.config.data.group or "row",
            "item": self.item,
            "notes": self._told_notes(),
            "isthmus": VERSION,
            "torch": torch.__version__,
        }

    def _told_choice(self, name: str | None, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Tell a recipe and those that were tried. Trees have no recipe."""
        if self.config.model.is_trees:
            return {}
        tried = [one.facts() for one in outcomes]
        return self.phases.recipes[name].to_dict() | {"tried": tried}

    def _told_stages(self) -> dict[str, Any] | None:
        if not self.level.stages:
            return None
        told = {}
        for name in self.measured.names:
            training = self.phases.stage_two(0, name)["tuned"]
            told[name] = {
                "steps": steps(training, self.arms.dataset(0)),
                "looks": training.budget.looks if training.budget else None,
                "batch_rows": training.train.batch_rows,
                "lr": training.train.lr,
            }
        return told

    def _told_notes(self) -> list[str]:
        told = []
        if self.config.data.group is None:
            told.append("no group column: rows are taken as independent")
        if self.config.data.weight is not None:
            told.append("rows have weights: AUCs have no interval, so logloss leads")
        told += self._told_rows()
        return told + self._told_arms()

    def _told_rows(self) -> list[str]:
        """Say which rows are not as a reader of the config would expect."""
        told = []
        if self.folds:
            told.append(
                f"small table: {self.level.seeds} folds in place of seeds, each with its own test"
                " rows, a fifth of the table"
            )
        elif (split := self.arms.dataset(0).config.split) != self.original.data.split:
            told.append(
                "small table: the first of the folds that a higher level takes, whose test rows are"
                f" {split.fractions[2]:.0%} of the table; the config's own split has"
                f" {self.original.data.split.fractions[2]:.0%}"
            )
        if self.config.data.negative_rate != 1.0:
            told.append(
                f"negatives were thinned to {self.config.data.negative_rate:g}: logloss is that of"
                " the table before, as in evaluate"
            )
        return told

    def _told_arms(self) -> list[str]:
        """Say which arms are not as a reader of the config would expect."""
        told, config = [], self.original
        if config.model.is_trees:
            return self._told_trees()
        if self.arms.hide_domain:
            but = ", but the forest reads it" if config.data.trees else ""
            told.append(f"the domain is no feature: no arm sees it as an input{but}")
        if has_adapter(config.model):
            told.append(
                f"the config's adapter, {config.model.adapter.name}, is worn by the adapted arm;"
                " the joint arm goes without"
            )
        if config.train.weighting != "proportional":
            told.append(
                f"every arm weighs rows alike; the config's weighting, {config.train.weighting}, is"
                " among those that level full compares"
            )
        return told

    def _told_trees(self) -> list[str]:
        """Say what is not measured of trees, and why."""
        told = []
        if self.level.name != "quick":
            told.append(
                "transfer T and interference I are not measured: trees have no second stage that"
                " goes on from other rows; nor are adapters, gradients and likeness, which need a"
                " network"
            )
        if self.level.dear:
            told.append(
                "capacity and weightings are not measured: trees have no widths and no losses to weigh"
            )
        if self.arms.hide_domain:
            told.append("the domain is no feature, but trees read it as a category all the same")
        if not self.folds:
            told.append(
                "trees are the same under every seed: intervals cover the draw of test rows alone"
            )
        return told


def named(effects: Mapping[str, Any]) -> dict[str, Any]:
    """Give plain values of levels and effects."""
    return {
        name: value.to_dict() if isinstance(value, Effect) else value
        for name, value in effects.items()
    }
