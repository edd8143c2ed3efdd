"""The study of our own networks: what is theirs in a diagnosis."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from isthmus.config import Config
from isthmus.data.store.dataset import Dataset
from isthmus.diagnosis.abstract_study import AbstractStudy, DiagnosisPlan
from isthmus.diagnosis.level import Level
from isthmus.diagnosis.phases import Phases, Width
from isthmus.diagnosis.reading import DomainReading, Margins, ReplicateRows
from isthmus.diagnosis.recipes import ArmTrainings
from isthmus.diagnosis.support import Measured
from isthmus.experiments import Engine, Outcome, Training
from isthmus.experiments.arms import best, has_adapter
from isthmus.experiments.cost import Pace, steps
from isthmus.experiments.outcome import build
from isthmus.metrics.effects import Effect
from isthmus.metrics.formulas.auc import auc
from isthmus.report.diagnosis.words import METRICS, duration
from isthmus.version import VERSION

DWA_BEGINS = 2  # epochs after which its weights leave those of uniform
SHORT_DWA = (
    "dwa weighs as uniform does for two epochs, and each of its trainings had its best look by then"
)


class Study(AbstractStudy[Training, Outcome]):
    """The parts of a diagnosis of our own networks.

    ``datasets``: one for each replicate where replicates are folds, otherwise a single one.
    ``forests``: the same rows as trees read them, where the level measures a new domain and trees can
    be grown; otherwise ``no_forests`` says why not.
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
        forests: Sequence[Dataset] = (),
        no_forests: str | None = None,
    ) -> None:
        self.folds = len(datasets) > 1
        hide = original.data.domain not in original.data.features
        self.arms = ArmTrainings(config, datasets, hide_domain=hide, forests=forests)
        self.no_forests = no_forests
        phases = Phases(self.arms, measured, level)
        super().__init__(phases=phases, engine=engine, metrics=list(METRICS.values()), tell=tell)
        self.phases, self.engine = phases, engine
        self.original, self.config, self.margins, self.item = original, config, margins, item
        per_replicate = [self.arms.dataset(k) for k in range(level.seeds)]
        self.rows = ReplicateRows(per_replicate, item)
        self.pace = Pace(1.0)
        self.work = 0.0
        self.done_work = 0.0

    @property
    def replicates(self) -> Literal["seeds", "folds"]:
        """Folds of a small table, seeds of any other."""
        return "folds" if self.folds else "seeds"

    @property
    def macro_margin(self) -> float:
        """The margin in AUC."""
        return self.margins.auc

    def plan(self, pace: Pace) -> DiagnosisPlan:
        """Tell what will be trained, by the recipes that are known so far."""
        phases, seen, missing = self.planned()
        self.pace = pace
        self.work = sum(pace.work(t, self.arms.datasets[t.replicate]) for t in missing)
        return DiagnosisPlan(
            level=self.level.name,
            table=Path(self.original.data.table or "(given)").name,
            split=self.config.data.split.by,
            replicates=self.replicates,
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
        self.done_work += self.pace.work(training, self.arms.datasets[training.replicate])
        spent = time.perf_counter() - self.began
        share = min(self.done_work / self.work, 0.999) if self.work else 0.999
        left = spent * (1 - share) / max(share, 1e-9)
        here = f", {self.engine.trained_here} by this process" if self.engine.is_shared else ""
        self.tell(f"{what}: {done} of {of}{here}; about {duration(left)} left", share)

    def best(self, outcomes: Sequence[Outcome]) -> Training:
        """Give the training with the best look by its monitor."""
        return best(outcomes).training

    def on_validation(self, outcome: Outcome, domain: str, k: int) -> float:
        """Give the AUC of a domain's validation rows."""
        held = self.rows.replicate(domain, k, "validation")
        return auc(outcome.logits("validation", domain), held.label)

    def parameters(self, width: Width) -> int:
        """Count the dense parameters of the network."""
        model = build(self.phases.at_width(0, width, None), self.arms.dataset(0))
        return model.parameter_report().dense

    def note(self, weighting: str, outcomes: Sequence[Outcome]) -> str | None:
        """Say where dwa had its best looks before its weights begin."""
        return SHORT_DWA if weighting == "dwa" and all(map(_is_short, outcomes)) else None

    def reading(self, name: str, replicates: int | None = None) -> DomainReading:
        """Give the test rows of a domain as the metrics read them.

        ``replicates``: how many, by default all replicates of N.
        """
        return DomainReading(self.rows, name, replicates or self.level.seeds, self.margins)

    def seen(self, name: str) -> dict[str, Effect]:
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
            "estimate_seconds": round(plan.seconds or 0.0, 1),
            "seconds": round(time.perf_counter() - self.began, 1),
            "jobs": self.engine.jobs,
            "threads": self.engine.threads,
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

    def told_margins(self) -> dict[str, Any]:
        """Give the margins in AUC and of logloss."""
        margins = {"auc": self.margins.auc, "logloss": self.margins.logloss}
        return {
            "margin": self.margins.auc,
            "margin_logloss": self.margins.logloss,
            "metrics": [asdict(one) | {"margin": margins[one.key]} for one in self.metrics],
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


def _is_short(outcome: Outcome) -> bool:
    """Whether the kept weights come from the first two epochs."""
    told = outcome.told
    return told.best_step * told.epochs <= DWA_BEGINS * told.steps * (1 + 1e-9)
