"""CSV files: how they are written, what their columns spell, and how they are refused."""

import bz2
import datetime as dt
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from isthmus.data.tables import open_table
from isthmus.data.tables.csv.csv_file import CsvFile, KnownMoment, Reading, open_csv, read
from isthmus.data.tables.csv.spelling import NULLS, ZONED
from isthmus.errors import SchemaError

LATIN = "(Latin-1?); convert it: iconv -f latin1 -t utf-8 a.csv > a-utf8.csv"


def written(folder: Path, content: str | bytes, name: str = "a.csv") -> CsvFile:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_csv(path, name)


def types(file: CsvFile) -> dict[str, str]:
    return {name: str(column.spelled.type) for name, column in file.columns.items()}


def rows_of(file: CsvFile, columns: dict[str, Reading] | None = None) -> list[dict[str, Any]]:
    own: dict[str, Reading] = {name: column.spelled.type for name, column in file.columns.items()}
    return [row for batch in read(file, columns or own) for row in batch.to_pylist()]


def refusal(folder: Path, content: str | bytes, name: str = "a.csv") -> str:
    with pytest.raises(SchemaError) as caught:
        written(folder, content, name)
    return str(caught.value)


def test_ids_keep_their_identity(tmp_path: Path) -> None:
    ids = [str(2**64 - 1 - i) for i in range(200)]
    digests = [f"{i}e{i % 7}" for i in range(200)]
    content = "".join(
        f"{ids[i]},{i:03},{digests[i]},{'A7' if i == 150 else i}\n" for i in range(200)
    )
    file = written(tmp_path, "id,code,digest,mixed\n" + content)
    assert types(file) == {"id": "uint64", "code": "string", "digest": "string", "mixed": "string"}
    rows = rows_of(file)
    assert [str(row["id"]) for row in rows] == ids
    assert [row["digest"] for row in rows] == digests
    assert (rows[7]["code"], rows[150]["mixed"], rows[151]["mixed"]) == ("007", "A7", "151")
    assert file.columns["mixed"].odd == (150, "A7")
    assert file.columns["code"].number
    assert not file.columns["mixed"].number
    numeric = rows_of(file, {"mixed": "number", "digest": "number"})
    assert (numeric[150]["mixed"], numeric[151]["mixed"]) == (None, 151.0)
    assert numeric[3]["digest"] == 3000.0


def test_every_type_is_found_and_read(tmp_path: Path) -> None:
    header = "whole,large,real,truth,day,moment,zoned,text,none\n"
    one = '-1,18446744073709551615,0.5,TRUE,2024-01-31,2024-01-31,2024-01-31 10:00Z,"x\ny",NA\n'
    two = "2,5,1e-05,false,2024-02-29,2024-02-29T10:00:00.5,2024-01-31T10:00:00+02:00,NA,\n"
    file = written(tmp_path, header + one + two + ",".join(NULLS) + "\n")
    zone = dt.UTC
    assert rows_of(file) == [
        {
            "whole": -1,
            "large": 2**64 - 1,
            "real": 0.5,
            "truth": True,
            "day": dt.date(2024, 1, 31),
            "moment": dt.datetime(2024, 1, 31),
            "zoned": dt.datetime(2024, 1, 31, 10, tzinfo=zone),
            "text": "x\ny",
            "none": None,
        },
        {
            "whole": 2,
            "large": 5,
            "real": 1e-05,
            "truth": False,
            "day": dt.date(2024, 2, 29),
            "moment": dt.datetime(2024, 2, 29, 10, 0, 0, 500000),
            "zoned": dt.datetime(2024, 1, 31, 8, tzinfo=zone),
            "text": None,
            "none": None,
        },
        dict.fromkeys(file.columns),
    ]
    assert file.rows == 3
    assert file.columns["none"].spelled.type == pa.null()
    assert file.columns["truth"].odd == (0, "TRUE")


