"""A bottleneck per domain: the static adapter, a small layer of the domain's own with a skip.

Source: Houlsby et al., Parameter-Efficient Transfer Learning for NLP, ICML 2019, arXiv:1902.00751,
section 2, one adapter per task. For a row of domain d with hidden state h:

    y = h + relu(h A_d + a_d) B_d + b_d,   A_d: width x s,  B_d: s x width

Departures:
- All domains train together with the network. The paper freezes the network.
- B_d and b_d start at 0: a fresh cell changes nothing. The paper starts all weights near 0, by which
  the cell changes little.
- Domain 0, the unknown, has a set of its own, which domain dropout trains.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.adapters.adapter import AbstractAdapter, AbstractAdapterConfig, AdapterState
from isthmus.adapters.low_rank import LowRank
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Site, SiteSpec


class BottleneckConfig(AbstractAdapterConfig):
    """A small layer of the domain's own with a skip, the same for every row of the domain."""

    name: Literal["bottleneck"] = "bottleneck"
    bottleneck: int = Field(default=16, ge=1, description="width of the cell's hidden layer")

    def build(self, spec: SiteSpec, condition_width: int) -> "Bottleneck":  # noqa: ARG002
        """The adapter for a network of this shape."""
        return Bottleneck(
            site_widths=spec.site_widths,
            input_width=spec.input_width,
            n_domains=spec.n_domains,
            sites=self.sites,
            bottleneck=self.bottleneck,
        )


class BottleneckCell(nn.Module):
    """``h + relu(h A_d + a_d) B_d + b_d``; (rows, width) -> (rows, width)."""

    per_domain = ("down_bias", "up_bias")

    def __init__(self, *, width: int, bottleneck: int, n_domains: int) -> None:
        super().__init__()
        # NOTE[DIFF] the right factor starts at 0, and the cell at the identity.
        self.map = LowRank(
            in_width=width, out_width=width, rank=bottleneck, n_domains=n_domains, zero=True
        )
        self.down_bias = nn.Parameter(torch.zeros(n_domains + 1, bottleneck))
        self.up_bias = nn.Parameter(torch.zeros(n_domains + 1, width))

    def forward(
        self,
        h: Float[Tensor, "rows width"],
        routing: Routing,
        shared: None,  # noqa: ARG002
    ) -> Float[Tensor, "rows width"]:
        """Adapt each row with the layer of its domain."""
        z = (self.map.down(h, routing) + routing.take(self.down_bias)).relu()
        return h + self.map.up(z, routing) + routing.take(self.up_bias)


class Bottleneck(AbstractAdapter):
    """A :class:`BottleneckCell` at each of ``sites``.

    The other arguments are those of :class:`AbstractAdapter` and of :class:`BottleneckConfig`.

    >>> adapter = Bottleneck(site_widths=(8, 4), n_domains=3)
    >>> state = adapter.prepare(torch.randn(5, 6), Routing(torch.tensor([1, 0, 3, 1, 2]), 3))
    >>> adapter(1, torch.ones(5, 4), state).shape
    torch.Size([5, 4])
    """

    def __init__(
        self,
        *,
        site_widths: Sequence[int],
        n_domains: int,
        sites: Sequence[Site] = (-1,),
        input_width: int | None = None,
        bottleneck: int = 16,
    ) -> None:
        super().__init__(
            site_widths=site_widths, n_domains=n_domains, sites=sites, input_width=input_width
        )
        self.cells = self.at_each_site(
            lambda width: BottleneckCell(width=width, bottleneck=bottleneck, n_domains=n_domains)
        )

    def prepare(
        self,
        condition: Float[Tensor, "rows condition_width"],  # noqa: ARG002
        routing: Routing,
    ) -> AdapterState:
        """Nothing is shared but the routing."""
        return AdapterState(routing)
