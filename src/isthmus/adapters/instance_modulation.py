"""Instance modulation: branches of a hidden state, each let through by gates that read the row.

Source: Guo et al., Virtual Classification: Modulating Domain-Specific Knowledge for Multidomain Crowd
Counting (MDKNet), TNNLS, arXiv:2402.03758, and the authors' code. For a row with hidden state h
and condition e, with K branches:

    f = relu(e V + v),   a_k = sigmoid(norm(f W_k)),   y = h + (1 / K) sum_k g_k * relu(h A_k B_k) * a_k

Nothing belongs to a domain: a row's features say what it is like, also where its domain is unknown.

Departures:
- A branch is a map of low rank. The authors' branches are convolutions of four dilations.
- Every branch has a gain g_k for each unit that starts at 0: a fresh adapter changes nothing and leaves
  that smoothly. The authors' start adds half of every branch.
- The latent f is a hidden layer of the row's features. The authors pool a feature map. They teach f to
  know the domain by a classifier of domains and pairs of domains: here that is the objective
  `virtual_classifier`, which reads f as the site ``latent``.
- The norm keeps running statistics in eval, where one of the authors' layers takes the batch's.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.adapters.adapter import AbstractAdapter, AbstractConditionedConfig, AdapterState
from isthmus.adapters.low_rank import LowRank
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Site, SiteSpec


class InstanceModulationConfig(AbstractConditionedConfig):
    """Branches of a hidden state, each let through by gates that read the row, not its domain."""

    name: Literal["instance_modulation"] = "instance_modulation"
    branches: int = Field(default=4, ge=1, description="number of branches")
    rank: int = Field(default=8, ge=1, description="rank of a branch")
    hidden_width: int = Field(default=64, ge=1, description="width of the layer that reads the row")

    def build(self, spec: SiteSpec, condition_width: int) -> "InstanceModulation":
        """The adapter for a network of this shape."""
        return InstanceModulation(
            site_widths=spec.site_widths,
            input_width=spec.input_width,
            condition_width=condition_width,
            n_domains=spec.n_domains,
            sites=self.sites,
            branches=self.branches,
            rank=self.rank,
            hidden_width=self.hidden_width,
        )


class InstanceModulationCell(nn.Module):
    """``h + mean_k(g_k * relu(h A_k B_k) * a_k)``; (rows, width) -> (rows, width).

    ``latent``: f, one line a row.
    """

    def __init__(self, *, width: int, hidden_width: int, branches: int, rank: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(
            LowRank(in_width=width, out_width=width, rank=rank) for _ in range(branches)
        )
        self.to_gates = nn.Linear(hidden_width, branches * width, bias=False)
        self.norm = nn.BatchNorm1d(branches * width)
        # NOTE[DIFF] 0 at the start: a fresh cell is the identity.
        self.gain = nn.Parameter(torch.zeros(branches * width))

    def forward(
        self,
        h: Float[Tensor, "rows width"],
        routing: Routing,
        latent: Float[Tensor, "rows hidden_width"],
    ) -> Float[Tensor, "rows width"]:
        """Add to each row what its gates let through."""
        branch = torch.cat([one(h, routing) for one in self.maps], dim=1).relu()
        gate = self.norm(self.to_gates(latent)).sigmoid() * self.gain
        return h + (branch * gate).unflatten(1, (len(self.maps), -1)).mean(dim=1)


class InstanceModulation(AbstractAdapter):
    """An :class:`InstanceModulationCell` at each of ``sites``; all read one latent of the condition.

    ``condition_width``: width of what the latent reads. The other arguments are those of
    :class:`AbstractAdapter` and of :class:`InstanceModulationConfig`.

    >>> adapter = InstanceModulation(site_widths=(8, 4), condition_width=6, n_domains=3)
    >>> state = adapter.prepare(torch.randn(5, 6), Routing(torch.tensor([1, 0, 3, 1, 2]), 3))
    >>> adapter(1, torch.ones(5, 4), state)[0]
    tensor([1., 1., 1., 1.], grad_fn=<SelectBackward0>)
    """

    def __init__(
        self,
        *,
        site_widths: Sequence[int],
        condition_width: int,
        n_domains: int,
        sites: Sequence[Site] = (-1,),
        input_width: int | None = None,
        branches: int = 4,
        rank: int = 8,
        hidden_width: int = 64,
    ) -> None:
        if min(branches, hidden_width) < 1:
            raise ValueError(f"sizes must be at least 1, got {branches=}, {hidden_width=}")
        super().__init__(
            site_widths=site_widths, n_domains=n_domains, sites=sites, input_width=input_width
        )
        self.latent_width = hidden_width
        self.reader = nn.Sequential(nn.Linear(condition_width, hidden_width), nn.ReLU())
        self.cells = self.at_each_site(
            lambda width: InstanceModulationCell(
                width=width, hidden_width=hidden_width, branches=branches, rank=rank
            )
        )

    def prepare(
        self, condition: Float[Tensor, "rows condition_width"], routing: Routing
    ) -> AdapterState:
        """Read every row's condition, once for all sites."""
        return AdapterState(routing, self.reader(condition))
