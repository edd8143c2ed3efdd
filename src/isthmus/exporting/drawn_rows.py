"""Rows for a comparison where no table is at hand: drawn ids and numbers, in every place of a batch."""

import numpy as np

from isthmus.data.batch import Batch
from isthmus.data.encoding.block_layout import BlockLayout
from isthmus.data.encoding.encoder import Encoder
from isthmus.data.tables.plain import offsets_of

ROWS = 4096
ITEMS = 5  # of a list, at most


def drawn_rows(encoder: Encoder, rows: int = ROWS, seed: int = 0) -> Batch:
    """A batch with ids from all of each table, unknown ones and unknown domains too, and normal numbers."""
    rng = np.random.default_rng(seed)
    ids, x, into = BlockLayout.of(encoder.fields).empty(rows)
    x[:] = rng.standard_normal(x.shape)
    lists = []
    for field in encoder.fields:
        if field.kind == "categorical":
            into[field.name][:] = rng.integers(0, field.table_rows, rows)
        elif field.kind in ("categorical_list", "numeric_list"):
            offsets = offsets_of(rng.integers(0, ITEMS + 1, rows))
            items = int(offsets[-1])
            values = (
                rng.integers(0, field.table_rows, items).astype(np.int32)
                if field.kind == "categorical_list"
                else rng.standard_normal(items).astype(np.float32)
            )
            lists.append((values, offsets))
    return Batch.of_arrays(
        categorical=ids,
        numeric=x,
        lists=lists,
        domain=rng.integers(0, encoder.n_domains + 1, rows),
        label=np.full(rows, np.nan, dtype=np.float32),
        weight=None,
    )
