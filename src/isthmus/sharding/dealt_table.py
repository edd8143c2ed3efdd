"""What tables on several processes share: each row that is needed is fetched once, and then dealt out."""

from abc import abstractmethod
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from isthmus.layers.tables import AbstractTable, untraced
from isthmus.schema import Pooling

LookUp = TypeVar("LookUp")


class AbstractDealtTable(AbstractTable, Generic[LookUp]):
    """A table of which each process of ``group`` holds a part.

    ``_lookups``: those whose gradients wait to be brought to where the rows lie.
    """

    sharded = True
    group: dist.ProcessGroup
    _lookups: list[LookUp]

    @abstractmethod
    def _brought(self, lookups: list[LookUp]) -> tuple[Int[Tensor, " rows"], Tensor]:
        """Rows of ``weight`` and their gradients, of all processes' look-ups; rows may stand twice."""

    @abstractmethod
    def _fetch(self, ids: Int[Tensor, " items"]) -> tuple[Tensor, Tensor]:
        """Every row that is needed, once, and the place of each id's row among them.

        Raises ``IndexError`` for ids that are no rows of the storage.
        """

    def forward(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape dim"]:
        """Look up rows; ids already count from the top of the storage.

        Raises ``IndexError`` for ids that are no rows of the storage.
        """
        found, place = untraced(self._fetch)(ids.reshape(-1))
        return found.index_select(0, place).view(*ids.shape, self.dim)

    def pooled(
        self, ids: Int[Tensor, " items"], offsets: Int[Tensor, " ends"], how: Pooling
    ) -> Float[Tensor, "rows dim"]:
        """Look up the ids of a list column and pool each row's; an empty list gives 0."""
        found, place = untraced(self._fetch)(ids)
        if not len(found):  # embedding_bag refuses a table without rows
            return found.new_zeros(len(offsets) - 1, self.dim) + found.sum()
        ends = offsets.to(place.dtype)
        return F.embedding_bag(place, found, ends, mode=how, include_last_offset=True)

    @torch.no_grad()
    def bring_gradients(self) -> None:
        """Send the gradients of all look-ups to where the rows lie, and add what comes from others.

        Every process must call it, between the backward pass and the update. A second call does
        nothing.
        """
        lookups, self._lookups = self._lookups, []
        if not lookups:
            return
        rows, values = self._brought(lookups)
        if self.sparse:
            gradient = torch.sparse_coo_tensor(
                rows.unsqueeze(0), values, self.weight.shape, check_invariants=False
            )
        else:
            gradient = torch.zeros_like(self.weight).index_add_(0, rows, values)
        had = self.weight.grad
        self.weight.grad = gradient if had is None else had + gradient

    def drop_gradients(self) -> None:
        """Forget the look-ups whose gradients were not brought."""
        self._lookups.clear()

    def over_parts(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over the processes."""
        total = value.clone()
        dist.all_reduce(total, group=self.group)
        return total
