"""DeepFM: a factorisation machine and a deep part over the same embeddings.

Source: Guo et al., DeepFM, IJCAI 2017, arXiv:1703.04247, eq. 1 to 4: the first order, the second
order and the deep logit are added. The sites sit in the deep part.
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from isthmus.backbones.backbone import (
    AbstractBackbone,
    AbstractDeepConfig,
    Adapt,
    BackboneSpec,
    leave_alone,
)
from isthmus.backbones.mlp import MLP
from isthmus.data.batch import Batch
from isthmus.layers.blocks import Norm, Towers
from isthmus.layers.cross import pairwise_products
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.inputs.wide import Wide
from isthmus.layers.routing import Routing
from isthmus.schema import FittedField


class DeepFMConfig(AbstractDeepConfig):
    """A factorisation machine beside the deep part; all categorical features need one `dim`."""

    name: Literal["deepfm"] = "deepfm"

    def build(self, spec: BackboneSpec) -> "DeepFM":
        """The backbone in a network of this shape."""
        return DeepFM(
            in_width=spec.inputs.width,
            widths=self.widths,
            dropout=self.dropout,
            norm=self.norm,
            fields=spec.inputs.fields,
            towers=spec.towers,
            n_domains=spec.n_domains,
        )


class DeepFM(AbstractBackbone):
    """(rows, in_width) -> (rows, widths[-1]) by the deep part; the FM's orders are the shortcut.

    The second order pairs the categorical features and lists (each pooled to one vector), whose
    embeddings must have one width; numbers take part in the first order. The FM is shared by all
    domains, also where the towers are not. Raises ``ValueError`` for unequal widths.
    """

    def __init__(
        self,
        *,
        in_width: int,
        fields: tuple[FittedField, ...],
        widths: Sequence[int] = (256, 128),
        dropout: float = 0.2,
        norm: Norm = "batch",
        towers: Towers = "shared",
        n_domains: int | None = None,
    ) -> None:
        dims = {field.name: field.width for field in fields if field.table}
        if len(set(dims.values())) != 1:
            raise ValueError(
                f"deepfm pairs embeddings, so all categorical features must have one dim, got {dims}"
            )
        super().__init__()
        self.first_order = Wide(fields=fields)
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
        self.linears = self.deep.linears

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Run the deep part."""
        return self.deep(x, routing, adapt)

    def shortcut(self, batch: Batch, inputs: FeatureEmbedding, x: Tensor) -> Float[Tensor, " rows"]:
        """The FM's logit: first order plus second order."""
        return self.first_order(batch) + pairwise_products(inputs.field_matrix(x))
