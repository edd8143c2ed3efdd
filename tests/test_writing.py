"""Tables written with scores, as Parquet and as CSV."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv

from isthmus.errors import RunError, SchemaError
from isthmus.run.output import writing
from isthmus.run.output.writing import ScoredWriter
from written_columns import (
    F16,
    F64,
    I32,
    I64,
    LIST,
    MAP,
    NOT_NULL,
    STRUCT,
    D,
    S,
    coded,
    moments,
    runs,
    union,
    uuids,
    values,
    write,
)

a = pa.array
INTERVAL = a([(1, 2, 3), None], pa.month_day_nano_interval())


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (INTERVAL, ["1M2d3ns", None]),
        (union("dense"), ["1", "y"]),
        (union("sparse"), ["1", "y"]),
        (a([{}, None], STRUCT([])), ["{}", None]),
        (a([D(100), None], pa.decimal128(5, -2)), ["100", None]),
        (
            pa.StructArray.from_arrays(
                [union("sparse"), INTERVAL], ["u", "i"], mask=a([True, False])
            ),
            [None, '{"u":"y","i":null}'],
        ),
    ],
    ids=lambda x: str(getattr(x, "type", "")),
)
def test_what_parquet_cannot_hold_becomes_text(
    tmp_path: Path, array: pa.Array, texts: list[str | None]
):
    assert write(tmp_path / "out.parquet", array, array[1:]) == ("c",)
    assert pq.read_table(tmp_path / "out.parquet")["c"].to_pylist() == texts + texts[1:]


@pytest.mark.parametrize(
    "array",
    [
        coded(a([[1]])),
        coded(a([{"x": 1}])),
        coded(pa.nulls(1)),
        coded(a(["x"], pa.string_view())),
        coded(a([D(1)])),
        pa.ListArray.from_arrays(a([0, 1, 2], I32), coded(a(["x"]))),
        a([[{"v": "x"}], None, [{"v": "y"}]], LIST(STRUCT({"v": pa.string_view()}))),
        a([[1], None, [2]], pa.list_view(I64)),
        a([{"a": 1}, None, {"a": 2}], NOT_NULL),
        a(["x", None], pa.string_view()),
        a([0.5, None], F16),
    ],
    ids=lambda x: str(x.type),
)
def test_what_parquet_holds_in_another_layout_keeps_its_values(tmp_path: Path, array: pa.Array):
    assert write(tmp_path / "out.parquet", array, array[1:]) == ()
    assert pq.read_table(tmp_path / "out.parquet")["c"].to_pylist() == values(array, array[1:])


@pytest.mark.parametrize(
    ("array", "fields", "turned"),
    [
        (a(["x", "", None, 'a"b', "a,b", "a\nb", " a", "a\tb"]),
         ["x", '""', "", '"a""b"', '"a,b"', '"a\nb"', '" a"', "a\tb"], False),
        (coded(a(["x", ""])), ["x", '""', ""], False),
        (a([1, None, -(2**63)]), ["1", "", "-9223372036854775808"], False),
        (a([True, False, None]), ["true", "false", ""], False),
        (a([1.0, 0.1, 1e-7, -2.5e-12, 1e16, 2.0**63, 1e-300, 12345678901.5]),
         ["1.0", "0.1", "0.0000001", "-0.0000000000025", "10000000000000000.0",
          "9223372036854776000.0", "1e-300", "12345678901.5"], False),
        (a([float("nan"), float("inf"), None]), ["nan", "inf", ""], False),
        (a([D("1.50"), D("0.0000000001"), D(0)]), ["1.5000000000", "0.0000000001", "0.0000000000"],
         False),
        (a([date(2024, 2, 1), None]), ["2024-02-01", ""], False),
        (moments("s", datetime(2024, 2, 1, 3)), ["2024-02-01 03:00:00"], False),
        (moments("us", datetime(2024, 2, 1, 3)), ["2024-02-01 03:00:00.000000"], False),
        (a([1_000, 1], pa.timestamp("ns")),
         ["1970-01-01 00:00:00.000001", "1970-01-01 00:00:00.000000001"], False),
        (moments("ms", datetime(2024, 2, 1, 3, tzinfo=UTC), zone="Europe/Berlin"),
         ["2024-02-01 03:00:00.000Z"], False),
        (pa.nulls(2), ["", ""], False),
        (a([time(1, 2, 3), None], pa.time32("s")), ["01:02:03", ""], True),
        (a([timedelta(0, 1.5), None], pa.duration("ms")), ["1500 ms", ""], True),
        (INTERVAL, ["1M2d3ns", ""], True),
        (a([b"\x00\xff", b"", None]), ["00ff", '""', ""], True),
        (uuids(bytes(range(16)), None), [str(UUID(bytes=bytes(range(16)))), ""], True),
        (a([[1, None], [], None]), ['"[1,null]"', "[]", ""], True),
        (runs(a([["x"]])), ['"[""x""]"'] * 2, True),
    ],
    ids=lambda x: str(getattr(x, "type", "")),
)  # fmt: skip
def test_fields_of_csv(tmp_path: Path, array: pa.Array, fields: list[str], turned: bool):
    assert write(tmp_path / "out.csv", array) == (("c",) if turned else ())
    rows = [f"{field},0.000000000001\n" for field in fields]
    assert (tmp_path / "out.csv").read_text() == "".join(["c,score\n", *rows])


def test_nested_values_are_json_in_csv(tmp_path: Path):
    rows = [
        {"n": 1.5, "t": 'a"\\\n\x01é', "l": [["x"], None, []], "b": b"\x0f", "m": [("k", 1)]},
        {"n": None, "t": None, "l": None, "b": None, "m": []},
        {"n": float("nan"), "t": "", "l": [], "b": b"", "m": None},
    ]
    dtype = STRUCT({"n": F64, "t": S, "l": LIST(LIST(S)), "b": pa.binary(), "m": MAP(S, I64)})
    assert write(tmp_path / "out.csv", a([*rows, None], dtype)) == ("c",)
    found = csv.read_csv(tmp_path / "out.csv")["c"].to_pylist()
    assert [json.loads(text) if text else None for text in found] == [
        rows[0] | {"b": "0f", "m": {"k": 1}},
        rows[1] | {"m": {}},
        rows[2] | {"n": "nan", "b": ""},
        None,
    ]


def read_csv(path: Path, schema: pa.Schema) -> pa.Table:
    """Every bit of it: only an empty field without quotes is null."""
    return csv.read_csv(
        path,
        parse_options=csv.ParseOptions(
            delimiter="\t" if path.suffix == ".tsv" else ",", newlines_in_values=True
        ),
        convert_options=csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


FLOATS = st.floats(allow_nan=False) | st.floats(0, 1) | st.integers(0, 2**53).map(float)


@given(
    st.lists(st.tuples(st.none() | st.text(), st.none() | FLOATS, FLOATS), max_size=20),
    st.sampled_from(["out.csv", "OUT.TSV", "out.parquet"]),
)
@settings(deadline=None)
def test_text_and_floats_come_back_as_they_were(rows: list[tuple], name: str):
    schema = pa.schema({"text": S, "float": F64, "score": F64})
    columns = list(zip(*rows, strict=True)) or [[]] * 3
    table = pa.table([a(x, y) for x, y in zip(columns, schema.types, strict=True)], schema=schema)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        with ScoredWriter(path, schema) as writer:
            for batch in table.to_batches(max_chunksize=7):
                writer.write(batch)
        if path.suffix == ".parquet":
            assert pq.read_table(path).equals(table)
            return
        path = path.rename(path.with_suffix(path.suffix.lower()))
        assert read_csv(path, schema).equals(table)
        separator = "\t" if path.suffix == ".tsv" else ","
        frame = pd.read_csv(path, sep=separator, usecols=[1, 2])
        np.testing.assert_array_equal(frame.score, np.array(columns[2], float))
        expected = [np.nan if x is None else x for x in columns[1]]
        np.testing.assert_array_equal(frame.float.astype(float), np.array(expected, float))


def test_pandas_reads_text_and_moments(tmp_path: Path):
    texts = ["x", 'a"b', "a\nb", "a,b", " a ", "é", "0.5"]
    schema = pa.schema({"text": S, "at": pa.timestamp("ns"), "score": F64})
    at = pd.date_range("2024-01-01", periods=7, freq="h", unit="ns") + pd.Timedelta(1, unit="ns")
    with ScoredWriter(tmp_path / "out.csv", schema) as writer:
        writer.write(pa.record_batch([a(texts), a(at), a([0.1] * 7)], schema=schema))
    frame = pd.read_csv(tmp_path / "out.csv", parse_dates=["at"])
    assert frame.text.tolist() == texts
    assert frame["at"].tolist() == at.tolist()


@pytest.mark.parametrize("name", ["out.parquet", "out.PQ", "out.parq", "out", "out.2024"])
def test_other_names_are_parquet(tmp_path: Path, name: str):
    write(tmp_path / name, a([1]))
    assert (tmp_path / name).read_bytes().startswith(b"PAR1")


@pytest.mark.parametrize("name", ["out.csv.gz", "out.parquet.ZST", "out.json", "out.xlsx"])
def test_a_name_that_promises_another_kind_is_refused(tmp_path: Path, name: str):
    with pytest.raises(RunError, match=rf"\.parquet, \.pq, \.parq, \.csv or \.tsv.* got {name}"):
        ScoredWriter(tmp_path / name, pa.schema({"x": I64}))


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.parquet"])
def test_a_table_without_rows_has_its_columns(tmp_path: Path, name: str):
    schema = pa.schema({"a,b": I64, "score": F64})
    with ScoredWriter(tmp_path / name, schema):
        pass
    if name == "out.parquet":
        assert pq.read_table(tmp_path / name).equals(schema.empty_table())
    else:
        header = {"out.csv": '"a,b",score\n', "out.tsv": "a,b\tscore\n"}[name]
        assert (tmp_path / name).read_text() == header


def test_a_null_in_an_only_column_is_a_row(tmp_path: Path):
    schema = pa.schema({"x": I64})
    with ScoredWriter(tmp_path / "out.csv", schema) as writer:
        writer.write(pa.record_batch([a([1, None])], schema=schema))
    assert csv.read_csv(tmp_path / "out.csv")["x"].to_pylist() == [1, None]


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("fault", [OSError("input gone"), SchemaError("bad"), KeyboardInterrupt()])
def test_nothing_remains_after_an_error_which_is_not_changed(
    tmp_path: Path, name: str, fault: BaseException
):
    def fails() -> None:
        schema = pa.schema({"x": I64})
        with ScoredWriter(tmp_path / name, schema) as writer:
            writer.write(pa.record_batch([a([1])], schema=schema))
            raise fault

    with pytest.raises(type(fault)) as caught:
        fails()
    assert caught.value is fault
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    for path, reason in (
        (tmp_path / "none" / "out.csv", "No such file or directory"),
        (tmp_path / "file" / "out.parquet", "Not a directory"),
        (tmp_path / "folder.csv", "it is there and no regular file"),
        (Path("/dev/full"), "it is there and no regular file"),
    ):
        with (
            pytest.raises(RunError) as fault,
            ScoredWriter(path, pa.schema({"x": I64})),
        ):
            pass
        assert str(fault.value) == f"{path} must be a file that can be written, got: {reason}"


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("rows", [1, 1 << 17])
def test_a_full_disk_is_named(
    tmp_path: Path, name: str, rows: int, monkeypatch: pytest.MonkeyPatch
):
    @contextmanager
    def on_a_full_disk(path: Path) -> Iterator[Path]:
        yield Path("/dev/full")

    monkeypatch.setattr(writing, "whole_file", on_a_full_disk)
    schema = pa.schema({"x": I64})
    batch = pa.record_batch([a(np.random.default_rng(0).integers(0, 2**60, rows))], schema=schema)
    with (
        pytest.raises(RunError, match=rf"{name} must be .* got: No space left on device"),
        ScoredWriter(tmp_path / name, schema) as writer,
    ):
        writer.write(batch)
