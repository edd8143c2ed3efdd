"""AdaptDHM: rows find the cluster that they are like, and the cluster's weights serve them.

Source: Li et al., AdaptDHM: Adaptive Distribution Hierarchical Model for Multi-Domain CTR Prediction,
2022, arXiv:2211.12105: the distribution adaptation module, a dynamic routing between rows and cluster
centres, and the multi-distribution network, shared weights times the cluster's own. For a row z:

    k = argmax_j z . c_j,   h_{l+1} = relu(h_l (W * W_k) + b + b_k),   logit = head(h_L)

In training the centres move: three rounds of p_ij = softmax_j(z_i . c_j) and c_j = the direction of
sum_i p_ij z_i, then centre_j = the direction of 0.9 centre_j + 0.1 c_j.

Departures:
- The centres are buffers, saved with the model, which training alone moves: in eval a row's cluster
  depends on the row alone. In the code of a benchmark the centres are lost when a model is saved.
- The row that finds a cluster is standardised, in eval by running statistics, and brought to one
  length. Otherwise the numbers of a table, a thousand times as large as fresh embeddings, would choose
  the cluster alone, and rows of large values would place the centres.
- The domain's embedding stands beside the row, for the choice and for the network: the paper counts
  the domain among the features, which a table here need not do.
- A cluster's weights start at 1 and its biases at 0, and the biases take part. There biases are
  made and never used.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

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
from isthmus.layers.gates import AbstractGate
from isthmus.layers.routing import Routing, needed

ROUNDS = 3  # of the dynamic routing in each batch of training
KEPT = 0.9  # how much of itself a centre keeps in each batch


class AdaptDhmConfig(AbstractDeepConfig):
    """AdaptDHM: rows are clustered, and weights are shared ones times the cluster's own."""

    paper_head: ClassVar[Towers | None] = "shared"

    name: Literal["adaptdhm"] = "adaptdhm"
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


class Clusters(AbstractGate):
    """Sends each row to the cluster that it is like; (rows, width) -> (rows, clusters), one 1 a row.

    Training moves the centres, by the batch's rows. No gradient passes: a choice has none. Raises
    ``ValueError`` for fewer than two clusters.
    """

    centres: Tensor  # (clusters, width), each of length 1

    def __init__(self, *, width: int, clusters: int) -> None:
        if width < 1 or clusters < 2:
            raise ValueError(f"clusters must be at least 2, width 1, got {clusters=}, {width=}")
        super().__init__()
        self.experts = tuple(f"cluster {number}" for number in range(1, clusters + 1))
        self.standard = nn.BatchNorm1d(width, affine=False)
        # NOTE[DIFF]: a buffer, saved with the model.
        self.register_buffer("centres", F.normalize(torch.randn(clusters, width), dim=1))

    @torch.no_grad()
    def forward(
        self,
        x: Float[Tensor, "rows width"],
        routing: Routing | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "rows clusters"]:
        """The nearest centre of each row; in training, after the centres have moved."""
        # NOTE[DIFF]: standardised, and of one length.
        z = F.normalize(self.standard(x), dim=1)
        if self.training:
            self._move(z)
        nearest = (z @ self.centres.t()).argmax(dim=1)
        return F.one_hot(nearest, len(self.experts)).to(x.dtype)

    def _move(self, z: Float[Tensor, "rows width"]) -> None:
        sharpness = z.shape[1] ** 0.5  # the cosine of two random rows has a spread of 1 / sharpness
        centres = self.centres
        for _ in range(ROUNDS):
            share = torch.softmax(sharpness * (z @ centres.t()), dim=1)
            centres = F.normalize(share.t() @ z, dim=1)
        self.centres.copy_(F.normalize(KEPT * self.centres + (1 - KEPT) * centres, dim=1))


class AdaptDHM(AbstractBackbone):
    """(rows, in_width) -> (rows, widths[-1]): star blocks over clusters of rows.

    ``norm``: ``batch`` takes the statistics of the rows of all clusters, ``domain`` those of the
    row's domain. Raises ``ValueError`` for empty ``widths`` and fewer than two clusters.
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
        super().__init__()
        self.in_width = in_width
        self.out_width = widths[-1]
        self.site_widths = tuple(widths)
        self.n_clusters = clusters
        self.domain = DomainEmbedding(n_domains=n_domains, dim=domain_dim)
        self.clusters = Clusters(width=in_width + domain_dim, clusters=clusters)
        self.blocks = nn.ModuleList(
            StarBlock(
                in_width=width_in,
                out_width=width_out,
                sets=clusters,
                of_domains=False,
                norm=norm,
                dropout=dropout,
                n_domains=n_domains,
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
        routing = needed(routing)
        # NOTE[DIFF]: the domain is part of the row, whether or not a feature tells it.
        h = torch.cat([x, self.domain(routing.domain)], dim=1)
        cluster = self.clusters(h).argmax(dim=1)
        own = Routing(cluster, self.n_clusters - 1)  # its set 0 is the first cluster
        for site, block in enumerate(self.blocks):
            h = adapt(site, block(h, own, routing))
        return h