def test_columns_are_read_in_the_way_asked_for(tmp_path: Path) -> None:
    file = written(tmp_path, "a,b\n007,2024-01-31\n1.5,2024-01-31 10:00:00Z\nNA,x\n,\n")
    ways: dict[str, Reading] = {"b": "text", "a": "known_number"}
    first = {"b": "2024-01-31", "a": None}
    second = {"b": "2024-01-31 10:00:00Z", "a": 1.5}
    rest = [{"b": "x", "a": None}, {"b": None, "a": None}]
    assert rows_of(file, ways) == [first, second, *rest]
    assert [list(row) for row in rows_of(file, ways)] == [["b", "a"]] * 4
    moments = [dt.datetime(2024, 1, 31), dt.datetime(2024, 1, 31, 10), None, None]
    assert [row["b"] for row in rows_of(file, {"b": KnownMoment(pa.date32())})] == moments
    (batch,) = read(file, {"b": KnownMoment(ZONED), "a": "number"})
    assert batch.schema.types == [ZONED, pa.float64()]
    assert batch.column(1).to_pylist() == [7.0, 1.5, None, None]
    (batch,) = read(file, {})
    assert (batch.num_columns, batch.num_rows) == (0, 4)


def test_types_are_joined_over_blocks(tmp_path: Path) -> None:
    rows = 500_000  # more than one block of reading
    many = "\n".join(f"{i},{i},2020-01-01,{i}" for i in range(rows))
    a = written(
        tmp_path, f"id,late,day,more\n{many}\n0.5,x,2020-01-02 10:00,1\nx,y,NA,z\n", "a.csv"
    )
    b = written(tmp_path, "more,new,id,late\n18446744073709551615,true,7,y\n", "b.csv")
    assert types(a) == {
        "id": "string",
        "late": "string",
        "day": "timestamp[us]",
        "more": "string",
    }
    assert (a.rows, b.rows) == (rows + 2, 1)
    assert a.columns["late"].odd == (rows, "x")
    assert a.columns["id"].odd == (rows + 1, "x")
    assert types(b) == {"more": "uint64", "new": "bool", "id": "int64", "late": "string"}
    assert b.columns["late"].odd == (0, "y")
    texts = [value for batch in read(a, {"id": "text"}) for value in batch.column(0).to_pylist()]
    assert texts[-3:] == [str(rows - 1), "0.5", "x"]
    assert texts[:rows] == [str(i) for i in range(rows)]


def test_files_keep_their_own_types_unless_one_of_them_needs_text(tmp_path: Path) -> None:
    header = "id,mixed\n"
    for name, text in (
        ("a", "-1,7"),
        ("b", "18446744073709551615,7.0"),
        ("c", "true,A7"),
        ("d", ","),
    ):
        written(tmp_path, f"{header}{text}\n", f"{name}.csv")
    table = open_table(tmp_path)
    assert [str(found["id"]) for _, found in table.schemas] == ["int64", "uint64", "bool", "null"]
    assert {str(found["mixed"]) for _, found in table.schemas} == {"string"}
    blocks = table.blocks(list(table.columns))
    rows = [row for block in blocks for row in block.batch.to_pylist()]
    assert [row["id"] for row in rows] == [-1, 2**64 - 1, True, None]
    assert [row["mixed"] for row in rows] == ["7", "7.0", "A7", None]


