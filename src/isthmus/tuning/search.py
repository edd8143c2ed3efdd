"""The search: which point comes next, and what is kept of each trial, by Optuna.

First come the recipes of the portfolio, then TPE (Bergstra et al., NeurIPS 2011; multivariate:
Falkner et al., ICML 2018). TPE learns from all trials that ended, and ranks a trial that breaks the
constraint behind all that do not. Each proposal has a sampler of its own, seeded with the config's
seed and the number of trials that ended before. So a proposal follows from the trials that ended,
and a study that was killed proposes what an undisturbed one would have.

A trial of TPE is pruned after one epoch or later, where its best look so far is worse than three
quarters of the completed trials after the same share of an epoch. The median (Golovin et al., KDD
2017) would be too strict here. The bar rises with the search, a slow learner can still catch up, and
patience ends trainings that no longer get better. A recipe of the portfolio is never pruned: the
others are measured against it.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.pruners import PercentilePruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from isthmus.errors import BundleError
from isthmus.tuning.attempt import Attempt, SeenLook
from isthmus.tuning.constraint import TrialGain, worst_excess
from isthmus.tuning.portfolio import PortfolioRecipe, Value
from isthmus.tuning.ranges import Bounds, Options
from isthmus.tuning.space import Space
from isthmus.tuning.study_folder import StudyFolder

NAME = "isthmus"  # of the study in the journal
CONSTRAINT = "worst domain"
KEPT = 75.0  # percent of the completed trials, among which a trial must be to go on
MIN_COMPLETE = 5  # completed trials that pruning and TPE need
TOP_SHARE = 0.25  # of the completed trials: importances ask what makes a trial one of them
MIN_FOR_IMPORTANCE = 10  # completed trials of TPE: recipes change one thing at a time
SEEDS_APART = 100_003

State = Literal["complete", "pruned", "failed"]
STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial that ended.

    ``number``: its place among the trials that ended, from 0. ``recipe``: its name in the
    portfolio, None where TPE proposed it. ``score``: the monitor at the best look; of a pruned
    trial, at its best look so far. ``epoch``: epochs at the best look; of a pruned trial, at its
    last. ``feasible``: whether no domain is surely worse than in the reference; None where the
    trial was not compared. ``worst``: the domain that decides it. ``looks``: the monitor by the
    look's number, `moment_of`. ``reason``: why it failed.
    """

    number: int
    recipe: str | None
    state: State
    score: float | None
    epoch: float | None
    seconds: float
    params: dict[str, Value]
    changes: dict[str, Value]
    feasible: bool | None
    worst: str | None
    gains: dict[str, dict[str, Any]]
    looks: dict[int, float]
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values."""
        return asdict(self)


class Search:
    """The trials of one study. The caller must be the only writer of ``folder``."""

    def __init__(
        self,
        folder: StudyFolder,
        space: Space,
        recipes: Sequence[PortfolioRecipe],
    ) -> None:
        train = space.config.train
        self.space, self.recipes = space, tuple(recipes)
        self.minimised = train.monitor.startswith("logloss")
        self._seed = train.seed
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        _mend(folder)
        try:
            storage = JournalStorage(JournalFileBackend(str(folder.journal)))
            if NAME not in optuna.get_all_study_names(storage):
                way = "minimize" if self.minimised else "maximize"
                optuna.create_study(storage=storage, study_name=NAME, direction=way)
            pruner = PercentilePruner(
                KEPT,
                n_startup_trials=MIN_COMPLETE,
                n_warmup_steps=train.looks_per_epoch,
                n_min_trials=MIN_COMPLETE,
            )
            self._study = optuna.load_study(storage=storage, study_name=NAME, pruner=pruner)
        except (ValueError, KeyError, TypeError) as fault:
            raise BundleError(f"{folder.journal} is damaged: {fault}") from fault

    def queue_stopped(self) -> int:
        """Fail the trials of a process that ended in their middle, and queue them again.

        The journal has no heartbeat: it still calls such trials running. Gives their number.
        """
        running = self._trials(TrialState.RUNNING)
        for trial in running:
            self._study.tell(trial.number, state=TrialState.FAIL)
            # A process may end before it has asked for all values: the proposal comes again anyway.
            if trial.params.keys() == self.space.parameters.keys():
                self._queue(trial.params, trial.user_attrs.get("recipe"))
        return len(running)

    def next(self) -> "OpenTrial":
        """Give the next trial: what is queued, else the next recipe, else what TPE proposes."""
        ended = self._ended()
        if not self._trials(TrialState.WAITING):
            tried = {trial.user_attrs.get("recipe") for trial in ended}
            left = [recipe for recipe in self.recipes if recipe.name not in tried]
            if left:
                self._queue(self.space.params(left[0]), left[0].name)
        self._study.sampler = TPESampler(
            seed=(self._seed * SEEDS_APART + len(ended)) % 2**32,
            n_startup_trials=min(len(self.recipes), MIN_COMPLETE),
            multivariate=True,
            constant_liar=False,
        )
        trial = self._study.ask()
        parameters = self.space.parameters.items()
        params = {name: _suggested(trial, name, of) for name, of in parameters}
        return OpenTrial(self._study, trial, len(ended), params)

    @property
    def compared(self) -> bool:
        """Whether there is a reference: a trial that was completed."""
        return bool(self._trials(TrialState.COMPLETE))

    @property
    def seconds(self) -> float:
        """The time of all trials, also of those that were stopped in their middle."""
        return sum(trial.user_attrs.get("seconds", 0.0) for trial in self._trials())

    def records(self) -> list[TrialRecord]:
        """Give the trials that ended, in their order."""
        return [self._record(number, trial) for number, trial in enumerate(self._ended())]

    def best(self, records: Sequence[TrialRecord]) -> TrialRecord | None:
        """Give the best feasible completed trial, the first of equals; None where there is none."""
        held = [one for one in records if one.state == "complete" and one.feasible]
        if not held:
            return None
        sign = -1.0 if self.minimised else 1.0
        return max(held, key=lambda one: sign * (one.score or 0.0))

    def importances(self) -> dict[str, float] | None:
        """Give the share of each key in what makes a trial one of the best quarter, or None.

        PED-ANOVA (Watanabe et al., IJCAI 2023, arXiv:2304.10255), which needs no scikit-learn. The
        shares add up to 1. None: fewer than 10 completed trials of TPE. A recipe of the portfolio
        changes one thing or two, so recipes alone would make much of a key that few of them change.
        """
        complete = self._trials(TrialState.COMPLETE)
        if sum("recipe" not in trial.user_attrs for trial in complete) < MIN_FOR_IMPORTANCE:
            return None
        evaluator = PedAnovaImportanceEvaluator(target_quantile=TOP_SHARE)
        found = get_param_importances(self._study, evaluator=evaluator)
        return {name: float(share) for name, share in sorted(found.items(), key=lambda p: -p[1])}

    def _queue(self, params: Mapping[str, Value], recipe: str | None) -> None:
        told = {} if recipe is None else {"recipe": recipe}
        self._study.enqueue_trial(dict(params), user_attrs=told)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)

    def _ended(self) -> list[FrozenTrial]:
        """Give the trials that ended by themselves, in the order of their numbers."""
        return list(self._those_that_ended())

    def _those_that_ended(self) -> Iterator[FrozenTrial]:
        for trial in self._trials(*STATES):
            # A trial without a reason did not fail: its process was stopped.
            if trial.state != TrialState.FAIL or "reason" in trial.user_attrs:
                yield trial

    def _record(self, number: int, trial: FrozenTrial) -> TrialRecord:
        told = trial.user_attrs
        looks = dict(sorted(trial.intermediate_values.items()))
        score = trial.value if trial.state == TrialState.COMPLETE else None
        if trial.state == TrialState.PRUNED:
            score = (min if self.minimised else max)(looks.values())
        compared = "gains" in told
        return TrialRecord(
            number=number,
            recipe=told.get("recipe"),
            state=STATES[trial.state],
            score=score,
            epoch=told.get("epoch"),
            seconds=told.get("seconds", 0.0),
            params=dict(trial.params),
            changes=self.space.changes(trial.params),
            feasible=all(v <= 0 for v in trial.constraints.values()) if compared else None,
            worst=told.get("worst"),
            gains=told.get("gains", {}),
            looks=looks,
            reason=told.get("reason"),
        )


class OpenTrial:
    """A trial that is being trained. ``number``: as in `TrialRecord`; ``params``: its point."""

    def __init__(
        self, study: optuna.Study, trial: Trial, number: int, params: Mapping[str, Value]
    ) -> None:
        self._study, self._trial = study, trial
        self.number, self.params = number, params
        self.recipe: str | None = trial.user_attrs.get("recipe")

    def goes_on(self, look: SeenLook) -> bool:
        """Keep a look, and say whether the trial is worth going on with."""
        self._trial.report(look.score, look.moment)
        self._trial.set_user_attr("seconds", round(look.seconds, 3))
        self._trial.set_user_attr("epoch", look.epoch)
        return self.recipe is not None or not self._trial.should_prune()

    def complete(
        self, score: float, found: Attempt, gains: Mapping[str, TrialGain], seconds: float
    ) -> None:
        """End the trial with its score and its gains over the reference."""
        worst = worst_excess(gains)
        self._told(
            epoch=found.best.epoch,
            seconds=seconds,
            gains={name: one.to_dict() for name, one in gains.items()},
            worst=None if worst is None else worst[0],
        )
        if worst is not None:
            self._trial.set_constraint(CONSTRAINT, worst[1])
        self._study.tell(self._trial, score)

    def prune(self, seconds: float) -> None:
        """End the trial before its time."""
        self._told(seconds=seconds)
        self._study.tell(self._trial, state=TrialState.PRUNED)

    def fail(self, reason: str, seconds: float) -> None:
        """End the trial without a score."""
        self._told(seconds=seconds, reason=reason)
        self._study.tell(self._trial, state=TrialState.FAIL)

    def _told(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            plain = round(value, 3) if name == "seconds" else value
            self._trial.set_user_attr(name, plain)


def _suggested(trial: Trial, name: str, of: Bounds | Options) -> Value:
    """Give a trial's value of one key."""
    if isinstance(of, Bounds) and of.whole:
        return trial.suggest_int(name, int(of.low), int(of.high), log=of.log)
    if isinstance(of, Bounds):
        return trial.suggest_float(name, of.low, of.high, log=of.log)
    value = trial.suggest_categorical(name, of.values)
    assert value is not None  # no option is
    return value


def _mend(folder: StudyFolder) -> None:
    """Take away what a killed process may have left: half a line of the journal, and a lock.

    The lock of the journal is a file without a process. The folder's own lock has one.
    """
    for name in folder.path.glob(f"{folder.journal.name}.lock*"):
        name.unlink(missing_ok=True)
    if not folder.journal.exists():
        return
    with folder.journal.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        try:
            json.loads(line)
        except ValueError as fault:
            raise BundleError(f"{folder.journal}, line {number} is damaged: {fault}") from fault
