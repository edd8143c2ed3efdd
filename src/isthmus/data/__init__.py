"""Data: a table is read, encoded once on disk, split, and read back as batches."""

from isthmus.data.batch import Batch, Jagged
from isthmus.data.cache import CacheEntry, cache_folder
from isthmus.data.dataset import Dataset, DomainCount, Rows
from isthmus.data.encode import EncodedRows, Encoder
from isthmus.data.split import SPLITS, SplitName
from isthmus.data.subset import Subset
from isthmus.data.tables import Table, open_table
from isthmus.data.vocabulary import Vocabulary

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
