"""A batch: some encoded rows as tensors, the only thing that a model reads."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from isthmus.schema import STATISTICS_WIDTH, FittedField


@dataclass(frozen=True, slots=True)
class DomainPlaces:
    """Where the features of a batch tell the domain of a row.

    ``categorical``: positions of columns that hold the domain. ``statistics``: position in
    ``numeric`` of the first number of each column with statistics. ``score``: position there of the
    forest's score, None without a forest.
    """

    categorical: tuple[int, ...] = ()
    statistics: tuple[int, ...] = ()
    score: int | None = None

    @classmethod
    def of(cls, fields: Sequence[FittedField]) -> "DomainPlaces":
        """The places in a batch with these fields."""
        single = [field for field in fields if field.kind == "categorical"]
        start = sum(field.numbers for field in fields if field.kind in ("numeric", "vector"))
        counted = sum(field.kind == "statistics" for field in fields)
        trees = any(field.kind == "trees" for field in fields)
        return cls(
            categorical=tuple(place for place, field in enumerate(single) if field.is_domain),
            statistics=tuple(start + STATISTICS_WIDTH * number for number in range(counted)),
            score=start + STATISTICS_WIDTH * counted if trees else None,
        )


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device. To a GPU it goes from pinned memory, and nobody waits for it."""
    if tensor.device.type != "cpu" or device.type == "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class Jagged:
    """One list column: row ``r`` holds ``values[offsets[r]:offsets[r + 1]]``."""

    values: Tensor  # (items,) int32 ids, or float32 numbers
    offsets: Tensor  # (rows + 1,) int64, rising from 0 to items

    def map(self, change: Callable[[Tensor], Tensor]) -> "Jagged":
        """The list column with ``change`` done to both tensors."""
        return Jagged(change(self.values), change(self.offsets))

    def take(self, rows: Int64[Tensor, " chosen"]) -> "Jagged":
        """The lists of the rows at these positions, in that order."""
        starts = self.offsets.index_select(0, rows)
        lengths = self.offsets.index_select(0, rows + 1) - starts
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        items = int(offsets[-1])
        shift = torch.repeat_interleave(starts - offsets[:-1], lengths, output_size=items)
        at = shift + torch.arange(items, device=shift.device)
        return Jagged(self.values.index_select(0, at), offsets)


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded rows. Columns stand in the order of the config's features, by kind."""

    categorical: Tensor  # (rows, n_categorical) int32; 0 is the unknown
    numeric: Tensor  # (rows, n_numeric) float32: scaled numbers, vectors, statistics, trees
    lists: tuple[Jagged, ...]  # categorical_list and numeric_list features
    domain: Tensor  # (rows,) int64; 0 is the unknown domain, 1..n_domains the trained ones
    label: Tensor  # (rows,) float32 in {0, 1}; nan where it is not known
    weight: Tensor | None = None  # (rows,) float32 > 0, or None for 1 everywhere

    @classmethod
    def of_arrays(
        cls,
        *,
        categorical: np.ndarray,
        numeric: np.ndarray,
        lists: Iterable[tuple[np.ndarray, np.ndarray]],
        domain: np.ndarray,
        label: np.ndarray,
        weight: np.ndarray | None,
    ) -> "Batch":
        """A batch of NumPy arrays of the dtypes above; each list is (values, offsets).

        The batch shares the arrays, so they must be writable. A domain of int32 is copied.
        """
        return cls(
            categorical=torch.from_numpy(categorical),
            numeric=torch.from_numpy(numeric),
            lists=tuple(Jagged(torch.from_numpy(a), torch.from_numpy(b)) for a, b in lists),
            domain=torch.from_numpy(domain.astype(np.int64, copy=False)),
            label=torch.from_numpy(label),
            weight=None if weight is None else torch.from_numpy(weight),
        )

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.domain.shape[0]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with ``change`` done to every tensor."""
        return self._made(change, lambda jagged: jagged.map(change))

    def take(self, rows: Int64[Tensor, " chosen"]) -> "Batch":
        """The rows at these positions, in that order. A position may stand there twice."""
        return self._made(
            lambda tensor: tensor.index_select(0, rows), lambda jagged: jagged.take(rows)
        )

    def first(self, rows: int) -> "Batch":
        """The first rows; the batch itself where it has no more."""
        if rows == self.rows:
            return self
        return self.take(torch.arange(rows, device=self.domain.device))

    def pieces(self, rows: int) -> Iterator["Batch"]:
        """The rows in order, ``rows`` at once; the batch itself where it has no more."""
        if self.rows <= rows:
            yield self
            return
        for start in range(0, self.rows, rows):
            stop = min(start + rows, self.rows)
            yield self.take(torch.arange(start, stop, device=self.domain.device))

    def _made(
        self, tensor: Callable[[Tensor], Tensor], jagged: Callable[[Jagged], Jagged]
    ) -> "Batch":
        return Batch(
            categorical=tensor(self.categorical),
            numeric=tensor(self.numeric),
            lists=tuple(jagged(column) for column in self.lists),
            domain=tensor(self.domain),
            label=tensor(self.label),
            weight=None if self.weight is None else tensor(self.weight),
        )

    def to(self, device: torch.device | str) -> "Batch":
        """The batch with every tensor moved to a device."""
        return self.map(lambda tensor: tensor.to(device))

    def hide_domain(self, hidden: Tensor, places: DomainPlaces) -> "Batch":
        """The batch with an unknown domain in the rows of ``hidden`` (rows,) bool.

        ``places``: where features tell the domain, or the model would still see what it must learn
        to do without. Ids become unknown. Statistics within the domain become those of all domains,
        counted 0 times: what `isthmus.data.encoding.counted.statistics` has for the unknown domain. The
        forest's score becomes the second one, which train rows have.
        """
        categorical, numeric = self.categorical, self.numeric
        if places.categorical:
            categorical = categorical.clone()
            for column in places.categorical:
                categorical[:, column].masked_fill_(hidden, 0)
        if places.statistics or places.score is not None:
            numeric = numeric.clone()
            for effect in places.statistics:
                within, count = numeric[:, effect + 2], numeric[:, effect + 3]
                within.copy_(torch.where(hidden, numeric[:, effect], within))
                count.masked_fill_(hidden, 0)
            if places.score is not None:
                score, without = numeric[:, places.score], numeric[:, places.score + 1]
                score.copy_(torch.where(hidden, without, score))
        return replace(
            self,
            categorical=categorical,
            numeric=numeric,
            domain=self.domain.masked_fill(hidden, 0),
        )
