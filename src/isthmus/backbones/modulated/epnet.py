"""EPNet: the domain says how much each value of the embedded row counts; then a deep part.

Source: Chang et al., PEPNet, KDD 2023, arXiv:2302.01115, the embedding personalised network. For a
row x of domain d, with an embedding e_d and a gate unit U (`gate_unit`):

    x' = x * U([e_d, stop(x)]),   logit = head(deep(x'))

Departures:
- The paper's domain side holds counts of the user and the item within the domain too. Here it is the
  domain's embedding; `statistics: true` on a feature makes such counts part of x.
- The deep part has its hidden layers. The code of a benchmark loses them, so its EPNet is a gated
  linear model.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from isthmus.backbones.backbone import (
    AbstractBackbone,
    AbstractDeepConfig,
    Adapt,
    BackboneSpec,
    leave_alone,
)
from isthmus.backbones.mlp import MLP
from isthmus.backbones.modulated.gate_unit import EmbeddingGate
from isthmus.layers.blocks import Norm, Towers
from isthmus.layers.routing import Routing, needed


class EpnetConfig(AbstractDeepConfig):
    """EPNet: a gate per domain on the embedded row, before the deep part."""

    other_widths: ClassVar[tuple[str, ...]] = ("gate_width",)

    name: Literal["epnet"] = "epnet"
    gate_width: int = Field(default=64, ge=1, description="hidden units of the gate")
    domain_dim: int = Field(default=8, ge=1, description="width of the domain's embedding")

    def build(self, spec: BackboneSpec) -> "EPNet":
        """The backbone in a network of this shape."""
        return EPNet(
            in_width=spec.inputs.width,
            n_domains=spec.n_domains,
            widths=self.widths,
            dropout=self.dropout,
            norm=self.norm,
            gate_width=self.gate_width,
            domain_dim=self.domain_dim,
            towers=spec.towers,
        )


class EPNet(AbstractBackbone):
    """(rows, in_width) -> (rows, widths[-1]): a gate on the row, then deep blocks.

    ``towers``: ``per_domain`` gives every domain deep blocks of its own; the gate stays one.
    """

    def __init__(
        self,
        *,
        in_width: int,
        n_domains: int,
        widths: Sequence[int] = (256, 128),
        dropout: float = 0.2,
        norm: Norm = "batch",
        gate_width: int = 64,
        domain_dim: int = 8,
        towers: Towers = "shared",
    ) -> None:
        super().__init__()
        # NOTE[DIFF]: the domain's side of the gate is the domain's embedding alone.
        self.gate = EmbeddingGate(
            width=in_width, n_domains=n_domains, domain_dim=domain_dim, gate_width=gate_width
        )
        self.deep = MLP(
            in_width=in_width,
            widths=widths,
            dropout=dropout,
            norm=norm,
            towers=towers,
            n_domains=n_domains,
        )
        self.in_width = in_width
        self.out_width = self.deep.out_width
        self.site_widths = self.deep.site_widths

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Gate the row and run the deep part."""
        return self.deep(self.gate(x, needed(routing)), routing, adapt)
