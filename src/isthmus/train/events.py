"""What a training tells: values that `isthmus.train.train` yields, and the state to resume from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from isthmus.layers.tables import Box

Stopped = Literal["patience", "epochs", "budget", "no parameters"]


@dataclass(frozen=True, slots=True)
class Budget:
    """A training of exactly ``steps`` steps with ``looks`` looks, the last one at its end.

    Looks lie evenly, at most one a step: ``Budget(steps=3, looks=8)`` takes 3. Raises ValueError for
    numbers below 1.
    """

    steps: int
    looks: int

    def __post_init__(self) -> None:
        if self.steps < 1 or self.looks < 1:
            raise ValueError(f"a budget must hold at least 1 step and 1 look, got {self}")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands. ``loss`` is the mean of the batch losses since the last look."""

    step: int  # steps done so far
    steps: int  # steps if no early stop comes, of all phases
    epoch: float  # epochs done so far
    loss: float
    rows_per_second: float  # since the last progress, validation and checkpoints left out


@dataclass(frozen=True, slots=True)
class Look:
    """The validation rows scored at a step. ``better``: the best look of its phase so far.

    ``phase``: its number, from 1. ``start``: the look at the weights with which a later phase begins;
    its losses are those of the look that they come from. ``auc_by_domain``: of the domains with the most
    validation rows, `isthmus.train.scoring.CURVES` at most; None where it is undefined.
    """

    step: int
    epoch: float
    loss: float  # mean of the batch losses since the last look
    metrics: dict[str, float | None]  # every ``Monitor`` name; None where it is undefined
    better: bool
    losses: dict[str, float] = field(
        default_factory=dict
    )  # means likewise, of losses beside by name
    phase: int = 1
    start: bool = False
    told: dict[str, float] = field(default_factory=dict)  # means likewise, of what the model tells
    auc_by_domain: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainState:
    """All that a resumed training needs. ``checkpoint.py`` writes and reads it.

    The tensors are the living ones, not copies: save or copy them before training goes on.
    """

    step: int  # steps done
    epoch: int  # whole epochs done
    step_in_epoch: int  # steps done in the epoch after those
    model: dict[str, Tensor]
    best: dict[str, Tensor]  # weights at the best look of the phase; empty before the first look
    optimiser: dict[str, Any]
    random: dict[str, Tensor]  # generator states
    loss_sum: Tensor  # () float64, sum of the batch losses since the last look
    loss_steps: int
    history: tuple[Look, ...]
    stale_looks: int  # looks since the best one of the phase
    seconds: float  # spent in training so far
    dataset_key: str
    threads: int
    torch_version: str
    config: dict[str, Any]  # the ``train`` section
    weighting: dict[str, Tensor] = field(default_factory=dict)  # what `Weighting` keeps
    objectives: dict[str, Tensor] = field(default_factory=dict)  # parameters, and what they gather
    loss_sums: dict[str, Tensor] = field(default_factory=dict)  # of losses beside and what is told
    method: dict[str, Tensor] = field(default_factory=dict)  # what `AbstractMethod` keeps
    phase: int = 1  # the phase under way
    phase_step: int = 0  # steps done before it


@dataclass(frozen=True, slots=True)
class CheckpointDue:
    """It is time to save ``state``; it is valid until the next event is asked for.

    ``boxes``: which part of a whole a tensor of the state is, where tables lie on several processes; all
    of them are then to save (`isthmus.checkpoint.save`).
    """

    state: TrainState
    boxes: Mapping[str, Box] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class End:
    """Training is over and ``model`` holds the weights of ``best``."""

    step: int
    epoch: float
    best: Look
    history: tuple[Look, ...]
    stopped: Stopped
    seconds: float
    between_domains: dict[str, Tensor] = field(default_factory=dict)  # by objective, lines first


TrainEvent = Progress | Look | CheckpointDue | End
"""What a training tells while it runs."""
