"""Data: a table is read, encoded once on disk, split, and read back as batches."""

from isthmus.data.batch import Batch, Jagged
from isthmus.data.cache import CacheEntry, cache_folder
from isthmus.data.dataset import Dataset, DomainCount, Rows
from isthmus.data.encode import EncodedRows, Encoder
from isthmus.data.external import EncodedTable, ReportColumns, UntrainedDomain, encode_table
from isthmus.data.read import Table, open_table
from isthmus.data.split import SPLITS, SplitName
from isthmus.data.vocabulary import Vocabulary

__all__ = [
    "SPLITS",
    "Batch",
    "CacheEntry",
    "Dataset",
    "DomainCount",
    "EncodedRows",
    "EncodedTable",
    "Encoder",
    "Jagged",
    "ReportColumns",
    "Rows",
    "SplitName",
    "Table",
    "UntrainedDomain",
    "Vocabulary",
    "cache_folder",
    "encode_table",
    "open_table",
]
