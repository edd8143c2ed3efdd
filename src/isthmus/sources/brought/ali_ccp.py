"""Ali-CCP (Ma et al., SIGIR 2018): clicks on products of Taobao, three places of a page as domains.

A row's features lie in two files: those of the row in ``sample_skeleton_*.csv``, those of its user in
``common_features_*.csv``, both as FIELD \\x02 FEATURE \\x03 NUMBER, parted by \\x01. Scenario-Wise Rec takes
23 fields as categories and the numbers of eight, the last one where a row has several, and the user's
where the row has the field too. A row that was bought and not clicked is left out. The train file
trains; half of the test file validates.

Departures: every row of the test file has an even chance to validate, where the benchmark parts the file
into equal halves; numbers are scaled by train rows, where the benchmark scales by all rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from isthmus.errors import IsthmusError
from isthmus.inspect.template import model_and_train
from isthmus.sources.brought.download import Download
from isthmus.sources.brought.raw_files import BroughtFile, Layout, RawBlock, text_blocks
from isthmus.sources.source_folder import Report

_SEED = 2022
_DOMAIN = "301"
_TITLES = {
    "101": "user",
    "121": "profile of the user",
    "122": "group of the profile",
    "124": "gender",
    "125": "age",
    "126": "consumption, type 1",
    "127": "consumption, type 2",
    "128": "occupation",
    "129": "geography",
    "205": "item",
    "206": "category of the item",
    "207": "shop",
    "210": "intention node",
    "216": "brand",
    "508": "109_14 with 206",
    "509": "110_14 with 207",
    "702": "127_14 with 216",
    "853": "150_14 with 210",
    _DOMAIN: "place on the page; without it only the adapter knows the domain",
    "109_14": "categories that the user met",
    "110_14": "shops that the user met",
    "127_14": "brands that the user met",
    "150_14": "intention nodes that the user met",
}
_NUMBERS = ("109_14", "110_14", "127_14", "150_14", "508", "509", "702", "853")
_SKELETON = Layout(
    names=("sample_id", "click", "purchase", "common_feature_index", "feature_num", "feature_list"),
    quoted=False,
)
_COMMON = Layout(names=("common_feature_index", "feature_num", "feature_list"), quoted=False)
_RULE = "hold FIELD\\x02FEATURE\\x03NUMBER parted by \\x01"

_FEATURES = "\n".join(
    [
        *(
            f'    "{name}": {{kind: categorical, min_count: 10}}'.ljust(48) + f"  # {title}"
            for name, title in _TITLES.items()
        ),
        *(f"    D{name}: {{kind: numeric, scale: min_max}}" for name in _NUMBERS),
    ]
)

ALI_CCP = Download(
    data="Ali-CCP",
    table="ali-ccp",
    home="https://tianchi.aliyun.com/dataset/408",
    domain=_DOMAIN,
    label="click",
    above=0,
    published={"1": 32_236_951, "2": 639_897, "3": 52_439_671},
    config=f"""\
# Ali-CCP: which products users click. Domains: three places of a page (field 301).
#
# {{source}}
#
# Train:  isthmus fit config.yaml

data:
  table: ali-ccp.parquet         # looked up beside this file
  domain: "{_DOMAIN}"
  label: click                   # 0 or 1
  time: part                     # 0: the train file; 1 and 2: halves of the test file
  group: "101"                   # GAUC and intervals go by user
  features:                      # as in Scenario-Wise Rec (arXiv:2412.17374)
{_FEATURES}
  split: {{by: time, fractions: [0.5, 0.25, 0.25]}}   # by `part`: as the files are

