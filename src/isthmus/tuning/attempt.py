"""One trial's training: what `fit` would train with the same config, without a run folder."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from math import floor

import numpy as np
from jaxtyping import Float64

from isthmus.config import Config
from isthmus.data import Dataset, Rows
from isthmus.data.encoding.taught import Taught
from isthmus.data.store.counting.out_of_fold import SplitRows, fill
from isthmus.data.store.teaching import grow
from isthmus.errors import RunError
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train
from isthmus.train import End, Look, TrainConfig, score_rows, train, watch_metrics


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

    ``blind``: the model reads no domain, see `isthmus.data.Subset`. Trees have no looks to hear of.
    Raises what `isthmus.train.train` raises: RunError where a loss is not finite, ConfigError where
    the config does not fit the dataset.
    """
    if config.model.is_trees:
        return _grown(config, dataset)
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


def _grown(config: Config, dataset: Dataset) -> Attempt:
    """Grow the forest that the table would be encoded with, and score the validation rows by it.

    The encoded numbers that a forest reads are the same with every forest, so the table is not
    encoded again. Forests that score train rows out of fold are not grown either: five times the work.
    """
    train, rows = dataset.rows("train"), dataset.rows("validation")
    fields, n_domains = dataset.encoder.fields, dataset.n_domains
    arrays = rows.arrays.take(np.arange(len(rows)))
    validation = SplitRows(arrays, n_domains, rows.row, group=rows.group)
    forest = grow(SplitRows.of(train, n_domains), validation, fields, config.data.forest)
    fill(Taught(trees=forest), validation)
    model = build_to_train(Training(model=config.model, train=config.train), dataset, train)
    logits = score_rows(model, Rows(arrays, row=rows.row, group=rows.group, n_domains=n_domains))
    if not np.isfinite(logits).all():
        raise RunError("validation logits must stay finite, got nan or inf")
    look = Look(
        step=forest.size,
        epoch=0.0,
        loss=float("nan"),  # of train rows, whose scores are not known
        metrics=watch_metrics(logits, rows, len(dataset.domain_names)),
        better=True,
    )
    return Attempt(look, 1, "no parameters", logits)


def moment_of(look: Look, settings: TrainConfig) -> int:
    """Give the number of a look, so that looks of one number saw the same share of an epoch.

    Trainings of small and of large batches have the same number after the same epochs. An epoch of
    fewer steps than looks leaves numbers out, and an epoch's last look has the same number in all.
    """
    return floor(look.epoch * settings.looks_per_epoch + 1e-9)
