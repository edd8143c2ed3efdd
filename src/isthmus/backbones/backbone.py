"""What every backbone is: (rows, in_width) -> (rows, out_width), with sites for adapters."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.family import Member
from isthmus.layers.blocks import Meet, Norm, Towers
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Site, Widths

Adapt = Callable[[Site, Tensor], Tensor]
"""What a backbone calls behind each block: site and hidden state (rows, width) -> hidden state."""
OfLosses = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """What a backbone must know of the network around it.

    ``inputs``: embeds the rows. ``towers``: one set of weights for all domains, or one each.
    ``n_domains``: trained domains, the unknown one not counted.
    """

    inputs: FeatureEmbedding
    towers: Towers
    n_domains: int


class AbstractBackboneConfig(Member, ABC):
    """The config of one backbone.

    ``paper_head``: the head that the paper draws, of a network that says itself what belongs to
    domains. Such a network has one form, so ``towers`` must be ``shared``, and ``head`` may be left
    out. None for a network whose towers and head the config chooses.
    """

    paper_head: ClassVar[Towers | None] = None

    @abstractmethod
    def build(self, spec: BackboneSpec) -> "AbstractBackbone":
        """The backbone in a network of this shape. Raises ``ValueError`` where they do not fit."""

    @abstractmethod
    def scaled(self, factor: float) -> "AbstractBackboneConfig":
        """The same backbone with about ``factor`` times as many hidden units in every layer."""

    def check_towers(self, towers: Towers) -> None:
        """Raise ``ValueError`` for towers per domain where the network says itself what they are."""
        if self.paper_head is not None and towers != "shared":
            raise ValueError(
                f"towers must be shared for backbone {self.name!r}, which says itself what"
                f" belongs to domains, got {towers!r}"
            )

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """The numbers of hidden units that `scaled` changes: how a chart names a size."""


class AbstractDeepConfig(AbstractBackboneConfig, ABC):
    """The config of a backbone with a deep part: blocks of Linear, norm, ReLU, dropout.

    ``other_widths``: keys of the member that hold hidden units too, which `scaled` changes alike.
    """

    other_widths: ClassVar[tuple[str, ...]] = ()

    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(256, 128),
        min_length=1,
        description="output widths of the deep blocks; each block is a site, `0` to"
        " `len(widths) - 1`",
    )
    dropout: float = Field(default=0.2, ge=0, lt=1, description="after each block")
    norm: Norm = Field(
        default="batch",
        description="`batch`: statistics of all rows; `domain`: of the row's own domain ([domain"
        " norm](models.md#domain-norm)); with `towers: per_domain`, `batch` means `domain`",
    )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of the blocks."""
        return self.widths

    def scaled(self, factor: float) -> "AbstractDeepConfig":
        """The same with ``factor`` times the widths, each of 2 at least."""

        def scale(width: int) -> int:
            return max(2, round(width * factor))

        others = {key: scale(getattr(self, key)) for key in self.other_widths}
        return self.model_copy(update={"widths": tuple(map(scale, self.widths)), **others})


def leave_alone(site: Site, h: Tensor) -> Tensor:  # noqa: ARG001
    """The adapter of a backbone that has none: return ``h``."""
    return h


class AbstractPassing(ABC):
    """An ``Adapt`` that may change what Linears give, too. Backbones ask by `meeting`."""

    @abstractmethod
    def __call__(self, site: Site, h: Tensor) -> Tensor:
        """What becomes of ``h`` at a site."""

    @abstractmethod
    def meet(self, linear: int) -> Meet | None:
        """What changes the output of a Linear; None where it stays as it is."""

    def add_loss(self, name: str, loss: Float[Tensor, ""]) -> None:  # noqa: B027
        """Take a loss of the network's own, with its weight, for training to add. Or let it go."""

    def await_losses(self, name: str, of: OfLosses) -> None:  # noqa: B027
        """Take what makes a loss, as in `add_loss`, of the rows' own. Or let it go.

        ``of(loss, share)``: both (rows,) without a graph; a row's cross-entropy in nats, and its share of
        the batch's weight, which sum to 1.
        """

    def tell(self, name: str, value: Float[Tensor, ""]) -> None:  # noqa: B027
        """Take a number for training to log. Or let it go."""


def await_losses(adapt: Adapt, name: str, of: OfLosses) -> None:
    """Hand a loss of a backbone's own that follows from the losses of the rows, known behind the head.

    For rewards: see `AbstractPassing.await_losses`.
    """
    if isinstance(adapt, AbstractPassing):
        adapt.await_losses(name, of)


def meeting(adapt: Adapt, linear: int) -> Meet | None:
    """What ``adapt`` makes of the Linear in the block before site ``linear``; for `DeepBlock`."""
    return adapt.meet(linear) if isinstance(adapt, AbstractPassing) else None


def add_loss(adapt: Adapt, name: str, loss: Float[Tensor, ""]) -> None:
    """Hand a loss of a backbone's own, with its weight, to who trains it, if anybody does."""
    if isinstance(adapt, AbstractPassing):
        adapt.add_loss(name, loss)


def tell(adapt: Adapt, name: str, value: Float[Tensor, ""]) -> None:
    """Hand a number of a batch to who trains the backbone, who logs it beside the losses."""
    if isinstance(adapt, AbstractPassing):
        adapt.tell(name, value)


class AbstractBackbone(nn.Module, ABC):
    """A network with numbered sites: ``adapt(site, h)`` runs after each of its deep blocks.

    ``site_widths[site]`` is the width of ``h`` there. Wherever parameters belong to domains
    (towers or norms per domain), ``forward`` needs the batch's ``routing``.

    ``linears``: (in_width, out_width) of the Linears that an adapter may change, by the number of the
    site behind their block: those of blocks whose weights all domains share. A backbone that lists
    one hands ``meeting(adapt, number)`` to that block.
    """

    in_width: int
    out_width: int
    site_widths: tuple[int, ...]
    linears: Mapping[int, Widths] = MappingProxyType({})

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Map embedded rows to the rows that the head reads."""

    def shortcut(
        self,
        batch: Batch,  # noqa: ARG002
        inputs: FeatureEmbedding,  # noqa: ARG002
        x: Float[Tensor, "rows in_width"],  # noqa: ARG002
    ) -> Float[Tensor, " rows"] | None:
        """What goes from the batch, or from ``x = inputs(batch)``, straight to the logit.

        None, where a backbone says nothing else: nothing passes by the head.
        """
        return None