{model_and_train()}""",
)


def ali_ccp(
    source: Path | str,
    out: Path | str,
    *,
    overwrite: bool = False,
    report: Report | None = None,
) -> Path:
    """Write Ali-CCP as ``OUT/ali-ccp.parquet`` and ``OUT/config.yaml``; give OUT.

    ``source``: the unpacked download, a folder that holds, itself or below,
    ``sample_skeleton_train.csv``, ``common_features_train.csv``, ``sample_skeleton_test.csv`` and
    ``common_features_test.csv``. 85,316,519 rows in the order of the files: ``click`` 0 | 1, ``part``
    (0: train, 1: validation, 2: test), ``301`` (the domain: 1, 2 and 3 in the order in which its values
    first occur), the other 22 categories by the numbers of their fields, null where a row has none, and
    ``D109_14`` to ``D853``, 0 where a row has none. Rows are streamed; the features of the users of one
    part are held in memory, about 300 bytes each.

    ``overwrite``: replace a ``config.yaml`` that was edited. ``report``: is called with each line
    that a user should see. Warns where a domain has other rows than published.

    Raises IsthmusError when a file is missing or holds what it must not, by name, column and row, or
    when the table cannot be written; nothing is left half-written.
    """
    halves = [
        _Half(
            ALI_CCP.file(source, f"sample_skeleton_{part}.csv"),
            ALI_CCP.file(source, f"common_features_{part}.csv"),
        )
        for part in ("train", "test")
    ]
    return ALI_CCP.bring(_ali_parts(halves), out, overwrite=overwrite, report=report)


@dataclass(frozen=True, slots=True)
class _Half:
    """The two files of one half of the download."""

    skeleton: BroughtFile
    common: BroughtFile


def _ali_parts(halves: list[_Half]) -> Iterator[pl.DataFrame]:
    rng = np.random.default_rng(_SEED)
    places: list[int] = []
    for number, half in enumerate(halves):
        users = _users(half.common)
        columns = ("click", "purchase", "common_feature_index", "feature_list")
        for block in text_blocks(half.skeleton, columns, _SKELETON):
            rows = _rows(block.zero_or_one("click").zero_or_one("purchase"), users, half.common)
            rows = rows.filter((pl.col("click") == 1) | (pl.col("purchase") == 0))
            met = rows[_DOMAIN].unique(maintain_order=True).to_list()
            places += [place for place in met if place not in places]
            names = [str(place) for place in range(1, len(places) + 1)]
            # Part 0 trains, 1 validates and 2 tests.
            part = rng.integers(1, 3, rows.height) if number else np.zeros(rows.height)
            yield rows.select(
                "click",
                pl.Series("part", part).cast(pl.Int8),
                pl.col(_DOMAIN).replace_strict(places, names, return_dtype=pl.String),
                *(name for name in _TITLES if name != _DOMAIN),
                *(pl.col(f"D{name}").fill_null(0.0) for name in _NUMBERS),
            )


def _rows(block: RawBlock, users: pl.DataFrame, common: BroughtFile) -> pl.DataFrame:
    """The rows of a block with their own fields and those of their users."""
    fields = _fields(block)
    rows = pl.concat([block.frame.drop("feature_list"), fields], how="horizontal").join(
        users, on="common_feature_index", how="left", maintain_order="left"
    )
    block.refuse("common_feature_index", f"be an index of {common.name}", rows["known"].is_null())
    rows = rows.with_columns(
        pl.coalesce(f"common {name}", name).alias(name) for name in fields.columns
    )
    block.refuse("feature_list", f"hold the field {_DOMAIN}, the domain", rows[_DOMAIN].is_null())
    return rows


def _users(common: BroughtFile) -> pl.DataFrame:
    """The fields of every user, by the index under which rows name the user."""
    frames = []
    for block in text_blocks(common, ("common_feature_index", "feature_list"), _COMMON):
        fields = _fields(block).rename(lambda name: f"common {name}")
        index = block.frame.select("common_feature_index", known=pl.lit(True))
        frames.append(pl.concat([index, fields], how="horizontal"))
    if not frames:
        raise IsthmusError(f"{common.name} must have at least one row, got none")
    return pl.concat(frames).unique(subset="common_feature_index", keep="last", maintain_order=True)


def _fields(block: RawBlock) -> pl.DataFrame:
    """The fields of each row: features int64, and numbers float64 as ``D`` and the field.

    A field that a row lacks is a null; of several features of one field the last is taken.
    """
    pieces = (
        block.frame.select(piece=pl.col("feature_list").str.split("\x01"))
        .with_row_index("row")
        .explode("piece")
        .with_columns(_parted("piece", "\x02", "field", "rest"))
        .filter(pl.col("field").is_in(list(_TITLES)))
        .with_columns(_parted("rest", "\x03", "feature", "number"))
        .with_columns(
            pl.col("feature").cast(pl.Int64, strict=False),
            pl.col("number").cast(pl.Float64, strict=False),
        )
    )
    wrong = pieces.filter(pl.col("feature").is_null() | pl.col("number").is_null())
    if wrong.height:
        raise block.fault("feature_list", _RULE, wrong["row"][0], wrong["piece"][0])
    of = pieces.partition_by("field", as_dict=True)
    none = pieces.clear()
    rows = block.frame.height
    return pl.DataFrame(
        [
            *(_last(name, of.get((name,), none), "feature", rows) for name in _TITLES),
            *(_last(f"D{name}", of.get((name,), none), "number", rows) for name in _NUMBERS),
        ]
    )


def _parted(column: str, mark: str, before: str, after: str) -> pl.Expr:
    """What stands before the first mark in a text, and after it: null where there is none."""
    halves = pl.col(column).str.splitn(mark, 2)
    return halves.struct.rename_fields([before, after]).struct.unnest()


def _last(name: str, pieces: pl.DataFrame, column: str, rows: int) -> pl.Series:
    """The last value of every row (rows,), null where it has none."""
    at = pieces["row"].to_numpy()
    values = pieces[column].to_numpy()
    found = np.zeros(rows, dtype=values.dtype)
    # numpy assigns in order: where a row comes twice, its last value stays.
    found[at] = values
    missing = np.ones(rows, dtype=bool)
    missing[at] = False
    return pl.Series(name, pa.array(found, mask=missing))
