"""Wide & Deep: a deep part that generalises, and a linear one that remembers.

Source: Cheng et al., DLRS 2016, arXiv:1606.07792, eq. 3: the two logits are added. The sites sit
in the deep part; the wide part is untouched, as in HAMUR's Wide & Deep.
"""

from collections.abc import Sequence
from typing import Literal

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
from isthmus.data.batch import Batch
from isthmus.layers.blocks import Norm, Towers
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.inputs.wide import Wide
from isthmus.layers.routing import Routing
from isthmus.schema import FittedField


class WideDeepConfig(AbstractDeepConfig):
    """A linear part over single values and chosen crosses, beside the deep part."""

    name: Literal["wide_deep"] = "wide_deep"
    crosses: tuple[tuple[str, ...], ...] = Field(
        default=(),
        description="groups of two or more categorical features, for example"
        " `[[gender, occupation]]`",
    )
    cross_buckets: int = Field(
        default=10_000,
        ge=1,
        description="weights of one cross: one per combination where they fit, else hashed into so"
        " many",
    )

    def build(self, spec: BackboneSpec) -> "WideDeep":
        """The backbone in a network of this shape."""
        return WideDeep(
            in_width=spec.inputs.width,
            widths=self.widths,
            dropout=self.dropout,
            norm=self.norm,
            fields=spec.inputs.fields,
            crosses=self.crosses,
            cross_buckets=self.cross_buckets,
            towers=spec.towers,
            n_domains=spec.n_domains,
        )


class WideDeep(AbstractBackbone):
    """(rows, in_width) -> (rows, widths[-1]) by the deep part; the wide one is the shortcut.

    With towers per domain the deep part is per domain; the wide part is shared. For wide weights
    per domain cross a feature with the domain column.
    """

    def __init__(
        self,
        *,
        in_width: int,
        fields: tuple[FittedField, ...],
        widths: Sequence[int] = (256, 128),
        dropout: float = 0.2,
        norm: Norm = "batch",
        crosses: Sequence[Sequence[str]] = (),
        cross_buckets: int = 10_000,
        towers: Towers = "shared",
        n_domains: int | None = None,
    ) -> None:
        super().__init__()
        self.wide = Wide(fields=fields, crosses=crosses, cross_buckets=cross_buckets)
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

    def shortcut(
        self,
        batch: Batch,
        inputs: FeatureEmbedding,  # noqa: ARG002
        x: Tensor,  # noqa: ARG002
    ) -> Float[Tensor, " rows"]:
        """The wide logit."""
        return self.wide(batch)
