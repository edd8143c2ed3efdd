"""Joint training: every step moves all parameters, by a batch that mixes all domains."""

from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor, nn

from isthmus.data.batch import DomainPlaces
from isthmus.data.store.rows import Rows
from isthmus.train.methods.method import AbstractMethod, AbstractMethodConfig, Lesson, Phase
from isthmus.train.methods.priority import Priority, PriorityConfig

if TYPE_CHECKING:
    from isthmus.train.train_config import TrainConfig


class JointConfig(AbstractMethodConfig):
    """All parameters learn at once, from batches in which all domains are mixed."""

    sums_rows: ClassVar[bool] = True

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
        self.priority: Priority | None = None

    def name_domains(self, names: Sequence[str]) -> None:
        """Say the domains' names, in the order of their ids, before the first lesson."""
        if isinstance(self.train.domain_sampling, PriorityConfig):
            self.priority = Priority(self.train.domain_sampling, names)

    def lessons(self, epoch: int, start: int) -> Iterator[Lesson]:
        """The batches of an epoch from step ``start`` on."""
        sampling = self.train.domain_sampling
        if isinstance(sampling, PriorityConfig):
            assert self.priority is not None
            sampling = self.priority.factor if start else self.priority.next_epoch()
        batches = self.rows.batches(
            self.train.batch_rows,
            seed=self.train.seed,
            epoch=epoch,
            start=start,
            sampling=sampling,
        )
        for batch in batches:
            yield Lesson(batch, batch.domain)


class AbstractMixed(AbstractMethod, ABC):
    """A method whose batches mix all domains."""

    batches: MixedBatches

    @property
    def steps_per_epoch(self) -> int:
        """Batches of all rows."""
        return self.batches.steps

    @property
    def priority(self) -> Priority | None:
        """What shares an epoch out by validation scores, where anything does."""
        return self.batches.priority

    def name_domains(self, names: Sequence[str]) -> None:
        """Say the domains' names to what shares an epoch out."""
        self.batches.name_domains(names)

    def lessons(self, epoch: int, start: int) -> Iterator[Lesson]:
        """The mixed batches."""
        return self.batches.lessons(epoch, start)

    def state_dict(self) -> dict[str, Tensor]:
        """What the looks said of the domains, where that shares an epoch out."""
        return {} if self.priority is None else dict(self.priority.kept)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave; the tensors are copied."""
        if self.priority is not None:
            self.priority.load(state)


class Joint(AbstractMixed):
    """Joint training at work."""

    def __init__(self, batches: MixedBatches, phase: Phase) -> None:
        self.batches, self.phases = batches, (phase,)

    def begin(self, phase: int) -> None:
        """Nothing is frozen."""
