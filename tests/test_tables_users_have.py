"""Tables as users have them: null domains, weights of 0, NaN, labels in words, hive trees, streams."""

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import isthmus
from command_line import isthmus_in_process, told
from isthmus.errors import SchemaError
from isthmus.inspect import inspect_table

ROWS = 600


def rows(**changed: object) -> pa.Table:
    draw = np.random.default_rng(0)
    columns: dict[str, object] = {
        "user": draw.integers(0, 40, ROWS),
        "tab": draw.choice(["home", "search"], ROWS),
        "x": draw.normal(size=ROWS),
    }
    columns["click"] = (draw.random(ROWS) < 1 / (1 + np.exp(-np.asarray(columns["x"])))).astype(int)
    return pa.table({**columns, **changed})


def config(**data: object) -> dict:
    given = {
        "domain": "tab",
        "label": "click",
        "features": {"user": {"kind": "categorical", "dim": 4}, "x": "numeric"},
        **data,
    }
    model = {"backbone": {"name": "mlp", "widths": [4]}, "adapter": {"name": "none"}}
    return {"data": given, "model": model, "train": {"epochs": 1, "batch_rows": 128}}


def fit(table: object, out: Path, **data: object) -> isthmus.Run:
    return isthmus.fit(config(**data), table, out, cache=out.parent / "cache")


def dataset(table: object, tmp_path: Path, **data: object) -> isthmus.Dataset:
    given = isthmus.load_config(config(**data)).data
    return isthmus.Dataset.from_table(given, table, cache=tmp_path / "cache")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> isthmus.Run:
    return fit(rows(), tmp_path_factory.mktemp("run") / "run")


# ---------------------------------------------------------------- rows without a domain


def test_a_null_domain_is_refused_with_the_way_out(tmp_path: Path) -> None:
    tab = [None, *rows()["tab"].to_pylist()[1:]]
    with pytest.raises(SchemaError, match=r"'tab' must .*got null .*row 0; data.null_domain: unk"):
        dataset(rows(tab=tab), tmp_path)


def test_rows_of_a_null_domain_can_train_the_unknown_one(tmp_path: Path) -> None:
    tab = [None if i % 5 == 0 else name for i, name in enumerate(rows()["tab"].to_pylist())]
    found = dataset(rows(tab=tab), tmp_path, null_domain="unknown")
    assert found.n_domains == 2
    assert found.domain_names == ("home", "search", "(null)")
    train = found.rows("train")
    homeless = np.asarray(train.row) % 5 == 0
    assert (np.asarray(train.domain)[homeless] == 3).all()
    # To the model they are rows of the unknown domain.
    (batch,) = train.batches(10_000)
    assert (batch.domain.numpy()[homeless] == 0).all()
    assert (batch.domain.numpy()[~homeless] > 0).all()
    trained = fit(rows(tab=tab), tmp_path / "run", null_domain="unknown")
    assert "(null)" in trained.evaluate().domains


def test_null_partitions_of_a_hive_tree_say_null_domain(tmp_path: Path) -> None:
    table = rows().drop_columns(["tab"])
    for name in ("home", "__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / "t" / f"tab={name}").mkdir(parents=True)
        pq.write_table(table, tmp_path / "t" / f"tab={name}" / "0.parquet")
    with pytest.raises(SchemaError, match="null domain"):
        dataset(tmp_path / "t", tmp_path)
    assert dataset(tmp_path / "t", tmp_path, null_domain="unknown").n_domains == 1


# ---------------------------------------------------------------- weights, NaN, labels


def test_rows_of_weight_0_are_left_out_and_counted(tmp_path: Path) -> None:
    weight = np.where(np.arange(ROWS) % 4 == 0, 0.0, 1.0)
    found = dataset(rows(w=weight), tmp_path, weight="w")
    kept = np.concatenate([found.rows(split).row for split in isthmus.data.SPLITS])
    assert found.weightless == ROWS // 4
    assert sorted(kept) == [row for row in range(ROWS) if row % 4]
    trained = fit(rows(w=weight), tmp_path / "run", weight="w")
    assert f"{ROWS // 4} rows of weight 0 were left out" in (trained.path / "report.md").read_text()
    assert trained.evaluate(data=rows(w=weight)).pooled.rows == ROWS - ROWS // 4


def test_nan_is_refused_or_missing(tmp_path: Path) -> None:
    x = rows()["x"].to_numpy().copy()
    x[7] = np.nan
    nulls = pa.array(x, mask=np.isnan(x))
    with pytest.raises(SchemaError, match=r"'x' must be finite, got nan in the frame, row 7"):
        dataset(rows(x=x), tmp_path)
    features = {"user": "categorical", "x": {"kind": "numeric", "nan": "missing"}}
    missing = fit(rows(x=x), tmp_path / "missing", features=features)
    null = fit(rows(x=nulls), tmp_path / "null", features={**features, "x": "numeric"})
    score = missing.bundle.score(rows(x=x))
    assert np.array_equal(score, null.bundle.score(rows(x=nulls)))
    written = inspect_table(rows(x=x), "tab", "click").config_text()
    assert (
        "x: {kind: numeric, scale: standard, nan: missing}" in written or "nan: missing" in written
    )


def test_nan_items_of_a_list_can_be_missing(tmp_path: Path) -> None:
    lists = [[1.0, float("nan"), float(i % 3)] for i in range(ROWS)]
    nulls = [[1.0, None, float(i % 3)] for i in range(ROWS)]
    given = {"kind": "numeric_list", "nan": "missing"}
    features = {"user": "categorical", "l": given}
    one = dataset(rows(l=pa.array(lists)), tmp_path, features=features)
    other = dataset(rows(l=pa.array(nulls)), tmp_path, features=features)
    found, wanted = (made.rows("train").arrays.lists[0][0] for made in (one, other))
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    ("equals", "column"),
    [
        ("yes", ["yes", "no"]),
        (True, [True, False]),
        (1, [1, 0]),
        (1, [True, False]),
        (2.5, [2.5, 1.0]),
        (dt.date(2024, 1, 1), [dt.date(2024, 1, 1), dt.date(2023, 1, 1)]),
    ],
)
def test_a_label_can_be_positive_at_a_value(tmp_path: Path, equals: object, column: list) -> None:
    label = [column[0] if click else column[1] for click in rows()["click"].to_pylist()]
    found = dataset(rows(click=label), tmp_path, label={"column": "click", "equals": equals})
    plain = dataset(rows(), tmp_path)
    for split in isthmus.data.SPLITS:
        assert np.array_equal(found.rows(split).label, plain.rows(split).label)


