"""Fields of every kind, and random batches that fit them: shared by the tests of the networks."""

from dataclasses import replace

import torch

from isthmus.data.batch import Batch, Jagged
from isthmus.schema import FittedField, Pooling


def single(name: str, rows: int, width: int = 4, *, table: str = "", is_domain: bool = False):
    return FittedField(
        name, "categorical", width, table=table or name, table_rows=rows, is_domain=is_domain
    )


def many(name: str, rows: int, width: int = 4, *, table: str = "", pooling: Pooling = "mean"):
    return FittedField(
        name, "categorical_list", width, table=table or name, table_rows=rows, pooling=pooling
    )


# Every kind of column, not grouped by kind, with a shared table and two widths.
MIXED = (
    single("user", 9),
    FittedField("age", "numeric", 1),
    many("history", 7, table="item"),
    single("item", 7),
    FittedField("vector", "vector", 3),
    single("tab", 4, width=2, is_domain=True),
    FittedField("prices", "numeric_list", 1, pooling="max"),
    many("tags", 5, width=2, pooling="max"),
    single("city", 6),
    FittedField("length", "numeric", 1),
)
# What a factorisation machine accepts: one width.
EVEN = (
    single("user", 9),
    single("item", 7),
    FittedField("age", "numeric", 1),
    many("history", 7, table="item", pooling="sum"),
    single("tab", 4, is_domain=True),
)


# Two lists with target attention, the first one with places.
ASKED = (
    replace(many("history", 7, table="item"), query="item", places=3),
    single("tab", 4, is_domain=True),
    FittedField("age", "numeric", 1),
    single("item", 7),
    replace(many("tags", 5), query="tab"),
)


def make_batch(
    fields: tuple[FittedField, ...], rows: int, n_domains: int = 3, seed: int = 0
) -> Batch:
    """Random values everywhere; some lists are empty; domain 0 occurs."""
    draw = torch.Generator().manual_seed(seed)
    singles = [field for field in fields if field.kind == "categorical"]
    numbers = sum(field.numbers + (field.kind == "trees") for field in fields)  # two scores
    domain = torch.randint(0, n_domains + 1, (rows,), generator=draw)
    columns = [
        domain.clamp(max=field.table_rows - 1)
        if field.is_domain
        else torch.randint(0, field.table_rows, (rows,), generator=draw)
        for field in singles
    ]
    lists = []
    for field in fields:
        if field.kind in ("categorical_list", "numeric_list"):
            lengths = torch.randint(0, 4, (rows,), generator=draw)
            offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
            items = int(offsets[-1])
            values = (
                torch.randint(0, field.table_rows, (items,), generator=draw, dtype=torch.int32)
                if field.table
                else torch.randn(items, generator=draw)
            )
            lists.append(Jagged(values, offsets))
    return Batch(
        categorical=torch.stack(columns, dim=1).int()
        if columns
        else torch.zeros(rows, 0, dtype=torch.int32),
        numeric=torch.randn(rows, numbers, generator=draw),
        lists=tuple(lists),
        domain=domain,
        label=torch.randint(0, 2, (rows,), generator=draw).float(),
    )


def one_row(batch: Batch, row: int) -> Batch:
    """The batch of a single row."""
    return batch.take(torch.tensor([row]))