@pytest.mark.parametrize(
    ("content", "name", "delimiter", "values"),
    [
        ("a,b\n1,x;y\n", "a.csv", ",", [1, "x;y"]),
        ("a;b\n1;x,y\n", "a.csv", ";", [1, "x,y"]),
        ("a;b\n1,5;2,5\n", "a.csv", ";", ["1,5", "2,5"]),
        ("a\tb\n1\tx,y\n", "a.csv", "\t", [1, "x,y"]),
        ("a|b\n1|x,y\n", "a.csv", "|", [1, "x,y"]),
        ('a,b\n1,"x;y;z\nx;y"\n', "a.csv", ",", [1, "x;y;z\nx;y"]),
        ('"a;b",c\n1,x\n', "a.csv", ",", [1, "x"]),
        ("a;b,c;d\n1;x,y;2\n", "a.csv", ";", [1, "x,y", 2]),
        ("a\n1\n", "a.csv", ",", [1]),
        ('a\n"x,y"\n', "a.csv", ",", ["x,y"]),
        ("a\tb,c\n1\tx,y\n", "a.tsv", "\t", [1, "x,y"]),
        ("a;b\n1;2\n", "a.tsv", "\t", ["1;2"]),
        ("\ufeffa;b\r\n1;2\r\n\r\n", "a.csv", ";", [1, 2]),
        ('\ufeff"a",b\n1,2', "a.csv", ",", [1, 2]),
    ],
)
def test_the_delimiter_is_found(
    tmp_path: Path, content: str, name: str, delimiter: str, values: list[Any]
) -> None:
    file = written(tmp_path, content, name)
    assert file.dialect.delimiter == delimiter
    assert [list(row.values()) for row in rows_of(file)] == [values]
    assert next(iter(file.columns))[:1] == "a"


def test_a_sample_ends_within_a_row(tmp_path: Path) -> None:
    rows = 20_000
    file = written(tmp_path, "a;b;c\n" + "1;x,y;é\n" * rows)
    assert (file.dialect.delimiter, file.rows) == (";", rows)
    names = [f"column {i}" for i in range(6500)]  # a header longer than the sample
    file = written(tmp_path, "|".join(names) + "\n" + "|".join("7" * 6500) + "\n")
    assert list(file.columns) == names
    assert rows_of(file) == [dict.fromkeys(names, 7)]


def test_packed_files_are_read(tmp_path: Path) -> None:
    content = "a;b\n1;é\n".encode()
    with pa.CompressedOutputStream(str(tmp_path / "a.csv.zst"), "zstd") as stream:
        stream.write(content)
    packed = {"gz": gzip.compress(content), "bz2": bz2.compress(content)}
    packed["zst"] = (tmp_path / "a.csv.zst").read_bytes()
    for ending, zipped in packed.items():
        file = written(tmp_path, zipped, f"a.csv.{ending}")
        assert rows_of(file) == [{"a": 1, "b": "é"}]
    message = refusal(tmp_path, gzip.compress("a,b\n1,é\n".encode("latin1")), "a.csv.gz")
    assert message.endswith("gzip -dc a.csv.gz | iconv -f latin1 -t utf-8 > a-utf8.csv")
    noise = np.random.default_rng(0).bytes(100_000).hex().replace("f", ",1\n")
    for broken in (content, gzip.compress(f"a,b\n{noise}".encode())[:500]):
        message = refusal(tmp_path, broken, "a.csv.gz")
        assert message.startswith("a.csv.gz must be a CSV file with a header, got ")


@pytest.mark.parametrize("content", ["a;b", "a;b\n", "a;b\r\n", '\ufeff"a";b'])
def test_a_header_alone_has_no_rows(tmp_path: Path, content: str) -> None:
    file = written(tmp_path, content)
    assert (file.rows, types(file)) == (0, {"a": "null", "b": "null"})
    assert rows_of(file) == []


@pytest.mark.parametrize("content", ["", "\n\r\n", "\ufeff"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    message = "a.csv must be a CSV file with a header, got an empty file"
    assert refusal(tmp_path, content) == message


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SchemaError, match=r"a\.csv must be a CSV file with a header, got .*No such"
    ):
        open_csv(tmp_path / "a.csv", "a.csv")


@pytest.mark.parametrize("content", ["x,y,x\n1,2,3\n", "x,x\n", "x,x"])
def test_a_column_named_twice_is_refused(tmp_path: Path, content: str) -> None:
    assert refusal(tmp_path, content) == "column 'x' must occur once, got it twice in a.csv"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n3\n", "2 fields in every row, got 1 in row 1"),
        ("a,b\n1,2\n\n3,4,5\n6,7\n", "2 fields in every row, got 3 in row 1"),
        ('a;b\n"x\n;y";2\n1;2;\n', "2 fields in every row, got 3 in row 1"),
        ("a\n1,5\n2\n", "1 field in every row, got 2 in row 0"),
        ("a,b,c,d,e\n" + "1,2,3,4,5\n" * 1_000_000 + "1,2,3,4\n", "5 fields in every row, got 4 in row 1000000"),
    ],
)  # fmt: skip
def test_a_row_with_other_fields_is_named(tmp_path: Path, content: str, message: str) -> None:
    assert refusal(tmp_path, content) == f"a.csv must have {message}"


