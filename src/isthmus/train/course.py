"""How long each phase of a training may take, and after which of its steps it looks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from isthmus.errors import ConfigError
from isthmus.train.events import Budget
from isthmus.train.methods import Phase
from isthmus.train.train_config import TrainConfig


@dataclass(frozen=True, slots=True)
class Course:
    """One phase.

    ``steps``: at most. ``period``: steps after which the pattern of looks begins again.
    ``look_steps``: steps of a period, from 1, after which there is a look. ``patience``: the phase ends
    after so many looks without a better one.
    """

    steps: int
    period: int
    look_steps: frozenset[int]
    patience: int

    def looks_after(self, step: int) -> bool:
        """Whether there is a look after a step of the phase, counted from 1."""
        return (step - 1) % self.period + 1 in self.look_steps


def courses(
    phases: Sequence[Phase], steps_per_epoch: int, config: TrainConfig, budget: Budget | None
) -> list[Course]:
    """The course of each phase.

    The steps and the looks of a budget are shared among the phases in proportion to their epochs, at
    least one of each for a phase. Raises ConfigError for a budget of fewer steps than phases.
    """
    if budget is None:
        return [
            _course(one.epochs * steps_per_epoch, steps_per_epoch, config.looks_per_epoch, config)
            for one in phases
        ]
    if budget.steps < len(phases):
        raise ConfigError(
            f"a budget must hold a step for each of the {len(phases)} phases of train.method,"
            f" got {budget.steps} steps"
        )
    epochs = [one.epochs for one in phases]
    pairs = zip(_shares(budget.steps, epochs), _shares(budget.looks, epochs), strict=True)
    return [_course(steps, steps, looks, None) for steps, looks in pairs]


def _course(steps: int, period: int, looks: int, config: TrainConfig | None) -> Course:
    """``config``: whose patience holds; None: no patience ends the phase."""
    looks = min(looks, period)
    return Course(
        steps=steps,
        period=period,
        look_steps=frozenset(math.ceil(k * period / looks) for k in range(1, looks + 1)),
        patience=looks + 1 if config is None else config.patience * looks,
    )


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """Parts of ``total`` in proportion to the weights, each at least 1; too small a total grows."""
    left = max(0, total - len(weights))
    ends = [round(left * sum(weights[:end]) / sum(weights)) for end in range(len(weights) + 1)]
    return [1 + end - start for start, end in pairwise(ends)]
