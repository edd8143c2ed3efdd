"""Douban (Zhu et al., CIKM 2019 and IJCAI 2020): ratings of books, music and films, the three domains.

Scenario-Wise Rec takes user, item, the user's place and the month in which the user joined. The
domains share users; an item belongs to one.

Departures: items are named by domain and number (``book-7``), where the benchmark shifts the numbers;
who joined before April 2005 has that month, where the benchmark has none.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from isthmus.inspect.template import model_and_train
from isthmus.sources.brought.download import Download
from isthmus.sources.brought.raw_files import BroughtFile, Layout, text_blocks
from isthmus.sources.source_folder import Report

_USERS = "users_cleaned.txt"
_DOMAINS = ("book", "music", "movie")
_TABS = Layout(delimiter="\t")

DOUBAN = Download(
    data="Douban",
    table="douban",
    home="https://www.kaggle.com/datasets/fengzhujoey/douban-datasetratingreviewside-information",
    domain="domain",
    label="rating",
    above=3,
    published={"book": 227_251, "music": 179_847, "movie": 1_278_401},
    config=f"""\
# Douban: what users rate above 3 of 5. Domains: books, music and films.
#
# {{source}}
#
# Train:  isthmus fit config.yaml

data:
  table: douban.parquet          # looked up beside this file
  domain: domain
  label: {{column: rating, above: 3}}   # 4 and 5 of 5 are positive
  group: user_id                 # GAUC and intervals go by user
  features:                      # as in Scenario-Wise Rec (arXiv:2412.17374)
    user_id: categorical
    item_id: categorical         # each belongs to one domain
    living_place: categorical
    join_month: categorical      # in which the user joined
    domain: categorical          # leave it out, and only the adapter knows the domain
  split: {{by: random, fractions: [0.8, 0.1, 0.1], seed: 0}}   # random | user

{model_and_train()}""",
)


def douban(
    source: Path | str,
    out: Path | str,
    *,
    overwrite: bool = False,
    report: Report | None = None,
) -> Path:
    """Write Douban as ``OUT/douban.parquet`` and ``OUT/config.yaml``; give OUT.

    ``source``: the unpacked download, a folder that holds, itself or below, ``users_cleaned.txt``,
    ``bookreviews_cleaned.txt``, ``musicreviews_cleaned.txt`` and ``moviereviews_cleaned.txt``.
    1,685,499 rows in the order of the files: ``user_id``, ``item_id`` (such as ``book-7``), ``rating``,
    ``domain`` (book | music | movie), ``living_place``, and ``join_month`` (such as ``2008-03``). Place
    and month are null where they are not known. The reviews are streamed; users are held in memory.

    ``overwrite``: replace a ``config.yaml`` that was edited. ``report``: is called with each line
    that a user should see. Warns where a domain has other rows than published.

    Raises IsthmusError when a file is missing or holds what it must not, by name, column and row, or
    when the table cannot be written; nothing is left half-written.
    """
    users = DOUBAN.file(source, _USERS)
    reviews = {domain: DOUBAN.file(source, f"{domain}reviews_cleaned.txt") for domain in _DOMAINS}
    return DOUBAN.bring(_douban_parts(users, reviews), out, overwrite=overwrite, report=report)


def _douban_parts(users: BroughtFile, reviews: dict[str, BroughtFile]) -> Iterator[pl.DataFrame]:
    people = _people(users)
    for domain, file in reviews.items():
        item = f"{domain}_id"
        for block in text_blocks(file, ("user_id", item, "rating"), _TABS):
            rows = block.whole("user_id", item, "rating").frame
            yield rows.select(
                "user_id",
                pl.concat_str(pl.lit(f"{domain}-"), pl.col(item)).alias("item_id"),
                "rating",
                pl.lit(domain).alias("domain"),
            ).join(people, on="user_id", how="left", maintain_order="left")


def _people(users: BroughtFile) -> pl.DataFrame:
    """One row for each user: the first that the file has."""
    frames = [pl.DataFrame(schema={"UID": pl.Int64, "living_place": pl.String, "day": pl.Date})]
    for block in text_blocks(users, ("UID", "living_place", "join_time"), _TABS):
        known = block.whole("UID")
        day = known.frame["join_time"].str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
        known.refuse(
            "join_time",
            "begin with a date like 2008-03-31",
            day.is_null() & known.frame["join_time"].is_not_null(),
        )
        frames.append(known.frame.select("UID", "living_place", day.alias("day")))
    return (
        pl.concat(frames)
        .unique(subset="UID", keep="first", maintain_order=True)
        .select(
            pl.col("UID").alias("user_id"),
            "living_place",
            pl.col("day").dt.strftime("%Y-%m").alias("join_month"),
        )
    )
