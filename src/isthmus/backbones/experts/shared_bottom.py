"""Shared bottom: blocks that all domains share, and a tower for each domain on top.

Source: Caruana, Multitask Learning, Machine Learning 28, 1997; as Ma et al. (KDD 2018, eq. 1) write it
of tasks, ``y_d = t_d(f(x))``, with f the bottom and t_d the tower of domain d.

Departures:
- A task's label becomes a domain's rows: a row meets the tower of its own domain only.
- Domain 0, the unknown, has a tower of its own, which domain dropout trains.
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from isthmus.backbones.backbone import AbstractBackbone, Adapt, BackboneSpec, leave_alone
from isthmus.backbones.experts.domain_tower import AbstractTowerConfig, DomainTower
from isthmus.backbones.mlp import MLP
from isthmus.layers.blocks import Norm
from isthmus.layers.routing import Routing, needed


class SharedBottomConfig(AbstractTowerConfig):
    """Blocks that all domains share, below a tower for each domain."""

    name: Literal["shared_bottom"] = "shared_bottom"

    def build(self, spec: BackboneSpec) -> "SharedBottom":
        """The backbone in a network of this shape."""
        self.check_towers(spec.towers)
        return SharedBottom(
            in_width=spec.inputs.width,
            n_domains=spec.n_domains,
            widths=self.widths,
            tower_widths=self.tower_widths,
            dropout=self.dropout,
            norm=self.norm,
        )


class SharedBottom(AbstractBackbone):
    """(rows, in_width) -> (rows, tower_widths[-1]); a site after each block, the bottom's first.

    >>> net = SharedBottom(in_width=6, n_domains=2, widths=(8,), tower_widths=(4,))
    >>> net.site_widths
    (8, 4)
    """

    def __init__(
        self,
        *,
        in_width: int,
        n_domains: int,
        widths: Sequence[int] = (256, 128),
        tower_widths: Sequence[int] = (32,),
        dropout: float = 0.2,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.bottom = MLP(
            in_width=in_width, widths=widths, dropout=dropout, norm=norm, n_domains=n_domains
        )
        # NOTE[DIFF] one set of towers for n_domains + 1: the first is that of the unknown domain.
        self.tower = DomainTower(
            in_width=self.bottom.out_width,
            widths=tower_widths,
            n_domains=n_domains,
            norm=norm,
            dropout=dropout,
        )
        self.in_width = in_width
        self.out_width = self.tower.out_width
        self.site_widths = (*widths, *tower_widths)
        self.linears = self.bottom.linears

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Run the bottom on all rows, then each row's own tower."""
        h = self.bottom(x, routing, adapt)
        # NOTE[DIFF] the row's own tower only.
        return self.tower(h, needed(routing), adapt, len(self.bottom.site_widths))