def test_a_label_of_one_class_says_so(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"'click' must hold both classes .*label 1 in all 600"):
        dataset(rows(click=np.ones(ROWS)), tmp_path)
    words = ["yes" if x else "no" for x in rows()["click"].to_pylist()]
    with pytest.raises(SchemaError, match=r"must hold 'ja' in some row .*label 0 in all 600"):
        dataset(rows(click=words), tmp_path, label={"column": "click", "equals": "ja"})


def test_init_asks_for_the_positive_value_and_takes_it(tmp_path: Path) -> None:
    words = [">50K" if x else "<=50K" for x in rows()["click"].to_pylist()]
    path = tmp_path / "clicks.parquet"
    pq.write_table(rows(click=words), path)
    words = ("init", path, "--domain", "tab", "-o", tmp_path / "config.yaml", "--label")
    asked = told(isthmus_in_process(*words, "click"))
    assert "got '<=50K' and '>50K'" in asked
    assert "--label 'click=>50K'" in asked
    assert 'label: {column: click, equals: ">50K"}' in asked
    assert isthmus_in_process(*words, "click=>50K").exit_code == 0
    found = isthmus.load_config(tmp_path / "config.yaml").data
    assert found.label.equals == ">50K"
    assert isthmus.Dataset.from_table(found, cache=tmp_path / "c").rows("train").label.mean() > 0


# ---------------------------------------------------------------- names that look alike


def test_domains_that_differ_by_blanks_or_case_are_named(tmp_path: Path) -> None:
    tab = ["Home" if i == 3 else "home " if i == 4 else "home" for i in range(ROWS)]
    with pytest.warns(UserWarning, match=r"blanks or case only: .*'home ' \(1 rows\)"):
        dataset(rows(tab=tab), tmp_path)
    found = inspect_table(rows(tab=tab), "tab", "click")
    assert any("'Home' (1 rows)" in text for text in found.warnings)


# ---------------------------------------------------------------- hive trees


