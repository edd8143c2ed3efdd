"""The wide part: one weight per value of each feature, and per value of chosen crosses.

Source: Cheng et al., Wide & Deep Learning for Recommender Systems, DLRS 2016, arXiv:1606.07792,
eq. 1 and 3. Departures: crosses whose value pairs fit into the buckets get a bucket each,
without hashing; Adam trains this part as it trains the rest (the paper: FTRL with L1).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.layers.tables import AbstractTable, Tables, pool
from isthmus.schema import FittedField

# Odd constants of splitmix64 (Steele et al., OOPSLA 2014), as signed 64-bit numbers.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_MIX = 0xBF58476D1CE4E5B9 - 2**64


class Wide(nn.Module):
    """A batch to one logit a row, linear in what the row's values are.

    Categorical features and lists: one weight per value, lists pooled as the feature says.
    Features that share an embedding table still have weights of their own. Numbers (as
    they are, without their embedding) and vectors: one weight per column. ``crosses``: groups of two or more categorical features; each
    combination of their values has a weight, in ``cross_buckets`` buckets a cross: one for each
    combination where they fit, else hashed. An id that is unknown counts as a value; so does, as the unknown
    one, an id that came after the fit: the buckets stay what they were.
    Starts at 0. Raises ``ValueError`` for a cross of other than categorical features.
    """

    def __init__(
        self,
        *,
        fields: tuple[FittedField, ...],
        crosses: Sequence[Sequence[str]] = (),
        cross_buckets: int = 10_000,
    ) -> None:
        super().__init__()
        singles = [field for field in fields if field.kind == "categorical"]
        self._lists = [
            field for field in fields if field.kind in ("categorical_list", "numeric_list")
        ]
        sizes = {field.name: field.table_rows for field in fields if field.table}
        self._crosses = [_Cross(tuple(cross), singles, cross_buckets) for cross in crosses]
        sizes |= {cross.name: cross.buckets for cross in self._crosses}
        self.tables: Tables | None = None
        if sizes:
            self.tables = Tables(tables={name: (n, 1) for name, n in sizes.items()}, std=0.0)
        names = [field.name for field in singles] + [cross.name for cross in self._crosses]
        self._first = nn.Buffer(
            torch.tensor(
                [self._store.first_row(name) for name in names],
                dtype=self._store.id_dtype if names else torch.int32,
            ),
            persistent=False,
        )
        numbers = sum(field.numbers for field in fields)
        self._single = numbers  # a batch may hold more behind them
        numbers += sum(field.kind == "numeric_list" for field in fields)
        self.numbers = nn.Parameter(torch.zeros(numbers, 1)) if numbers else None

    @property
    def crossed(self) -> set[str]:
        """Names of the features that stand in a cross."""
        return {name for cross in self._crosses for name in cross.names}

    @property
    def _store(self) -> AbstractTable:
        assert self.tables is not None
        return self.tables.store(1)

    def forward(self, batch: Batch) -> Float[Tensor, " rows"]:
        """The wide logit of each row."""
        logits = batch.numeric.new_zeros(batch.rows, 1)
        if self._first.numel():
            ids = batch.categorical
            if self._crosses:
                ids = torch.cat([ids, *(cross(ids) for cross in self._crosses)], dim=1)
            logits = self._store(ids + self._first).sum(dim=1)
        numbers = [batch.numeric[:, : self._single]] if self._single else []
        for field, column in zip(self._lists, batch.lists, strict=True):
            if field.kind == "numeric_list":
                numbers.append(pool(column.values.unsqueeze(1), column.offsets, field.pooling))
                continue
            ids = column.values.to(self._store.id_dtype) + self._store.first_row(field.name)
            logits = logits + self._store.pooled(ids, column.offsets, field.pooling)
        if self.numbers is not None:
            x = numbers[0] if len(numbers) == 1 else torch.cat(numbers, dim=1)
            logits = logits + x @ self.numbers
        return logits.squeeze(1)


class _Cross:
    """Ids of the combinations of some categorical columns' values."""

    def __init__(
        self, names: tuple[str, ...], singles: list[FittedField], cross_buckets: int
    ) -> None:
        positions = {field.name: i for i, field in enumerate(singles)}
        if len(names) < 2 or len(set(names)) < len(names) or not set(names) <= set(positions):
            raise ValueError(
                f"a cross must name two or more different categorical features,"
                f" got {list(names)}; there are {list(positions)}"
            )
        self.names = names
        self.name = " x ".join(names)
        self.columns = [positions[name] for name in names]
        self.sizes = [singles[column].fitted_rows for column in self.columns]
        self.grown = any(singles[column].grown for column in self.columns)
        combinations = math.prod(self.sizes)
        self.exact = combinations <= cross_buckets
        self.buckets = combinations if self.exact else cross_buckets

    def __call__(self, categorical: Int[Tensor, "rows fields"]) -> Int[Tensor, "rows 1"]:
        key = self._ids(categorical, 0)
        for place, size in enumerate(self.sizes[1:], start=1):
            ids = self._ids(categorical, place)
            # Without hashing the key counts combinations; with it, each id is mixed in turn.
            key = key * size + ids if self.exact else _mixed(key) + ids
        if not self.exact:
            key = _mixed(key).remainder(self.buckets)
        return key.to(categorical.dtype).unsqueeze(1)

    def _ids(self, categorical: Tensor, place: int) -> Int[Tensor, " rows"]:
        ids = categorical[:, self.columns[place]].long()
        return torch.where(ids < self.sizes[place], ids, 0) if self.grown else ids


def _mixed(key: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """Spread neighbouring 64-bit keys; products wrap, and the shift keeps the sign: both wanted."""
    key = key * _STEP
    return (key ^ (key >> 32)) * _MIX
