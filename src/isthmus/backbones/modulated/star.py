"""STAR: a domain's weights are shared weights times its own, with a norm of its own before them.

Source: Sheng et al., One Model to Serve All: Star Topology Adaptive Recommender for Multi-Domain
CTR Prediction, CIKM 2021, arXiv:2101.11427. For a row x of domain d:

    h_0 = PN_d(x),   h_{l+1} = relu(h_l (W * W_d) + b + b_d),   logit = head(h_L) + aux([x, e_d])

PN_d is the partitioned norm, aux the auxiliary network, e_d an embedding of the domain.

Departures:
- The partitioned norm is `DomainNorm`. The paper multiplies a shared gain with the domain's own and
  adds two biases; here each is one parameter per domain, which reaches the same functions. A domain
  with few rows in a batch is shrunk to all rows, and the paper's batches of one domain are not
  needed.
- The norm stands behind each product too, as in the other deep blocks here.
- The head is a layer of each domain's own, without a shared factor: the same functions.
- W_d starts at 1 and b_d at 0, so that a fresh network is one shared network. The paper is silent.
- The last layer of both networks is linear. The code of a benchmark puts a ReLU on the logit, which
  then never falls below 0; takes the batch's statistics in eval; and draws biases from (0, 1).
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

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
from isthmus.backbones.modulated.star_block import StarBlock
from isthmus.data.batch import Batch
from isthmus.layers.bank import DomainEmbedding
from isthmus.layers.blocks import DeepBlock, Norm, Towers
from isthmus.layers.domain_norm import DomainNorm
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.routing import Routing, needed


class StarConfig(AbstractDeepConfig):
    """STAR: shared weights times the domain's own, a partitioned norm, an auxiliary network."""

    paper_head: ClassVar[Towers | None] = "per_domain"
    other_widths: ClassVar[tuple[str, ...]] = ("aux_width",)

    name: Literal["star"] = "star"
    norm: Norm = Field(
        default="domain",
        description="`domain`: the partitioned norm, on the embedded row and in each block; `batch`"
        " means the same; `none`: no norm",
    )
    aux_width: int = Field(default=32, ge=1, description="hidden units of the auxiliary network")
    domain_dim: int = Field(default=8, ge=1, description="width of the domain's embedding")

    def build(self, spec: BackboneSpec) -> "Star":
        """The backbone in a network of this shape. Raises ``ValueError`` for towers per domain."""
        self.check_towers(spec.towers)
        return Star(
            in_width=spec.inputs.width,
            n_domains=spec.n_domains,
            widths=self.widths,
            dropout=self.dropout,
            norm=self.norm,
            aux_width=self.aux_width,
            domain_dim=self.domain_dim,
        )


class Star(AbstractBackbone):
    """(rows, in_width) -> (rows, widths[-1]) by star blocks; the auxiliary logit is the shortcut.

    ``norm="batch"`` means ``"domain"``: statistics over the outputs of different weights would mix
    the domains. Raises ``ValueError`` for empty ``widths``, and at a call without routing.
    """

    def __init__(
        self,
        *,
        in_width: int,
        n_domains: int,
        widths: Sequence[int] = (256, 128),
        dropout: float = 0.2,
        norm: Norm = "domain",
        aux_width: int = 32,
        domain_dim: int = 8,
    ) -> None:
        if not widths or min(widths) < 1:
            raise ValueError(f"widths must hold at least one positive number, got {widths}")
        super().__init__()
        self.in_width = in_width
        self.out_width = widths[-1]
        self.site_widths = tuple(widths)
        # NOTE[DIFF]: one gain and one bias per domain, in place of shared ones and the domain's own.
        self.partitioned = (
            None if norm == "none" else DomainNorm(width=in_width, n_domains=n_domains)
        )
        self.blocks = nn.ModuleList(
            StarBlock(
                in_width=width_in,
                out_width=width_out,
                sets=n_domains + 1,
                of_domains=True,
                norm=norm != "none",  # NOTE[DIFF]: the norm stands in each block too
                dropout=dropout,
            )
            for width_in, width_out in zip((in_width, *widths), widths, strict=False)
        )
        self.domain = DomainEmbedding(n_domains=n_domains, dim=domain_dim)
        self.auxiliary = nn.Sequential(
            DeepBlock(
                in_width=in_width + domain_dim,
                out_width=aux_width,
                norm="none" if norm == "none" else "batch",
            ),
            nn.Linear(aux_width, 1, bias=False),  # the head has a bias
        )

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Normalise, then apply the blocks, and ``adapt`` after each."""
        routing = needed(routing)
        h = x if self.partitioned is None else self.partitioned(x, routing)
        for site, block in enumerate(self.blocks):
            h = adapt(site, block(h, routing))
        return h

    def shortcut(
        self,
        batch: Batch,
        inputs: FeatureEmbedding,  # noqa: ARG002
        x: Float[Tensor, "rows in_width"],
    ) -> Float[Tensor, " rows"]:
        """The auxiliary network's logit."""
        return self.auxiliary(torch.cat([x, self.domain(batch.domain)], dim=1)).squeeze(1)
