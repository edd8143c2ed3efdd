"""Shared and private features: one extractor for all domains, one for each, joined before the head.

Source: Wu, Inkpen and El-Roby, MRAN, ICASSP 2021, arXiv:2102.00467, and the authors' code,
``code/train.py``; the network is that of Chen and Cardie, MAN, NAACL 2018. For a row x of domain d:

    s = F_s(x),  p = F_d(x),  y = head([s, p])

F_s and each F_d are blocks of Linear, norm, ReLU, dropout. What tells domains apart has a place in p, so
an objective may hide the domain in s (`isthmus.objectives.domain_classifier`, reversed).

Departures:
- A row meets the private extractor of its own domain only, all rows of a batch at once.
- Domain 0, the unknown, has a private extractor of its own, which domain dropout trains. The authors'
  code gives rows of a domain without labels zeros in its place.
- The head is one Linear; the authors' classifier has a hidden layer.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
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
from isthmus.backbones.experts.domain_tower import DomainTower, Widths
from isthmus.backbones.mlp import MLP
from isthmus.layers.blocks import Norm, Towers
from isthmus.layers.routing import Routing, needed


class SharedPrivateConfig(AbstractDeepConfig):
    """Features that all domains share beside features of the row's own domain."""

    paper_head: ClassVar[Towers | None] = "shared"

    name: Literal["shared_private"] = "shared_private"
    widths: Widths = Field(
        default=(256, 128),
        min_length=1,
        description="output widths of the shared extractor's blocks; each block is a site, and the last"
        " one, site `-2`, is the shared part",
    )
    private_widths: Widths = Field(
        default=(64,),
        min_length=1,
        description="output widths of the blocks of every domain's own extractor; site `-1` is the"
        " shared part and the private one side by side",
    )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of the shared extractor, then those of the private ones."""
        return (*self.widths, *self.private_widths)

    def scaled(self, factor: float) -> "SharedPrivateConfig":
        """The same with ``factor`` times all widths, each of 2 at least."""
        changed = {
            name: tuple(max(2, round(width * factor)) for width in getattr(self, name))
            for name in ("widths", "private_widths")
        }
        return self.model_copy(update=changed)

    def build(self, spec: BackboneSpec) -> "SharedPrivate":
        """The backbone in a network of this shape."""
        self.check_towers(spec.towers)
        return SharedPrivate(
            in_width=spec.inputs.width,
            n_domains=spec.n_domains,
            widths=self.widths,
            private_widths=self.private_widths,
            dropout=self.dropout,
            norm=self.norm,
        )


class SharedPrivate(AbstractBackbone):
    """(rows, in_width) -> (rows, widths[-1] + private_widths[-1]).

    A site after each block of the shared extractor, and one where the two parts are joined.

    >>> net = SharedPrivate(in_width=6, n_domains=2, widths=(8, 5), private_widths=(4,))
    >>> net.site_widths
    (8, 5, 9)
    """

    def __init__(
        self,
        *,
        in_width: int,
        n_domains: int,
        widths: Sequence[int] = (256, 128),
        private_widths: Sequence[int] = (64,),
        dropout: float = 0.2,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.shared = MLP(
            in_width=in_width, widths=widths, dropout=dropout, norm=norm, n_domains=n_domains
        )
        # NOTE[DIFF] one set for n_domains + 1: the first is that of the unknown domain.
        self.private = DomainTower(
            in_width=in_width,
            widths=private_widths,
            n_domains=n_domains,
            norm=norm,
            dropout=dropout,
        )
        self.in_width = in_width
        self.out_width = self.shared.out_width + self.private.out_width
        self.site_widths = (*widths, self.out_width)
        self.linears = self.shared.linears

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Run the shared extractor on all rows and each row's own private one; join the two."""
        shared = self.shared(x, routing, adapt)
        private = self.private(x, needed(routing), leave_alone, 0)
        return adapt(len(self.site_widths) - 1, torch.cat([shared, private], dim=1))
