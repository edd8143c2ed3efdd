"""M3oE: a first layer that domains bend, then shared experts and the domain's own, fused by two scalars.

Source: Zhang et al., M3oE: Multi-Domain Multi-Task Mixture-of-Experts Recommendation Framework, SIGIR
2024, arXiv:2404.18465. For a row of domain d, with * entry by entry and LN a layer norm:

    f_DR = relu(LN(x (W_d * W) + b_d + b));   f_DA = relu(LN(x W_a + b_a))
    h = f_DR W_c + b_c + f_DA;   an expert is relu(LN(h W + b))
    S = sum_k g_d(h)_k f_k(h);   D = beta f^d(h) + (1 - beta) (mean of the other domains' experts)
    state = S + alpha D,   alpha and beta sigmoids of learnt scalars;   y_d = t_d(state)

Departures:
- The other domains' part of D is one expert that no domain owns. The paper runs the experts of all
  domains on every row: as many times the work as there are domains, and one domain's parameters would
  move another's rows.
- alpha and beta are trained with all else. The paper sets them in a search of their own, on one batch
  an epoch. They start at one half.
- W_d starts at 1, so every domain starts at the shared layer. Two random factors would make a product
  whose variance is that of the input over its width.
- There is one label: no experts of tasks, and towers of domains in place of towers of domains and tasks.
- Domain 0, the unknown, has a first layer, an expert, a gate and a tower of its own, which domain
  dropout trains.
- Dropout behind the state and in the towers.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.backbones.backbone import AbstractBackbone, Adapt, BackboneSpec, leave_alone
from isthmus.backbones.experts.domain_tower import AbstractTowerConfig, DomainTower, Widths
from isthmus.layers.blocks import Norm
from isthmus.layers.dropout import Dropout
from isthmus.layers.gates import Experts, Gate, mixed
from isthmus.layers.routing import Routing, needed


class M3oeConfig(AbstractTowerConfig):
    """A first layer that domains bend, then shared experts and the domain's own, fused by two scalars."""

    name: Literal["m3oe"] = "m3oe"
    widths: Widths = Field(
        default=(128, 32),
        min_length=2,
        description="width of the bent first layer, which is site `0`, then output widths of the blocks"
        " of each expert; the fused state is site `1`",
    )
    experts: int = Field(default=4, ge=2, description="experts that all domains share")
    dropout: float = Field(
        default=0.2, ge=0, lt=1, description="behind the fused state and in the towers"
    )
    norm: Norm = Field(
        default="batch", description="of the towers, as elsewhere; all else has layer norms"
    )

    def build(self, spec: BackboneSpec) -> "M3oE":
        """The backbone in a network of this shape."""
        self.check_towers(spec.towers)
        return M3oE(
            in_width=spec.inputs.width,
            n_domains=spec.n_domains,
            widths=self.widths,
            experts=self.experts,
            tower_widths=self.tower_widths,
            dropout=self.dropout,
            norm=self.norm,
        )


class BentLayer(nn.Module):
    """``relu(LN(x (W_d * W) + b_d + b)) W_c + b_c + relu(LN(x W_a + b_a))``; -> (rows, width)."""

    per_domain = ("own_weight", "own_bias")

    def __init__(self, *, in_width: int, width: int, n_domains: int) -> None:
        super().__init__()
        bound = in_width**-0.5
        self.weight = nn.Parameter(torch.empty(in_width, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(width))
        # NOTE[DIFF] ones: a fresh layer is the shared one, for every domain.
        self.own_weight = nn.Parameter(torch.ones(n_domains + 1, in_width, width))
        self.own_bias = nn.Parameter(torch.zeros(n_domains + 1, width))
        self.norm = nn.LayerNorm(width)
        self.join = nn.Linear(width, width)
        self.plain = nn.Linear(in_width, width)
        self.plain_norm = nn.LayerNorm(width)

    def forward(
        self, x: Float[Tensor, "rows in_width"], routing: Routing
    ) -> Float[Tensor, "rows width"]:
        """Apply the layer as each row's own domain bends it."""
        tiles = routing.tiles
        bent = tiles.pick(self.own_weight) * self.weight
        z = tiles.join(torch.bmm(tiles.split(x), bent)) + routing.take(self.own_bias) + self.bias
        return self.join(self.norm(z).relu()) + self.plain_norm(self.plain(x)).relu()


class M3oE(AbstractBackbone):
    """(rows, in_width) -> (rows, tower_widths[-1]); sites: first layer, fused state, the tower's.

    >>> M3oE(in_width=6, n_domains=2, widths=(8, 4), tower_widths=(3,)).site_widths
    (8, 4, 3)
    """

    def __init__(
        self,
        *,
        in_width: int,
        n_domains: int,
        widths: Sequence[int] = (128, 32),
        experts: int = 4,
        tower_widths: Sequence[int] = (32,),
        dropout: float = 0.2,
        norm: Norm = "batch",
    ) -> None:
        if len(widths) < 2:
            raise ValueError(
                f"widths must hold that of the first layer and those of an expert, got {widths}"
            )
        super().__init__()
        width, *expert_widths = widths

        def set_of(n_experts: int, *, own: bool = False) -> Experts:
            return Experts(
                n_experts=n_experts,
                in_width=width,
                widths=expert_widths,
                norm="layer",
                n_domains=n_domains,
                own=own,
            )

        self.first = BentLayer(in_width=in_width, width=width, n_domains=n_domains)
        self.shared = set_of(experts)
        self.own = set_of(1, own=True)
        # NOTE[DIFF] one expert in place of the other domains' experts.
        self.other = set_of(1)
        self.gate = Gate(width, [f"shared {k}" for k in range(1, experts + 1)], n_domains=n_domains)
        # NOTE[DIFF] trained with all else; a sigmoid of 0 is one half.
        self.fusion = nn.Parameter(torch.zeros(2))  # of alpha, of beta
        self.dropout = Dropout(dropout) if dropout else None
        self.tower = DomainTower(
            in_width=expert_widths[-1],
            widths=tower_widths,
            n_domains=n_domains,
            norm=norm,
            dropout=dropout,
        )
        self.in_width = in_width
        self.out_width = self.tower.out_width
        self.site_widths = (width, expert_widths[-1], *tower_widths)

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Bend, fuse the experts, then run the row's own tower."""
        routing = needed(routing)
        h = adapt(0, self.first(x, routing))
        shared = mixed(self.gate(h, routing), self.shared(h))
        own, other = self.own(h, routing).squeeze(1), self.other(h).squeeze(1)
        alpha, beta = F.sigmoid(self.fusion)
        state = shared + alpha * (beta * own + (1 - beta) * other)
        if self.dropout is not None:
            state = self.dropout(state)
        return self.tower(adapt(1, state), routing, adapt, 2)
