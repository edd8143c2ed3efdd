"""A norm beside the hidden state, with gain and bias of the row's domain.

Sources: the partitioned norm of STAR, Sheng et al., CIKM 2021, arXiv:2101.11427, has statistics, gain
and bias of a domain; Ioffe and Szegedy, Batch Normalization, ICML 2015,
arXiv:1502.03167, have statistics of all rows; Ba et al., Layer Normalization, 2016, arXiv:1607.06450,
have those of the row itself. For a row of domain d with hidden state h:

    y = h + gain_d * (h - mean) / sqrt(var + eps) + bias_d

``statistics`` says whose mean and var: ``pooled``, all rows; ``domain``, the rows of d; ``instance``,
the units of the row.

Departures:
- The norm stands beside h, with a gain that starts at 0: a fresh adapter changes nothing. The papers
  put the norm in h's place.
- Gain and bias belong to the domain alone, where the partitioned norm multiplies and adds shared ones:
  the network around has shared ones.
- Statistics of a domain are shrunk to those of all rows: see DomainNorm.
- Domain 0, the unknown, has gain and bias of its own, which domain dropout trains.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.adapters.adapter import AbstractAdapter, AbstractAdapterConfig, AdapterState
from isthmus.layers.domain_norm import DomainNorm
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Site, SiteSpec

Statistics = Literal["pooled", "domain", "instance"]


class NormalisedConfig(AbstractAdapterConfig):
    """A norm beside the hidden state, with gain and bias of the row's domain."""

    name: Literal["norm"] = "norm"
    statistics: Statistics = Field(
        default="domain",
        description="whose mean and variance: of all rows (`pooled`), of the row's domain"
        " (`domain`), or of the row's own units (`instance`)",
    )

    def build(self, spec: SiteSpec, condition_width: int) -> "Normalised":  # noqa: ARG002
        """The adapter for a network of this shape."""
        return Normalised(
            site_widths=spec.site_widths,
            input_width=spec.input_width,
            n_domains=spec.n_domains,
            sites=self.sites,
            statistics=self.statistics,
        )


class OwnScale(nn.Module):
    """``gain_d * norm(h) + bias_d`` with statistics that are no domain's; both start at 0.

    ``pooled``: by statistics of all rows, running ones in eval; otherwise by the row's own units.
    """

    per_domain = ("gain", "bias")

    def __init__(self, *, width: int, n_domains: int, pooled: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False) if pooled else None
        self.gain = nn.Parameter(torch.zeros(n_domains + 1, width))
        self.bias = nn.Parameter(torch.zeros(n_domains + 1, width))

    def forward(
        self, h: Float[Tensor, "rows width"], routing: Routing
    ) -> Float[Tensor, "rows width"]:
        """Normalise the rows, then stretch and shift each by its domain."""
        normal = F.layer_norm(h, h.shape[1:]) if self.norm is None else self.norm(h)
        return torch.addcmul(routing.take(self.bias), normal, routing.take(self.gain))


class NormalisedCell(nn.Module):
    """``h + gain_d * norm(h) + bias_d``; (rows, width) -> (rows, width)."""

    def __init__(self, *, width: int, n_domains: int, statistics: Statistics) -> None:
        super().__init__()
        self.norm = (
            DomainNorm(width=width, n_domains=n_domains, zero_gain=True)
            if statistics == "domain"
            else OwnScale(width=width, n_domains=n_domains, pooled=statistics == "pooled")
        )

    def forward(
        self,
        h: Float[Tensor, "rows width"],
        routing: Routing,
        shared: None,  # noqa: ARG002
    ) -> Float[Tensor, "rows width"]:
        """Add each row's norm."""
        return h + self.norm(h, routing)


class Normalised(AbstractAdapter):
    """A :class:`NormalisedCell` at each of ``sites``.

    The arguments are those of :class:`AbstractAdapter` and of :class:`NormalisedConfig`. Raises
    ``ValueError`` for other statistics.

    >>> adapter = Normalised(site_widths=(8, 4), n_domains=3, statistics="instance")
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
        statistics: Statistics = "domain",
    ) -> None:
        super().__init__(
            site_widths=site_widths, n_domains=n_domains, sites=sites, input_width=input_width
        )
        self.cells = self.at_each_site(
            lambda width: NormalisedCell(width=width, n_domains=n_domains, statistics=statistics)
        )

    def prepare(
        self,
        condition: Float[Tensor, "rows condition_width"],  # noqa: ARG002
        routing: Routing,
    ) -> AdapterState:
        """Nothing is shared but the routing."""
        return AdapterState(routing)
