"""The plain backbone: deep blocks one after the other, a site after each."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from isthmus.backbones.backbone import (
    AbstractBackbone,
    AbstractDeepConfig,
    Adapt,
    BackboneSpec,
    leave_alone,
    meeting,
)
from isthmus.layers.blocks import DeepBlock, Norm, Towers
from isthmus.layers.routing import Routing


class MlpConfig(AbstractDeepConfig):
    """Blocks of Linear, norm, ReLU, dropout, one after the other."""

    name: Literal["mlp"] = "mlp"

    def build(self, spec: BackboneSpec) -> "MLP":
        """The backbone in a network of this shape."""
        return MLP(
            in_width=spec.inputs.width,
            widths=self.widths,
            dropout=self.dropout,
            norm=self.norm,
            towers=spec.towers,
            n_domains=spec.n_domains,
        )


class MLP(AbstractBackbone):
    """Blocks of Linear, norm, ReLU, dropout; (rows, in_width) -> (rows, widths[-1]).

    ``towers``: ``per_domain`` gives every domain, and the unknown one, weights of its own.
    ``n_domains`` is needed for that and for ``norm="domain"``.
    """

    def __init__(
        self,
        *,
        in_width: int,
        widths: Sequence[int] = (256, 128),
        dropout: float = 0.2,
        norm: Norm = "batch",
        towers: Towers = "shared",
        n_domains: int | None = None,
    ) -> None:
        if not widths or min(widths) < 1:
            raise ValueError(f"widths must hold at least one positive number, got {widths}")
        super().__init__()
        self.in_width = in_width
        self.out_width = widths[-1]
        self.site_widths = tuple(widths)
        places = enumerate(zip((in_width, *widths), widths, strict=False))
        self.linears = dict(places) if towers == "shared" else {}
        self.blocks = nn.ModuleList(
            DeepBlock(
                in_width=width_in,
                out_width=width_out,
                norm=norm,
                dropout=dropout,
                towers=towers,
                n_domains=n_domains,
            )
            for width_in, width_out in zip((in_width, *widths), widths, strict=False)
        )

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Apply the blocks, and ``adapt`` at the Linear of each and after each."""
        h = x
        for site, block in enumerate(self.blocks):
            h = adapt(site, block(h, routing, meeting(adapt, site)))
        return h
