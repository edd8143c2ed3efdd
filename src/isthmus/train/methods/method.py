"""What every method is: which batches come, what a step trains, and what happens between steps."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Int
from torch import Tensor, nn

from isthmus.data.batch import Batch, DomainPlaces
from isthmus.data.store.rows import Rows
from isthmus.family import Member
from isthmus.optimisers import ModelOptimiser
from isthmus.train.methods.priority import Priority

if TYPE_CHECKING:
    from isthmus.train.train_config import TrainConfig


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a training with its own trained parameters, rate and early stop.

    ``epochs``: at most so many. ``trains``: what is trained, in words.
    """

    trains: str
    epochs: int
    lr: float


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one step learns from.

    ``batch``: as the network reads it. ``domain``: the domain that each row counts for. ``dropout``: whether
    domain dropout may hide domains of the batch. ``told``: numbers of the step, each a scalar (), which
    training logs.
    """

    batch: Batch
    domain: Int[Tensor, " rows"]
    dropout: bool = True
    told: Mapping[str, Tensor] = field(default_factory=dict)


class AbstractMethodConfig(Member, ABC):
    """The config of one method.

    ``sums_rows``: every step is Adam's on a sum over the rows of one batch, which several processes can
    share among them.
    """

    sums_rows: ClassVar[bool] = False

    def check(self, model: nn.Module, train: "TrainConfig") -> None:
        """Raise ConfigError where the method cannot train this network by this ``train`` section."""

    def lengths(self, epochs: int) -> tuple[int, ...]:
        """The most epochs of each phase. ``epochs``: those of the ``train`` section."""
        return (epochs,)

    def epoch_steps(self, rows: Sequence[int], batch_rows: int) -> int:
        """About how many steps an epoch has. ``rows``: the number of train rows of each domain."""
        return max(1, -(-sum(rows) // batch_rows))

    @abstractmethod
    def build(
        self,
        model: nn.Module,
        rows: Rows,
        train: "TrainConfig",
        *,
        n_domains: int,
        places: DomainPlaces,
    ) -> "AbstractMethod":
        """The method at work on one training of ``model`` on the train rows ``rows``.

        ``n_domains``: domains that the model may tell apart. ``places``: where a batch tells the
        domain. Raises ConfigError as `check` does, and where the rows do not suit.
        """


class AbstractMethod(ABC):
    """One training's way through its steps.

    The loop asks for `lessons`, fills the gradients of each, and calls `update`. ``phases``: at least
    one, in their order. Random draws follow from (seed, epoch) and the place in the epoch alone, so a
    training can go on anywhere.
    """

    phases: tuple[Phase, ...]

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, the same for every epoch."""

    @property
    def priority(self) -> Priority | None:
        """What is to note the domains' AUC at each look. None where nobody asks."""
        return None

    def name_domains(self, names: Sequence[str]) -> None:  # noqa: B027
        """Say the domains' names, in the order of their ids from 1, before anything else."""

    @abstractmethod
    def begin(self, phase: int) -> None:
        """Train what the phase of this number, from 0, trains, and freeze all else."""

    @abstractmethod
    def lessons(self, epoch: int, start: int) -> Iterator[Lesson]:
        """The lessons of an epoch from step ``start`` on. Each is asked for when the last is done."""

    def update(self, optimiser: ModelOptimiser) -> None:
        """Move the parameters by their gradients, which the last lesson has given."""
        optimiser.step()

    def settled(self) -> AbstractContextManager[None]:
        """Let the model hold, for a moment, the weights that a look judges and keeps."""
        return nullcontext()

    def release(self) -> None:  # noqa: B027
        """Undo what `begin` changed of the model beside its weights."""

    def state_dict(self) -> dict[str, Tensor]:
        """What one step leaves to the next, beside weights and optimiser. The tensors are living."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Take back what `state_dict` gave; the tensors are copied. The weights are there already."""
