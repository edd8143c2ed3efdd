"""Phases: parts of the network are trained one after the other.

Source: Yang et al., MLoRA, RecSys 2024, arXiv:2408.08913, and the authors' code, ``mlora_freeze``: the
shared network first, then the low-rank maps of the domains with the network frozen. MoE-MLoRA,
arXiv:2506.07563, has three phases: the network, the maps of each domain, the gate.

A frozen part has no gradient, no optimiser state and no L2 penalty. A norm whose parameters are all
frozen neither uses nor moves batch statistics. Dropout stays as it is. Each phase begins with the best
weights of the phase before, a fresh optimiser, and a look at them: look 0. Where no later look is
better, look 0 is the best, and its weights go on.

Departures:
- Rows of all domains stand in one batch. The authors train the maps domain by domain.
- The result is the best look of the last phase. The figure that the authors' ``run.py`` reports for
  the shared network is taken before phase 2, and theirs after phase 2 has no look 0.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field
from torch import nn

from isthmus.data.batch import DomainPlaces
from isthmus.data.store.rows import Rows
from isthmus.schema import Section
from isthmus.train.methods.joint import AbstractMixed, MixedBatches
from isthmus.train.methods.method import AbstractMethodConfig, Phase
from isthmus.train.methods.trained_parts import TrainedParts

if TYPE_CHECKING:
    from isthmus.train.train_config import TrainConfig


class PhaseConfig(Section):
    """One phase.

    ``trains``: parts of the network, see `isthmus.train.methods.trained_parts`. ``epochs``, ``lr``: those of
    the ``train`` section where they are left out.
    """

    trains: tuple[str, ...] = Field(min_length=1)
    epochs: int | None = Field(default=None, ge=1)
    lr: float | None = Field(default=None, gt=0)


class PhasesConfig(AbstractMethodConfig):
    """Parts of the network are trained one after the other, each while the others are frozen."""

    sums_rows: ClassVar[bool] = True

    name: Literal["phases"] = "phases"
    phases: tuple[PhaseConfig, ...] = Field(
        min_length=1,
        description="what is trained, one after the other: `trains` (parts by the beginning of their"
        " parameters' names, such as `adapter` or `backbone`, and `domains` for all that domains own),"
        " and `epochs` and `lr` where they are not those of `train`",
    )

    def check(self, model: nn.Module, train: "TrainConfig") -> None:  # noqa: ARG002
        """Raise ConfigError for a part that the network does not have."""
        self._names(TrainedParts(model))

    def lengths(self, epochs: int) -> tuple[int, ...]:
        """The epochs of each phase."""
        return tuple(phase.epochs or epochs for phase in self.phases)

    def build(
        self,
        model: nn.Module,
        rows: Rows,
        train: "TrainConfig",
        *,
        n_domains: int,  # noqa: ARG002
        places: DomainPlaces,  # noqa: ARG002
    ) -> "InPhases":
        """The method for one training."""
        parts = TrainedParts(model)
        phases = tuple(
            Phase(", ".join(one.trains), one.epochs or train.epochs, one.lr or train.lr)
            for one in self.phases
        )
        return InPhases(MixedBatches(rows, train), phases, parts, self._names(parts))

    def _names(self, parts: TrainedParts) -> tuple[frozenset[str], ...]:
        """The parameters of each phase."""
        return tuple(
            parts.chosen(phase.trains, f"train.method.phases[{place}].trains")
            for place, phase in enumerate(self.phases)
        )


class InPhases(AbstractMixed):
    """Training in phases at work. ``names``: the parameters that each phase trains."""

    def __init__(
        self,
        batches: MixedBatches,
        phases: tuple[Phase, ...],
        parts: TrainedParts,
        names: tuple[frozenset[str], ...],
    ) -> None:
        self.batches, self.phases = batches, phases
        self.parts, self.names = parts, names

    def begin(self, phase: int) -> None:
        """Train the parts of the phase."""
        self.parts.only(self.names[phase])

    def release(self) -> None:
        """Nothing is frozen any longer."""
        self.parts.release()
