"""Public data sets that a user brings: each comes out row by row as its files say, ready for fit."""

import gzip
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

import isthmus
from command_line import isthmus_in_process, told
from isthmus import sources
from isthmus.data import Dataset
from isthmus.errors import IsthmusError
from isthmus.sources.brought import raw_files
from isthmus.sources.brought.ali_ccp import ALI_CCP
from isthmus.sources.brought.amazon import AMAZON
from isthmus.sources.brought.douban import DOUBAN
from isthmus.sources.brought.download import Download
from isthmus.sources.brought.kuairand import KUAIRAND
from isthmus.sources.brought.mind import MIND
from small_downloads import (
    LOG,
    WRITERS,
    ali_ccp_files,
    amazon_files,
    douban_files,
    fields,
    kuairand_files,
    log_line,
    mind_files,
    put,
    user_line,
    video_line,
)

BRING: dict[str, Callable[..., Path]] = {
    "kuairand": sources.kuairand,
    "ali-ccp": sources.ali_ccp,
    "amazon": sources.amazon,
    "douban": sources.douban,
    "mind": sources.mind,
}
DOWNLOADS: dict[str, Download] = {
    "kuairand": KUAIRAND,
    "ali-ccp": ALI_CCP,
    "amazon": AMAZON,
    "douban": DOUBAN,
    "mind": MIND,
}
each = pytest.mark.parametrize("name", BRING)
OTHER_ROWS = "must be as many as Scenario-Wise Rec counts"


def brought(name: str, folder: Path, out: Path, **options: Any) -> pl.DataFrame:
    """The table of a small download, whose rows are never as many as published."""
    with pytest.warns(UserWarning, match=OTHER_ROWS):
        BRING[name](folder, out, **options)
    return pl.read_parquet(out / f"{name}.parquet")


# ---------------------------------------------------------------- row by row


def rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    put(path, change(path.read_text(encoding="utf-8").split("\n")[:-1]))


def test_kuairand_joins_users_and_videos_and_keeps_five_tabs(tmp_path):
    data = kuairand_files(tmp_path, rows=0) / "KuaiRand-1K" / "data"
    first, second = (data / f"log_standard_{d}_1k.csv" for d in ("4_08_to_4_21", "4_22_to_5_08"))
    head = ",".join(LOG)
    lines = [log_line(2, 5, 1, 4, 11), log_line(2, 6, 0, 3, 12), log_line(1, 0, 0, 0, 13)]
    # User 99 and video 99 have no features; inner joins leave their rows out.
    put(first, [head, *lines, log_line(99, 5, 1, 1), log_line(1, 99, 1, 1)])
    put(second, [head, log_line(2, 5, 0, 6, 14)])
    rewrite(data / "user_features_1k.csv", lambda rows: [*rows[:2], user_line(1), rows[3]])
    rewrite(
        data / "video_features_basic_1k.csv", lambda rows: [*rows, video_line(5, visible_status=9)]
    )
    table = brought("kuairand", tmp_path, tmp_path / "out")
    assert table.select("user_id", "video_id", "is_click", "tab", "time_ms").rows() == [
        *((2, 5, 1, "4", 11), (1, 0, 0, "0", 13), (2, 5, 0, "6", 14))
    ]
    assert table["register_days"].to_list() == [200, 1, 200]
    assert table["follow_user_num_range"].unique().to_list() == ["(0,10]"]
    assert table["server_width"].to_list() == [720, None, 720]
    assert table["visible_status"].to_list() == [7, 7, 7], "the first row of a video counts"
    known_afterwards = {"play_time_ms", "duration_ms", "profile_stay_time", "comment_stay_time"}
    assert not known_afterwards & set(table.columns)


