"""MoE-MLoRA: maps of low rank are experts, and each domain says how much of each it takes.

Source: Yaggel et al., MoE-MLoRA for Multi-Domain CTR Prediction, 2025, arXiv:2506.07563, and the
authors' code. For a row of domain d that a Linear gives y = x W + b, with K experts:

    g_d = softmax(c_d W_g + b_g),   y' = y + sum_k g_dk ((x A_k) B_k + b_k)

c_d is an embedding of the domain. One gate serves all Linears. All experts together are one map of
rank K r with shared factors, and the gate is its diagonal core.

Departures:
- Network, experts and gate train together, unless ``train.method`` is ``phases``. The paper trains the
  network first, then each expert on one domain, then the gate. Experts start apart by their A_k, and domains by their
  c_d, so that experts come to differ without it.
- The authors' code draws c_d anew at each call; here c_d is learnt.
- A_k is normal with variance 1 / in, where the code draws uniform numbers; B_k and b_k start at 0 as
  there, so a fresh adapter changes nothing.
- Domain 0, the unknown, has an embedding of its own, which domain dropout trains.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.adapters.adapter import AbstractAdapter, AbstractLinearConfig, AdapterState
from isthmus.adapters.linears.mlora import rank_of
from isthmus.adapters.low_rank import LowRank
from isthmus.layers.gates import Gate
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Linears, SiteSpec, Widths


class MoeMLoraConfig(AbstractLinearConfig):
    """Maps of low rank at every Linear that domains share are experts, mixed by a gate per domain."""

    name: Literal["moe_mlora"] = "moe_mlora"
    experts: int = Field(default=4, ge=2, description="number of experts, whatever the domains")
    rank: int | None = Field(
        default=None, ge=1, description="rank of an expert; left out, `reduction` gives it"
    )
    reduction: int = Field(
        default=16, ge=1, description="without `rank`: the rank is a Linear's out width by this"
    )
    domain_dim: int = Field(
        default=4, ge=1, description="width of the domain's embedding, which the gate reads"
    )

    def build(self, spec: SiteSpec, condition_width: int) -> "MoeMLora":  # noqa: ARG002
        """The adapter for a network of this shape."""
        return MoeMLora(
            linear_widths=spec.linears,
            n_domains=spec.n_domains,
            linears=self.linears,
            experts=self.experts,
            rank=self.rank,
            reduction=self.reduction,
            domain_dim=self.domain_dim,
        )


class MoeMLoraCell(nn.Module):
    """``y + sum_k g_k ((x A_k) B_k + b_k)``; x (rows, in_width), y (rows, out_width) -> y's shape.

    ``gate``: (rows, experts).
    """

    def __init__(self, *, in_width: int, out_width: int, rank: int, experts: int) -> None:
        super().__init__()
        self.experts = experts
        # NOTE[DIFF] A_k is normal: all experts in one pair of factors, the ranks of one side by side.
        self.map = LowRank(in_width=in_width, out_width=out_width, rank=experts * rank, zero=True)
        self.bias = nn.Parameter(torch.zeros(experts, out_width))

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        y: Float[Tensor, "rows out_width"],
        routing: Routing,
        gate: Float[Tensor, "rows experts"],
    ) -> Float[Tensor, "rows out_width"]:
        """Add what the experts say, each as much as the gate lets through."""
        z = self.map.down(x, routing).unflatten(1, (self.experts, -1))
        z = (z * gate.unsqueeze(2)).flatten(1)
        return y + self.map.up(z, routing) + gate @ self.bias


class MoeMLora(AbstractAdapter):
    """A :class:`MoeMLoraCell` at each of ``linears``; one gate for all of them.

    ``linear_widths``: (in_width, out_width) of the network's Linears by number. Raises ``ValueError``
    for sizes below 1.

    >>> adapter = MoeMLora(linear_widths={0: (6, 32)}, n_domains=3, experts=2)
    >>> state = adapter.prepare(torch.randn(2, 5), Routing(torch.tensor([1, 0]), 3))
    >>> adapter.meet(0, torch.ones(2, 6), torch.zeros(2, 32), state).shape
    torch.Size([2, 32])
    """

    per_domain = ("code",)

    def __init__(
        self,
        *,
        linear_widths: Mapping[int, Widths],
        n_domains: int,
        linears: Linears = "all",
        experts: int = 4,
        rank: int | None = None,
        reduction: int = 16,
        domain_dim: int = 4,
    ) -> None:
        if min(experts, reduction, domain_dim, 1 if rank is None else rank) < 1:
            raise ValueError(
                f"sizes must be at least 1, got {experts=}, {rank=}, {reduction=}, {domain_dim=}"
            )
        super().__init__(
            linear_widths=linear_widths, n_domains=n_domains, linears=linears, sites=()
        )
        # NOTE[DIFF] learnt, apart for every domain; the unknown one has its own.
        self.code = nn.Parameter(torch.randn(n_domains + 1, domain_dim))
        self.gate = Gate(domain_dim, [f"expert {k}" for k in range(1, experts + 1)])
        self.cells = self.at_each_linear(
            lambda in_width, out_width: MoeMLoraCell(
                in_width=in_width,
                out_width=out_width,
                rank=rank_of(out_width, rank, reduction),
                experts=experts,
            )
        )

    def prepare(
        self,
        condition: Float[Tensor, "rows condition_width"],  # noqa: ARG002
        routing: Routing,
    ) -> AdapterState:
        """Weigh the experts for every row's domain, once for all Linears."""
        return AdapterState(routing, self.gate(routing.take(self.code)))
