"""The end of a network with experts: a tower for every domain. And what its config has in common."""

from abc import ABC
from collections.abc import Sequence
from typing import Annotated, ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.backbones.backbone import AbstractDeepConfig, Adapt
from isthmus.layers.blocks import DeepBlock, Norm, Towers
from isthmus.layers.routing import Routing

Widths = tuple[Annotated[int, Field(ge=1)], ...]


class AbstractTowerConfig(AbstractDeepConfig, ABC):
    """The config of a network that ends in a tower for every domain.

    The tower's output layer is the model's head, one for each domain where the config names none.
    """

    paper_head: ClassVar[Towers | None] = "per_domain"

    tower_widths: Widths = Field(
        default=(32,),
        description="output widths of the blocks of every domain's own tower; each is a site, behind"
        " those of the blocks below; `[]` leaves the head alone to a domain",
    )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths below the towers, then widths of the towers."""
        return (*self.widths, *self.tower_widths)

    def scaled(self, factor: float) -> "AbstractTowerConfig":
        """The same with ``factor`` times all widths, each of 2 at least."""
        changed = {
            name: tuple(max(2, round(width * factor)) for width in getattr(self, name))
            for name in ("widths", "tower_widths")
        }
        return self.model_copy(update=changed)


class DomainTower(nn.Module):
    """Blocks of Linear, norm, ReLU, dropout with weights for each domain; a site after each.

    (rows, in_width) -> (rows, widths[-1]), or the input where ``widths`` is empty. A row meets the
    blocks of its own domain alone. ``norm="batch"`` means ``domain`` here: see `DeepBlock`.
    """

    def __init__(
        self,
        *,
        in_width: int,
        widths: Sequence[int],
        n_domains: int,
        norm: Norm = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.out_width = (in_width, *widths)[-1]
        self.blocks = nn.ModuleList(
            DeepBlock(
                in_width=width_in,
                out_width=width_out,
                norm=norm,
                dropout=dropout,
                towers="per_domain",
                n_domains=n_domains,
            )
            for width_in, width_out in zip((in_width, *widths), widths, strict=False)
        )

    def forward(
        self, h: Float[Tensor, "rows in_width"], routing: Routing, adapt: Adapt, first_site: int
    ) -> Float[Tensor, "rows out_width"]:
        """Apply the blocks, and ``adapt`` after each: the first is site ``first_site``."""
        for site, block in enumerate(self.blocks, start=first_site):
            h = adapt(site, block(h, routing))
        return h
