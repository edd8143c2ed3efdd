"""Crosses: products of the input with maps of itself, and of its fields with each other.

Sources: version 1, Wang et al., Deep & Cross Network, ADKDD 2017, arXiv:1708.05123, eq. 3:
``x' = x0 (x . w) + b + x``. Version 2, Wang et al., DCN V2, WWW 2021, arXiv:2008.13535, eq. 1:
``x' = x0 * (x W + b) + x`` with a full W. Departure: with ``n_domains`` every domain has its
own w or W (a tower of its own includes its crosses); the papers know no domains. The products of all
pairs of fields: Rendle, Factorization Machines, ICDM 2010, lemma 3.1; as a part of Guo et al., DeepFM,
IJCAI 2017, arXiv:1703.04247, eq. 2.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.layers.bank import BankLinear
from isthmus.layers.routing import Routing, needed


class CrossV1(nn.Module):
    """``x0 (x . w) + b + x``: one weight vector a layer; (rows, width) -> the same.

    ``n_domains``: give every domain, and the unknown one, vectors of its own.
    """

    def __init__(self, *, width: int, n_domains: int | None = None) -> None:
        super().__init__()
        sets = 1 if n_domains is None else n_domains + 1
        self.per_domain = () if n_domains is None else ("weight", "bias")
        self.weight = nn.Parameter(torch.randn(sets, width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(sets, width))

    def forward(
        self,
        x0: Float[Tensor, "rows width"],
        x: Float[Tensor, "rows width"],
        routing: Routing | None = None,
    ) -> Float[Tensor, "rows width"]:
        """One cross of ``x`` with the network's input ``x0``."""
        if not self.per_domain:
            return torch.addcmul(x + self.bias, x0, x @ self.weight.t())
        domain = needed(routing).domain
        scale = (x * F.embedding(domain, self.weight)).sum(dim=1, keepdim=True)
        return torch.addcmul(x + F.embedding(domain, self.bias), x0, scale)


class CrossV2(nn.Module):
    """``x0 * (x W + b) + x`` with a full matrix W; (rows, width) -> the same.

    ``n_domains``: give every domain, and the unknown one, a matrix of its own.
    """

    def __init__(self, *, width: int, n_domains: int | None = None) -> None:
        super().__init__()
        self.linear = (
            nn.Linear(width, width)
            if n_domains is None
            else BankLinear(n_domains=n_domains, in_width=width, out_width=width)
        )

    def forward(
        self,
        x0: Float[Tensor, "rows width"],
        x: Float[Tensor, "rows width"],
        routing: Routing | None = None,
    ) -> Float[Tensor, "rows width"]:
        """One cross of ``x`` with the network's input ``x0``."""
        if isinstance(self.linear, BankLinear):
            return torch.addcmul(x, x0, self.linear(x, needed(routing)))
        return torch.addcmul(x, x0, self.linear(x))


def pairwise_products(v: Float[Tensor, "rows fields dim"]) -> Float[Tensor, " rows"]:
    """Sum of the inner products of all pairs of fields: ``sum_{i<j} v_i . v_j``.

    By the square trick ``((sum v)^2 - sum v^2) / 2``: linear, not quadratic, in the fields.
    """
    total = v.sum(dim=1)
    return 0.5 * (total.square().sum(dim=1) - v.square().sum(dim=(1, 2)))
