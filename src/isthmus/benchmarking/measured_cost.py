"""What a contender costs: rows a second and memory, each measured alone and in the same way.

A process of its own with one thread takes a few steps of the real loop, so that all memory is there,
and then steps for about two seconds. A look at the validation rows belongs to both, and its time does
not count. Every network takes the config's own batch, whatever batch its recipe has. Then the process
scores test rows, from ids to logits: statistics and a forest's score are computed too.

The peak is the most memory that the process held, libraries and mapped rows included. Trees are grown
on the train rows. Of one network for each domain, the network of the largest domain is measured.
"""

import json
import math
import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.data import Dataset
from isthmus.data.store.counting.out_of_fold import SplitRows, fill
from isthmus.data.store.rows import Rows
from isthmus.data.store.subset import Subset
from isthmus.disk import write_whole
from isthmus.errors import BundleError
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train
from isthmus.experiments.workers import AbstractJob, Opened
from isthmus.models import AbstractModel
from isthmus.train import Budget, End, score_rows, train
from isthmus.train.device import peak_mebibytes

WARM_STEPS = 3
SECONDS = 2.0  # of steps, and of scoring
MOST_STEPS = 2000
LEAST_STEPS = 5
MOST_ROUNDS = 50  # of scoring


@dataclass(frozen=True, slots=True)
class RateAndPeak:
    """Rows a second in training and in prediction, and the peak of memory in MiB."""

    train_rows_per_second: float
    predict_rows_per_second: float
    peak_mebibytes: float

    def to_dict(self) -> dict[str, Any]:
        """Give plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CostJob(AbstractJob):
    """Measure a training, and write what was found to ``file``."""

    training: Training
    dataset: Path
    file: Path

    def run(self, opened: Opened) -> None:
        """Measure, in a process that has done nothing else."""
        dataset = opened(self.dataset)
        trees = self.training.model.is_trees
        rate, model, rows = (_grown if trees else _trained)(self.training, dataset)
        predicted = _predicted(model, rows)
        found = RateAndPeak(rate, predicted, peak_mebibytes())
        write_whole(self.file, json.dumps(found.to_dict(), indent=1) + "\n")


def read_cost(file: Path) -> RateAndPeak | None:
    """Read what a `CostJob` wrote; None where there is nothing yet."""
    try:
        return RateAndPeak(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as fault:
        raise BundleError(f"{file} is damaged: {fault}") from fault


def _trained(training: Training, dataset: Dataset) -> tuple[float, AbstractModel, "_TestRows"]:
    """Rows a second of the loop, the model, and the test rows that it scores."""
    part = training.subset(dataset)
    rows = part.rows("train")
    batch = min(training.train.batch_rows, len(rows))

    def steps(count: int) -> tuple[AbstractModel, float]:
        model = build_to_train(training, dataset, rows)
        budget = Budget(steps=count, looks=1)
        with closing(train(model, part, training.train, budget=budget)) as events:
            (end,) = (event for event in events if isinstance(event, End))
        return model, end.seconds

    _, warm = steps(WARM_STEPS)
    wanted = math.ceil(SECONDS / max(warm / WARM_STEPS, 1e-6))
    count = min(MOST_STEPS, max(LEAST_STEPS, wanted))
    model, seconds = steps(count)
    scored = _TestRows(dataset, part.scored("test", training.scored))
    return count * batch / seconds, model, scored


def _grown(training: Training, dataset: Dataset) -> tuple[float, AbstractModel, "_TestRows"]:
    """The same of a forest, which reads the train rows once."""
    rows = dataset.rows("train")
    began = time.perf_counter()
    Subset(dataset, rows_per_domain=len(rows)).rows("train")  # grown again, as for any part
    rate = len(rows) / (time.perf_counter() - began)
    model = build_to_train(training, dataset, rows)
    return rate, model, _TestRows(dataset, dataset.rows("test"))


@dataclass(frozen=True, slots=True)
class _TestRows:
    """Test rows, and the dataset that knows how their statistics are computed."""

    dataset: Dataset
    rows: Rows


def _predicted(model: AbstractModel, test: _TestRows) -> float:
    """Rows a second, the median of some rounds."""
    rows = test.rows
    if not len(rows):
        return 0.0
    arrays = rows.arrays.take(np.arange(len(rows)))
    copied = replace(arrays, numeric=np.array(arrays.numeric))
    spent: list[float] = []
    while len(spent) < MOST_ROUNDS and sum(spent) < SECONDS:
        began = time.perf_counter()
        fill(test.dataset.encoder.taught, SplitRows(copied, test.dataset.n_domains, rows.row))
        score_rows(model, rows)
        spent.append(time.perf_counter() - began)
    return len(rows) / float(np.median(spent[1:] or spent))
