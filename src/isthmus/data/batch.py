"""A batch: some encoded rows as tensors, the only thing that a model reads."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Jagged:
    """One list column: row ``r`` holds ``values[offsets[r]:offsets[r + 1]]``."""

    values: Tensor  # (items,) int32 ids, or float32 numbers
    offsets: Tensor  # (rows + 1,) int64, rising from 0 to items

    def to(self, device: torch.device | str) -> "Jagged":
        """Move to a device."""
        return Jagged(self.values.to(device), self.offsets.to(device))


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded rows. Columns stand in the order of the config's features, by kind."""

    categorical: Tensor  # (rows, n_categorical) int32; 0 is the unknown
    numeric: Tensor  # (rows, n_numeric) float32, scaled: numeric features, then vectors unrolled
    lists: tuple[Jagged, ...]  # categorical_list and numeric_list features
    domain: Tensor  # (rows,) int64; 0 is the unknown domain, 1..n_domains the trained ones
    label: Tensor  # (rows,) float32 in {0, 1}; nan where it is not known
    weight: Tensor | None = None  # (rows,) float32 > 0, or None for 1 everywhere

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.domain.shape[0]

    def to(self, device: torch.device | str) -> "Batch":
        """Move every tensor to a device."""
        return Batch(
            categorical=self.categorical.to(device),
            numeric=self.numeric.to(device),
            lists=tuple(jagged.to(device) for jagged in self.lists),
            domain=self.domain.to(device),
            label=self.label.to(device),
            weight=None if self.weight is None else self.weight.to(device),
        )

    def hide_domain(self, hidden: Tensor, columns: tuple[int, ...]) -> "Batch":
        """Make the domain of the rows in ``hidden`` (rows,) bool unknown.

        ``columns``: positions in ``categorical`` that hold the domain as a feature; they become
        unknown with it, or the model would still see what it must learn to do without.
        """
        categorical = self.categorical
        if columns:
            categorical = categorical.clone()
            for column in columns:
                categorical[:, column].masked_fill_(hidden, 0)
        return replace(self, categorical=categorical, domain=self.domain.masked_fill(hidden, 0))