def test_partitions_have_types_and_split_by_time(tmp_path: Path) -> None:
    for number, day in enumerate(("2024-01-02", "2024-01-01", "2024-01-03")):
        (tmp_path / "t" / f"day={day}").mkdir(parents=True)
        pq.write_table(rows(x=np.full(ROWS, number)), tmp_path / "t" / f"day={day}" / "0.parquet")
    found = dataset(tmp_path / "t", tmp_path, time="day", split={"by": "time"})
    files = [set((np.asarray(found.rows(s).row) // ROWS).tolist()) for s in isthmus.data.SPLITS]
    assert files == [{0}, {1}, {2}]  # files are read in the order of their names, so by day


def test_a_file_that_contradicts_its_path_is_refused(tmp_path: Path) -> None:
    for name in ("home", "search"):
        (tmp_path / "t" / f"tab={name}").mkdir(parents=True)
        tab = [name] * ROWS
        if name == "search":
            tab[5] = "stale"
        pq.write_table(rows(tab=tab), tmp_path / "t" / f"tab={name}" / "0.parquet")
    rule = r"'tab' must agree with the path .* says 'search', got 'stale' in tab=search/.*row 5"
    with pytest.raises(SchemaError, match=rule):
        dataset(tmp_path / "t", tmp_path)


# ---------------------------------------------------------------- doors


def test_every_stream_and_frame_scores_alike(run: isthmus.Run) -> None:
    table = rows()
    wanted = run.bundle.score(table)
    frames = {
        "lazy": pl.DataFrame(table).lazy(),
        "reader": table.to_reader(max_chunksize=7),
        "batch": table.combine_chunks().to_batches()[0],
        "pandas": table.to_pandas(),
        "chunks": pa.concat_tables([table.slice(i, 1) for i in range(ROWS)]),
    }
    for name, frame in frames.items():
        assert np.array_equal(run.bundle.score(frame), wanted), name


def test_a_column_alone_is_a_table_of_one_column(run: isthmus.Run) -> None:
    for series in (pd.Series([1.0], name="x"), pl.Series("x", [1.0])):
        with pytest.raises(SchemaError, match="column 'user' must be in the table"):
            run.bundle.score(series)


def test_a_table_without_rows_has_no_scores(run: isthmus.Run, tmp_path: Path) -> None:
    empty = rows().slice(0, 0)
    assert run.bundle.score(empty).shape == (0,)
    pq.write_table(empty, tmp_path / "empty.parquet")
    assert run.predict(tmp_path / "empty.parquet").shape == (0,)
    assert run.predict_to(tmp_path / "empty.parquet", tmp_path / "out.parquet") == 0
    assert pq.read_table(tmp_path / "out.parquet").column_names[-1] == "score"
    for refused in (lambda: dataset(empty, tmp_path), lambda: run.evaluate(data=empty)):
        with pytest.raises(SchemaError, match="at least one row, got none"):
            refused()


def test_a_csv_is_read_by_what_the_model_knows(tmp_path: Path) -> None:
    frame = rows().to_pandas()
    digits = fit(frame, tmp_path / "digits")
    one = frame.assign(user=[*frame.user[:-1].astype(str), "A7"])
    one.to_csv(tmp_path / "one.csv", index=False)
    score = digits.predict(tmp_path / "one.csv")
    assert np.array_equal(score[:-1], digits.predict(frame)[:-1])  # A7 is a value never seen
    digits.predict_to(tmp_path / "one.csv", tmp_path / "scored.csv")
    assert pd.read_csv(tmp_path / "scored.csv", dtype={"user": str}).user.iloc[-1] == "A7"
    text = fit(frame.assign(user="u" + frame.user.astype(str)), tmp_path / "text")
    frame.to_csv(tmp_path / "digits.csv", index=False)
    assert text.predict(tmp_path / "digits.csv").shape == (ROWS,)


def test_a_pandas_column_of_several_types_is_named_where_it_is_used(
    run: isthmus.Run, tmp_path: Path
) -> None:
    frame = rows().to_pandas()
    frame["user"] = frame["user"].astype(object)
    frame.loc[9, "user"] = "9"
    rule = r"'user' must hold values of one type, got .*\(int\) in row 0 and '9' \(str\) in row 9"
    with pytest.raises(SchemaError, match=rule):
        run.predict(frame)
    unused = rows().to_pandas().assign(note=[3, "3"] * (ROWS // 2))
    assert np.array_equal(run.predict(unused), run.predict(rows()))
    with pytest.warns(UserWarning, match="as text only: 'note'"):
        run.predict_to(unused, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["note"].to_pylist() == ["3", "3"] * (ROWS // 2)
    assert inspect_table(unused, "tab", "click").columns[-1].use == "drop"


def test_objects_and_wide_integers_of_polars(run: isthmus.Run) -> None:
    frame = pl.DataFrame(rows()).with_columns(pl.col("user").cast(pl.Int128))
    assert np.array_equal(run.predict(frame), run.predict(rows()))
    objects = pl.Series("user", [1, "1"] * (ROWS // 2), dtype=pl.Object)
    rule = r"'user' must hold values of one type, got 1 \(int\) in row 0 and '1' \(str\) in row 1"
    with pytest.raises(SchemaError, match=rule):
        run.predict(frame.with_columns(objects))
    unused = frame.with_columns(objects.alias("note"))
    assert np.array_equal(run.predict(unused), run.predict(rows()))


def test_numbers_in_loose_spelling_and_odd_values(tmp_path: Path) -> None:
    frame = rows().to_pandas()
    frame.assign(x=[f"{x:.3f}0" for x in frame.x], zip=[f"0{i % 9}" for i in range(ROWS)]).to_csv(
        tmp_path / "a.csv", index=False
    )
    found = inspect_table(tmp_path / "a.csv", "tab", "click")
    uses = {column.name: column.use for column in found.columns}
    assert uses == {"user": "categorical", "x": "numeric", "zip": "categorical"}
    dataset(tmp_path / "a.csv", tmp_path)
    frame.assign(x=["1,234.5" if i == 500 else x for i, x in enumerate(frame.x)]).to_csv(
        tmp_path / "b.csv", index=False
    )
    with pytest.raises(SchemaError, match=r"'x' must be numeric, got '1,234.5' in b.csv, row 500"):
        dataset(tmp_path / "b.csv", tmp_path)
    odd = inspect_table(tmp_path / "b.csv", "tab", "click").warnings
    assert any("'x' is text because of '1,234.5' in b.csv, row 500" in text for text in odd)