def test_ali_ccp_takes_the_last_feature_and_that_of_the_user_first(tmp_path):
    for part in ("train", "test"):
        put(
            tmp_path / f"common_features_{part}.csv",
            [
                "u0,3," + fields(("101", 8, 1), ("109_14", 5, 0.5), ("109_14", 6, 2.5)),
                "u1,2," + fields(("101", 9, 1), ("205", 40, 1), ("999", 1, 1)),
            ],
        )
    skeleton = [
        "9,0,1,u0,1," + fields(("301", 66, 1)),  # bought and not clicked: left out
        "0,0,0,u1,2," + fields(("301", 77, 1), ("205", 30, 1), ("508", 3, 0.25)),
        "1,1,1,u0,2," + fields(("205", 31, 1), ("301", 55, 1)),
        "3,0,0,u0,2," + fields(("210", 1, 1), ("210", 2, 1), ("301", 77, 1)),
    ]
    put(tmp_path / "sample_skeleton_train.csv", skeleton)
    more = [f"{row},1,0,u1,1,{fields(('301', 66, 1))}" for row in range(200)]
    put(tmp_path / "sample_skeleton_test.csv", ["4,1,0,u1,1," + fields(("301", 55, 1)), *more])
    table = brought("ali-ccp", tmp_path, tmp_path / "out")
    assert table.columns[:4] == ["click", "part", "301", "101"]
    assert (table.height, table.width) == (204, 2 + 23 + 8)
    held = table.head(4).select("click", "part", "301", "101", "205", "210", "109_14")
    assert held.rows()[:3] == [
        (0, 0, "1", 9, 40, None, None),
        (1, 0, "2", 8, 31, None, 6),
        (0, 0, "1", 8, None, 2, 6),
    ]
    assert table["301"].to_list()[3:5] == ["2", "3"], "numbered as they first occur"
    assert table.head(3)["D109_14"].to_list() == [0.0, 2.5, 2.5]
    assert table.head(3)["D508"].to_list() == [0.25, 0.0, 0.0]
    halves = table["part"].to_list()[3:]
    assert set(halves) == {1, 2}
    assert 70 < halves.count(1) < 130
    again = brought("ali-ccp", tmp_path, tmp_path / "again")
    assert again.equals(table)


