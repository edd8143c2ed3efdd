"""What a download must not hold is refused by file, column and row, and leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from isthmus import sources
from isthmus.errors import IsthmusError, SchemaError
from isthmus.sources.brought import raw_files
from small_downloads import (
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
)

BRING: dict[str, Callable[..., Path]] = {
    "kuairand": sources.kuairand,
    "ali-ccp": sources.ali_ccp,
    "amazon": sources.amazon,
    "douban": sources.douban,
    "mind": sources.mind,
}
LOG_FILE = "KuaiRand-1K/data/log_standard_4_08_to_4_21_1k.csv"
USERS_FILE = "KuaiRand-1K/data/user_features_1k.csv"
BOOKS = "douban_dataset(text information)/bookreviews_cleaned.txt"
BEHAVIORS = "MINDlarge_train/behaviors.tsv"
SKELETON = "sample_train/sample_skeleton_train.csv"
PLACE = fields(("301", 77, 1))

FAULTS = [  # data set, file, line to put in row 30 of the file, what is said of it
    ("kuairand", LOG_FILE, log_line(1, 1, 2, 1), "column 'is_click' must be 0 or 1, got '2'"),
    (
        "kuairand",
        LOG_FILE,
        "u" + log_line(1, 1, 1, 1),
        "'user_id' must hold a whole number, got 'u1'",
    ),
    (
        "kuairand",
        LOG_FILE,
        log_line(1, 1, 1, 1)[:-1] + "1.5",
        "'tab' must hold a whole number, got '1.5'",
    ),
    ("kuairand", LOG_FILE, log_line(1, 1, 1, 1)[:-1], "'tab' must hold a whole number, got null"),
    ("kuairand", LOG_FILE, "1,2", "must have 19 fields in every row, got 2"),
    ("ali-ccp", SKELETON, f"9,1,0,who,1,{PLACE}", "'common_feature_index' must be an index of"),
    (
        "ali-ccp",
        SKELETON,
        f"9,yes,0,train0,1,{PLACE}",
        "'click' must hold a whole number, got 'yes'",
    ),
    (
        "ali-ccp",
        SKELETON,
        "9,1,0,train0,1,205\x023\x031",
        "must hold the field 301, the domain, got",
    ),
    ("ali-ccp", SKELETON, "9,1,0,train0,0,", "must hold the field 301, the domain, got null"),
    (
        "ali-ccp",
        SKELETON,
        f"9,1,0,train0,2,{PLACE}\x01205\x023",
        r"hold FIELD\\x02FEATURE\\x03NUMBER",
    ),
    ("ali-ccp", SKELETON, f"9,1,0,train0,2,{PLACE}\x01205", r"parted by \\x01, got '205'"),
    (
        "ali-ccp",
        SKELETON,
        f"9,1,0,train0,2,{PLACE}\x01205\x02a\x031",
        r"parted by \\x01, got '205.*a",
    ),
    ("ali-ccp", SKELETON, "9,1,0", "must have 6 fields in every row, got 3"),
    ("douban", BOOKS, '1\t"7"\t"good"\t\t\t\t1', "'rating' must hold a whole number, got 'good'"),
    ("douban", BOOKS, "\t7\t4\t\t\t\t1", "'user_id' must hold a whole number, got null"),
    (
        "mind",
        BEHAVIORS,
        "1\tU1\t2019-11-15\t\tN1-0",
        "'time' must be a time like 11/15/2019 8:55:22 AM",
    ),
    ("mind", BEHAVIORS, "1\tU1\t11/15/2019 8:55:22 AM\t\tN1-0 N2", "parted by blanks, got 'N2'"),
    ("mind", BEHAVIORS, "1\tU1\t11/15/2019 8:55:22 AM\t\t", "parted by blanks, got null"),
    (
        "mind",
        BEHAVIORS,
        "1\t\t11/15/2019 8:55:22 AM\t\tN1-0",
        "'user_id' must be in every impression",
    ),
    ("mind", BEHAVIORS, "1\tU1", "must have 5 fields in every row, got 2"),
]


@pytest.mark.parametrize("block_bytes", [1 << 20, 700], ids=["one block", "many blocks"])
@pytest.mark.parametrize(("name", "file", "line", "said"), FAULTS)
def test_a_wrong_row_is_named(name, file, line, said, block_bytes, tmp_path, monkeypatch):
    path = WRITERS[name](tmp_path / "from") / file
    rows = path.read_text(encoding="utf-8").split("\n")[:-1]
    header = 0 if name in ("ali-ccp", "mind") else 1
    put(path, [*rows[: 30 + header], line, *rows[30 + header :]])
    monkeypatch.setattr(raw_files, "_BLOCK_BYTES", block_bytes)
    with pytest.raises(SchemaError, match=said) as refused:
        BRING[name](tmp_path / "from", tmp_path / "out")
    text = str(refused.value)
    assert file in text
    assert text.endswith("row 30"), text
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"reviewerID": "A1", "asin": "B1", "overall": 4}', "'unixReviewTime' must be in every"),
        ('{"reviewerID": "A1", "asin": "B1", "overall": "4"}', "changed from number to string"),
        ("not JSON", "JSON parse error: Invalid value"),
    ],
)
def test_a_wrong_review_is_named(line, said, tmp_path):
    path = amazon_files(tmp_path / "from") / "reviews_Clothing_Shoes_and_Jewelry_5.json"
    rows = path.read_text(encoding="utf-8").split("\n")[:-1]
    put(path, [*rows[:30], line, *rows[30:]])
    with pytest.raises(SchemaError, match=said) as refused:
        sources.amazon(tmp_path / "from", tmp_path / "out")
    assert path.name in str(refused.value)
    assert str(refused.value).endswith("row 30")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_wrong_feature_of_a_user_is_named(tmp_path):
    path = kuairand_files(tmp_path / "from") / USERS_FILE
    rows = path.read_text(encoding="utf-8").split("\n")[:-1]
    put(path, [*rows[:3], user_line(50, onehot_feat4="many"), *rows[3:]])
    said = r"'onehot_feat4' must hold a whole number, got 'many' in .*user_features_1k\.csv, row 2"
    with pytest.raises(SchemaError, match=said):
        sources.kuairand(tmp_path / "from", tmp_path / "out")


def test_a_day_that_is_none_is_named(tmp_path):
    path = (
        douban_files(tmp_path / "from") / "douban_dataset(text information)" / "users_cleaned.txt"
    )
    put(path, ["living_place\tjoin_time\tUID", "x\t2008-01-01\t1", "x\tlong ago\t2"])
    said = "'join_time' must begin with a date like 2008-03-31, got 'long ago' in .*, row 1"
    with pytest.raises(SchemaError, match=said):
        sources.douban(tmp_path / "from", tmp_path / "out")


def test_a_column_that_is_missing_is_named(tmp_path):
    path = kuairand_files(tmp_path / "from") / LOG_FILE
    path.write_text(path.read_text().replace("is_click", "is_clicked", 1))
    said = "column 'is_click' must be in the table, got none in .*; the nearest is 'is_clicked'"
    with pytest.raises(SchemaError, match=said):
        sources.kuairand(tmp_path / "from", tmp_path / "out")


def test_files_without_rows_and_cut_files_are_refused(tmp_path):
    data = kuairand_files(tmp_path / "k", rows=0)
    with pytest.raises(
        IsthmusError, match=r"kuairand\.parquet must have at least one row, got none"
    ):
        sources.kuairand(data, tmp_path / "out")
    users = data / USERS_FILE
    users.write_text(users.read_text().split("\n")[0] + "\n")
    with pytest.raises(IsthmusError, match=r"user_features_1k\.csv must have at least one row"):
        sources.kuairand(data, tmp_path / "out")
    common = ali_ccp_files(tmp_path / "a") / "sample_train" / "common_features_train.csv"
    common.write_text("")
    with pytest.raises(IsthmusError, match=r"common_features_train\.csv cannot be read from row 0"):
        sources.ali_ccp(tmp_path / "a", tmp_path / "out")
    packed = amazon_files(tmp_path / "z") / "reviews_Beauty_5.json"
    packed.rename(packed.with_name("reviews_Beauty_5.json.gz"))
    with pytest.raises(IsthmusError, match=r"reviews_Beauty_5\.json\.gz cannot be read from row 0"):
        sources.amazon(tmp_path / "z", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_table_that_stands_stays_where_a_later_download_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_files, "_BLOCK_BYTES", 700)
    source = mind_files(tmp_path / "from")
    with pytest.warns(UserWarning, match="MIND"):
        sources.mind(source, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    rows = (source / BEHAVIORS).read_text().split("\n")[:-1]
    put(source / BEHAVIORS, [*rows, "1\tU1\tnever\t\tN1-0"])
    with pytest.raises(SchemaError, match="got 'never'"):
        sources.mind(source, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
