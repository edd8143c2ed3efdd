"""Amazon 5-core reviews (McAuley et al., SIGIR 2015): ratings, three categories as domains.

Scenario-Wise Rec takes Beauty, Clothing and Health of the release of 2014, and no feature but user,
item and domain. The categories share users; an item belongs to one.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa

from isthmus.inspect.template import model_and_train
from isthmus.sources.brought.download import Download
from isthmus.sources.brought.raw_files import BroughtFile, json_blocks
from isthmus.sources.source_folder import Report

_FILES = {
    "beauty": "reviews_Beauty_5.json",
    "clothing": "reviews_Clothing_Shoes_and_Jewelry_5.json",
    "health": "reviews_Health_and_Personal_Care_5.json",
}
_REVIEW = pa.schema(
    {
        "reviewerID": pa.string(),
        "asin": pa.string(),
        "overall": pa.float64(),
        "unixReviewTime": pa.int64(),
    }
)

AMAZON = Download(
    data="Amazon 5-core",
    table="amazon",
    home="https://jmcauley.ucsd.edu/data/amazon/",
    domain="category",
    label="rating",
    above=3,
    published={"beauty": 198_502, "clothing": 278_677, "health": 346_355},
    config=f"""\
# Amazon 5-core: who gives which product more than 3 stars. Domains: three categories of products.
#
# {{source}}
#
# Train:  isthmus fit config.yaml

data:
  table: amazon.parquet          # looked up beside this file
  domain: category
  label: {{column: rating, above: 3}}   # 4 and 5 stars are positive
  time: time                     # seconds since 1970; used by the split `time`
  group: user                    # GAUC and intervals go by user
  features:                      # as in Scenario-Wise Rec (arXiv:2412.17374)
    user: categorical
    item: categorical            # each belongs to one category
    category: categorical        # leave it out, and only the adapter knows the domain
  split: {{by: random, fractions: [0.8, 0.1, 0.1], seed: 0}}   # random | time | user

{model_and_train()}""",
)


def amazon(
    source: Path | str,
    out: Path | str,
    *,
    overwrite: bool = False,
    report: Report | None = None,
) -> Path:
    """Write Amazon 5-core as ``OUT/amazon.parquet`` and ``OUT/config.yaml``; give OUT.

    ``source``: a folder that holds, itself or below, ``reviews_Beauty_5.json``,
    ``reviews_Clothing_Shoes_and_Jewelry_5.json`` and ``reviews_Health_and_Personal_Care_5.json``, each
    packed with gzip (``.json.gz``) or not. 823,534 rows in the order of the files: ``user``, ``item``,
    ``rating`` 1..5, ``time`` in seconds, and ``category``, the domain: beauty | clothing | health.

    ``overwrite``: replace a ``config.yaml`` that was edited. ``report``: is called with each line
    that a user should see. Warns where a domain has other rows than published.

    Raises IsthmusError when a file is missing or holds what it must not, by name, column and row, or
    when the table cannot be written; nothing is left half-written.
    """
    files = {category: AMAZON.file(source, name) for category, name in _FILES.items()}
    return AMAZON.bring(_amazon_parts(files), out, overwrite=overwrite, report=report)


def _amazon_parts(files: dict[str, BroughtFile]) -> Iterator[pl.DataFrame]:
    for category, file in files.items():
        for block in json_blocks(file, _REVIEW):
            for column in _REVIEW.names:
                block.refuse(column, "be in every review", block.frame[column].is_null())
            yield block.frame.select(
                user="reviewerID",
                item="asin",
                rating="overall",
                time="unixReviewTime",
                category=pl.lit(category),
            )
