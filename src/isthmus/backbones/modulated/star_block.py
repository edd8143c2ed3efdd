"""The block of a star: every set of weights is the shared one times a set's own, entry by entry.

A set belongs to a domain in STAR and to a cluster of rows in AdaptDHM.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.layers.domain_norm import DomainNorm
from isthmus.layers.dropout import Dropout
from isthmus.layers.per_domain import undeclare
from isthmus.layers.routing import Routing, in_graph


class StarLinear(nn.Module):
    """``h (W * W_s) + b + b_s``, s the set of the row; (rows, in_width) -> (rows, out_width).

    ``weight``: (in_width, out_width), shared; ``own``: (sets, in_width, out_width); biases alike.
    ``of_domains``: the sets are the ``n_domains + 1`` domains, so the parameters are declared as theirs.
    Every own weight starts at 1 and every own bias at 0: a fresh layer is one shared layer.

    >>> layer = StarLinear(in_width=4, out_width=3, sets=3, of_domains=True)
    >>> layer(torch.ones(5, 4), Routing(torch.tensor([0, 1, 2, 1, 1]), 2)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self, *, in_width: int, out_width: int, sets: int, of_domains: bool, bias: bool = True
    ) -> None:
        if min(in_width, out_width, sets) < 1:
            raise ValueError(f"sizes must be at least 1, got {in_width=}, {out_width=}, {sets=}")
        super().__init__()
        bound = in_width**-0.5
        self.weight = nn.Parameter(torch.empty(in_width, out_width).uniform_(-bound, bound))
        self.own = nn.Parameter(torch.ones(sets, in_width, out_width))
        self.bias = nn.Parameter(torch.zeros(out_width)) if bias else None
        self.own_bias = nn.Parameter(torch.zeros(sets, out_width)) if bias else None
        self.per_domain = ("own", "own_bias") if of_domains else ()

    def forward(
        self, h: Float[Tensor, "rows in_width"], routing: Routing
    ) -> Float[Tensor, "rows out_width"]:
        """Every row times the weights of its own set."""
        # One product of weights for each set or each tile, whichever are fewer, and never for a row.
        # In a graph the number of tiles is free, and a product of sets alone is a constant.
        tiles = routing.tiles
        if in_graph() or len(self.own) <= len(tiles.domain):
            weight = tiles.pick(self.own * self.weight)
        else:
            weight = tiles.pick(self.own) * self.weight
        y = tiles.join(torch.bmm(tiles.split(h), weight))
        if self.bias is None or self.own_bias is None:
            return y
        return y + self.bias + routing.take(self.own_bias)


class StarBlock(nn.Module):
    """``dropout(relu(norm(h (W * W_s) + b + b_s)))``; (rows, in_width) -> (rows, out_width).

    ``sets``, ``of_domains``: see :class:`StarLinear`. ``norm``: whether the block has one; its
    statistics are those of the row's own set, because statistics over the outputs of different
    weights would mix the sets again.
    """

    def __init__(
        self,
        *,
        in_width: int,
        out_width: int,
        sets: int,
        of_domains: bool,
        norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.linear = StarLinear(
            in_width=in_width,
            out_width=out_width,
            sets=sets,
            of_domains=of_domains,
            bias=not norm,  # a norm that follows takes any constant away
        )
        self.norm = DomainNorm(width=out_width, n_domains=sets - 1) if norm else None
        if self.norm is not None and not of_domains:
            undeclare(self.norm)
        self.dropout = Dropout(dropout) if dropout else None

    def forward(
        self, h: Float[Tensor, "rows in_width"], routing: Routing
    ) -> Float[Tensor, "rows out_width"]:
        """Apply the block; ``routing``: the set of each row."""
        h = self.linear(h, routing)
        h = (h if self.norm is None else self.norm(h, routing)).relu()
        return h if self.dropout is None else self.dropout(h)
