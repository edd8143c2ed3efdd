"""Embedding tables that lie on several processes: where rows lie, how they are asked for, files."""

from isthmus.sharding.exchange import lookup_bytes
from isthmus.sharding.placing import (
    TablesChoice,
    boxes_of,
    dealt_start,
    resolve_tables,
    shard_tables,
)
from isthmus.sharding.row_wise import RowWiseTable

__all__ = [
    "RowWiseTable",
    "TablesChoice",
    "boxes_of",
    "dealt_start",
    "lookup_bytes",
    "resolve_tables",
    "shard_tables",
]
