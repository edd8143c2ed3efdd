"""Tables: every source gives the same rows, and a damaged one says what is wrong with it."""

import datetime as dt
import gzip
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from isthmus.data import open_table
from isthmus.data.tables import Table
from isthmus.errors import SchemaError


def small(rows: int = 10, start: int = 0) -> pa.Table:
    number = list(range(start, start + rows))
    return pa.table(
        {
            "id": pa.array(number, pa.int64()),
            "name": pa.array([f"n{i % 3}" for i in number]),
            "price": pa.array([i / 2 for i in number]),
        }
    )


def rows_of(table: Table, columns: list[str] | None = None) -> list[dict]:
    found = []
    for block in table.blocks(list(table.columns) if columns is None else columns):
        assert block.first_row == len(found)
        found += block.batch.to_pylist()
    return found


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    folder = tmp_path / "parts"
    folder.mkdir()
    for i in range(3):
        pq.write_table(small(4, 4 * i), folder / f"part-{i}.parquet", row_group_size=2)
    (folder / "_SUCCESS").touch()
    (folder / ".part-0.parquet.crc").touch()
    return folder


def test_every_source_gives_the_same_rows(tmp_path: Path, parts: Path) -> None:
    table = small(12)
    whole = tmp_path / "whole.parquet"
    pq.write_table(table, whole)
    csv = tmp_path / "whole.csv"
    pyarrow.csv.write_csv(table, csv)
    sources = [
        whole,
        str(whole),
        parts,
        str(parts / "*.parquet"),
        str(tmp_path / "pa*"),
        csv,
        table,
        table.to_pandas(),
        pl.from_arrow(table),
    ]
    for source in sources:
        opened = open_table(source)
        assert opened.rows == 12
        assert list(opened.columns) == ["id", "name", "price"]
        assert rows_of(opened) == table.to_pylist()


def test_blocks_are_numbered_in_the_table_and_in_their_file(parts: Path) -> None:
    blocks = list(open_table(parts).blocks(["price", "id"], rows=3))
    assert [(b.file, b.first_row, b.file_row, b.batch.num_rows) for b in blocks] == [
        ("part-0.parquet", 0, 0, 3),
        ("part-0.parquet", 3, 3, 1),
        ("part-1.parquet", 4, 0, 3),
        ("part-1.parquet", 7, 3, 1),
        ("part-2.parquet", 8, 0, 3),
        ("part-2.parquet", 11, 3, 1),
    ]
    assert blocks[0].batch.schema.names == ["price", "id"]


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, start in {"b/0": 4, "a/9": 0, "c": 8}.items():
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(small(4, start), path)
    assert [row["id"] for row in rows_of(open_table(tmp_path))] == list(range(12))


def test_folders_of_a_hive_tree_become_columns(tmp_path: Path) -> None:
    for day, country, start in (
        (1, "de", 0),
        (1, "f%20r", 2),
        (10, "__HIVE_DEFAULT_PARTITION__", 4),
    ):
        folder = tmp_path / f"day={day}" / f"country={country}"
        folder.mkdir(parents=True)
        pq.write_table(small(2, start), folder / "0.parquet")
    table = open_table(tmp_path)
    assert table.columns["day"] == pa.int64()
    assert table.columns["country"] == pa.string()
    rows = rows_of(table, ["country", "id", "day"])
    assert [(r["country"], r["day"]) for r in rows] == [
        *[("de", 1)] * 2,
        *[("f r", 1)] * 2,
        *[(None, 10)] * 2,
    ]
    assert [r["country"] for r in rows_of(table, ["country"])] == [r["country"] for r in rows]


def test_a_column_in_file_and_path_is_taken_from_the_file(tmp_path: Path) -> None:
    for name in ("n0", "n1", "n2"):
        folder = tmp_path / "tree" / f"name={name}"
        folder.mkdir(parents=True)
        table = small(6)
        chosen = [value == name for value in table["name"].to_pylist()]
        pq.write_table(table.filter(pa.array(chosen)), folder / "0.parquet")
    rows = rows_of(open_table(tmp_path / "tree"))
    assert sorted(r["id"] for r in rows) == list(range(6))
    assert all(r["name"] == f"n{r['id'] % 3}" for r in rows)


def test_csv_types_come_from_all_rows_of_all_files(tmp_path: Path) -> None:
    rows = 200_000  # more than one block of reading
    ids = "\n".join(f"{i},{i},2020-01-01,true,{'' if i % 2 else i}" for i in range(rows))
    (tmp_path / "a.csv").write_text(f"whole,late,day,flag,gap\n{ids}\n7,x,2020-01-02,false,\n")
    (tmp_path / "b.csv").write_text("whole,late,day,flag,gap\n1.5,1,2020-01-03 10:00:00,true,3\n")
    table = open_table(tmp_path)
    assert table.rows == rows + 2
    assert {name: table.kind(name) for name in table.columns} == {
        "whole": "floating",
        "late": "string",
        "day": "timestamp",
        "flag": "boolean",
        "gap": "integer",
    }
    last = rows_of(table)[-1]
    assert last["day"] == dt.datetime(2020, 1, 3, 10)
    assert rows_of(table)[1]["gap"] is None