@pytest.mark.parametrize("rows", [0, 12, 30_000, 2_500_000])
def test_a_byte_that_is_not_utf8_is_named_with_its_row(tmp_path: Path, rows: int) -> None:
    content = b"id,name\n" + b"1,x\n" * rows + b"2,caf\xe9\n3,\xff\n"
    message = f"a.csv must be UTF-8, got byte 0xe9 in row {rows} {LATIN}"
    assert refusal(tmp_path, content) == message


def test_other_encodings_are_named_with_the_way_out(tmp_path: Path) -> None:
    text = "id,name\n1,café\n"
    message = refusal(tmp_path, "idé,x\n1,2\n".encode("latin1"))
    assert message == f"a.csv must be UTF-8, got byte 0xe9 in the header {LATIN}"
    message = refusal(tmp_path, "id,x\n1,–\n".encode("cp1252"), "my file.csv")
    assert message == (
        "my file.csv must be UTF-8, got byte 0x96 in row 0 (Windows-1252?); convert it: "
        "iconv -f cp1252 -t utf-8 'my file.csv' > 'my file-utf8.csv'"
    )
    for encoding in ("utf-16", "utf-32"):
        message = refusal(tmp_path, text.encode(encoding))
        got, way = encoding.upper(), f"iconv -f {encoding} -t utf-8 a.csv > a-utf8.csv"
        assert message == f"a.csv must be UTF-8, got {got}; convert it: {way}"
    for encoding in ("utf-16le", "utf-16be"):
        message = refusal(tmp_path, text.encode(encoding))
        assert f"got NUL bytes ({encoding.upper()}?); convert it: iconv -f {encoding}" in message
    message = refusal(tmp_path, "id,name\n1,\0\n")
    assert message == "a.csv must be UTF-8, got a NUL byte at position 10; save it again as text"


def test_a_letter_cut_by_the_end_of_the_file_is_refused(tmp_path: Path) -> None:
    assert "got byte 0xc3 in row 0" in refusal(tmp_path, b"a,b\n1,caf\xc3")


def test_a_file_that_changed_since_is_refused_when_it_is_read(tmp_path: Path) -> None:
    file = written(tmp_path, "a,b\n1,x\n")
    for content, message in (
        (b"a,b\n1,x\n2\n", r"a\.csv must have 2 fields in every row, got 1 in row 1"),
        (b"a,b\n1,\xe9\n", r"a\.csv must be UTF-8, got byte 0xe9 in row 0"),
        (b"a,b\nx,y\n", r"a\.csv must be a CSV file with a header, got .*int64"),
    ):
        (tmp_path / "a.csv").write_bytes(content)
        with pytest.raises(SchemaError, match=message):
            rows_of(file)


def test_the_same_file_as_pandas_and_pyarrow_write_it(tmp_path: Path) -> None:
    import pandas as pd
    import polars as pl
    from pyarrow import csv

    rng = np.random.default_rng(3)
    values = rng.normal(size=3000) * 10.0 ** rng.integers(-12, 18, 3000)
    table = pa.table({"x": values, "n": rng.integers(-9, 9, 3000), "t": ["a,\n"] * 3000})
    pd.DataFrame(table.to_pydict()).to_csv(tmp_path / "pandas.csv", index=False)
    pl.DataFrame(table).write_csv(tmp_path / "polars.csv")
    csv.write_csv(table, tmp_path / "pyarrow.csv")
    for name in ("pandas.csv", "polars.csv", "pyarrow.csv"):
        file = open_csv(tmp_path / name, name)
        assert types(file) == {"x": "double", "n": "int64", "t": "string"}
        assert rows_of(file) == table.to_pylist()
