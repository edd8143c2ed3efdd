"""Two streams of norms beside the hidden state: one that a domain owns, and one that knows no domain.

Source: Yan et al., TAL: Two-Stream Adaptive Learning for Generalizable Person Re-Identification, 2021,
arXiv:2111.14290. A stream of batch norms per training domain holds what is peculiar to each, and an
unseen domain is answered by their outputs, aggregated; a second stream with an adaptive norm holds what
all domains share. For a row with hidden state h:

    own_d(h) = gain_d * (h - mean_d) / sqrt(var_d + eps) + bias_d
    free(h)  = gain * layer_norm(h) + bias
    y = h + own_d(h) + free(h)                                   a row of domain d
    y = h + own_0(h) + free(h) + sum_d w_d(h) own_d(h)           a row of the unknown domain
    w_d(h)   = softmax over d of -s * mean over units of (h - mean_d)^2 / var_d + log(var_d)

Departures. We have the paper's abstract, and none of its equations:
- **The weights w are ours.** That the paper aggregates by the distance of statistics is unverified.
  Here they are a softmax of Gaussian log-densities, of the row's hidden state under each domain's
  statistics, with one learnt sharpness s. They read one row and no batch.
- The adaptive norm of the free stream is a layer norm, whose statistics are those of the row itself.
  The paper's takes those of the rows of an unseen domain.
- Both streams stand beside h with gains that start at 0, so that a fresh adapter changes nothing.
- The mixture reads a copy of every domain's norm, taken at the last step of training. So rows of the
  unknown domain move nothing that a domain owns, and a domain that is trained further moves no answer of
  the unknown one. The unknown domain has gain and bias of its own too, own_0, which domain dropout trains.
- An image has a distance to its neighbours, and no logit: the matching layer of the paper is left out.

The mixture takes ``4 width n_domains`` products of a row, of unknown rows alone.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.adapters.adapter import AbstractAdapter, AbstractAdapterConfig, AdapterState
from isthmus.layers.domain_norm import DomainNorm
from isthmus.layers.routing import Routing, shapes_are_fixed
from isthmus.layers.sites import Site, SiteSpec

NEVER_SEEN = 1e6  # the distance to a domain without a train row


class TalConfig(AbstractAdapterConfig):
    """A norm of the row's domain and a norm of no domain; an unknown row mixes the domains' norms."""

    name: Literal["tal"] = "tal"

    def build(self, spec: SiteSpec, condition_width: int) -> "Tal":  # noqa: ARG002
        """The adapter for a network of this shape."""
        return Tal(
            site_widths=spec.site_widths,
            input_width=spec.input_width,
            n_domains=spec.n_domains,
            sites=self.sites,
        )


class NormMixture(nn.Module):
    """``sum_d w_d(h) own_d(h)`` over the domains that training has met; (rows, width) -> the same.

    The norms of the domains are buffers, copies that `remember` takes: they belong to no domain.

    >>> mixture = NormMixture(width=2, n_domains=3)
    >>> mixture(torch.randn(5, 2)).shape
    torch.Size([5, 2])
    """

    mean: Tensor  # (n_domains, width), of each domain's rows
    var: Tensor  # (n_domains, width)
    gain: Tensor  # (n_domains, width)
    bias: Tensor  # (n_domains, width)
    met: Tensor  # (n_domains,) bool: whether training has met the domain

    def __init__(self, *, width: int, n_domains: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        # With width / 2 and independent units the weights are the chances of the domains. The square
        # root of the width, for units that go together, was no better on planted tables.
        self.log_sharpness = nn.Parameter(torch.tensor([width / 2]).log())
        self.register_buffer("mean", torch.zeros(n_domains, width))
        self.register_buffer("var", torch.ones(n_domains, width))
        self.register_buffer("gain", torch.zeros(n_domains, width))
        self.register_buffer("bias", torch.zeros(n_domains, width))
        self.register_buffer("met", torch.zeros(n_domains, dtype=torch.bool))

    @torch.no_grad()
    def remember(self, norm: DomainNorm) -> None:
        """Copy the norm of every domain."""
        self.mean.copy_(norm.own_mean[1:])
        self.var.copy_(norm.own_var[1:])
        self.gain.copy_(norm.gain[1:])
        self.bias.copy_(norm.bias[1:])
        self.met.copy_(norm.own_rows[1:, 0] > 0)

    def weights(self, h: Float[Tensor, "rows width"]) -> Float[Tensor, "rows domains"]:
        """How much each domain's norm counts for a row; they sum to 1."""
        # Around the centre of the domains, so that the squares below stay small numbers.
        centre = self.mean.mean(dim=0, keepdim=True)
        x, mean, var = h - centre, self.mean - centre, self.var + self.eps
        of_domain = (mean.square() / var + var.log()).sum(dim=1)
        square = x.square() @ var.reciprocal().t() - 2 * x @ (mean / var).t() + of_domain
        distance = (square / h.shape[1]).masked_fill(~self.met, NEVER_SEEN)
        return torch.softmax(-self.log_sharpness.exp() * distance, dim=1)

    def forward(self, h: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """Mix the domains' norms, each a stretch and a shift of h."""
        weights = self.weights(h)
        stretch = self.gain * (self.var + self.eps).rsqrt()
        shift = self.bias - self.mean * stretch
        return torch.addcmul(weights @ shift, h, weights @ stretch)


class FreeNorm(nn.Module):
    """``gain * layer_norm(h) + bias``, which knows no domain; both start at 0."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, h: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """Normalise each row by its own units."""
        return F.layer_norm(h, h.shape[1:], self.gain, self.bias)


class TalCell(nn.Module):
    """Both streams, and the mixture where a row's domain is unknown; (rows, width) -> (rows, width)."""

    def __init__(self, *, width: int, n_domains: int) -> None:
        super().__init__()
        self.own = DomainNorm(width=width, n_domains=n_domains, zero_gain=True)
        self.free = FreeNorm(width=width)
        self.mixture = NormMixture(width=width, n_domains=n_domains)

    def forward(
        self,
        h: Float[Tensor, "rows width"],
        routing: Routing,
        shared: None,  # noqa: ARG002
    ) -> Float[Tensor, "rows width"]:
        """Add both streams to each row."""
        y = h + self.own(h, routing) + self.free(h)
        if self.mixture.training:
            self.mixture.remember(self.own)
        unknown = routing.domain == 0
        if shapes_are_fixed(h):
            return torch.where(unknown.unsqueeze(1), y + self.mixture(h), y)
        at = unknown.nonzero().squeeze(1)
        if not len(at):
            return y
        return y.index_add(0, at, self.mixture(h.index_select(0, at)))


class Tal(AbstractAdapter):
    """A :class:`TalCell` at each of ``sites``. The arguments are those of :class:`AbstractAdapter`.

    >>> adapter = Tal(site_widths=(8, 4), n_domains=3)
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
    ) -> None:
        super().__init__(
            site_widths=site_widths, n_domains=n_domains, sites=sites, input_width=input_width
        )
        self.cells = self.at_each_site(lambda width: TalCell(width=width, n_domains=n_domains))

    def prepare(
        self,
        condition: Float[Tensor, "rows condition_width"],  # noqa: ARG002
        routing: Routing,
    ) -> AdapterState:
        """Nothing is shared but the routing."""
        return AdapterState(routing)
