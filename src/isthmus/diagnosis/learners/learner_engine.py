"""The engine of a learner's trainings: each is run once, checked at first sight, and kept.

A killed diagnosis goes on where it stopped: a training that was not finished is run again.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import save_file

from isthmus.diagnosis.learners.learner import CrossScoringLearner, DomainRows, State
from isthmus.diagnosis.learners.learner_training import (
    OUTCOME,
    SCORES,
    STATE,
    LearnerOutcome,
    LearnerTraining,
)
from isthmus.diagnosis.learners.row_metrics import LearnerMetric
from isthmus.disk import only_writer, reason, remove_leftovers, whole_folder
from isthmus.errors import RunError

PARTS: tuple[Literal["validation", "test"], ...] = ("validation", "test")


class LearnerEngine:
    """Runs a learner's trainings in this process, one after another.

    ``content``: by domain, a hash of its rows. ``labels``: by domain, of its test rows. The folder
    has one engine at a time, until the end of a ``with`` block.
    """

    jobs = 1

    def __init__(
        self,
        domains: Mapping[str, DomainRows],
        folder: Path,
        *,
        content: Mapping[str, str],
        labels: Mapping[str, np.ndarray],
        metrics: Sequence[LearnerMetric],
        tell: Callable[[str, int, int], None],
    ) -> None:
        self.domains, self.folder, self.content = domains, folder, content
        self.labels, self.metrics, self.tell = labels, metrics, tell
        self.trained = self.cached = 0
        self._asked: set[str] = set()
        self._outcomes: dict[Path, LearnerOutcome] = {}
        self._open = ExitStack()

    def __enter__(self) -> "LearnerEngine":
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._open.enter_context(only_writer(self.folder))
        except OSError as fault:
            raise RunError(
                f"a folder of trainings must be writable at {self.folder}, got: {reason(fault)}"
            ) from fault
        remove_leftovers(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def path(self, training: LearnerTraining) -> Path:
        """Give the folder of the outcome, whether it is there or not."""
        return self.folder / training.key(self.content)

    def is_done(self, training: LearnerTraining) -> bool:
        """Whether the outcome is there, with its state where that is to be kept."""
        last = STATE if training.kept else OUTCOME
        return (self.path(training) / last).exists()

    def outcome(self, training: LearnerTraining) -> LearnerOutcome:
        """Give the outcome of a finished training."""
        path = self.path(training)
        return self._outcomes.setdefault(path, LearnerOutcome(path, training))

    def run(self, trainings: Iterable[LearnerTraining], what: str) -> list[LearnerOutcome]:
        """Train what is missing, and give the outcomes in the order of ``trainings``.

        Raises RunError, which names arm, domains and seed, where the learner's state or scores are
        not what the protocol says. What the learner itself raises gets a note with the same names.
        """
        wanted = list(trainings)
        missing: dict[str, LearnerTraining] = {}
        for training in wanted:
            key = self.path(training).name
            if key not in self._asked:
                self._asked.add(key)
                self.cached += self.is_done(training)
            if not self.is_done(training):
                missing[key] = training
        for number, training in enumerate(missing.values(), start=1):
            self._run_one(training)
            self.trained += 1
            self.tell(what, number, len(missing))
        return [self.outcome(training) for training in wanted]

    def _run_one(self, training: LearnerTraining) -> None:
        start = None
        if training.start is not None:
            start = self.run([training.start], "first stage")[0].state()
        learner = training.learner
        try:
            state = learner.train(
                {name: self.domains[name].train for name in training.domains},
                watch={name: self.domains[name].validation for name in training.watch},
                seed=training.seed,
                start=start,
                steps=training.steps,
            )
            held = _checked_state(state, training)
            scores = {
                f"{part}/{name}": self._scored(training, held, name, part)
                for name in training.scored
                for part in PARTS
            }
        except Exception as fault:
            fault.add_note(f"in a training of the learner: {training}")
            raise
        self._outcomes.pop(self.path(training), None)
        self._write(training, held, scores)

    def _scored(
        self,
        training: LearnerTraining,
        state: State,
        name: str,
        part: Literal["validation", "test"],
    ) -> np.ndarray:
        """Score the rows of one part of a domain, and check what comes back."""
        learner = training.learner
        rows = getattr(self.domains[name], part)
        many = learner.count(rows)
        if many == 0:
            return np.zeros(0)
        if training.knows(name):
            given: Any = learner.score(state, name, rows)
        else:
            assert isinstance(learner, CrossScoringLearner)
            given = learner.score_unseen(state, rows)
        scores = np.asarray(given, dtype=np.float64)
        about = f"the {part} rows of domain {name!r}, {training}"
        if scores.ndim not in (1, 2) or len(scores) != many:
            raise RunError(
                f"scores must have shape ({many},) or ({many}, classes), got {scores.shape}: {about}"
            )
        if not np.isfinite(scores).all():
            at = int((~np.isfinite(scores.reshape(many, -1))).any(1).argmax())
            raise RunError(f"scores must be finite, got {scores[at]} for row {at}: {about}")
        if part == "test":
            for metric in self.metrics:
                try:
                    metric.read(self.labels[name], scores)
                except ValueError as fault:
                    raise RunError(f"{fault}: {about}") from fault
        return np.ascontiguousarray(scores)

    def _write(self, training: LearnerTraining, state: State, scores: dict[str, Any]) -> None:
        path = self.path(training)
        told = {"values": sum(array.size for array in state.values())} | training.describe()
        try:
            with whole_folder(path) as temporary:
                save_file(scores, temporary / SCORES)
                if training.kept:
                    save_file(
                        {name: array.copy() for name, array in state.items()}, temporary / STATE
                    )
                (temporary / OUTCOME).write_text(json.dumps(told, indent=1), encoding="utf-8")
        except OSError as fault:
            raise RunError(
                f"an outcome must be writable at {path}, got: {reason(fault)}"
            ) from fault


def _checked_state(state: Any, training: LearnerTraining) -> dict[str, np.ndarray]:
    """Give the state, whose arrays can be written. Raises RunError for anything else."""
    if not isinstance(state, Mapping):
        raise RunError(
            f"a state must be a mapping of names to arrays, got {type(state).__name__}: {training}"
        )
    held = {}
    for name, value in state.items():
        array = np.asarray(value)
        if not isinstance(name, str) or array.dtype.kind not in "biuf":
            raise RunError(
                f"a state must hold arrays of numbers by name, got {array.dtype} at {name!r}:"
                f" {training}"
            )
        held[name] = np.ascontiguousarray(array).reshape(array.shape)
    return held
