"""A table whose rows are dealt to the processes of a group, in torch alone and on any backend.

Row ``r`` of the storage lies with process ``r % world``. Vocabularies number values from the commonest
to the rarest, so blocks of neighbouring rows would give one process nearly all of the work; dealing in
turn gives each process every kind of value. A look-up asks for each row once (`exchange`). Its gradient
waits here until `RowWiseTable.bring_gradients` sends it to where the rows lie; so the backward pass
itself speaks to no other process, and may differ from process to process.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch import distributed as dist

from isthmus.layers.tables import INIT_STD, Box, FusedTable
from isthmus.sharding.dealt_table import AbstractDealtTable
from isthmus.sharding.exchange import Exchange, Request

PIECE_ROWS = 2**17  # rows that are drawn at once: a multiple of 16, see `_drawn`


class RowWiseTable(AbstractDealtTable["_Lookup"]):
    """Several tables of one width, whose rows lie on the processes of ``group`` in turn.

    ``weight``: (rows of this process, dim). A fresh table takes the same numbers from torch's global
    generator as a `FusedTable` does, so it starts with the same weights whatever the number of
    processes; no more than a piece of them is in memory at a time.

    Every process must build it, and call it and ``bring_gradients`` equally often. A process that has
    no row left calls it with no ids. Losses are summed over the processes: each divides by what the
    whole batch holds. A row that was looked up with a gradient counts as a row of the batch.
    """

    def __init__(
        self,
        *,
        rows: Mapping[str, int],
        dim: int,
        group: dist.ProcessGroup,
        std: float = INIT_STD,
    ) -> None:
        super().__init__()
        self._deal(rows, dim, group)
        self.weight = nn.Parameter(_drawn(self.exchange, dim, std))

    @classmethod
    def of(cls, table: FusedTable, group: dist.ProcessGroup) -> "RowWiseTable":
        """The rows of a plain table, dealt. The table must be the same on every process."""
        dealt = cls.__new__(cls)
        AbstractDealtTable.__init__(dealt)
        sizes = {name: rows.stop - rows.start for name, rows in table.slices.items()}
        dealt._deal(sizes, table.dim, group)
        dealt.sparse, dealt.owned = table.sparse, table.owned
        own = dealt.weight_box().of(table.weight.detach()).clone()
        dealt.weight = nn.Parameter(own, requires_grad=table.weight.requires_grad)
        return dealt.train(table.training)

    def _deal(self, rows: Mapping[str, int], dim: int, group: dist.ProcessGroup) -> None:
        self.group = group
        self.exchange = Exchange(rows=self.lay_out(rows, dim), group=group)
        self.id_dtype = self.exchange.id_dtype
        self._lookups = []

    def _fetch(self, ids: Int[Tensor, " items"]) -> tuple[Tensor, Tensor]:
        """Every row that is needed, once, and the place of each id's row among them."""
        request = self.exchange.ask(ids)
        lookup = _Lookup(request)
        if torch.is_grad_enabled() and self.weight.requires_grad:
            self._lookups.append(lookup)
        with torch.no_grad():
            found = self.exchange.answer(self.weight.index_select(0, request.wanted), request)
        return KeptGradient.apply(self.weight, found, lookup), request.place

    def _brought(self, lookups: "list[_Lookup]") -> tuple[Tensor, Tensor]:
        values = []
        for lookup in lookups:
            gradient = lookup.gradient
            if gradient is None:  # the loss of this process did not depend on it
                gradient = self.weight.new_zeros(lookup.request.rows, self.dim)
            values.append(self.exchange.return_to_holders(gradient, lookup.request))
        rows = torch.cat([lookup.request.wanted for lookup in lookups]).long()
        return rows, torch.cat(values)

    def table(self, name: str) -> Tensor:
        """A view of the rows of one logical table that lie here: see `box`."""
        start = len(range(self.exchange.rank, self.slices[name].start, self.exchange.world))
        return self.weight[start : start + len(self.box(name).rows)]

    def box(self, name: str) -> Box:
        """Which rows of the logical table ``name`` lie here."""
        rows, world = self.slices[name], self.exchange.world
        first = (self.exchange.rank - rows.start) % world
        size = rows.stop - rows.start
        return Box((size, self.dim), range(first, max(size, first), world), range(self.dim))

    def weight_box(self) -> Box:
        """Which rows of the whole storage lie here."""
        return Box((self.rows, self.dim), self.exchange.own, range(self.dim))


class _Lookup:
    """One look-up of a step, and the gradient of the rows that came back, as far as it is known."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.gradient: Tensor | None = None


class KeptGradient(torch.autograd.Function):
    """Rows as they are. Their gradient is kept as ``lookup.gradient``, and goes no further.

    ``weight``: what the rows came from; it makes autograd ask for the gradient.
    """

    @staticmethod
    def forward(ctx, weight: Tensor, rows: Tensor, lookup: Any) -> Tensor:  # noqa: ARG004
        """Give the rows."""
        ctx.lookup = lookup
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[None, None, None]:
        """Keep the gradient with what came of the same rows before."""
        had = ctx.lookup.gradient
        ctx.lookup.gradient = grads[0] if had is None else had + grads[0]
        return None, None, None


def _drawn(exchange: Exchange, dim: int, std: float) -> Tensor:
    """This process's rows of ``torch.empty(rows, dim).normal_(std=std)``, which is never whole.

    torch draws 16 numbers at a time, so pieces of a multiple of 16 are the numbers of the whole; the
    last piece takes in a rest that would be shorter than 16.
    """
    own = torch.empty(len(exchange.own), dim)
    start = filled = 0
    while start < exchange.rows:
        stop = start + PIECE_ROWS
        if (exchange.rows - stop) * dim < 16:
            stop = exchange.rows
        piece = torch.empty(stop - start, dim).normal_(std=std)
        piece = piece[(exchange.rank - start) % exchange.world :: exchange.world]
        own[filled : filled + len(piece)] = piece
        start, filled = stop, filled + len(piece)
    return own
