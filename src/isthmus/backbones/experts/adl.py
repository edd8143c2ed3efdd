"""ADL: rows are sent to clusters that are learnt, and each cluster has a network of its own.

Source: Li et al., ADL: Adaptive Distribution Learning Framework for Multi-Scenario CTR Prediction,
SIGIR 2023, doi 10.1145/3539618.3591944; its routing as in the authors' AdaptDHM, arXiv:2211.12105.
No one says which domain is like which: a row x goes to the cluster whose centre is nearest,

    p_k = softmax_k(x . c_k);   c_k <- unit(sum over rows p_k x), some rounds a batch;
    centres move on by an average over batches;   a row's cluster is the one of its largest p_k
    y = shared(x) + cluster_k(x)

Domains have no parameters of their own here: the domain is read as a feature, if it is one.

Departures:
- Centres and statistics are buffers, which a checkpoint and a bundle keep; they move in training
  only. In the public code they are lost when a model is saved, and prediction moves them.
- Every round reads the centres of the round before. The public code repeats the first one.
- Rows are scaled to mean 0 and variance 1 a column, and to unit length, before they meet the centres,
  and similarities are divided by a temperature. Rows as they are share a large mean and have lengths of
  1e-2: all p_k would be 1 / K, and all centres drift to one place.
- What shared and cluster network say is added. The abstract says that both are there, not how they
  are joined.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.backbones.backbone import (
    AbstractBackbone,
    AbstractDeepConfig,
    Adapt,
    BackboneSpec,
    leave_alone,
)
from isthmus.backbones.experts.domain_tower import Widths
from isthmus.backbones.mlp import MLP
from isthmus.layers.blocks import Norm, Towers
from isthmus.layers.gates import ClusterGate
from isthmus.layers.per_domain import undeclare
from isthmus.layers.routing import Routing


class AdlConfig(AbstractDeepConfig):
    """A shared network, and one for each learnt cluster of rows; domains are features alone."""

    name: Literal["adl"] = "adl"
    paper_head: ClassVar[Towers | None] = "shared"

    widths: Widths = Field(
        default=(128, 64),
        min_length=1,
        description="output widths of the blocks of the shared network and of each cluster's; their sum"
        " is site `0`",
    )
    clusters: int = Field(default=4, ge=2, description="number of clusters")
    rounds: int = Field(default=3, ge=1, description="rounds of routing a batch, in training")
    momentum: float = Field(
        default=0.1, gt=0, le=1, description="how far a batch moves the centres, 1 the whole way"
    )

    def build(self, spec: BackboneSpec) -> "ADL":
        """The backbone in a network of this shape."""
        self.check_towers(spec.towers)
        return ADL(
            in_width=spec.inputs.width,
            n_domains=spec.n_domains,
            widths=self.widths,
            clusters=self.clusters,
            rounds=self.rounds,
            momentum=self.momentum,
            dropout=self.dropout,
            norm=self.norm,
        )


class ADL(AbstractBackbone):
    """(rows, in_width) -> (rows, widths[-1]); site 0 is what shared and cluster network say together.

    ``n_domains``: for ``norm="domain"`` in the shared network.
    """

    def __init__(
        self,
        *,
        in_width: int,
        n_domains: int | None = None,
        widths: Sequence[int] = (128, 64),
        clusters: int = 4,
        rounds: int = 3,
        momentum: float = 0.1,
        dropout: float = 0.2,
        norm: Norm = "batch",
    ) -> None:
        if clusters < 2:
            raise ValueError(f"clusters must be 2 or more, got {clusters}")
        super().__init__()
        self.gate = ClusterGate(
            in_width=in_width, clusters=clusters, rounds=rounds, momentum=momentum
        )
        self.shared = MLP(
            in_width=in_width, widths=widths, dropout=dropout, norm=norm, n_domains=n_domains
        )
        # Routing, tiles and banks know sets of parameters and the set of each row: here clusters.
        self.clusters = MLP(
            in_width=in_width,
            widths=widths,
            dropout=dropout,
            norm=norm,
            towers="per_domain",
            n_domains=clusters - 1,
        )
        undeclare(self.clusters)
        self.in_width = in_width
        self.out_width = widths[-1]
        self.site_widths = (widths[-1],)

    def cluster_of(self, x: Float[Tensor, "rows in_width"]) -> Int[Tensor, " rows"]:
        """The cluster of each row, int64 from 0."""
        return self.gate(x).argmax(dim=1)

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Run the shared network on all rows, and on each row the network of its cluster."""
        sent = Routing(self.cluster_of(x), len(self.gate.experts) - 1)
        return adapt(0, self.shared(x, routing) + self.clusters(x, sent))
