"""What every objective is: a loss beside the loss of the rows, read from hidden states at sites.

Objectives belong to training. Their parameters are trained with the model's and stay in the
checkpoint; a bundle holds none of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float, Float64, Int
from pydantic import Field
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.family import Member
from isthmus.layers.sites import Site, SiteSpec
from isthmus.objectives.mixing import Answers


class AbstractObjectiveConfig(Member, ABC):
    """The config of one objective.

    ``compares_domains``: whether the objective means nothing where the train rows are of one domain;
    a guard and a diagnosis leave such an objective out of what they train on one domain.
    ``reads_unlabelled``: whether the objective learns from rows without a label. Only then do such rows
    stand in a batch, behind the others, and their labels are nan. ``draws``: whether the objective
    draws random numbers. Such an objective of weight 0 is left out, so that no other draw changes.
    """

    compares_domains: ClassVar[bool] = False
    reads_unlabelled: ClassVar[bool] = False
    draws: ClassVar[bool] = False

    weight: float = Field(
        default=1.0,
        ge=0,
        description="what the objective's loss is multiplied by before it is added to that of the"
        " rows",
    )

    @abstractmethod
    def build(self, spec: SiteSpec) -> "AbstractObjective":
        """The objective for a network of this shape.

        Raises ``ValueError`` for sites that the network does not have.
        """


class AbstractObjective(nn.Module, ABC):
    """A loss beside that of the rows.

    ``sites``: the resolved sites that the objective reads. ``asks``: whether the objective asks the
    network for logits, and so is given `Answers`. What an objective gathers over batches stands in
    buffers: a checkpoint keeps them.
    """

    asks: ClassVar[bool] = False

    sites: tuple[Site, ...]

    @abstractmethod
    def forward(
        self,
        hidden: Mapping[Site, Tensor],
        batch: Batch,
        domain: Int[Tensor, " rows"],
        answers: Answers | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of one batch.

        ``hidden``: (rows, width) at each of ``sites``, with its graph. ``domain``: (rows,) int64, the
        true domain of each row, 0 for none; in ``batch.domain`` domain dropout has hidden some.
        ``answers``: for an objective that ``asks``, else None.
        """

    def end_epoch(self) -> None:
        """Do what is due between two epochs."""

    def between_domains(self) -> Float64[Tensor, "domains domains"] | None:
        """What the objective has found between every two domains, lines first; None for most.

        Asked at the end of a training, and kept with the run.
        """
        return None
