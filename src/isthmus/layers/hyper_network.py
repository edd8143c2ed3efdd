"""The hyper-network: writes a core, a small matrix, for every row from that row's condition.

Source: HAMUR (Li et al., CIKM 2023, arXiv:2309.06217): g: R^E -> R^{k k}, shared by all domains
and sites; I(e) = reshape(g(e)).
Departures: the released code puts batch norm and ReLU on the last layer too, which makes every
core non-negative and of mean 0.4 an entry, whatever its size k, and saturates what follows. Here
the last layer is linear and starts as identity plus noise: a product with the core keeps the
scale of what it multiplies, and a hyper-network with nothing to say leaves a static adapter.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class HyperNetwork(nn.Module):
    """(rows, condition_width) -> cores (rows, rank, rank).

    Hidden layers are Linear, batch norm (running statistics in eval), ReLU.

    >>> HyperNetwork(condition_width=6, widths=(8,), rank=3)(torch.randn(5, 6)).shape
    torch.Size([5, 3, 3])
    """

    def __init__(self, *, condition_width: int, widths: Sequence[int] = (64,), rank: int) -> None:
        if min(condition_width, rank, *widths) < 1:
            raise ValueError(
                f"sizes must be at least 1, got {condition_width=}, widths={tuple(widths)}, {rank=}"
            )
        super().__init__()
        self.rank = rank
        self.hidden = nn.Sequential()
        width = condition_width
        for next_width in widths:
            self.hidden.append(nn.Linear(width, next_width, bias=False))
            self.hidden.append(nn.BatchNorm1d(next_width))
            self.hidden.append(nn.ReLU())
            width = next_width
        self.last = nn.Linear(width, rank * rank)
        # Hidden units have mean square 1/2, so a core is I plus entries of variance 1 / (2 rank).
        nn.init.normal_(self.last.weight, std=(width * rank) ** -0.5)
        with torch.no_grad():
            self.last.bias.copy_(torch.eye(rank).flatten())

    def forward(
        self, condition: Float[Tensor, "rows condition_width"]
    ) -> Float[Tensor, "rows rank rank"]:
        """One core a row."""
        return self.last(self.hidden(condition)).unflatten(1, (self.rank, self.rank))
