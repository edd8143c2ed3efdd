"""The plainest banks: a linear map with one weight per domain, and an embedding of the domain."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.layers.routing import Routing


class BankLinear(nn.Module):
    """``y = h W_d + b_d`` where d is the row's own domain; domain 0 has its own set too.

    ``weight``: (n_domains + 1, in_width, out_width); ``bias``: (n_domains + 1, out_width).
    Weights are drawn alike and apart for every domain, uniform in +-in_width**-0.5 as in
    ``nn.Linear``; ``scale`` stretches that.

    >>> layer = BankLinear(n_domains=2, in_width=4, out_width=3)
    >>> layer(torch.ones(5, 4), Routing(torch.tensor([0, 1, 2, 1, 1]), 2)).shape
    torch.Size([5, 3])
    """

    per_domain = ("weight", "bias")

    def __init__(
        self,
        *,
        n_domains: int,
        in_width: int,
        out_width: int,
        bias: bool = True,
        scale: float = 1.0,
    ) -> None:
        if min(n_domains, in_width, out_width) < 1:
            raise ValueError(
                f"sizes must be at least 1, got {n_domains=}, {in_width=}, {out_width=}"
            )
        super().__init__()
        self.n_domains = n_domains
        self.in_width = in_width
        self.out_width = out_width
        bound = scale * in_width**-0.5
        self.weight = nn.Parameter(
            torch.empty(n_domains + 1, in_width, out_width).uniform_(-bound, bound)
        )
        self.bias: nn.Parameter | None = (
            nn.Parameter(torch.zeros(n_domains + 1, out_width)) if bias else None
        )

    def forward(
        self, h: Float[Tensor, "rows in_width"], routing: Routing
    ) -> Float[Tensor, "rows out_width"]:
        """Every row times the matrix of its own domain."""
        y = routing.apply(h, self.weight)
        return y if self.bias is None else y + routing.take(self.bias)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"n_domains={self.n_domains}, {self.in_width} -> {self.out_width}"


class DomainEmbedding(nn.Module):
    """One vector per domain, for networks that read the domain; domain 0 has its own vector too.

    ``weight``: (n_domains + 1, dim), drawn normal with variance 1 / dim, so that a vector's length is
    about 1.

    >>> DomainEmbedding(n_domains=2, dim=4)(torch.tensor([0, 2, 1])).shape
    torch.Size([3, 4])
    """

    per_domain = ("weight",)

    def __init__(self, *, n_domains: int, dim: int) -> None:
        if min(n_domains, dim) < 1:
            raise ValueError(f"sizes must be at least 1, got {n_domains=}, {dim=}")
        super().__init__()
        self.n_domains = n_domains
        self.dim = dim
        self.weight = nn.Parameter(torch.randn(n_domains + 1, dim) * dim**-0.5)

    def forward(self, domain: Int[Tensor, " rows"]) -> Float[Tensor, "rows dim"]:
        """The vector of every row's domain; ``domain``: int64, 0 for the unknown one."""
        return F.embedding(domain, self.weight)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"n_domains={self.n_domains}, dim={self.dim}"
