"""How long trainings take. Steps follow from a description, seconds per step from a short probe."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from isthmus.data.store.dataset import Dataset
from isthmus.data.store.subset import Subset
from isthmus.experiments.arms import has_adapter
from isthmus.experiments.outcome import build
from isthmus.experiments.training import Training
from isthmus.models import ModelConfig
from isthmus.objectives import binary_cross_entropy
from isthmus.optimisers import build_optimiser, resolve_embedding_update
from isthmus.train import TrainConfig
from isthmus.train.generators import turn

EPOCHS = 5  # after which the best look is taken to have come, before patience runs out
STEP_ROWS = 300.0  # rows whose computing costs as much as the fixed part of a step, unless probed
SCORING = 0.3  # of a row's training
WITH_ADAPTER = 2.7  # times the work without
FOREST_ROWS = 2000  # train rows of the forest that is grown to see how fast that goes
PROBE_STEPS = 6  # of each of two batches: the larger, and a fiftieth of it as solos may choose


def steps(training: Training, dataset: Dataset) -> float:
    """Give the number of steps that a training is expected to take."""
    if training.budget is not None:
        return training.budget.steps
    train = training.train
    most = EPOCHS + train.patience
    epochs = sum(min(phase, most) for phase in train.method.lengths(train.epochs))
    return train.method.epoch_steps(_rows_by_domain(training, dataset), train.batch_rows) * epochs


def train_rows(training: Training, dataset: Dataset) -> int:
    """Give the number of train rows of a training."""
    return sum(_rows_by_domain(training, dataset))


def _rows_by_domain(training: Training, dataset: Dataset) -> list[int]:
    counts = dataset.summary()["train"]
    names = counts if training.domains is None else set(training.domains)
    cap = training.rows_per_domain
    rows = [counts[name].rows if cap is None else min(cap, counts[name].rows) for name in names]
    return [count for count in rows if count]


def watched_rows(training: Training, dataset: Dataset) -> int:
    """Give the number of validation rows that a training looks at."""
    counts = dataset.summary()["validation"]
    names = set(training.watch or training.domains or counts)
    cap = training.watch_per_domain
    rows = sum(min(counts[name].rows, cap or counts[name].rows) for name in names)
    return rows // 2 if training.half else rows


def cost(training: Training, dataset: Dataset, step_rows: float = STEP_ROWS) -> float:
    """Give the work of a training in rows. The fixed part of a step counts ``step_rows`` rows.

    The work of trees is the train rows that a forest is grown on. The forest of all rows was grown
    when the table was encoded, and costs nothing more.
    """
    if training.model.is_trees:
        grown = training.domains is not None or training.rows_per_domain is not None
        return float(train_rows(training, dataset)) if grown else 0.0
    batch = min(training.train.batch_rows, train_rows(training, dataset))
    count = steps(training, dataset)
    if training.budget is None:
        per_epoch = max(1, math.ceil(train_rows(training, dataset) / batch))
        looks = count / per_epoch * min(training.train.looks_per_epoch, per_epoch)
    else:
        looks = training.budget.looks
    weight = WITH_ADAPTER if has_adapter(training.model) else 1.0
    work = count * (batch + step_rows)
    return weight * (work + looks * SCORING * watched_rows(training, dataset))


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one process is.

    ``rows``: rows of `cost` per second. ``step_rows``: the fixed part of a step, in rows.
    ``forest_rows``: rows of `cost` per second of trees beside networks; None where all are alike.
    """

    rows: float
    step_rows: float = STEP_ROWS
    forest_rows: float | None = None

    def work(self, training: Training, dataset: Dataset) -> float:
        """Give the `cost` of a training, with the fixed part of a step as it was probed."""
        work = cost(training, dataset, self.step_rows)
        if training.model.is_trees and self.forest_rows is not None:
            return work * self.rows / self.forest_rows
        return work

    def seconds(
        self, trainings: Sequence[Training], datasets: Sequence[Dataset], jobs: int
    ) -> float:
        """Give the seconds that trainings are expected to take in ``jobs`` processes."""
        work = sum(self.work(training, datasets[training.replicate]) for training in trainings)
        return work / self.rows / jobs


def probe(model: ModelConfig, train: TrainConfig, dataset: Dataset, *, jobs: int) -> Pace:
    """Take a few steps of a recipe and measure how fast they go. Nothing is kept.

    Of trees, a small forest is grown.
    """
    threads = torch.get_num_threads()
    if jobs > 1:
        torch.set_num_threads(1)
    try:
        if model.is_trees:
            return _probe_forest(dataset)
        training = Training(model=model, train=train)
        net = build(training, dataset).train()
        update = resolve_embedding_update(net, train.embedding_update)
        optimiser = build_optimiser(
            net, lr=train.lr, embedding_l2=train.embedding_l2, embedding_update=update
        )
        rows = Subset(dataset).rows("train")
        large = min(train.batch_rows, len(rows))
        seconds = {}
        with turn(), torch.random.fork_rng(devices=[]):
            for batch_rows in (large, max(2, large // 50)):
                spent: list[float] = []
                for number, batch in enumerate(rows.batches(batch_rows, seed=0)):
                    began = time.perf_counter()
                    optimiser.zero_grad()
                    binary_cross_entropy(net(batch), batch.label, batch.weight).backward()
                    optimiser.step()
                    spent.append(time.perf_counter() - began)
                    if number == PROBE_STEPS:
                        break
                seconds[batch_rows] = float(np.median(spent[1:] or spent))  # the first allocates
    finally:
        torch.set_num_threads(threads)
    return pace_of(seconds)


def _probe_forest(dataset: Dataset) -> Pace:
    """Grow a forest on rows of the largest domain."""
    counts = dataset.summary()["train"]
    largest = max(counts, key=lambda name: counts[name].rows)
    began = time.perf_counter()
    rows = Subset(dataset, domains=[largest], rows_per_domain=FOREST_ROWS).rows("train")
    return Pace(len(rows) / (time.perf_counter() - began))


def pace_of(seconds: Mapping[int, float]) -> Pace:
    """Give the pace that follows from the seconds of a step, by the rows of its batch.

    Reading a batch costs about a tenth of a step more.

    >>> pace_of({1000: 0.5, 500: 0.3})
    Pace(rows=2250.0, step_rows=250.0)
    """
    (large, slow), (small, fast) = max(seconds.items()), min(seconds.items())
    if large > small and slow > fast:
        row = (slow - fast) / (large - small)
        return Pace(0.9 / row, max(0.0, slow / row - large))
    return Pace(0.9 * (large + STEP_ROWS) / slow)