def test_amazon_reads_the_fields_of_each_review(tmp_path):
    amazon_files(tmp_path, rows=1)
    line = '{"reviewerID": "A1", "asin": "B1", "overall": 4, "unixReviewTime": 7, "vote": "2"}'
    put(tmp_path / "reviews_Beauty_5.json", [line, line.replace('"A1"', '"A 2"')])
    table = brought("amazon", tmp_path, tmp_path / "out")
    assert table.rows()[:2] == [("A1", "B1", 4.0, 7, "beauty"), ("A 2", "B1", 4.0, 7, "beauty")]
    assert table["category"].to_list() == ["beauty", "beauty", "clothing", "health"]
    packed = tmp_path / "packed"
    packed.mkdir()
    for path in tmp_path.glob("*.json"):
        (packed / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert brought("amazon", packed, tmp_path / "again").equals(table)


def test_douban_names_items_by_domain_and_knows_its_users(tmp_path):
    data = douban_files(tmp_path, rows=1) / "douban_dataset(text information)"
    put(
        data / "users_cleaned.txt",
        [
            "living_place\tjoin_time\tself_statement\tUID",
            '北京\t2007-07-31\t"one\ttab\nand a line"\t1',
            "\t\t\t2",
            "Oslo\t2005-02-01 10:00:00\t\t4",
        ],
    )
    put(
        data / "bookreviews_cleaned.txt",
        [
            "user_id\tbook_id\trating\tlabels\tcomment\ttime\tID",
            *('1\t7\t5\t\t"a ""quoted""\tword"\t\t1', "2\t7\t3\t\t\t\t2", "3\t8\t-1\t\t\t\t3"),
            "4\t7\t4\t\t\t\t4",
        ],
    )
    table = brought("douban", tmp_path, tmp_path / "out")
    assert table.rows()[:4] == [
        (1, "book-7", 5, "book", "北京", "2007-07"),
        (2, "book-7", 3, "book", None, None),
        (3, "book-8", -1, "book", None, None),
        (4, "book-7", 4, "book", "Oslo", "2005-02"),
    ]
    assert table["domain"].to_list()[4:] == ["music", "movie"]


def test_mind_has_a_row_for_each_news_shown(tmp_path):
    mind_files(tmp_path, rows=1)
    news = ['N1\tnews\tus\t"An odd quote\t\t\t\t', "N2\tweather\tsun\t\t\t\t\t"]
    put(tmp_path / "MINDlarge_train" / "news.tsv", [*news, "N-3\tsports\tgolf\t\t\t\t\t"])
    put(
        tmp_path / "MINDlarge_train" / "behaviors.tsv",
        [
            "1\tU8\t11/15/2019 8:55:22 AM\t\tN-3-0 N1-1 N2-0",
            "2\tU7\t1/2/2020 12:00:01 PM\tN9 N8\tN1-0 N77-1 ",
        ],
    )
    table = brought("mind", tmp_path, tmp_path / "out")
    morning, noon = "2019-11-15 08:55:22", "2020-01-02 12:00:01"
    shown = table.head(3).with_columns(pl.col("time").dt.strftime("%Y-%m-%d %H:%M:%S"))
    # N2 is of another category, and N77 is in no file of news.
    assert shown.rows() == [
        ("U8", morning, "N-3", 0, "sports", "golf"),
        ("U8", morning, "N1", 1, "news", "us"),
        ("U7", noon, "N1", 0, "news", "us"),
    ]


# ---------------------------------------------------------------- all of them


@each
def test_its_config_fits(name, tmp_path):
    table = brought(name, WRITERS[name](tmp_path / "from"), tmp_path / "out")
    text = (tmp_path / "out" / "config.yaml").read_text(encoding="utf-8")
    assert DOWNLOADS[name].home in text
    assert max(map(len, text.splitlines())) <= 120
    config = isthmus.load_config(tmp_path / "out" / "config.yaml")
    data = config.data
    roles = {data.domain, data.label.column, data.group, data.time} - {None}
    assert roles | set(data.features) == set(table.columns)
    run = isthmus.fit(
        tmp_path / "out" / "config.yaml",
        out=tmp_path / "run",
        set=["train.epochs=1", "train.batch_rows=128", "model.backbone.widths=[8]"],
    )
    assert set(run.bundle.domains) == set(DOWNLOADS[name].published)


@each
def test_small_blocks_give_the_same_table(name, tmp_path, monkeypatch):
    WRITERS[name](tmp_path / "from")
    whole = brought(name, tmp_path / "from", tmp_path / "whole")
    monkeypatch.setattr(raw_files, "_BLOCK_BYTES", 1_500)
    assert brought(name, tmp_path / "from", tmp_path / "parts").equals(whole)
    # A group of rows a block: what was read is written before more is read.
    groups = pq.ParquetFile(tmp_path / "parts" / f"{name}.parquet").num_row_groups
    assert groups >= 4


@each
def test_a_missing_file_is_named_with_where_to_get_it(name, tmp_path):
    WRITERS[name](tmp_path / "from")
    for path in [path for path in (tmp_path / "from").rglob("*") if path.is_file()]:
        hidden = path.rename(path.with_name(f"{path.name}.part"))
        with pytest.raises(IsthmusError) as refused:
            BRING[name](tmp_path / "from", tmp_path / "out")
        text = str(refused.value)
        assert path.name in text
        assert DOWNLOADS[name].home in text
        assert "got no such file in the folder or below" in text
        hidden.rename(path)
    assert not (tmp_path / "out").exists()


@each
def test_a_folder_that_is_none_is_refused(name, tmp_path):
    with pytest.raises(IsthmusError, match=r"must be in a folder that exists, got .*nowhere"):
        BRING[name](tmp_path / "nowhere", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_two_files_of_one_name_are_refused(tmp_path):
    amazon_files(tmp_path / "from" / "a")
    amazon_files(tmp_path / "from" / "b")
    with pytest.raises(IsthmusError, match=r"must hold one reviews_Beauty_5\.json .* got 2: a/"):
        sources.amazon(tmp_path / "from", tmp_path / "out")


@each
def test_it_tells_rows_and_label_rate_of_every_domain(name, tmp_path):
    said: list[str] = []
    WRITERS[name](tmp_path / "from")
    table = brought(name, tmp_path / "from", tmp_path / "out", report=said.append)
    download = DOWNLOADS[name]
    assert said[0] == download.about
    assert said[1] == f"wrote {table.height:,} rows to {tmp_path / 'out' / name}.parquet"
    counts = dict(table[download.domain].value_counts().iter_rows())
    assert [line.split()[0] for line in said[3:]] == sorted(counts)
    assert set(counts) == set(download.published)
    for line in said[3:]:
        domain, rows, rate, _ = line.split()
        labels = table.filter(pl.col(download.domain) == domain)[download.label]
        assert (int(rows), rate) == (len(labels), f"{100 * (labels > download.above).mean():.1f}")  # pyright: ignore[reportOperatorIssue]


def test_it_warns_only_of_domains_with_other_rows_than_published(tmp_path):
    table = pl.DataFrame({"category": ["beauty", "health", "beauty"], "rating": [3, 4, 5]})
    same = replace(AMAZON, published={"beauty": 2, "health": 1})
    same.bring([table], tmp_path, overwrite=False, report=None)  # a warning would be an error
    other = replace(AMAZON, published={"beauty": 2, "health": 1_234, "clothing": 9})
    with pytest.warns(UserWarning, match=OTHER_ROWS) as warned:
        other.bring([table], tmp_path, overwrite=False, report=None)
    (text,) = [str(each.message) for each in warned]
    assert "got 1 for 1,234 in category health; 0 for 9 in category clothing." in text
    assert "beauty" not in text


@each
def test_the_published_rows_are_those_of_the_docstring(name):
    """One count in the code, the other in the text that a user reads."""
    total = sum(DOWNLOADS[name].published.values())
    assert f"{total:,} rows" in " ".join((inspect.getdoc(BRING[name]) or "").split())


def test_a_config_that_was_edited_is_kept(tmp_path):
    WRITERS["amazon"](tmp_path / "from")
    brought("amazon", tmp_path / "from", tmp_path / "out")
    brought("amazon", tmp_path / "from", tmp_path / "out")  # untouched: written again
    config = tmp_path / "out" / "config.yaml"
    config.write_text(config.read_text() + "# mine\n")
    with pytest.raises(IsthmusError, match=r"config\.yaml exists and was changed"):
        sources.amazon(tmp_path / "from", tmp_path / "out")
    brought("amazon", tmp_path / "from", tmp_path / "out", overwrite=True)
    assert not config.read_text().endswith("# mine\n")


def test_the_parts_of_ali_ccp_are_the_split(tmp_path):
    table = brought("ali-ccp", ali_ccp_files(tmp_path / "from"), tmp_path / "out")
    config = isthmus.load_config(tmp_path / "out" / "config.yaml")
    summary = Dataset.from_table(config.data).summary()
    rows = [sum(count.rows for count in domains.values()) for domains in summary.values()]
    assert rows == [table["part"].to_list().count(part) for part in (0, 1, 2)]


# ---------------------------------------------------------------- the command line


@each
@pytest.mark.filterwarnings("default")
def test_the_command_writes_what_the_function_writes(name, tmp_path, monkeypatch):
    WRITERS[name](tmp_path / "from")
    monkeypatch.chdir(tmp_path)
    result = isthmus_in_process("data", name, "--from", "from")
    assert result.exit_code == 0, result.output
    (warning,) = [line for line in result.stderr.splitlines() if "warning:" in line]
    assert OTHER_ROWS in warning
    assert result.stdout.endswith(f"next: isthmus fit {name}/config.yaml\n")
    assert sorted(path.name for path in Path(name).iterdir()) == sorted(
        ["config.yaml", f"{name}.parquet"]
    )
    expected = brought(name, tmp_path / "from", tmp_path / "out")
    assert pl.read_parquet(Path(name) / f"{name}.parquet").equals(expected)


def test_the_folder_is_asked_for_and_only_where_it_means_something(tmp_path):
    text = told(isthmus_in_process("data", "mind", "--out", tmp_path / "out"))
    assert text == "mind needs --from FOLDER, the folder with your download of it, got none"
    text = told(isthmus_in_process("data", "synthetic", "--from", tmp_path))
    assert "--from must stand with kuairand, ali-ccp, amazon, douban, mind only, got it" in text
    text = told(isthmus_in_process("data", "mind", "--from", tmp_path, "--domain", "age"))
    assert "--domain must stand with movielens-1m only, got it with mind" in text
    text = told(isthmus_in_process("data", "mind", "--from", tmp_path))
    assert "must hold MINDlarge_train/behaviors.tsv of MIND, got no such file" in text
    assert list(tmp_path.iterdir()) == []
