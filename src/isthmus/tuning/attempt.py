"""One trial's training: what `fit` would train with the same config, without a run folder."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from math import floor

import numpy as np
from jaxtyping import Float64

from isthmus.config import Config
from isthmus.data import Dataset
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train
from isthmus.train import End, Look, TrainConfig, score_rows, train


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """A training that came to its end.

    ``best``: the best look, whose weights `fit` would ship. ``logits``: of the validation rows at
    the best look, float64.
    """

    best: Look
    looks: int
    stopped: str
    logits: Float64[np.ndarray, " rows"]


@dataclass(frozen=True, slots=True)
class SeenLook:
    """A look of a training under way.

    ``moment``: the look's number where every training has ``looks_per_epoch`` looks an epoch.
    ``score``: the monitor. ``epoch``: epochs done. ``seconds``: since the training began.
    """

    moment: int
    score: float
    epoch: float
    seconds: float


GoOn = Callable[[SeenLook], bool]
Attempting = Callable[[Config, Dataset, GoOn], Attempt | None]


def attempt(
    config: Config, dataset: Dataset, go_on: GoOn, *, blind: bool = False
) -> Attempt | None:
    """Train, and give the end; None where ``go_on`` said no after a look.

    ``blind``: the model reads no domain, see `isthmus.data.Subset`.
    Raises what `isthmus.train.train` raises: RunError where a loss is not finite, ConfigError where
    the config does not fit the dataset.
    """
    began = time.perf_counter()
    settings = config.train
    training = Training(model=config.model, train=settings, blind=blind)
    rows = training.subset(dataset) if blind else dataset
    model = build_to_train(training, dataset, rows.rows("train"))
    end = None
    with closing(train(model, rows, settings)) as events:
        for event in events:
            match event:
                case Look(start=False):  # the weights of a phase's start have been looked at before
                    score = event.metrics[settings.monitor]
                    assert score is not None  # checked before the study began
                    seconds = time.perf_counter() - began
                    look = SeenLook(moment_of(event, settings), score, event.epoch, seconds)
                    if not go_on(look):
                        return None
                case End():
                    end = event
    assert end is not None
    logits = score_rows(model, rows.rows("validation"))
    return Attempt(end.best, len(end.history), end.stopped, logits)


def moment_of(look: Look, settings: TrainConfig) -> int:
    """Give the number of a look, so that looks of one number saw the same share of an epoch.

    Trainings of small and of large batches have the same number after the same epochs. An epoch of
    fewer steps than looks leaves numbers out, and an epoch's last look has the same number in all.
    """
    return floor(look.epoch * settings.looks_per_epoch + 1e-9)
