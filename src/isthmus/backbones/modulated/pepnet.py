"""PEPNet: EPNet's gate on the embedded row, then PPNet's gates on the hidden units.

Source: Chang et al., PEPNet, KDD 2023, arXiv:2302.01115. For a row x of domain d (`gate_unit`):

    x' = x * U([e_d, stop(x)]),   h_0 = x'
    h_{l+1} = V_{l+1}([p, e'_d, stop(x')]) * block(h_l),   logit = head(h_L)

Departures: those of `epnet` and `ppnet`. PPNet's gates have an embedding e'_d of the domain of their
own, so that each half is the same network alone and here.
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
from isthmus.backbones.modulated.gate_unit import EmbeddingGate, GatedBlocks
from isthmus.backbones.modulated.ppnet import Prior, prior_columns
from isthmus.layers.blocks import Norm, Towers
from isthmus.layers.routing import Routing, needed


class PepnetConfig(AbstractDeepConfig):
    """PEPNet: EPNet's gate on the embedded row and PPNet's gates on the hidden units."""

    other_widths: ClassVar[tuple[str, ...]] = ("gate_width",)

    name: Literal["pepnet"] = "pepnet"
    prior: Prior = Field(
        default="all",
        description="the features that the gates of the hidden units learn from: all, or the named"
        " ones, such as `[user, item]`",
    )
    gate_width: int = Field(default=64, ge=1, description="hidden units of each gate")
    domain_dim: int = Field(default=8, ge=1, description="width of the domain's embeddings")

    def build(self, spec: BackboneSpec) -> "PEPNet":
        """The backbone in a network of this shape. Raises ``ValueError`` for an unknown prior."""
        return PEPNet(
            in_width=spec.inputs.width,
            n_domains=spec.n_domains,
            widths=self.widths,
            dropout=self.dropout,
            norm=self.norm,
            prior=prior_columns(self.prior, spec.inputs),
            gate_width=self.gate_width,
            domain_dim=self.domain_dim,
            towers=spec.towers,
        )


class PEPNet(AbstractBackbone):
    """(rows, in_width) -> (rows, widths[-1]): a gate on the row, then gated deep blocks.

    Arguments and sites are those of :class:`isthmus.backbones.PPNet`.
    """

    def __init__(
        self,
        *,
        in_width: int,
        n_domains: int,
        widths: Sequence[int] = (256, 128),
        dropout: float = 0.2,
        norm: Norm = "batch",
        prior: Sequence[slice] | None = None,
        gate_width: int = 64,
        domain_dim: int = 8,
        towers: Towers = "shared",
    ) -> None:
        super().__init__()
        self.gate = EmbeddingGate(
            width=in_width, n_domains=n_domains, domain_dim=domain_dim, gate_width=gate_width
        )
        # NOTE[DIFF]: as in ppnet, one tower, and gates that read the domain too.
        self.deep = GatedBlocks(
            in_width=in_width,
            widths=widths,
            dropout=dropout,
            norm=norm,
            towers=towers,
            n_domains=n_domains,
            prior=prior,
            reads_input=False,
            domain_dim=domain_dim,
            gate_width=gate_width,
        )
        self.in_width = in_width
        self.out_width = widths[-1]
        self.site_widths = tuple(widths)

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Gate the row, then apply the blocks, a gate and ``adapt`` after each."""
        return self.deep(x, self.gate(x, needed(routing)), routing, adapt)
