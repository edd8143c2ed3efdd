"""What every backbone is: (rows, in_width) -> (rows, out_width), with sites for adapters."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.routing import Routing

Adapt = Callable[[int, Tensor], Tensor]


def leave_alone(site: int, h: Tensor) -> Tensor:  # noqa: ARG001
    """The adapter of a backbone that has none: return ``h``."""
    return h


class AbstractBackbone(nn.Module, ABC):
    """A network with numbered sites: ``adapt(site, h)`` runs after each of its deep blocks.

    ``site_widths[site]`` is the width of ``h`` there. Wherever parameters belong to domains
    (towers or norms per domain), ``forward`` needs the batch's ``routing``.
    """

    in_width: int
    out_width: int
    site_widths: tuple[int, ...]

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Map embedded rows to the rows that the head reads."""

    @abstractmethod
    def shortcut(
        self, batch: Batch, inputs: FeatureEmbedding, x: Float[Tensor, "rows in_width"]
    ) -> Float[Tensor, " rows"] | None:
        """What goes from the batch, or from ``x = inputs(batch)``, straight to the logit."""
