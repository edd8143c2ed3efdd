"""What tables on several processes share: each row that is needed is fetched once, and then dealt out."""

from abc import abstractmethod

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from isthmus.layers.tables import AbstractTable, untraced
from isthmus.schema import Pooling


class AbstractDealtTable(AbstractTable):
    """A table of which each process holds a part."""

    sharded = True

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
