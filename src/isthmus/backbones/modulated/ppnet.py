"""PPNet: what is known of a row beforehand says how much each hidden unit counts.

Source: Chang et al., PEPNet, KDD 2023, arXiv:2302.01115, the parameter personalised network. For a
row x of domain d, with embeddings p of the prior features, e_d of the domain, and a gate unit V_l for
each block (`gate_unit`):

    h_0 = x,   h_{l+1} = V_{l+1}([p, e_d, stop(x)]) * block(h_l),   logit = head(h_L)

Departures:
- The paper has a tower for each task. Here is one label, so one tower; the domain, which the gates of
  the paper meet only by way of EPNet, is read by the gates beside the prior.
- The priors of the paper are the ids of user, item and author. Which features these are, a table does
  not say: by default all features are priors, and `prior` names them.
- Priors are trained through the gate as in the paper. The code of a benchmark cuts the gradient of
  all embeddings, which then stay as they were drawn.
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
from isthmus.backbones.modulated.gate_unit import GatedBlocks
from isthmus.layers.blocks import Norm, Towers
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.routing import Routing

Prior = Literal["all"] | tuple[str, ...]


class PpnetConfig(AbstractDeepConfig):
    """PPNet: a gate per row on every hidden unit of the deep part."""

    other_widths: ClassVar[tuple[str, ...]] = ("gate_width",)

    name: Literal["ppnet"] = "ppnet"
    prior: Prior = Field(
        default="all",
        description="the features that the gates learn from: all, or the named ones, such as"
        " `[user, item]`",
    )
    gate_width: int = Field(default=64, ge=1, description="hidden units of each gate")
    domain_dim: int = Field(default=8, ge=1, description="width of the domain's embedding")

    def build(self, spec: BackboneSpec) -> "PPNet":
        """The backbone in a network of this shape. Raises ``ValueError`` for an unknown prior."""
        return PPNet(
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


class PPNet(AbstractBackbone):
    """(rows, in_width) -> (rows, widths[-1]): deep blocks, each unit of which has a gate.

    ``prior``: the columns of the row that the gates learn from; None for all. A site is behind a
    block's gate. ``towers``: ``per_domain`` gives every domain blocks of its own; gates stay shared.
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
        # NOTE[DIFF]: one tower, not one a task; the gates read the domain's embedding.
        self.deep = GatedBlocks(
            in_width=in_width,
            widths=widths,
            dropout=dropout,
            norm=norm,
            towers=towers,
            n_domains=n_domains,
            prior=prior,
            reads_input=True,
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
        """Apply the blocks, a gate and ``adapt`` after each."""
        return self.deep(x, x, routing, adapt)


def prior_columns(prior: Prior, inputs: FeatureEmbedding) -> tuple[slice, ...] | None:
    """The columns of the named features in the embedded row; None for all.

    Raises ``ValueError`` where no feature is named, one is unknown, or one is named twice.
    """
    if prior == "all":
        return None
    unknown = [name for name in prior if name not in inputs.columns]
    if unknown or not prior or len(set(prior)) < len(prior):
        raise ValueError(
            f"backbone.prior must be 'all' or name features of {list(inputs.columns)}, each once,"
            f" got {list(prior)}"
        )
    return tuple(inputs.columns[name] for name in prior)
