"""Rows without a label beside the batches of a training, as many in each step."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.data.store.order import join
from isthmus.data.store.rows import Rows
from isthmus.data.store.subset import AnyRows
from isthmus.errors import ConfigError
from isthmus.objectives import Objectives
from isthmus.train.methods.priority import PriorityConfig

if TYPE_CHECKING:
    from isthmus.train.train_config import TrainConfig


class UnlabelledBatches:
    """Batches of unlabelled rows, epoch after epoch of them, whatever the length of an epoch of labels.

    ``rows``: at least 2. What a step reads follows from its place in the training alone.
    ``steps_per_epoch``: of the training.
    """

    def __init__(self, rows: Rows, train: "TrainConfig", steps_per_epoch: int) -> None:
        self.rows, self.train, self.steps_per_epoch = rows, train, steps_per_epoch
        self._place = -1
        self._batches: Iterator[Batch] = iter(())

    def beside(
        self, batch: Batch, domain: Int[Tensor, " rows"], epoch: int, step: int
    ) -> tuple[Batch, Int[Tensor, " more"]]:
        """The batch of a step with the step's unlabelled rows behind its own, and all their domains."""
        place = epoch * self.steps_per_epoch + step
        if place != self._place:
            self._batches = self._from(place)
        self._place = place + 1
        more = next(self._batches)
        return join([batch, more]), torch.cat([domain, more.domain])

    def _from(self, place: int) -> Iterator[Batch]:
        """The batches from that place on, without an end."""
        sampling = self.train.domain_sampling
        if isinstance(sampling, PriorityConfig):  # which follows scores, and these rows have none
            sampling = "proportional"
        turn, start = divmod(place, self.rows.steps(self.train.batch_rows))
        while True:
            yield from self.rows.batches(
                self.train.batch_rows,
                seed=self.train.seed,
                epoch=turn,
                start=start,
                sampling=sampling,
            )
            turn, start = turn + 1, 0


def unlabelled_beside(
    objectives: Objectives, dataset: AnyRows, config: "TrainConfig", steps_per_epoch: int
) -> UnlabelledBatches | None:
    """The rows without a label, where an objective reads such rows and there are at least 2.

    Raises ConfigError where an objective reads such rows and the whole table has none.
    """
    if objectives.unlabelled is None:
        return None
    rows = dataset.unlabelled
    if rows is None:
        raise ConfigError(
            f"train.objectives {objectives.unlabelled!r} reads rows without a label, so the table must"
            " have train rows whose label is null, and data.null_label must be 'unlabelled', got none"
        )
    # Of some domains of a table there may be no such rows; the objective is then 0.
    enough = rows.steps(config.batch_rows) > 0
    return UnlabelledBatches(rows, config, steps_per_epoch) if enough else None
