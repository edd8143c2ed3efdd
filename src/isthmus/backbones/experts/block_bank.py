"""A bank of blocks that differ in width, of which each row meets one: for paths through a network.

A block is two Linears with a ReLU between them, as wide inside as it likes. Rows are laid out in tiles by
their block, so what is not chosen is not computed.
"""

from collections.abc import Sequence
from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.layers.bank import BankLinear
from isthmus.layers.per_domain import undeclare
from isthmus.layers.routing import Routing, shapes_are_fixed


class Blocks(nn.Module):
    """``relu(u A_c + s_c) B_c + t_c`` of blocks of one width; (rows, width) -> (rows, width)."""

    def __init__(self, *, count: int, width: int, units: int) -> None:
        super().__init__()
        self.count, self.units = count, units
        if count == 1:
            self.up, self.down = nn.Linear(width, units), nn.Linear(units, width)
            for linear in (self.up, self.down):
                nn.init.zeros_(linear.bias)
        else:
            # Routing, tiles and banks know sets of parameters and the set of each row: here blocks.
            self.up = BankLinear(n_domains=count - 1, in_width=width, out_width=units)
            self.down = BankLinear(n_domains=count - 1, in_width=units, out_width=width)
        undeclare(self)

    def forward(
        self, u: Float[Tensor, "rows width"], chosen: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows width"]:
        """Run each row's block, numbered from 0."""
        if self.count == 1:
            return self.down(self.up(u).relu())
        routing = Routing(chosen, self.count - 1)
        return self.down(self.up(u, routing).relu(), routing)

    def filled(self, units: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A, s, B and t of every block, with zeros for units that the blocks lack.

        (blocks, width, units), (blocks, units), (blocks, units, width), (blocks, width).
        """
        (up, up_bias), (down, down_bias) = map(_as_bank, (self.up, self.down))
        more = units - self.units
        return (
            F.pad(up, (0, more)),
            F.pad(up_bias, (0, more)),
            F.pad(down, (0, 0, 0, more)),
            down_bias,
        )


def _as_bank(part: BankLinear | nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight (blocks, in_width, out_width) and bias (blocks, out_width)."""
    weight, bias = part.weight, part.bias
    assert bias is not None
    if isinstance(part, BankLinear):
        return weight, bias
    return weight.t().unsqueeze(0), bias.unsqueeze(0)


class BlockBank(nn.Module):
    """What each row's own block adds; (rows, width) -> (rows, width).

    ``units``: hidden units of each block, widest first; 0 is the identity, which adds 0. A row meets its
    own block alone, in tiles; blocks of one width share a product. In a graph and on a GPU, where no
    shape may hang on a value, all blocks are filled up with zeros to the widest.
    """

    def __init__(self, *, width: int, units: Sequence[int]) -> None:
        super().__init__()
        self.units = tuple(units)
        self.kinds = nn.ModuleList(
            Blocks(count=len(list(same)), width=width, units=size)
            for size, same in groupby(units)
            if size
        )

    def forward(
        self, u: Float[Tensor, "rows width"], chosen: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows width"]:
        """Run each row's block."""
        if shapes_are_fixed(u):
            return self._filled(u, chosen)
        y, first = torch.zeros_like(u), 0
        for kind in self._kinds():
            last = first + kind.count
            at = torch.nonzero((chosen >= first) & (chosen < last)).squeeze(1)
            if len(at):
                own = kind(u.index_select(0, at), chosen.index_select(0, at) - first)
                y = y.index_add(0, at, own.to(y.dtype))
            first = last
        return y

    def _filled(self, u: Tensor, chosen: Tensor) -> Tensor:
        parts = zip(*(kind.filled(self.units[0]) for kind in self._kinds()), strict=True)
        none = self.units.count(0)
        up, up_bias, down, down_bias = (
            F.pad(torch.cat(part), (*(0, 0) * (part[0].ndim - 1), 0, none)) for part in parts
        )
        routing = Routing(chosen, len(self.units) - 1)
        z = (routing.apply(u, up) + routing.take(up_bias)).relu()
        return routing.apply(z, down) + routing.take(down_bias)

    def _kinds(self) -> list[Blocks]:
        return [kind for kind in self.kinds if isinstance(kind, Blocks)]

    def extra_repr(self) -> str:
        """The hidden units of the blocks, for printing."""
        return f"units={self.units}"
