"""Embedding tables that lie on several processes: where rows lie, how they are asked for, files."""

from isthmus.sharding.exchange import lookup_bytes, run_on_first
from isthmus.sharding.placing import (
    TablesChoice,
    TablesEngine,
    boxes_of,
    boxes_of_state,
    dealt_start,
    resolve_tables,
    shard_tables,
)
from isthmus.sharding.row_wise import RowWiseTable
from isthmus.sharding.shard_files import HeldPart, read_shards, shard_names, write_shards
from isthmus.sharding.torchrec_table import TorchRecTable
from isthmus.sharding.whole_tensors import save_whole

__all__ = [
    "HeldPart",
    "RowWiseTable",
    "TablesChoice",
    "TablesEngine",
    "TorchRecTable",
    "boxes_of",
    "boxes_of_state",
    "dealt_start",
    "lookup_bytes",
    "read_shards",
    "resolve_tables",
    "run_on_first",
    "save_whole",
    "shard_names",
    "shard_tables",
    "write_shards",
]
