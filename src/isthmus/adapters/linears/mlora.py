"""MLoRA: every domain adds a map of low rank to every Linear.

Source: Yang et al., MLoRA: Multi-Domain Low-Rank Adaptive Network for CTR Prediction, RecSys 2024,
arXiv:2408.08913, and the authors' code. For a row of domain d that a Linear gives y = x W + b:

    y' = y + (x A_d) B_d + b_d,   A_d: in x r,  B_d: r x out,  r = max(out // reduction, 1)

Departures:
- Rows of all domains stand in one batch. The authors' code reads the domain of the first row for all.
- The sum is taken before the norm of the block. The paper's networks have dropout on the shared
  product and no norm; here dropout follows the activation, as in every block.
- A_d is normal with variance 1 / in, where the paper draws uniform numbers; B_d and b_d start at 0 as
  there, so a fresh adapter changes nothing.
- Domain 0, the unknown, has a set of its own, which domain dropout trains.
- Network and adapter train together, unless ``train.method`` is ``phases``: the authors' two phases.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.adapters.adapter import AbstractAdapter, AbstractLinearConfig, AdapterState
from isthmus.adapters.low_rank import LowRank
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Linears, SiteSpec, Widths


def rank_of(out_width: int, rank: int | None, reduction: int) -> int:
    """The rank at a Linear: the one that is given, or ``out_width // reduction``, at least 1."""
    return rank if rank is not None else max(out_width // reduction, 1)


class MLoraConfig(AbstractLinearConfig):
    """Every domain adds a map of low rank to every Linear that domains share."""

    name: Literal["mlora"] = "mlora"
    rank: int | None = Field(
        default=None, ge=1, description="rank at every Linear; left out, `reduction` gives it"
    )
    reduction: int = Field(
        default=16, ge=1, description="without `rank`: the rank is a Linear's out width by this"
    )

    def build(self, spec: SiteSpec, condition_width: int) -> "MLora":  # noqa: ARG002
        """The adapter for a network of this shape."""
        return MLora(
            linear_widths=spec.linears,
            n_domains=spec.n_domains,
            linears=self.linears,
            rank=self.rank,
            reduction=self.reduction,
        )


class MLoraCell(nn.Module):
    """``y + (x A_d) B_d + b_d``; x (rows, in_width), y (rows, out_width) -> (rows, out_width)."""

    per_domain = ("bias",)

    def __init__(self, *, in_width: int, out_width: int, rank: int, n_domains: int) -> None:
        super().__init__()
        self.map = LowRank(
            in_width=in_width, out_width=out_width, rank=rank, n_domains=n_domains, zero=True
        )
        self.bias = nn.Parameter(torch.zeros(n_domains + 1, out_width))

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        y: Float[Tensor, "rows out_width"],
        routing: Routing,
        shared: None,  # noqa: ARG002
    ) -> Float[Tensor, "rows out_width"]:
        """Add what each row's own domain says."""
        # NOTE[DIFF] by each row's own domain, before the norm.
        return y + self.map(x, routing) + routing.take(self.bias)


class MLora(AbstractAdapter):
    """A :class:`MLoraCell` at each of ``linears``.

    ``linear_widths``: (in_width, out_width) of the network's Linears by number. Raises ``ValueError``
    for sizes below 1.

    >>> adapter = MLora(linear_widths={0: (6, 32), 1: (32, 16)}, n_domains=3)
    >>> [tuple(adapter.linear_cell(number).map.left.shape) for number in adapter.linears]
    [(4, 6, 2), (4, 32, 1)]
    >>> state = adapter.prepare(torch.randn(2, 5), Routing(torch.tensor([1, 0]), 3))
    >>> adapter.meet(0, torch.ones(2, 6), torch.zeros(2, 32), state).shape
    torch.Size([2, 32])
    """

    def __init__(
        self,
        *,
        linear_widths: Mapping[int, Widths],
        n_domains: int,
        linears: Linears = "all",
        rank: int | None = None,
        reduction: int = 16,
    ) -> None:
        if min(reduction, 1 if rank is None else rank) < 1:
            raise ValueError(f"sizes must be at least 1, got {rank=}, {reduction=}")
        super().__init__(
            linear_widths=linear_widths, n_domains=n_domains, linears=linears, sites=()
        )
        self.cells = self.at_each_linear(
            lambda in_width, out_width: MLoraCell(
                in_width=in_width,
                out_width=out_width,
                rank=rank_of(out_width, rank, reduction),
                n_domains=n_domains,
            )
        )

    def prepare(
        self,
        condition: Float[Tensor, "rows condition_width"],  # noqa: ARG002
        routing: Routing,
    ) -> AdapterState:
        """Nothing is shared but the routing."""
        return AdapterState(routing)
