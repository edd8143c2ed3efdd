"""fit() under a guard: several trainings, a choice for each domain, one bundle of what was chosen.

Finished trainings lie in ``RUN/trainings`` until the bundle is written, so a killed run goes on
where it stopped. Test rows are looked at when all is chosen. They say what the choice gained and
cost.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from isthmus.bundle import Bundle, Part, fit_detector
from isthmus.bundle.calibration import Calibration
from isthmus.bundle.profile import Profile
from isthmus.config import Config
from isthmus.data import Dataset, SplitName, Table
from isthmus.data.store.rows import stopping_half
from isthmus.errors import ConfigError
from isthmus.experiments import Engine, Training
from isthmus.metrics import ScoredRows, evaluate_rows
from isthmus.printable import printable
from isthmus.report import to_markdown
from isthmus.run.external import group_numbers
from isthmus.run.fit_plan import FitPlan
from isthmus.run.folder import RunState, trackers_of
from isthmus.run.guard.candidates import Candidates, TrainedArms
from isthmus.run.guard.choosing import Choice, Guard, Judged, choose, quantile
from isthmus.run.guard.gains import (
    guard_content,
    guard_table,
    measure_gains,
    other_guard,
    served,
    write_guard,
)
from isthmus.run.notice import Listener, Notice
from isthmus.run.reporting.ended import Ended
from isthmus.run.result import Run
from isthmus.run.scores import SplitScores
from isthmus.run.texts import unlabelled_text, weightless_text

# A joint model better by .02 AUC passes strict in about half of domains with so many (docs/training.md).
FEW_ROWS = 1_000


def check_guard(config: Config, guard: str) -> None:
    """Raise ConfigError where a config cannot be trained under that guard."""
    if guard not in ("strict", "balanced"):
        raise ConfigError(f"guard must be strict or balanced, got {guard!r}")
    if (why := config.model.unsound) is not None:
        raise ConfigError(f"a guard ships models that are served, but {why}")
    if (method := config.train.method.name) != "joint":
        raise ConfigError(
            "a guard compares joint, adapted, tuned and solo trainings, so train.method must be"
            f" 'joint', got {method!r}"
        )
    if config.data.weight is not None:
        raise ConfigError(
            "a guard decides by the standard error of an AUC, which holds for rows without weights"
            f" only, so data.weight must be left out, got {config.data.weight!r}"
        )


class GuardedFit:
    """One guarded fit with its run folder. ``jobs``: how many trainings run side by side."""

    def __init__(
        self,
        config: Config,
        table: Table,
        dataset: Dataset,
        plan: FitPlan,
        guard: Guard,
        *,
        jobs: int,
        tell: Listener,
    ) -> None:
        self.config, self.dataset, self.plan, self.tell = config, dataset, plan, tell
        self.guard: Guard = guard
        self.jobs = jobs
        self.folder = plan.folder
        self.scores = SplitScores(config, dataset, table, self.folder)
        self.trainings = self.folder.path / "trainings"
        self.candidates = Candidates(config, dataset)
        self.state = RunState.running(
            dataset, table, guard=guard, trunk=plan.trunk, recipe=plan.told_recipe
        )

    def run(self) -> Run:
        """Train, choose and fill the folder. A fault before any training is done leaves none."""
        began = time.perf_counter()
        self.plan.make_folder()
        with (
            self.folder.locked(),
            self.folder.kept_where(
                lambda: any(self.trainings.glob("[!.]*/outcome.json")), self.tell
            ),
        ):
            if not self.plan.begun:
                self.folder.begin(self.config, self.state)
            self.trackers = trackers_of(self.config, self.folder, (), self.tell)
            with (
                self.trackers.following(),
                Engine([self.dataset], self.trainings, jobs=self.jobs, tell=self._count) as engine,
            ):
                arms = self._train(engine)
                self._finish(arms, engine, time.perf_counter() - began)
                self.trackers.keep()
        return Run.open(self.folder.path)

    def _count(self, what: str, done: int, of: int, training: Training) -> None:
        del training
        self.tell(Notice("train", f"{what}: {done} of {of} trainings", done / of))

    def _train(self, engine: Engine) -> TrainedArms:
        solos = len(self.candidates.grids)
        self.tell(
            Notice(
                "train",
                f"guard {self.guard}: up to {len(self.candidates)} trainings: {self._arms()}",
            )
        )
        few = self._short_of_rows() if self.guard == "strict" else 0
        if few:
            self.tell(
                Notice(
                    "train",
                    f"{few} of {solos} domains have fewer than {FEW_ROWS:,} validation rows to decide"
                    " by, too few to be sure of most gains: strict will leave many of these alone,"
                    " also where sharing helps",
                )
            )
        return self.candidates.train(engine)

    def _arms(self) -> str:
        """Say what is trained."""
        each = f"for each of {len(self.candidates.grids)} domains"
        if self.candidates.adapted is None:
            return f"joint, and {each} 1 solo"
        return f"joint, adapted, and {each} up to 4 solo and 1 tuned"

    def _short_of_rows(self) -> int:
        """Count the domains with so few deciding rows that strict lets few true gains through."""
        rows = self.dataset.rows("validation")
        deciding = np.asarray(rows.domain)[~stopping_half(rows)]
        counts = np.bincount(deciding, minlength=len(self.dataset.domain_names) + 1)[1:]
        named = zip(self.dataset.domain_names, counts, strict=True)
        return sum(name in self.candidates.grids and count < FEW_ROWS for name, count in named)

    def _finish(self, arms: TrainedArms, engine: Engine, seconds: float) -> None:
        """Choose, write what is shipped, and mark the run as finished."""
        self.tell(Notice("score", "choosing what serves each domain"))
        validation = arms.logits("validation", self.dataset)
        rows = self.dataset.rows("validation")
        deciding = self._judged("validation", validation, ~stopping_half(rows))
        choices = choose(deciding, guard=self.guard, no_solo=arms.no_solo)
        other = choose(deciding, guard=other_guard(self.guard), no_solo=arms.no_solo)
        scored = self._scored("validation", validation, choices)
        del validation, deciding
        calibration = self.scores.calibration(scored)
        profile = self.scores.profile(scored, calibration)
        bundle = self._bundle(arms, choices, calibration, profile)
        bundle.save(self.folder.bundle)
        self.scores.write(bundle, scored)
        test = arms.logits("test", self.dataset)
        scored = self.scores.write(bundle, self._scored("test", test, choices))
        gains = measure_gains(self._judged("test", test, None), choices, other)
        z = quantile(len(self.candidates.grids))
        content = guard_content(self.guard, choices, other, gains, z=z)
        content["trainings"] = {"trained": engine.trained, "cached": engine.cached}
        write_guard(self.folder.path, content)
        evaluation, table = evaluate_rows(scored), guard_table(content)
        self.trackers.tested(evaluation, arms.joint.told.steps)
        parts = (to_markdown(evaluation), to_markdown(table))
        self.folder.write_report("\n\n".join([*parts, "\n".join(self._facts(arms, engine))]))
        joint = arms.joint.told
        models = [bundle.model, *(part.model for part in bundle.parts.values())]
        state = replace(
            self.state,
            state="finished",
            parameters=sum(model.parameter_report().total for model in models),
            best_step=joint.best_step,
            steps=joint.steps,
            stopped=joint.stopped,
            seconds=round(seconds, 3),
        )
        ended = Ended(self.folder, self.config, state, self.dataset, bundle, self.tell)
        ended.write_page(scored, evaluation, gates=None, epochs=joint.epochs, guard=table)
        self.folder.write_state(state)
        shutil.rmtree(self.trainings, ignore_errors=True)  # the bundle holds what was chosen

    def _facts(self, arms: TrainedArms, engine: Engine) -> Iterator[str]:
        """Give the lines of the report that tell of the trainings."""
        train = self.config.train
        if self.state.recipe:
            yield f"- Recipe: {printable(self.state.recipe)}."
        yield (
            f"- Trainings: {engine.trained} trained, {engine.cached} found from before; monitor"
            f" {train.monitor}, seed {train.seed}; half of the validation rows stopped them, half"
            " decided."
        )
        if arms.adapted is None:
            yield "- Trees: no domain is adapted or tuned; a solo is the forest of its own rows."
        else:
            steps = arms.joint.told.steps, arms.adapted.told.steps
            yield f"- Joint: {steps[0]:,} steps, adapted: {steps[1]:,}."
            yield from _solo_facts(arms)
        if self.dataset.weightless:
            yield f"- {weightless_text(self.dataset)}."
        if self.dataset.config.keeps_unlabelled:
            yield f"- {unlabelled_text(self.dataset)}."

    def _judged(
        self, split: SplitName, logits: Mapping[str, np.ndarray], kept: np.ndarray | None
    ) -> Judged:
        rows = self.dataset.rows(split)
        at = slice(None) if kept is None else np.flatnonzero(kept)
        group = group_numbers(rows.group)
        return Judged(
            label=np.asarray(rows.label)[at] > 0,
            domain=np.asarray(rows.domain)[at].astype(np.int64),
            names=self.dataset.domain_names,
            logits={arm: values[at] for arm, values in logits.items()},
            cluster=None if group is None else group[at],
        )

    def _scored(
        self, split: SplitName, logits: Mapping[str, np.ndarray], choices: Sequence[Choice]
    ) -> ScoredRows:
        domain = np.asarray(self.dataset.rows(split).domain).astype(np.int64)
        return self.scores.of(split, served(logits, choices, domain))

    def _bundle(
        self,
        arms: TrainedArms,
        choices: Sequence[Choice],
        calibration: Calibration | None,
        profile: Profile,
    ) -> Bundle:
        """Bundle joint for every domain, and the other models that were chosen."""
        parts: dict[str, Part] = {}
        routes: dict[str, str] = {}
        for choice in choices:
            if choice.arm == "joint":
                continue
            name = choice.arm if choice.arm == "adapted" else f"{choice.arm}:{choice.domain}"
            routes[choice.domain] = name
            if name not in parts:
                outcome = arms.outcome(choice.arm, choice.domain)
                training = outcome.training
                known = training.subset(self.dataset).known
                parts[name] = Part(outcome.model(), training.model, known)
        return Bundle(
            config=self.config.model_copy(update={"model": self.candidates.joint.model}),
            encoder=self.dataset.encoder,
            model=arms.joint.model(),
            calibration=calibration,
            parts=parts,
            routes=routes,
            detector=fit_detector(self.config, self.dataset),
            profile=profile,
        )


def _solo_facts(arms: TrainedArms) -> Iterator[str]:
    """Give the lines of the report that tell how each solo was trained."""
    for name, outcome in arms.solo.items():
        chosen = outcome.training.train
        capped = ", at the epoch cap" if outcome.told.stopped == "epochs" else ""
        yield (
            f"- Solo {printable(name)}: batch {chosen.batch_rows}, lr {chosen.lr:g},"
            f" {outcome.told.steps:,} steps{capped}."
        )
