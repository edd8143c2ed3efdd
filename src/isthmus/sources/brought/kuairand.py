"""KuaiRand-1K (Gao et al., CIKM 2022): clicks on short videos, the tabs of an app as domains.

Scenario-Wise Rec takes the two standard logs, five of the fifteen tabs, and the features of users and
videos; what is known only after the click, such as the play time, is no feature.

Departures: a missing feature is the unknown value, where the benchmark gives each column's missing
values an id of their own; numbers are scaled by train rows, where the benchmark scales by all rows.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from isthmus.errors import IsthmusError
from isthmus.inspect.template import model_and_train
from isthmus.sources.brought.download import Download
from isthmus.sources.brought.raw_files import BroughtFile, text_blocks
from isthmus.sources.source_folder import Report

_LOGS = ("log_standard_4_08_to_4_21_1k.csv", "log_standard_4_22_to_5_08_1k.csv")
_USERS = "user_features_1k.csv"
_VIDEOS = "video_features_basic_1k.csv"
_TABS = ("0", "1", "2", "4", "6")

_USER_NUMBERS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
_USER_TEXTS = ("user_active_degree", *(f"{name}_range" for name in _USER_NUMBERS))
_USER_CODES = (
    *("is_lowactive_period", "is_live_streamer", "is_video_author"),
    *(f"onehot_feat{place}" for place in range(18)),
)
_VIDEO_CODES = ("visible_status", "server_width", "server_height")
_CATEGORIES = ("user_id", "video_id", *_USER_TEXTS, *_USER_CODES, "video_type", *_VIDEO_CODES)

_FEATURES = "\n".join(
    [
        *(f"    {name}: categorical" for name in _CATEGORIES),
        *(f"    {name}: {{kind: numeric, scale: min_max}}" for name in _USER_NUMBERS),
    ]
)

KUAIRAND = Download(
    data="KuaiRand-1K",
    table="kuairand",
    home="https://kuairand.com/",
    domain="tab",
    label="is_click",
    above=0,
    published={"0": 2_407_352, "1": 7_760_237, "2": 895_385, "4": 402_366, "6": 183_403},
    config=f"""\
# KuaiRand-1K: which videos users click. Domains: five tabs of the app.
#
# {{source}}
#
# Train:  isthmus fit config.yaml

data:
  table: kuairand.parquet        # looked up beside this file
  domain: tab
  label: is_click                # 0 or 1
  time: time_ms                  # milliseconds since 1970; used by the split `time`
  group: user_id                 # GAUC and intervals go by user
  features:                      # as in Scenario-Wise Rec (arXiv:2412.17374)
    tab: categorical             # leave it out, and only the adapter knows the domain
{_FEATURES}
  split: {{by: random, fractions: [0.8, 0.1, 0.1], seed: 0}}   # random | time | user

{model_and_train()}""",
)


def kuairand(
    source: Path | str,
    out: Path | str,
    *,
    overwrite: bool = False,
    report: Report | None = None,
) -> Path:
    """Write KuaiRand-1K as ``OUT/kuairand.parquet`` and ``OUT/config.yaml``; give OUT.

    ``source``: the unpacked download, a folder that holds, itself or below, the two
    ``log_standard_*_1k.csv``, ``user_features_1k.csv`` and ``video_features_basic_1k.csv``. 11,648,743
    rows in the order of the logs: ``user_id``, ``video_id``, ``time_ms``, ``is_click`` 0 | 1, ``tab``
    (0, 1, 2, 4 or 6, the domain; rows of other tabs are left out), and 34 features of user and video.
    The logs are streamed; users and videos are held in memory.

    ``overwrite``: replace a ``config.yaml`` that was edited. ``report``: is called with each line
    that a user should see. Warns where a domain has other rows than published.

    Raises IsthmusError when a file is missing or holds what it must not, by name, column and row, or
    when the table cannot be written; nothing is left half-written.
    """
    logs = [KUAIRAND.file(source, name) for name in _LOGS]
    users, videos = KUAIRAND.file(source, _USERS), KUAIRAND.file(source, _VIDEOS)
    parts = _kuairand_parts(logs, users, videos)
    return KUAIRAND.bring(parts, out, overwrite=overwrite, report=report)


def _kuairand_parts(
    logs: list[BroughtFile], users: BroughtFile, videos: BroughtFile
) -> Iterator[pl.DataFrame]:
    people = _features(users, "user_id", _USER_TEXTS, (*_USER_CODES, *_USER_NUMBERS))
    films = _features(videos, "video_id", ("video_type",), _VIDEO_CODES)
    columns = ("user_id", "video_id", "time_ms", "is_click", "tab")
    for log in logs:
        for block in text_blocks(log, columns):
            rows = (
                block.whole("user_id", "video_id", "time_ms", "tab").zero_or_one("is_click").frame
            )
            chosen = rows.with_columns(pl.col("tab").cast(pl.String)).filter(
                pl.col("tab").is_in(_TABS)
            )
            # Inner, as in the benchmark: a row needs its user and its video.
            yield chosen.join(people, on="user_id", how="inner", maintain_order="left").join(
                films, on="video_id", how="inner", maintain_order="left"
            )


def _features(
    file: BroughtFile, key: str, texts: tuple[str, ...], wholes: tuple[str, ...]
) -> pl.DataFrame:
    """One row for each key: the first that the file has."""
    blocks = text_blocks(file, (key, *texts, *wholes))
    frames = [block.whole(key).whole(*wholes, required=False).frame for block in blocks]
    if not frames:
        raise IsthmusError(f"{file.name} must have at least one row, got none")
    return pl.concat(frames).unique(subset=key, keep="first", maintain_order=True)
