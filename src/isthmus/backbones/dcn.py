"""Deep & Cross: a cross network and a deep one side by side, read together by the head.

Sources: version 1, Wang et al., ADKDD 2017, arXiv:1708.05123; version 2, Wang et al., WWW 2021,
arXiv:2008.13535 (its parallel form, with full matrices). Sites sit in the deep part; the cross
network is left untouched, as in HAMUR's Deep & Cross.
"""

from collections.abc import Sequence
from typing import Literal

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
from isthmus.backbones.mlp import MLP
from isthmus.layers.blocks import Norm, Towers
from isthmus.layers.cross import CrossV1, CrossV2
from isthmus.layers.routing import Routing


class DcnConfig(AbstractDeepConfig):
    """A cross network beside the deep part."""

    name: Literal["dcn"] = "dcn"
    version: Literal[1, 2] = Field(
        default=2, description="1: one weight vector a cross; 2: a full matrix"
    )
    cross_layers: int = Field(default=2, ge=1, description="number of crosses")

    def build(self, spec: BackboneSpec) -> "DCN":
        """The backbone in a network of this shape."""
        return DCN(
            in_width=spec.inputs.width,
            widths=self.widths,
            dropout=self.dropout,
            norm=self.norm,
            version=self.version,
            cross_layers=self.cross_layers,
            towers=spec.towers,
            n_domains=spec.n_domains,
        )


class DCN(AbstractBackbone):
    """(rows, in_width) -> (rows, in_width + widths[-1]): crosses, then the deep part's output.

    ``towers="per_domain"`` gives each domain its own crosses too.
    """

    def __init__(
        self,
        *,
        in_width: int,
        widths: Sequence[int] = (256, 128),
        dropout: float = 0.2,
        norm: Norm = "batch",
        version: int = 2,
        cross_layers: int = 2,
        towers: Towers = "shared",
        n_domains: int | None = None,
    ) -> None:
        if version not in (1, 2):
            raise ValueError(f"version must be 1 or 2, got {version}")
        super().__init__()
        cross = CrossV1 if version == 1 else CrossV2
        own = n_domains if towers == "per_domain" else None
        self.crosses = nn.ModuleList(
            cross(width=in_width, n_domains=own) for _ in range(cross_layers)
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
        self.out_width = in_width + self.deep.out_width
        self.site_widths = self.deep.site_widths
        self.linears = self.deep.linears

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Cross ``x`` with itself and run the deep part beside."""
        crossed = x
        for cross in self.crosses:
            crossed = cross(x, crossed, routing)
        return torch.cat([crossed, self.deep(x, routing, adapt)], dim=1)
