"""AdaptDHM: rows find the cluster that they are like, and the cluster's weights serve them.

Source: Li et al., AdaptDHM: Adaptive Distribution Hierarchical Model for Multi-Domain CTR Prediction,
2022, arXiv:2211.12105: the distribution adaptation module, a dynamic routing between rows and cluster
centres, and the multi-distribution network, shared weights times the cluster's own. For a row z:

    k = argmax_j z . c_j,   h_{l+1} = relu(h_l (W * W_k) + b + b_k),   logit = head(h_L)

The choice is that of `adl`, by the same authors: `ClusterGate`. Its centres are buffers, saved with the
model, which training alone moves; they meet rows of scaled columns and of unit length.

Departures, beside those of that gate:
- The domain's embedding stands beside the row, for the choice and for the network: the paper counts
  the domain among the features, which a table here need not do.
- A cluster's weights start at 1 and its biases at 0, and the biases take part. In the code of a
  benchmark biases are made and never used.
- A norm stands in each block, with statistics of the row's own cluster.
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
from isthmus.layers.bank import DomainEmbedding
from isthmus.layers.blocks import Norm, Towers
from isthmus.layers.gates import ClusterGate
from isthmus.layers.routing import Routing, needed


class AdaptDhmConfig(AbstractDeepConfig):
    """AdaptDHM: rows are clustered, and weights are shared ones times the cluster's own."""

    paper_head: ClassVar[Towers | None] = "shared"

    name: Literal["adaptdhm"] = "adaptdhm"
    norm: Norm = Field(
        default="batch",
        description="`batch`: statistics of the row's own cluster; `domain` means the same; `none`: no"
        " norm",
    )
    clusters: int = Field(default=3, ge=2, description="clusters, each with weights of its own")
    domain_dim: int = Field(default=8, ge=1, description="width of the domain's embedding")

    def build(self, spec: BackboneSpec) -> "AdaptDHM":
        """The backbone in a network of this shape. Raises ``ValueError`` for towers per domain."""
        self.check_towers(spec.towers)
        return AdaptDHM(
            in_width=spec.inputs.width,
            n_domains=spec.n_domains,
            widths=self.widths,
            dropout=self.dropout,
            norm=self.norm,
            clusters=self.clusters,
            domain_dim=self.domain_dim,
        )


class AdaptDHM(AbstractBackbone):
    """(rows, in_width) -> (rows, widths[-1]): star blocks over clusters of rows.

    Raises ``ValueError`` for empty ``widths`` and fewer than two clusters.
    """

    def __init__(
        self,
        *,
        in_width: int,
        n_domains: int,
        widths: Sequence[int] = (256, 128),
        dropout: float = 0.2,
        norm: Norm = "batch",
        clusters: int = 3,
        domain_dim: int = 8,
    ) -> None:
        if not widths or min(widths) < 1:
            raise ValueError(f"widths must hold at least one positive number, got {widths}")
        if clusters < 2:
            raise ValueError(f"clusters must be 2 or more, got {clusters}")
        super().__init__()
        self.in_width = in_width
        self.out_width = widths[-1]
        self.site_widths = tuple(widths)
        self.domain = DomainEmbedding(n_domains=n_domains, dim=domain_dim)
        # NOTE[DIFF]: a cluster is chosen by the domain too, whether or not a feature tells it.
        self.gate = ClusterGate(in_width=in_width + domain_dim, clusters=clusters)
        self.blocks = nn.ModuleList(
            StarBlock(
                in_width=width_in,
                out_width=width_out,
                sets=clusters,
                of_domains=False,
                norm=norm != "none",  # NOTE[DIFF]: of the row's own cluster
                dropout=dropout,
            )
            for width_in, width_out in zip((in_width + domain_dim, *widths), widths, strict=False)
        )

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Find each row's cluster, then apply the blocks, and ``adapt`` after each."""
        h = torch.cat([x, self.domain(needed(routing).domain)], dim=1)
        # Routing, tiles and banks know sets of parameters and the set of each row: here clusters.
        own = Routing(self.gate(h).argmax(dim=1), len(self.gate.experts) - 1)
        for site, block in enumerate(self.blocks):
            h = adapt(site, block(h, own))
        return h
