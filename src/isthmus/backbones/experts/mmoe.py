"""MMoE: experts that all domains share, mixed by a gate for each domain, and a tower on top.

Source: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate
Mixture-of-Experts, KDD 2018, doi 10.1145/3219819.3220007, eq. 5 to 7, of tasks d:

    g_d(x) = softmax(x W_d);   f_d(x) = sum_i g_d(x)_i f_i(x);   y_d = t_d(f_d(x))

Departures:
- A task's label becomes a domain's rows: a row meets the gate and the tower of its own domain only.
- Domain 0, the unknown, has a gate and a tower of its own, which domain dropout trains.
- A gate has an offset for each expert: embedded rows start near 0, where W_d alone says nothing of
  the domain.
- Experts have norm and dropout, as every deep part here.
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from isthmus.backbones.backbone import AbstractBackbone, Adapt, BackboneSpec, leave_alone
from isthmus.backbones.experts.domain_tower import AbstractTowerConfig, DomainTower, Widths
from isthmus.layers.blocks import Norm
from isthmus.layers.gates import Experts, Gate, mixed
from isthmus.layers.routing import Routing, needed


class MmoeConfig(AbstractTowerConfig):
    """Experts that all domains share, mixed by a gate for each domain."""

    name: Literal["mmoe"] = "mmoe"
    experts: int = Field(default=4, ge=2, description="number of experts")
    widths: Widths = Field(
        default=(64, 32),
        min_length=1,
        description="output widths of the blocks of each expert; the mixed state is site `0`",
    )

    def build(self, spec: BackboneSpec) -> "MMoE":
        """The backbone in a network of this shape."""
        self.check_towers(spec.towers)
        return MMoE(
            in_width=spec.inputs.width,
            n_domains=spec.n_domains,
            experts=self.experts,
            widths=self.widths,
            tower_widths=self.tower_widths,
            dropout=self.dropout,
            norm=self.norm,
        )


class MMoE(AbstractBackbone):
    """(rows, in_width) -> (rows, tower_widths[-1]); site 0 is the mixed state, then the tower's.

    >>> MMoE(in_width=6, n_domains=2, widths=(8, 4), tower_widths=(3,)).site_widths
    (4, 3)
    """

    def __init__(
        self,
        *,
        in_width: int,
        n_domains: int,
        experts: int = 4,
        widths: Sequence[int] = (64, 32),
        tower_widths: Sequence[int] = (32,),
        dropout: float = 0.2,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.experts = Experts(
            n_experts=experts,
            in_width=in_width,
            widths=widths,
            norm=norm,  # NOTE[DIFF] norm and dropout in the experts
            dropout=dropout,
            n_domains=n_domains,
        )
        # NOTE[DIFF] a gate of its own for the unknown domain too, each with an offset.
        self.gate = Gate(
            in_width, [f"shared {k}" for k in range(1, experts + 1)], n_domains=n_domains
        )
        self.tower = DomainTower(
            in_width=self.experts.out_width,
            widths=tower_widths,
            n_domains=n_domains,
            norm=norm,
            dropout=dropout,
        )
        self.in_width = in_width
        self.out_width = self.tower.out_width
        self.site_widths = (self.experts.out_width, *tower_widths)

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Mix the experts as the row's domain asks, then run the row's own tower."""
        routing = needed(routing)
        # NOTE[DIFF] the gate and the tower of the row's own domain only.
        h = adapt(0, mixed(self.gate(x, routing), self.experts(x, routing)))
        return self.tower(h, routing, adapt, 1)
