"""Modulation: a domain's code writes a map of rank 1 and a scale for every Linear.

Source: Kim et al., DynaGAN, SIGGRAPH Asia 2022, arXiv:2211.14554, and the authors' code, where a
one-hot domain becomes a style v_d and each convolution's weight becomes
``scale(v_d) * (W + left(v_d) (x) right(v_d))``. For a row of domain d that a Linear gives y = x W + b:

    left = l + v_d L,   right = v_d R,   scale = 1 + v_d S
    y'   = (y + (x . left) right) * scale

``strength`` s turns it down: s right takes the place of right, 1 + s (scale - 1) that of scale. So 0
is the shared network exactly, and 1 is the network as trained.

Departures:
- v_d is a line of a learnt table. A mapping network of a one-hot domain is one too.
- R and S start at 0, and l and L random: a fresh modulation changes nothing and leaves that smoothly.
  The code starts near it: all weights small, one factor at 0 and the other factors at 1.
- The Linear's bias is scaled too, since the change is made to what the Linear gives.
- A convolution's kernel has a third factor; a Linear has none.
- The network is trained with the modulation. The paper freezes a trained generator.
- Domain 0, the unknown, has a code of its own, which domain dropout trains.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.adapters.adapter import AbstractAdapter, AbstractLinearConfig, AdapterState
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Linears, SiteSpec, Widths


class ModulationConfig(AbstractLinearConfig):
    """A code of the domain writes a map of rank 1 and a scale for every Linear that domains share."""

    name: Literal["modulation"] = "modulation"
    domain_dim: int = Field(default=8, ge=1, description="width of the domain's code")

    def build(self, spec: SiteSpec, condition_width: int) -> "Modulation":  # noqa: ARG002
        """The adapter for a network of this shape."""
        return Modulation(
            linear_widths=spec.linears,
            n_domains=spec.n_domains,
            linears=self.linears,
            domain_dim=self.domain_dim,
        )


class ModulationCell(nn.Module):
    """``(y + (x . left) right) * scale``; x (rows, in_width), y (rows, out_width) -> y's shape.

    ``codes``: v_d of each tile's domain, and beside it the strength times v_d.
    """

    def __init__(self, *, in_width: int, out_width: int, domain_dim: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.randn(in_width) * in_width**-0.5)  # l
        self.to_left = nn.Parameter(torch.randn(domain_dim, in_width) * in_width**-0.5)  # L
        self.to_both = nn.Parameter(torch.zeros(domain_dim, 2 * out_width))  # R beside S

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        y: Float[Tensor, "rows out_width"],
        routing: Routing,
        codes: Float[Tensor, "tiles two_domain_dim"],
    ) -> Float[Tensor, "rows out_width"]:
        """Modulate what the Linear gives to each row, by the code of the row's domain."""
        tiles = routing.tiles
        code, turned = codes.chunk(2, dim=1)
        left = torch.addmm(self.offset, code, self.to_left)
        right, more = (turned @ self.to_both).unsqueeze(1).chunk(2, dim=2)
        z = torch.bmm(tiles.split(x), left.unsqueeze(2))
        moved = torch.addcmul(tiles.split(y), z, right)
        # NOTE[DIFF] the bias within y is scaled too.
        return tiles.join(torch.addcmul(moved, moved, more))


class Modulation(AbstractAdapter):
    """A :class:`ModulationCell` at each of ``linears``; all read the code of the row's domain.

    ``linear_widths``: (in_width, out_width) of the network's Linears by number. Raises ``ValueError``
    for sizes below 1.

    >>> adapter = Modulation(linear_widths={0: (6, 32)}, n_domains=3)
    >>> state = adapter.prepare(torch.randn(2, 5), Routing(torch.tensor([1, 0]), 3))
    >>> adapter.meet(0, torch.ones(2, 6), torch.zeros(2, 32), state).shape
    torch.Size([2, 32])
    """

    per_domain = ("code",)
    tiled = True

    def __init__(
        self,
        *,
        linear_widths: Mapping[int, Widths],
        n_domains: int,
        linears: Linears = "all",
        domain_dim: int = 8,
    ) -> None:
        if domain_dim < 1:
            raise ValueError(f"sizes must be at least 1, got {domain_dim=}")
        super().__init__(
            linear_widths=linear_widths, n_domains=n_domains, linears=linears, sites=()
        )
        # NOTE[DIFF] a table in place of a mapping network; length about 1, so that any width will do.
        self.code = nn.Parameter(torch.randn(n_domains + 1, domain_dim) * domain_dim**-0.5)
        self.cells = self.at_each_linear(
            lambda in_width, out_width: ModulationCell(
                in_width=in_width, out_width=out_width, domain_dim=domain_dim
            )
        )
        self.strength = 1.0

    def prepare(
        self,
        condition: Float[Tensor, "rows condition_width"],  # noqa: ARG002
        routing: Routing,
    ) -> AdapterState:
        """Pick the code of each tile's domain, once for all Linears."""
        assert self.strength is not None
        code = routing.tiles.pick(self.code)
        return AdapterState(routing, torch.cat([code, self.strength * code], dim=1))
