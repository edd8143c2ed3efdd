"""PLE: levels of experts, some shared and some of the row's domain, extracted one level after another.

Source: Tang et al., Progressive Layered Extraction (PLE), RecSys 2020, doi 10.1145/3383313.3412236,
eq. 1 to 9, of tasks d. Level j has experts of domain d that read d's state, and shared experts that
read the shared state; both states start as x:

    own state     o_j = gate_d,j(o_{j-1}) over [experts of d (o_{j-1}); shared experts (s_{j-1})]
    shared state  s_j = gate_j(s_{j-1}) over all experts of the level; none behind the last level
    y_d = t_d(o_L)

One level alone is CGC, the paper's other network.

Departures:
- A task's label becomes a domain's rows: a row meets experts, gate and tower of its own domain only.
  So the shared gate mixes the shared experts with those of the row's own domain, where the paper's
  mixes those of all tasks: experts of every domain on every row would cost as many times the work as
  there are domains, and one domain's parameters would move another's rows.
- Domain 0, the unknown, has experts, gates and a tower of its own, which domain dropout trains.
- An expert of a level is one block, with norm and dropout; the paper leaves its depth open.
- Gates have an offset for each expert: see MMoE.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.backbones.backbone import AbstractBackbone, Adapt, BackboneSpec, leave_alone
from isthmus.backbones.experts.domain_tower import AbstractTowerConfig, DomainTower, Widths
from isthmus.layers.blocks import Norm
from isthmus.layers.gates import Experts, Gate, mixed
from isthmus.layers.routing import Routing, needed


class PleConfig(AbstractTowerConfig):
    """Levels of experts, shared ones and ones of the row's domain; each level reads the one below."""

    name: Literal["ple"] = "ple"
    widths: Widths = Field(
        default=(64, 32),
        min_length=1,
        description="width of an expert at each level, `level_1` first; each level's state of the"
        " row's domain is a site, `0` to `len(widths) - 1`",
    )
    shared_experts: int = Field(default=2, ge=1, description="shared experts at each level")
    own_experts: int = Field(default=2, ge=1, description="experts of each domain at each level")

    def build(self, spec: BackboneSpec) -> "PLE":
        """The backbone in a network of this shape."""
        self.check_towers(spec.towers)
        return PLE(
            in_width=spec.inputs.width,
            n_domains=spec.n_domains,
            widths=self.widths,
            shared_experts=self.shared_experts,
            own_experts=self.own_experts,
            tower_widths=self.tower_widths,
            dropout=self.dropout,
            norm=self.norm,
        )


class ExtractionLevel(nn.Module):
    """One level: states of the domain and of all, (rows, in_width) each -> (rows, width) each.

    ``last``: nothing reads a shared state behind, so there is no gate for it, and the state of the
    domain is returned in its place.
    """

    def __init__(
        self,
        *,
        in_width: int,
        width: int,
        shared_experts: int,
        own_experts: int,
        n_domains: int,
        last: bool,
        norm: Norm,
        dropout: float,
    ) -> None:
        super().__init__()
        self.own = Experts(
            n_experts=own_experts,
            in_width=in_width,
            widths=(width,),
            norm=norm,
            dropout=dropout,
            n_domains=n_domains,
            own=True,
        )
        self.shared = Experts(
            n_experts=shared_experts,
            in_width=in_width,
            widths=(width,),
            norm=norm,
            dropout=dropout,
            n_domains=n_domains,
        )
        # NOTE[DIFF] the experts that a row meets: of its own domain and shared, in both gates.
        names = [
            *(f"own {k}" for k in range(1, own_experts + 1)),
            *(f"shared {k}" for k in range(1, shared_experts + 1)),
        ]
        self.own_gate = Gate(in_width, names, n_domains=n_domains)
        self.shared_gate = None if last else Gate(in_width, names)

    def forward(
        self,
        own: Float[Tensor, "rows in_width"],
        shared: Float[Tensor, "rows in_width"],
        routing: Routing,
    ) -> tuple[Float[Tensor, "rows width"], Float[Tensor, "rows width"]]:
        """The state of the row's domain, and the shared one."""
        states = torch.cat([self.own(own, routing), self.shared(shared, routing)], dim=1)
        state = mixed(self.own_gate(own, routing), states)
        if self.shared_gate is None:
            return state, state
        return state, mixed(self.shared_gate(shared), states)


class PLE(AbstractBackbone):
    """(rows, in_width) -> (rows, tower_widths[-1]); a site at each level, then the tower's.

    >>> net = PLE(in_width=6, n_domains=2, widths=(8, 4), tower_widths=(3,))
    >>> net.site_widths, list(net.levels)
    ((8, 4, 3), ['level_1', 'level_2'])
    """

    def __init__(
        self,
        *,
        in_width: int,
        n_domains: int,
        widths: Sequence[int] = (64, 32),
        shared_experts: int = 2,
        own_experts: int = 2,
        tower_widths: Sequence[int] = (32,),
        dropout: float = 0.2,
        norm: Norm = "batch",
    ) -> None:
        if not widths:
            raise ValueError(f"widths must hold one number for each level, got {widths}")
        super().__init__()
        self.levels = nn.ModuleDict(
            {
                f"level_{number}": ExtractionLevel(
                    in_width=width_in,
                    width=width,
                    shared_experts=shared_experts,
                    own_experts=own_experts,
                    n_domains=n_domains,
                    last=number == len(widths),
                    norm=norm,
                    dropout=dropout,
                )
                for number, (width_in, width) in enumerate(
                    zip((in_width, *widths), widths, strict=False), start=1
                )
            }
        )
        self.tower = DomainTower(
            in_width=widths[-1],
            widths=tower_widths,
            n_domains=n_domains,
            norm=norm,
            dropout=dropout,
        )
        self.in_width = in_width
        self.out_width = self.tower.out_width
        self.site_widths = (*widths, *tower_widths)

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Extract level by level, then run the row's own tower."""
        routing = needed(routing)
        own, shared = x, x
        for site, level in enumerate(self.levels.values()):
            own, shared = level(own, shared, routing)
            own = adapt(site, own)
        return self.tower(own, routing, adapt, len(self.levels))
