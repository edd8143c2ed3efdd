"""FiLM: every hidden unit is stretched and shifted, by what the row says and by its domain.

Source: Perez et al., FiLM: Visual Reasoning with a General Conditioning Layer, AAAI 2018,
arXiv:1709.07871, eq. 1 and 2. For a row of domain d with hidden state h and condition e:

    gamma = A g(e) + a_d,   beta = B g(e) + b_d,   y = (1 + gamma) * h + beta

Departures:
- The paper conditions on a question. Here a hidden layer g reads the row's features, and every
  domain has an offset a_d and b_d of its own; the unknown domain has offsets too.
- The paper writes gamma, not 1 + gamma, in eq. 2; it adds the 1 in its code, as here.
- A, B, a and b start at 0, so that a fresh adapter changes nothing. A and B are divided by the
  square root of g's width, so that the first step of training moves y little, however wide g is.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.adapters.adapter import AbstractAdapter, AbstractConditionedConfig, AdapterState
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Site, SiteSpec


class FilmConfig(AbstractConditionedConfig):
    """Every hidden unit is stretched and shifted, by the row's features and by its domain."""

    name: Literal["film"] = "film"
    hidden_width: int = Field(default=64, ge=1, description="width of the layer that reads the row")

    def build(self, spec: SiteSpec, condition_width: int) -> "Film":
        """The adapter for a network of this shape."""
        return Film(
            site_widths=spec.site_widths,
            input_width=spec.input_width,
            condition_width=condition_width,
            n_domains=spec.n_domains,
            sites=self.sites,
            hidden_width=self.hidden_width,
        )


class FilmCell(nn.Module):
    """``(1 + gamma) * h + beta``; (rows, width) -> (rows, width). ``read``: g(e), one line a row."""

    per_domain = ("own",)

    def __init__(self, *, width: int, hidden_width: int, n_domains: int) -> None:
        super().__init__()
        self.scale = hidden_width**-0.5
        self.weight = nn.Parameter(torch.zeros(hidden_width, 2 * width))  # A beside B
        self.own = nn.Parameter(torch.zeros(n_domains + 1, 2 * width))  # a beside b

    def forward(
        self,
        h: Float[Tensor, "rows width"],
        routing: Routing,
        read: Float[Tensor, "rows hidden_width"],
    ) -> Float[Tensor, "rows width"]:
        """Stretch and shift each row."""
        both = torch.addmm(routing.take(self.own), read, self.weight, alpha=self.scale)
        gamma, beta = both.chunk(2, dim=1)
        return h + gamma * h + beta


class Film(AbstractAdapter):
    """A :class:`FilmCell` at each of ``sites``; all cells read one hidden layer of the condition.

    ``condition_width``: width of what the hidden layer reads. The other arguments are those of
    :class:`AbstractAdapter` and of :class:`FilmConfig`.

    >>> adapter = Film(site_widths=(8, 4), condition_width=6, n_domains=3)
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
        hidden_width: int = 64,
    ) -> None:
        super().__init__(
            site_widths=site_widths, n_domains=n_domains, sites=sites, input_width=input_width
        )
        self.latent_width = hidden_width
        self.reader = nn.Sequential(nn.Linear(condition_width, hidden_width), nn.ReLU())
        self.cells = self.at_each_site(
            lambda width: FilmCell(width=width, hidden_width=hidden_width, n_domains=n_domains)
        )

    def prepare(
        self, condition: Float[Tensor, "rows condition_width"], routing: Routing
    ) -> AdapterState:
        """Read every row's condition, once for all sites."""
        return AdapterState(routing, self.reader(condition))
