"""Data: a table is read, encoded once on disk, split, and read back as batches."""

from isthmus.data.batch import Batch, Jagged
from isthmus.data.encoding.encoder import EncodedRows, Encoder
from isthmus.data.encoding.vocabulary import Vocabulary
from isthmus.data.store.cache import CacheEntry, cache_folder
from isthmus.data.store.dataset import Dataset, DomainCount, Rows
from isthmus.data.store.split import SPLITS, SplitName
from isthmus.data.store.subset import Subset
from isthmus.data.tables import Table, open_table

__all__ = [
    "SPLITS",
    "Batch",
    "CacheEntry",
    "Dataset",
    "DomainCount",
    "EncodedRows",
    "Encoder",
    "Jagged",
    "Rows",
    "SplitName",
    "Subset",
    "Table",
    "Vocabulary",
    "cache_folder",
    "open_table",
]
