"""AdaSparse: in each layer a pruner says, by row and domain, which hidden units count.

Source: Yang et al., AdaSparse: Learning Adaptively Sparse Structures for Multi-Domain Click-Through
Rate Prediction, CIKM 2022, arXiv:2206.13108. Behind each block, for a row of domain d:

    v = [h, e_d] P + p,   u = f(v),   pi = u where u > epsilon, else 0,   h' = pi * h

    scaling       f(v) = beta sigmoid(v)
    binarization  f(v) = sigmoid(alpha v)
    fusion        f(v) = beta sigmoid(alpha v)

alpha grows with the steps of training, so that a sigmoid comes near to a yes or no.

Departures:
- alpha is a function of a counter of training steps, which is a buffer: saved, moved to a device, and
  left alone in eval. In the code of a benchmark alpha is a plain number that grows in eval too.
- A unit below the threshold is exactly 0. There its factor is negative (binarization), or a small
  number of the wrong sign (the other two), so that nothing is ever pruned.
- The paper adds a loss that draws the share of pruned units towards a wanted one. A backbone has no
  loss beside the rows', so units are pruned where the rows' loss says so.
- P is drawn as any linear map and p starts at 0: the factors of a fresh network lie around 1 (scaling
  and fusion) or 1/2 (binarization). The paper is silent.
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
from isthmus.layers.bank import DomainEmbedding
from isthmus.layers.blocks import DeepBlock, Norm, Towers
from isthmus.layers.routing import Routing, needed

Form = Literal["scaling", "binarization", "fusion"]
BETA = 2.0  # a factor lies in 0 to 2, and 1 leaves a unit alone
ALPHA_START, ALPHA_GROWTH, ALPHA_LIMIT = 1.0, 1e-4, 5.0


class AdaSparseConfig(AbstractDeepConfig):
    """AdaSparse: each layer's hidden units are weighed and pruned by row and domain."""

    paper_head: ClassVar[Towers | None] = "shared"

    name: Literal["adasparse"] = "adasparse"
    form: Form = Field(
        default="fusion",
        description="how a factor is made: `scaling` 0 to 2, `binarization` towards 0 or 1 as training"
        " goes on, `fusion` towards 0 or 2",
    )
    threshold: float = Field(
        default=0.25,
        ge=0,
        lt=1,
        description="a unit whose factor is not above is pruned: exactly 0",
    )
    domain_dim: int = Field(default=8, ge=1, description="width of the domain's embedding")

    def build(self, spec: BackboneSpec) -> "AdaSparse":
        """The backbone in a network of this shape. Raises ``ValueError`` for towers per domain."""
        self.check_towers(spec.towers)
        return AdaSparse(
            in_width=spec.inputs.width,
            n_domains=spec.n_domains,
            widths=self.widths,
            dropout=self.dropout,
            norm=self.norm,
            form=self.form,
            threshold=self.threshold,
            domain_dim=self.domain_dim,
        )


class Pruner(nn.Module):
    """A factor for each hidden unit of each row, 0 where it would not pass the threshold.

    (rows, width) and (rows, domain_dim) -> factors (rows, width).
    """

    def __init__(self, *, width: int, domain_dim: int, form: Form, threshold: float) -> None:
        super().__init__()
        self.form: Form = form
        self.threshold = threshold
        self.linear = nn.Linear(width + domain_dim, width)
        nn.init.zeros_(self.linear.bias)

    def forward(
        self,
        h: Float[Tensor, "rows width"],
        domain: Float[Tensor, "rows domain_dim"],
        alpha: Float[Tensor, ""],
    ) -> Float[Tensor, "rows width"]:
        """The factors; ``alpha``: the sharpness of the sigmoid, which ``scaling`` does not use."""
        v = self.linear(torch.cat([h, domain], dim=1))
        factor = torch.sigmoid(v if self.form == "scaling" else alpha * v)
        if self.form != "binarization":
            factor = BETA * factor
        # NOTE[DIFF]: exactly 0; the released code multiplies by a sign, which prunes nothing.
        return factor * (factor > self.threshold)


class AdaSparse(AbstractBackbone):
    """(rows, in_width) -> (rows, widths[-1]): deep blocks, each followed by its pruner.

    ``threshold``: the epsilon above. A site is behind a block's pruner. Raises ``ValueError`` for
    empty ``widths``, an unknown ``form`` and a threshold outside [0, 1).
    """

    steps: Tensor  # () int64: batches seen in training

    def __init__(
        self,
        *,
        in_width: int,
        n_domains: int,
        widths: Sequence[int] = (256, 128),
        dropout: float = 0.2,
        norm: Norm = "batch",
        form: Form = "fusion",
        threshold: float = 0.25,
        domain_dim: int = 8,
    ) -> None:
        if not widths or min(widths) < 1:
            raise ValueError(f"widths must hold at least one positive number, got {widths}")
        if form not in ("scaling", "binarization", "fusion"):
            raise ValueError(f"form must be scaling, binarization or fusion, got {form!r}")
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must lie in [0, 1), got {threshold}")
        super().__init__()
        self.in_width = in_width
        self.out_width = widths[-1]
        self.site_widths = tuple(widths)
        self.domain = DomainEmbedding(n_domains=n_domains, dim=domain_dim)
        self.blocks = nn.ModuleList(
            DeepBlock(
                in_width=width_in,
                out_width=width_out,
                norm=norm,
                dropout=dropout,
                n_domains=n_domains,
            )
            for width_in, width_out in zip((in_width, *widths), widths, strict=False)
        )
        self.pruners = nn.ModuleList(
            Pruner(width=width, domain_dim=domain_dim, form=form, threshold=threshold)
            for width in widths
        )
        # NOTE[DIFF]: a buffer, which only training moves.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def alpha(self) -> Float[Tensor, ""]:
        """The sharpness of the sigmoids: 1, and 1e-4 more for each step of training, up to 5."""
        return (ALPHA_START + ALPHA_GROWTH * self.steps).clamp(max=ALPHA_LIMIT)

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Apply the blocks, a pruner and ``adapt`` after each."""
        routing = needed(routing)
        if self.training:
            self.steps.add_(1)
        domain, alpha = self.domain(routing.domain), self.alpha
        h = x
        for site, (block, pruner) in enumerate(zip(self.blocks, self.pruners, strict=True)):
            h = block(h, routing)
            h = adapt(site, pruner(h, domain, alpha) * h)
        return h
