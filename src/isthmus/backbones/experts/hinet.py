"""HiNet: what all domains share, what the row's domain has of its own, and what it takes from others.

Source: Zhou et al., HiNet: Novel Multi-Scenario & Multi-Task Learning with Hierarchical Information
Extraction, ICDE 2023, arXiv:2303.06095, the scenario extraction layer. An SEI module is a mixture of
experts under one gate; SAN weighs the other scenarios by the embedding of the row's own one, d:

    G = SEI(x);   S_d = SEI_d(x);   A_d = sum_j san(emb_d, x)_j S_j, over j other than d
    C_d = [G; S_d; A_d], which the layer of tasks reads

Departures:
- What a domain takes from others comes from ``other_experts`` networks that no domain owns. The paper
  runs the experts of every other scenario on every row: as many times the work as there are domains,
  and one domain's parameters would move another's rows. The weights still follow from the domain's
  embedding, so domains that are alike come to use the same of them.
- There is one label, so the layer of tasks, a CGC over tasks, is the tower of the row's domain.
- Domain 0, the unknown, has experts, gate, embedding and tower of its own, which domain dropout trains.
- Experts have norm and dropout, as every deep part here.
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


class HinetConfig(AbstractTowerConfig):
    """Shared experts, experts of the row's domain, and experts chosen by an embedding of the domain."""

    name: Literal["hinet"] = "hinet"
    widths: Widths = Field(
        default=(64, 32),
        min_length=1,
        description="output widths of the blocks of each expert; site `0` is the three mixtures side by"
        " side, three times the last width",
    )
    shared_experts: int = Field(default=2, ge=1, description="experts that all domains share")
    own_experts: int = Field(default=2, ge=1, description="experts of each domain")
    other_experts: int = Field(
        default=2, ge=1, description="experts that stand for the other domains"
    )
    domain_dim: int = Field(
        default=8, ge=1, description="width of the domain's embedding, which weighs them"
    )

    def build(self, spec: BackboneSpec) -> "HiNet":
        """The backbone in a network of this shape."""
        self.check_towers(spec.towers)
        return HiNet(
            in_width=spec.inputs.width,
            n_domains=spec.n_domains,
            widths=self.widths,
            shared_experts=self.shared_experts,
            own_experts=self.own_experts,
            other_experts=self.other_experts,
            domain_dim=self.domain_dim,
            tower_widths=self.tower_widths,
            dropout=self.dropout,
            norm=self.norm,
        )


class ExpertMixture(nn.Module):
    """Experts under one gate; (rows, in_width) -> (rows, widths[-1]). The paper's SEI module.

    ``own``: experts and gate of its own for every domain, and for the unknown one. ``beside``: width
    of what the gate reads beside x. ``kind``: what the gate calls the experts.
    """

    def __init__(
        self,
        *,
        kind: str,
        n_experts: int,
        in_width: int,
        widths: Sequence[int],
        n_domains: int,
        own: bool = False,
        beside: int = 0,
        norm: Norm,
        dropout: float,
    ) -> None:
        super().__init__()
        self.experts = Experts(
            n_experts=n_experts,
            in_width=in_width,
            widths=widths,
            norm=norm,  # NOTE[DIFF] norm and dropout in the experts
            dropout=dropout,
            n_domains=n_domains,
            own=own,
        )
        self.gate = Gate(
            in_width + beside,
            [f"{kind} {k}" for k in range(1, n_experts + 1)],
            n_domains=n_domains if own else None,
        )

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing,
        beside: Float[Tensor, "rows beside"] | None = None,
    ) -> Float[Tensor, "rows width"]:
        """Mix the experts; the gate reads ``beside``, too, where there is something beside."""
        read = x if beside is None else torch.cat([beside, x], dim=1)
        return mixed(self.gate(read, routing), self.experts(x, routing))


class HiNet(AbstractBackbone):
    """(rows, in_width) -> (rows, tower_widths[-1]); site 0 is ``[G; S_d; A_d]``, then the tower's.

    >>> HiNet(in_width=6, n_domains=2, widths=(8, 4), tower_widths=(3,)).site_widths
    (12, 3)
    """

    per_domain = ("domain_embedding",)

    def __init__(
        self,
        *,
        in_width: int,
        n_domains: int,
        widths: Sequence[int] = (64, 32),
        shared_experts: int = 2,
        own_experts: int = 2,
        other_experts: int = 2,
        domain_dim: int = 8,
        tower_widths: Sequence[int] = (32,),
        dropout: float = 0.2,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()

        def mixture(kind: str, count: int, *, own: bool = False, beside: int = 0) -> ExpertMixture:
            return ExpertMixture(
                kind=kind,
                n_experts=count,
                in_width=in_width,
                widths=widths,
                n_domains=n_domains,
                own=own,
                beside=beside,
                norm=norm,
                dropout=dropout,
            )

        self.shared = mixture("shared", shared_experts)
        self.own = mixture("own", own_experts, own=True)
        # NOTE[DIFF] a fixed number of networks in place of all other domains' experts.
        self.others = mixture("other", other_experts, beside=domain_dim)
        self.domain_embedding = nn.Parameter(torch.randn(n_domains + 1, domain_dim))
        # NOTE[DIFF] one label: the row's own tower in place of the layer of tasks.
        self.tower = DomainTower(
            in_width=3 * widths[-1],
            widths=tower_widths,
            n_domains=n_domains,
            norm=norm,
            dropout=dropout,
        )
        self.in_width = in_width
        self.out_width = self.tower.out_width
        self.site_widths = (3 * widths[-1], *tower_widths)

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Extract the three parts of the domain's state, then run the row's own tower."""
        routing = needed(routing)
        domain = routing.take(self.domain_embedding)
        parts = [
            self.shared(x, routing),
            self.own(x, routing),
            self.others(x, routing, domain),
        ]
        h = adapt(0, torch.cat(parts, dim=1))
        return self.tower(h, routing, adapt, 1)
