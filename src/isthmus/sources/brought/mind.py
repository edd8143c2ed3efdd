"""MIND (Wu et al., ACL 2020): clicks on news, four categories of news as domains.

Scenario-Wise Rec takes the large train and validation parts, one row for each news of an impression,
and of a news its id and its subcategory. The categories share users; a news belongs to one.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from isthmus.inspect.template import model_and_train
from isthmus.sources.brought.download import Download
from isthmus.sources.brought.raw_files import BroughtFile, Layout, RawBlock, text_blocks
from isthmus.sources.source_folder import Report

_PARTS = ("train", "dev")
_CATEGORIES = ("news", "lifestyle", "sports", "finance")
_BEHAVIORS = Layout("\t", ("impression_id", "user_id", "time", "history", "impressions"), False)
_NEWS = Layout(
    "\t",
    (
        *("news_id", "category", "subcategory", "title", "abstract", "url"),
        *("title_entities", "abstract_entities"),
    ),
    False,
)

MIND = Download(
    data="MIND",
    table="mind",
    home="https://msnews.github.io/",
    domain="category",
    label="click",
    above=0,
    published={
        "news": 26_057_579,
        "lifestyle": 11_206_494,
        "sports": 10_237_589,
        "finance": 9_226_382,
    },
    config=f"""\
# MIND: which news users click. Domains: four categories of news.
#
# {{source}}
#
# Train:  isthmus fit config.yaml

data:
  table: mind.parquet            # looked up beside this file
  domain: category
  label: click                   # 0 or 1
  time: time                     # of the impression; used by the split `time`
  group: user_id                 # GAUC and intervals go by user
  features:                      # as in Scenario-Wise Rec (arXiv:2412.17374)
    user_id: categorical
    news_id: categorical         # each belongs to one category
    subcategory: categorical
    category: categorical        # leave it out, and only the adapter knows the domain
  split: {{by: random, fractions: [0.8, 0.1, 0.1], seed: 0}}   # random | time | user

{model_and_train()}""",
)


def mind(
    source: Path | str,
    out: Path | str,
    *,
    overwrite: bool = False,
    report: Report | None = None,
) -> Path:
    """Write MIND as ``OUT/mind.parquet`` and ``OUT/config.yaml``; give OUT.

    ``source``: a folder that holds, itself or below, the unpacked ``MINDlarge_train`` and
    ``MINDlarge_dev`` (any folders whose names end in ``train`` and ``dev``), with ``behaviors.tsv``
    and ``news.tsv`` in each. 56,728,044 rows in the order of the impressions: ``user_id``, ``time``
    (microseconds, no zone), ``news_id``, ``click`` 0 | 1, ``category`` (news | lifestyle | sports |
    finance, the domain; news of other categories are left out) and ``subcategory``. Impressions are
    streamed; the ids and categories of news are held in memory.

    ``overwrite``: replace a ``config.yaml`` that was edited. ``report``: is called with each line
    that a user should see. Warns where a domain has other rows than published.

    Raises IsthmusError when a file is missing or holds what it must not, by name, column and row, or
    when the table cannot be written; nothing is left half-written.
    """
    files = [
        tuple(
            MIND.file(source, f"MINDlarge_{part}/{name}", f"*{part}/{name}")
            for name in ("behaviors.tsv", "news.tsv")
        )
        for part in _PARTS
    ]
    return MIND.bring(_mind_parts(files), out, overwrite=overwrite, report=report)


def _mind_parts(files: list[tuple[BroughtFile, ...]]) -> Iterator[pl.DataFrame]:
    for behaviors, news in files:
        kinds = _kinds(news)
        for block in text_blocks(behaviors, ("user_id", "time", "impressions"), _BEHAVIORS):
            # Inner: a news of another category is left out, and so is one that news.tsv lacks.
            yield _shown(block).join(kinds, on="news_id", how="inner", maintain_order="left")


def _kinds(news: BroughtFile) -> pl.DataFrame:
    """Id, category and subcategory of each news in the four categories."""
    columns = ("news_id", "category", "subcategory")
    frames = [pl.DataFrame(schema=dict.fromkeys(columns, pl.String))]
    for block in text_blocks(news, columns, _NEWS):
        frames.append(block.frame.filter(pl.col("category").is_in(_CATEGORIES)))
    return pl.concat(frames).unique(subset="news_id", keep="first", maintain_order=True)


def _shown(block: RawBlock) -> pl.DataFrame:
    """One row for each news that an impression showed, ``N12-0`` or, where it was clicked, ``N12-1``."""
    time = block.frame["time"].str.to_datetime("%m/%d/%Y %I:%M:%S %p", time_unit="us", strict=False)
    block.refuse("time", "be a time like 11/15/2019 8:55:22 AM", time.is_null())
    block.refuse("user_id", "be in every impression", block.frame["user_id"].is_null())
    shown = (
        block.frame.select(
            "user_id",
            time.alias("time"),
            pl.col("impressions").str.strip_chars().str.split(" ").alias("news_id"),
        )
        .with_row_index("row")
        .explode("news_id")
        .with_columns(
            pl.col("news_id").str.extract(r"^(.+)-[01]$").alias("news"),
            pl.col("news_id").str.extract(r"-([01])$").cast(pl.Int8).alias("click"),
        )
    )
    wrong = shown.filter(pl.col("news").is_null())
    if wrong.height:
        rule = "hold news like N12-0 and N13-1, parted by blanks"
        raise block.fault("impressions", rule, wrong["row"][0], wrong["news_id"][0])
    return shown.select("user_id", "time", pl.col("news").alias("news_id"), "click")
