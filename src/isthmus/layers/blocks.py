"""The block that every deep part is made of: Linear, norm, ReLU, dropout.

One class serves a tower that all domains share and a set of towers with one per domain; in the
second case each row meets the weights of its own domain only.
"""

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from isthmus.layers.bank import BankLinear
from isthmus.layers.domain_norm import DomainNorm
from isthmus.layers.dropout import Dropout
from isthmus.layers.routing import Routing, needed

Norm = Literal["batch", "domain", "none"]
"""The norm of a deep block: over all rows, over those of the row's domain, or none."""
Towers = Literal["shared", "per_domain"]
"""Whether all domains share the deep part, or each has its own."""
# What an adapter makes of a Linear: the Linear's input and output -> another output.
Meet = Callable[[Tensor, Tensor], Tensor]


class DeepBlock(nn.Module):
    """``dropout(relu(norm(h W + b)))``; (rows, in_width) -> (rows, out_width).

    ``norm``: ``batch`` (statistics of all rows), ``domain`` (of the row's own domain, shrunk to
    those of all rows: :class:`DomainNorm`) or ``none``. Towers per domain make ``batch`` mean
    ``domain``: statistics over the outputs of different weights would mix them again.
    ``n_domains`` is needed, and a routing at each call, for towers or norms per domain.
    """

    def __init__(
        self,
        *,
        in_width: int,
        out_width: int,
        norm: Norm = "batch",
        dropout: float = 0.0,
        towers: Towers = "shared",
        n_domains: int | None = None,
    ) -> None:
        if norm == "batch" and towers == "per_domain":
            norm = "domain"
        if n_domains is None and (towers == "per_domain" or norm == "domain"):
            raise ValueError(f"n_domains must be given for {towers=}, {norm=}, got None")
        super().__init__()
        self.linear = (
            BankLinear(
                n_domains=n_domains or 0,
                in_width=in_width,
                out_width=out_width,
                bias=norm == "none",
            )
            if towers == "per_domain"
            # A norm that follows takes any constant away, so a bias would only cost.
            else nn.Linear(in_width, out_width, bias=norm == "none")
        )
        self.norm: nn.Module | None = None
        if norm == "batch":
            self.norm = nn.BatchNorm1d(out_width)
        elif norm == "domain":
            self.norm = DomainNorm(width=out_width, n_domains=n_domains or 0)
        self.dropout = Dropout(dropout) if dropout else None

    def forward(
        self,
        h: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        meet: Meet | None = None,
    ) -> Float[Tensor, "rows out_width"]:
        """Apply the block; ``meet`` changes what the Linear gives, before the norm.

        Raises ``ValueError`` where a routing is needed and missing.
        """
        y = (
            self.linear(h, needed(routing))
            if isinstance(self.linear, BankLinear)
            else self.linear(h)
        )
        h = y if meet is None else meet(h, y)
        if isinstance(self.norm, DomainNorm):
            h = self.norm(h, needed(routing))
        elif self.norm is not None:
            h = self.norm(h)
        h = h.relu()
        return h if self.dropout is None else self.dropout(h)
