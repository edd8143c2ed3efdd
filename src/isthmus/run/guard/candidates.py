"""What a guard trains: one config's joint, adapted, solo and tuned models.

`isthmus.experiments.arms` says what each arm is. One half of the validation rows stops all
trainings and chooses solo. The other half decides which arm serves a domain.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from isthmus.config import Config
from isthmus.data import Dataset, SplitName
from isthmus.data.store.dataset import DomainCount
from isthmus.data.store.rows import stopping_half
from isthmus.experiments import Engine, Outcome, Training
from isthmus.experiments.arms import (
    LOWER_LR,
    best,
    choices,
    joint_and_adapted,
    of_few,
    patient,
)
from isthmus.run.guard.choosing import Arm


@dataclass(frozen=True, slots=True)
class TrainedArms:
    """The outcomes of all trainings.

    ``solo``, ``tuned``: by domain. ``no_solo``: by domain, why a domain has no solo. Trees have no
    ``adapted``, and no ``tuned``.
    """

    joint: Outcome
    adapted: Outcome | None
    solo: Mapping[str, Outcome]
    tuned: Mapping[str, Outcome]
    no_solo: Mapping[str, str]

    def outcome(self, arm: Arm, domain: str) -> Outcome:
        """Give the outcome that an arm has for a domain."""
        if arm == "joint":
            return self.joint
        if arm == "adapted":
            assert self.adapted is not None
            return self.adapted
        return (self.solo if arm == "solo" else self.tuned)[domain]

    def logits(self, split: SplitName, dataset: Dataset) -> dict[str, Float64[np.ndarray, " rows"]]:
        """Give the logits of a split by arm: nan on rows of a domain that an arm has no model for."""
        domain = np.asarray(dataset.rows(split).domain)
        order = np.argsort(domain, kind="stable")
        ends = np.searchsorted(domain[order], np.arange(len(dataset.domain_names) + 2))
        logits = {"joint": self.joint.logits(split)}
        alone = ["solo"]
        if self.adapted is not None:
            logits["adapted"] = self.adapted.logits(split)
            alone = ["tuned", "solo"]
        for arm in alone:
            values = np.full(len(domain), np.nan)
            for name, outcome in getattr(self, arm).items():
                number = dataset.domain_names.index(name) + 1
                values[order[ends[number] : ends[number + 1]]] = outcome.logits(split)
            logits[arm] = values
        return logits


class Candidates:
    """The trainings of one config on one dataset.

    ``joint``, ``adapted``: the trainings for all domains; trees have no adapted one. ``grids``: by domain, the trainings that
    solo is chosen from. ``no_solo``: the domains that can have no model of their own, and why.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        self.config = config
        joint, adapted = joint_and_adapted(config.model)
        self.joint = Training(model=joint, train=config.train, half=True)
        self.adapted = None if joint.is_trees else replace(self.joint, model=adapted)
        rows = dataset.rows("validation")
        stopping = stopping_half(rows)
        domain, label = np.asarray(rows.domain)[stopping], np.asarray(rows.label)[stopping] > 0
        names = dataset.domain_names
        both = (
            np.bincount(of, minlength=len(names) + 1)[1:].tolist() for of in (domain, domain[label])
        )
        counted = (DomainCount(*pair) for pair in zip(*both, strict=True))
        self._stopping = dict(zip(names, counted, strict=True))
        counts = dataset.summary()["train"]
        self.no_solo = self._without_solo(counts)
        self.grids = {
            name: self._grid(name, counts[name].rows)
            for name in dataset.domain_names
            if name not in self.no_solo
        }

    def __len__(self) -> int:
        alone = sum(map(len, self.grids.values()))
        return 1 + alone + (0 if self.adapted is None else 1 + len(self.grids))

    def train(self, engine: Engine) -> TrainedArms:
        """Run all trainings: first joint, adapted and solo, then tuned."""
        shared = [self.joint] if self.adapted is None else [self.joint, self.adapted]
        solos = [choice for grid in self.grids.values() for choice in grid]
        what = "joint and solo" if self.adapted is None else "joint, adapted and solo"
        done = engine.run([*shared, *solos], what)
        others = iter(done[len(shared) :])
        solo = {name: best([next(others) for _ in grid]) for name, grid in self.grids.items()}
        if self.adapted is None:
            return TrainedArms(done[0], None, solo, {}, self.no_solo)
        tuned = engine.run([self._tuned(outcome.training) for outcome in solo.values()], "tuned")
        return TrainedArms(
            done[0], done[1], solo, dict(zip(solo, tuned, strict=True)), self.no_solo
        )

    def _without_solo(self, counts: Mapping[str, DomainCount]) -> dict[str, str]:
        """Say why some domains can have no model of their own. ``counts``: of the train rows."""
        reasons = {}
        for name, stopping in self._stopping.items():
            count = counts[name]
            if min(count.positives, count.rows - count.positives) < 1:
                reasons[name] = (
                    f"its {count.rows} train rows hold {count.positives} positives, both classes"
                    " are needed"
                )
            elif stopping.rows < 2:
                reasons[name] = (
                    f"{stopping.rows} of its validation rows could stop a training, 2 are needed"
                )
        return reasons

    def _grid(self, domain: str, rows: int) -> list[Training]:
        """Give the trainings that solo is chosen from, on so many train rows."""
        alone = Training(
            model=self.joint.model,
            train=patient(self.config.train),
            domains=(domain,),
            scored=(domain,),
            half=True,
        )
        return choices(of_few(alone, self._stopping), rows)

    def _tuned(self, solo: Training) -> Training:
        """Go on from joint on the domain's own rows, more slowly."""
        slower = solo.trained_with(lr=self.config.train.lr * LOWER_LR)
        return replace(slower, start=self.joint)
