"""Joint training: every step moves all parameters, by a batch that mixes all domains."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from torch import nn

from isthmus.data.batch import DomainPlaces
from isthmus.data.store.rows import Rows
from isthmus.train.methods.method import AbstractMethod, AbstractMethodConfig, Lesson, Phase

if TYPE_CHECKING:
    from isthmus.train.train_config import TrainConfig


class JointConfig(AbstractMethodConfig):
    """All parameters learn at once, from batches in which all domains are mixed."""

    name: Literal["joint"] = "joint"

    def build(
        self,
        model: nn.Module,  # noqa: ARG002
        rows: Rows,
        train: "TrainConfig",
        *,
        n_domains: int,  # noqa: ARG002
        places: DomainPlaces,  # noqa: ARG002
    ) -> "Joint":
        """The method for one training."""
        return Joint(MixedBatches(rows, train), Phase("all", train.epochs, train.lr))


class MixedBatches:
    """Epochs of batches in which all domains are mixed, as ``domain_sampling`` shares them out."""

    def __init__(self, rows: Rows, train: "TrainConfig") -> None:
        self.rows, self.train = rows, train
        self.steps = rows.steps(train.batch_rows)

    def lessons(self, epoch: int, start: int) -> Iterator[Lesson]:
        """The batches of an epoch from step ``start`` on."""
        batches = self.rows.batches(
            self.train.batch_rows,
            seed=self.train.seed,
            epoch=epoch,
            start=start,
            sampling=self.train.domain_sampling,
        )
        for batch in batches:
            yield Lesson(batch, batch.domain)


class Joint(AbstractMethod):
    """Joint training at work."""

    def __init__(self, batches: MixedBatches, phase: Phase) -> None:
        self.batches, self.phases = batches, (phase,)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of all rows."""
        return self.batches.steps

    def begin(self, phase: int) -> None:
        """Nothing is frozen."""

    def lessons(self, epoch: int, start: int) -> Iterator[Lesson]:
        """The mixed batches."""
        return self.batches.lessons(epoch, start)
