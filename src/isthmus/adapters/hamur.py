"""The hyper-adapter as its paper draws it: a bottleneck cell written afresh for every row.

Source: HAMUR, Li et al., CIKM 2023, arXiv:2309.06217, figure of the framework. For a row of domain
d with hidden state h, condition e and core I(e) = g(e) in R^{k x k} of the hyper-network g:

    U_d(e) = W_d^ul I(e) W_d^ur,   V_d(e) = W_d^vl I(e) W_d^vr
    z = h U_d(e) + b1_d;  o = sigmoid(z) V_d(e) + b2_d;  y = h + DomainNorm_d(o)

Departures:
- Factors start random, not all ones: equal entries keep all hidden units equal for ever and
  saturate the sigmoid, whose gradient is then exactly 0 (that is :class:`HamurReleased`).
- The norm's gain starts at 0: a fresh cell changes nothing and leaves that smoothly. (A zero last
  factor would not do: the norm blows its first non-zero output up to unit variance.)
- The hyper-network's last layer is linear and starts at the identity: see HyperNetwork.
- The norm keeps running statistics per domain, shrunk to those of all rows: see DomainNorm.
- Domain 0, the unknown, has a parameter set of its own, which domain dropout trains.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.adapters.adapter import AbstractAdapter, AbstractConditionedConfig, AdapterState
from isthmus.adapters.low_rank import LowRank
from isthmus.layers.domain_norm import DomainNorm
from isthmus.layers.hyper_network import Core, HyperNetwork
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Site, SiteSpec


class HamurCell(nn.Module):
    """``h + norm_d(sigmoid(h U_d(e) + b1_d) V_d(e) + b2_d)``; (rows, width) -> (rows, width).

    ``down`` and ``up`` hold the four factors, one set per domain; both pass through the core. A lone
    cell is given ``hyper``, the adapter's own, and writes the cores itself from what ``hyper`` has read;
    several cells are given the cores.
    """

    per_domain = ("down_bias", "up_bias")

    def __init__(
        self,
        *,
        width: int,
        bottleneck: int,
        rank: int,
        n_domains: int,
        hyper: HyperNetwork | None = None,
    ) -> None:
        super().__init__()
        # In a tuple: its parameters are the adapter's, not the cell's.
        self._hyper = () if hyper is None else (hyper,)
        self.down = LowRank(in_width=width, out_width=bottleneck, rank=rank, n_domains=n_domains)
        self.down_bias = nn.Parameter(torch.zeros(n_domains + 1, bottleneck))
        self.up = LowRank(in_width=bottleneck, out_width=width, rank=rank, n_domains=n_domains)
        self.up_bias = nn.Parameter(torch.zeros(n_domains + 1, width))
        self.norm = DomainNorm(width=width, n_domains=n_domains, zero_gain=True)

    def forward(
        self,
        h: Float[Tensor, "rows width"],
        routing: Routing,
        shared: Float[Tensor, "rows rank rank"] | Float[Tensor, "rows last_width"],
    ) -> Float[Tensor, "rows width"]:
        """Adapt each row with the factors of its domain and a core of its own."""
        if self._hyper:
            for_down, for_up = self._hyper[0].write_for(shared, products=2)
        else:
            for_down = for_up = Core(shared)
        z = self.down(h, routing, for_down) + routing.take(self.down_bias)
        o = self.up(z.sigmoid(), routing, for_up) + routing.take(self.up_bias)
        return h + self.norm(o, routing)


class HamurConfig(AbstractConditionedConfig):
    """HAMUR as its paper draws it. The paper's code has ranks of 25 to 65, above the bottleneck."""

    name: Literal["hamur"] = "hamur"
    bottleneck: int = Field(default=32, ge=1, description="width of the cell's hidden layer")
    rank: int = Field(
        default=8, ge=1, description="size k of the k x k core that is written for every row"
    )
    hyper_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(64,), description="hidden layers of the hyper-network"
    )

    def build(self, spec: SiteSpec, condition_width: int) -> "Hamur":
        """The adapter for a network of this shape."""
        return Hamur(
            site_widths=spec.site_widths,
            input_width=spec.input_width,
            condition_width=condition_width,
            n_domains=spec.n_domains,
            sites=self.sites,
            bottleneck=self.bottleneck,
            rank=self.rank,
            hyper_widths=self.hyper_widths,
        )


class Hamur(AbstractAdapter):
    """A :class:`HamurCell` at each of ``sites``; all cells have the cores of one hyper-network.

    ``condition_width``: width of what the hyper-network reads. The other arguments are those of
    :class:`AbstractAdapter` and of :class:`HamurConfig`.

    >>> from isthmus.layers.routing import Routing
    >>> adapter = Hamur(site_widths=(8, 4), condition_width=6, n_domains=3)
    >>> state = adapter.prepare(torch.randn(5, 6), Routing(torch.tensor([1, 0, 3, 1, 2]), 3))
    >>> adapter(1, torch.ones(5, 4), state).shape
    torch.Size([5, 4])
    """

    def __init__(
        self,
        *,
        site_widths: Sequence[int],
        condition_width: int,
        n_domains: int,
        sites: Sequence[Site] = (-1,),
        input_width: int | None = None,
        bottleneck: int = 32,
        rank: int = 8,
        hyper_widths: Sequence[int] = (64,),
    ) -> None:
        super().__init__(
            site_widths=site_widths, n_domains=n_domains, sites=sites, input_width=input_width
        )
        self.hyper = HyperNetwork(condition_width=condition_width, widths=hyper_widths, rank=rank)
        self.cells = self.at_each_site(
            lambda width: HamurCell(
                width=width,
                bottleneck=bottleneck,
                rank=rank,
                n_domains=n_domains,
                hyper=self.hyper if len(self.sites) == 1 else None,
            )
        )

    def prepare(
        self, condition: Float[Tensor, "rows condition_width"], routing: Routing
    ) -> AdapterState:
        """Write every row's core, once for all sites; for a lone cell, read what it writes them from.

        A lone cell knows the two products that meet a core, so that the core's gradient, of 20 MB at
        4096 rows and rank 35, is made in blocks where it is needed, see `Core`.
        """
        read = self.hyper.read(condition)
        return AdapterState(routing, read if len(self.sites) == 1 else self.hyper.write(read))
