"""One training of a learner as a value, and what it left on disk.

FOLDER/outcome.json            what was trained, and the number of values in its state
FOLDER/scores.safetensors      float64 scores, by split and domain
FOLDER/state.safetensors       the state, where another training may go on from it
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from isthmus.diagnosis.learners.learner import Learner, State
from isthmus.errors import BundleError

VERSION = 1  # raised when the same description would give other numbers
OUTCOME, SCORES, STATE = "outcome.json", "scores.safetensors", "state.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LearnerTraining:
    """What a learner is trained on, and whose rows are scored afterwards.

    ``arm``: words for an error; they decide nothing. ``domains``: whose train rows there are, in
    the order of all domains. ``watch``: whose validation rows stop it. ``scored``: whose validation
    and test rows are scored; a domain that is not among ``domains``, nor was before, is unseen.
    ``start`` and ``steps``: of a second stage. ``kept``: whether the state is written.
    """

    learner: Learner
    arm: str
    seed: int
    domains: tuple[str, ...]
    watch: tuple[str, ...]
    scored: tuple[str, ...]
    start: "LearnerTraining | None" = None
    steps: int | None = None
    kept: bool = False

    def __str__(self) -> str:
        return f"arm {self.arm}, domains {', '.join(self.domains)}, seed {self.seed}"

    def knows(self, domain: str) -> bool:
        """Whether the training, or one that it goes on from, has the domain's train rows."""
        return domain in self.domains or (self.start is not None and self.start.knows(domain))

    def describe(self) -> dict[str, Any]:
        """Give plain values of all that decides the result, except the rows."""
        return {
            "learner": self.learner.fingerprint(),
            "seed": self.seed,
            "domains": list(self.domains),
            "watch": list(self.watch),
            "scored": list(self.scored),
            "start": None if self.start is None else self.start.describe(),
            "steps": self.steps,
        }

    def key(self, content: Mapping[str, str]) -> str:
        """Give the key of the result. ``content``: by domain, a hash of its rows."""
        names = {
            *self.domains,
            *self.watch,
            *self.scored,
            *(self.start.domains if self.start else ()),
        }
        held = {name: content[name] for name in sorted(names)}
        told = {"version": VERSION, "training": self.describe(), "content": held}
        return hashlib.blake2b(
            json.dumps(told, sort_keys=True).encode(), digest_size=12
        ).hexdigest()


@dataclass(frozen=True, eq=False)
class LearnerOutcome:
    """A finished training of a learner, read from its folder when it is asked for."""

    folder: Path
    training: LearnerTraining

    @cached_property
    def _scores(self) -> dict[str, np.ndarray]:
        return self._read(SCORES)

    def scores(self, split: Literal["validation", "test"], domain: str) -> np.ndarray:
        """Give the scores of a domain's rows, (rows,) or (rows, classes)."""
        return self._scores[f"{split}/{domain}"]

    def state(self) -> State:
        """Give the state, where it was kept."""
        return self._read(STATE)

    @property
    def values(self) -> int:
        """The number of values in the state."""
        return json.loads((self.folder / OUTCOME).read_text(encoding="utf-8"))["values"]

    def _read(self, name: str) -> dict[str, np.ndarray]:
        try:
            return load_file(self.folder / name)
        except (OSError, SafetensorError) as fault:
            raise BundleError(f"{name} in {self.folder} is damaged: {fault}") from fault
