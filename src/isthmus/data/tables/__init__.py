"""Tables: where rows come from, what their values are, and how they are refused."""

from isthmus.data.tables.opening import Source, open_table, refuse_empty
from isthmus.data.tables.table import BLOCK_ROWS, Block, Table, Way, ahead

__all__ = ["BLOCK_ROWS", "Block", "Source", "Table", "Way", "ahead", "open_table", "refuse_empty"]
