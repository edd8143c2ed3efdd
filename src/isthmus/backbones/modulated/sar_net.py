"""SAR-Net: a linear change of the row per domain, then experts of all domains and of its own.

Source: Shen et al., SAR-Net: A Scenario-Aware Ranking Network for Personalized Fair Recommendation
in Hundreds of Travel Scenarios, CIKM 2021, arXiv:2110.06475: the scenario-specific transformation,
the two groups of debias experts, and the gate over both. For a row x of domain d:

    x' = x * beta_d + gamma_d
    experts: f_1(x'), ..., f_m(x') of all domains;  f_d1(x'), ..., f_dn(x') of domain d
    g = softmax([x', e_d] W + b),   h_0 = sum_i g_i f_i(x'),   logit = head(blocks(h_0))

Departures:
- The paper's two attentions over a user's behaviour are inputs here, no part of the backbone: a list
  with `pooling: attention` has such an attention.
- The paper weighs the experts by a fairness coefficient of items that people have pushed by hand. A
  table does not tell these items; the `weight` of a row can say the same.
- An expert is a whole block: linear map, norm, ReLU. The code of a benchmark has no activation, so
  its experts and their mixture are one linear map. Experts of a domain are normalised over the
  domain's own rows; there over all rows.
- beta starts at 1 and gamma at 0: a fresh transformation changes nothing. There gamma is drawn from
  (0, 1), a thousand times as large as the embeddings to which it is added. All features pass through
  it; there the numbers are lost.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.backbones.backbone import (
    AbstractBackbone,
    AbstractDeepConfig,
    Adapt,
    BackboneSpec,
    leave_alone,
)
from isthmus.layers.bank import DomainEmbedding
from isthmus.layers.blocks import DeepBlock, Norm, Towers
from isthmus.layers.gates import Experts, Gate, mixed
from isthmus.layers.routing import Routing, needed


class SarNetConfig(AbstractDeepConfig):
    """SAR-Net: the domain changes the row, then experts of all domains and of the domain's own."""

    paper_head: ClassVar[Towers | None] = "shared"

    name: Literal["sar_net"] = "sar_net"
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(64, 128),
        min_length=1,
        description="first the width of each expert and so of their mixture, which is site `0`; then"
        " the output widths of the deep blocks behind the mixture, each a site",
    )
    shared_experts: int = Field(default=3, ge=1, description="experts of all domains")
    own_experts: int = Field(default=1, ge=1, description="experts of each domain")
    domain_dim: int = Field(default=8, ge=1, description="width of the domain's embedding")

    def build(self, spec: BackboneSpec) -> "SarNet":
        """The backbone in a network of this shape. Raises ``ValueError`` for towers per domain."""
        self.check_towers(spec.towers)
        return SarNet(
            in_width=spec.inputs.width,
            n_domains=spec.n_domains,
            widths=self.widths,
            dropout=self.dropout,
            norm=self.norm,
            shared_experts=self.shared_experts,
            own_experts=self.own_experts,
            domain_dim=self.domain_dim,
        )


class Transformation(nn.Module):
    """``x * beta_d + gamma_d``; (rows, width) -> the same. A fresh one changes nothing."""

    per_domain = ("scale", "shift")

    def __init__(self, *, width: int, n_domains: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(n_domains + 1, width))
        # NOTE[DIFF]: the released start is uniform in (0, 1), which buries the embeddings.
        self.shift = nn.Parameter(torch.zeros(n_domains + 1, width))

    def forward(
        self, x: Float[Tensor, "rows width"], routing: Routing
    ) -> Float[Tensor, "rows width"]:
        """Stretch and shift each row as its domain says."""
        return torch.addcmul(routing.take(self.shift), x, routing.take(self.scale))


class SarNet(AbstractBackbone):
    """(rows, in_width) -> (rows, widths[-1]): a transformation, a mixture of experts, deep blocks.

    Site 0 is the mixture, of width ``widths[0]``; the others follow the blocks behind. Raises
    ``ValueError`` for empty ``widths`` and for a group without experts.
    """

    def __init__(
        self,
        *,
        in_width: int,
        n_domains: int,
        widths: Sequence[int] = (64, 128),
        dropout: float = 0.2,
        norm: Norm = "batch",
        shared_experts: int = 3,
        own_experts: int = 1,
        domain_dim: int = 8,
    ) -> None:
        if not widths or min(widths) < 1:
            raise ValueError(f"widths must hold at least one positive number, got {widths}")
        if min(shared_experts, own_experts) < 1:
            raise ValueError(
                f"both groups must have an expert, got {shared_experts=}, {own_experts=}"
            )
        super().__init__()
        self.in_width = in_width
        self.out_width = widths[-1]
        self.site_widths = tuple(widths)
        self.transformation = Transformation(width=in_width, n_domains=n_domains)
        # NOTE[DIFF]: each expert is a block with its activation, normalised over its own rows.
        self.shared = Experts(
            n_experts=shared_experts,
            in_width=in_width,
            widths=widths[:1],
            norm=norm,
            dropout=dropout,
            n_domains=n_domains,
        )
        self.own = Experts(
            n_experts=own_experts,
            in_width=in_width,
            widths=widths[:1],
            norm=norm,
            dropout=dropout,
            n_domains=n_domains,
            own=True,
        )
        self.domain = DomainEmbedding(n_domains=n_domains, dim=domain_dim)
        self.gate = Gate(
            in_width + domain_dim,
            [
                *(f"shared {number}" for number in range(1, shared_experts + 1)),
                *(f"own {number}" for number in range(1, own_experts + 1)),
            ],
        )
        self.blocks = nn.ModuleList(
            DeepBlock(
                in_width=width_in,
                out_width=width_out,
                norm=norm,
                dropout=dropout,
                n_domains=n_domains,
            )
            for width_in, width_out in pairwise(widths)
        )

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Transform, mix the experts, apply the blocks; ``adapt`` after the mixture and each block."""
        routing = needed(routing)
        x = self.transformation(x, routing)
        share = self.gate(torch.cat([x, self.domain(routing.domain)], dim=1))
        states = torch.cat([self.shared(x, routing), self.own(x, routing)], dim=1)
        h = adapt(0, mixed(share, states))
        for site, block in enumerate(self.blocks, start=1):
            h = adapt(site, block(h, routing))
        return h