def test_a_csv_cell_may_hold_commas_newlines_and_a_word_for_null(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,"a,b"\n2,"two\nlines"\n3,NA\n4,\n')
    assert [row["text"] for row in rows_of(open_table(path))] == ["a,b", "two\nlines", None, None]


def test_relative_globs_and_packed_csv_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.csv.gz").write_bytes(gzip.compress(b"id\n1\n2\n"))
    for pattern in ("*/*.csv.gz", "deep/*", "**/a.csv.gz", "deep/a.csv.gz", "deep", "."):
        assert rows_of(open_table(pattern)) == [{"id": 1}, {"id": 2}]


def test_a_csv_without_a_header_is_refused_and_one_without_rows_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(SchemaError, match="header"):
        open_table(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("id,price\n")
    assert rows_of(open_table(tmp_path / "b.csv")) == []


def test_tsv_is_split_at_tabs(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("id\ttext\n1\ta,b\n")
    assert rows_of(open_table(path)) == [{"id": 1, "text": "a,b"}]


@pytest.mark.parametrize("keep", [0, 3, 200, -1, -8, -200])
def test_a_truncated_parquet_file_is_refused_by_name(parts: Path, keep: int) -> None:
    path = parts / "part-1.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SchemaError, match=r"part-1\.parquet must be a whole Parquet file"):
        open_table(parts)


@pytest.mark.parametrize(("start", "stop", "checksum"), [(4, 60, False), (2000, 2001, True)])
def test_parquet_damaged_in_the_middle_is_refused_when_it_is_read(
    tmp_path: Path, start: int, stop: int, checksum: bool
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(small(5000), path, write_page_checksum=checksum)
    content = bytearray(path.read_bytes())
    content[start:stop] = b"\xff" * (stop - start)
    path.write_bytes(content)
    table = open_table(path)
    with pytest.raises(SchemaError, match=r"a\.parquet must be a whole Parquet file"):
        rows_of(table)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "nowhere.parquet",
            "must be a file, a folder or a glob that exists, got .*nowhere.parquet",
        ),
        ("none-*.parquet", "must have at least one Parquet or CSV file, got none in .*none-"),
        (
            pa.table([[1], [2]], names=["a", "a"]),
            "column 'a' must occur once, got it twice in the frame",
        ),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "column 'a' must occur once"),
    ],
    ids=["missing", "glob", "twice", "twice-pandas"],
)
def test_what_is_no_table_is_refused(tmp_path: Path, source: object, message: str) -> None:
    if isinstance(source, str):
        source = str(tmp_path / source)
    with pytest.raises(SchemaError, match=message):
        open_table(source)


def test_an_empty_folder_and_mixed_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="at least one Parquet or CSV file"):
        open_table(tmp_path)
    pq.write_table(small(), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("id\n1\n")
    assert open_table(tmp_path).rows == 10  # CSV beside Parquet is left alone
    with pytest.raises(SchemaError, match="all Parquet or all CSV"):
        open_table(tmp_path / "*")


def test_duplicate_columns_in_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,id\n1,2\n")
    pq.write_table(pa.table([[1], [2]], names=["id", "id"]), tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(
            SchemaError, match=f"column 'id' must occur once, got it twice in {name}"
        ):
            open_table(tmp_path / name)


def test_a_csv_row_with_too_few_fields_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,price\n1,2\n3\n")
    with pytest.raises(
        SchemaError, match=r"a\.csv must have 2 fields in every row, got 1 in row 1"
    ):
        open_table(tmp_path / "a.csv")


def test_files_that_differ_are_refused_by_file_and_column(parts: Path) -> None:
    odd = small(4).set_column(2, "price", pa.array(["a", "b", "c", "d"]))
    pq.write_table(odd, parts / "part-3.parquet")
    table = open_table(parts)
    assert len(rows_of(table, ["id"])) == 16  # the column is not asked for
    with pytest.raises(
        SchemaError,
        match=r"column 'price' must be double as in part-0.parquet, got string in part-3.parquet",
    ):
        rows_of(table)
    pq.write_table(small(4).drop_columns("price"), parts / "part-3.parquet")
    with pytest.raises(
        SchemaError, match="column 'price' must be in the table, got none in part-3"
    ):
        rows_of(open_table(parts))


def test_a_missing_column_names_the_nearest_one() -> None:
    with pytest.raises(SchemaError, match=r"column 'prise' .* the nearest is 'price'"):
        rows_of(open_table(small()), ["prise"])


def test_a_file_that_shrinks_after_it_was_opened_is_noticed(parts: Path) -> None:
    table = open_table(parts)
    pq.write_table(small(3), parts / "part-1.parquet")
    with pytest.raises(
        SchemaError, match=r"part-1\.parquet must hold 4 rows as when it was opened, got 3"
    ):
        rows_of(table)


def test_the_fingerprint_follows_the_file_and_the_content_of_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(small(), path)
    first = open_table(path).files
    assert first == open_table(str(path)).files
    pq.write_table(small(start=1), path)
    assert open_table(path).files != first
    chunked = pa.concat_tables([small(4), small(6, 4)])
    frame = open_table(small()).files
    assert frame == open_table(chunked).files == open_table(small(20).slice(0, 10)).files
    assert frame != open_table(small(start=1)).files


def test_verify_content_sees_a_change_that_size_time_and_footer_hide(tmp_path: Path) -> None:
    import os

    path = tmp_path / "a.parquet"
    pq.write_table(small(), path)
    before, state = path.read_bytes(), path.stat()
    changed = bytearray(before)
    changed[10] ^= 1
    cheap = open_table(path).fingerprint()
    full = open_table(path).fingerprint(verify_content=True)
    path.write_bytes(changed)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert open_table(path).fingerprint() == cheap
    assert open_table(path).fingerprint(verify_content=True) != full


@pytest.mark.parametrize("source", [3, {"a": [1]}, [1, 2], None])
def test_what_is_not_a_source_is_refused_with_a_list_of_what_is(source: object) -> None:
    kind = type(source).__name__
    with pytest.raises(SchemaError, match=rf"must be a path, a frame .*stream.*, got {kind}"):
        open_table(source)
