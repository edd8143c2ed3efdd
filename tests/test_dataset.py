"""The dataset: what is stored is what the table holds and what serving encodes; or nothing is."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from isthmus.data import SPLITS, Dataset, open_table
from isthmus.data.batch import Batch
from isthmus.data.store import order
from isthmus.errors import SchemaError
from isthmus.schema import DataConfig
from small_datasets import ROWS, clicks, config, left_behind, stored


@pytest.fixture
def table() -> pa.Table:
    return clicks()


# ---------------------------------------------------------------- what is stored


@pytest.mark.parametrize("by", ["random", "time", "user"])
def test_a_frame_its_files_and_any_block_size_give_the_same_rows(
    by: str, table: pa.Table, tmp_path: Path
) -> None:
    given = config(split={"by": by})
    pq.write_table(table, tmp_path / "whole.parquet", row_group_size=300)
    (tmp_path / "parts").mkdir()
    for i, start in enumerate(range(0, ROWS, 700)):
        pq.write_table(table.slice(start, 700), tmp_path / "parts" / f"{i}.parquet")
    want = stored(Dataset.from_table(given, table))
    sources = [
        tmp_path / "whole.parquet",
        tmp_path / "parts",
        table.to_pandas(),
        pl.from_arrow(table),
    ]
    for source in sources:
        assert stored(Dataset.from_table(given, source)) == want
    small = Dataset.from_table(given, table, cache=tmp_path / "other", block_rows=64)
    assert stored(small) == want
    numbers = [i for split in SPLITS for i in want[f"{split}.row"]]
    assert sorted(numbers) == list(range(ROWS))


def test_serving_encodes_as_fitting_did(table: pa.Table) -> None:
    dataset = Dataset.from_table(config(), table)
    columns = [
        dataset.encoder.encode(block.batch, block.first_row, block.file)
        for block in open_table(table).blocks(table.column_names, rows=333)
    ]
    batches = [rows.batch() for rows in columns]
    assert [batch.rows for batch in batches] == [333] * 6 + [2]
    assert np.concatenate([c.row for c in columns]).tolist() == list(range(ROWS))
    categorical = torch.cat([batch.categorical for batch in batches])
    numeric = torch.cat([batch.numeric for batch in batches])
    lists = [batch.lists[0].values[a:b].tolist() for batch in batches
             for a, b in zip(batch.lists[0].offsets[:-1], batch.lists[0].offsets[1:], strict=True)]  # fmt: skip
    report = np.concatenate([c.domain for c in columns])
    for split in SPLITS:
        rows = dataset.rows(split)
        at = rows.row.tolist()
        arrays = rows.arrays
        assert (categorical[at].numpy() == arrays.categorical).all()
        assert (numeric[at].numpy() == arrays.numeric).all()
        values, offsets = arrays.lists[0]
        assert [lists[i] for i in at] == [values[a:b].tolist() for a, b in pairwise(offsets)]  # fmt: skip
        assert (report[at] == rows.domain).all()
        assert rows.group is not None
        for name in ("label", "weight", "group"):
            assert (
                np.concatenate([getattr(c, name) for c in columns])[at] == getattr(rows, name)
            ).all()


def test_stored_columns_equal_the_table(table: pa.Table) -> None:
    dataset = Dataset.from_table(config(), table)
    for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        rows = dataset.rows(split)
        assert abs(len(rows) / ROWS - share) < 0.04
        given = table.take(rows.row)
        assert [dataset.domain_names[i - 1] for i in rows.domain] == given["tab"].to_pylist()
        assert rows.label.tolist() == given["click"].to_pylist()
        assert rows.weight is not None
        np.testing.assert_allclose(rows.weight, given["w"].to_numpy(), rtol=1e-6)
        assert rows.group is not None
        assert rows.group.tolist() == given["user"].to_pylist()
    vocabulary = dataset.encoder.vocabularies["item"]
    ids = {x: i for i, x in enumerate(vocabulary.values.to_pylist(), start=1)}
    train = dataset.rows("train")
    assert train.arrays.categorical[:, 1].tolist() == [
        ids[x] for x in table["item"].take(train.row).to_pylist()
    ]
    values, offsets = train.arrays.lists[0]
    last = [x[-3:] for x in table["history"].take(train.row).to_pylist()]
    assert values.tolist() == [ids[x] for row in last for x in row]
    assert np.diff(offsets).tolist() == [len(row) for row in last]


def test_the_summary_counts_rows_and_positives_of_each_domain(table: pa.Table) -> None:
    dataset = Dataset.from_table(config(), table)
    counts = dataset.summary()
    for split in SPLITS:
        given = table.take(dataset.rows(split).row).to_pandas()
        for name, group in given.groupby("tab"):
            found = counts[split][str(name)]
            assert (found.rows, found.positives) == (len(group), group["click"].sum())
            assert found.label_rate == pytest.approx(group["click"].mean())
    assert dataset.n_domains == 3
    assert dataset.domain_names == ("feed", "home", "search")


def test_domains_without_train_rows_come_after_the_trained_ones() -> None:
    rows = clicks(400).set_column(5, "tab", pa.array(["b"] * 200 + ["c"] * 120 + ["a"] * 80))
    rows = rows.set_column(8, "at", pa.array(range(400)))
    dataset = Dataset.from_table(config(split={"by": "time"}), rows)
    assert dataset.encoder.domains == ("b", "c")
    assert dataset.domain_names == ("b", "c", "a")
    test = dataset.rows("test")
    assert set(test.domain.tolist()) == {3}
    (batch,) = test.batches(100)
    assert not batch.domain.any()
    assert dataset.summary()["train"]["a"].label_rate is None
    tab = dataset.rows("validation").arrays.categorical[:, 2]
    assert not tab.any()  # as a feature it is unknown too


def test_frames_of_views_and_categories_are_encoded_like_plain_ones(table: pa.Table) -> None:
    want = stored(Dataset.from_table(config(), table))
    views = table
    for name in ("tab", "item"):
        at = views.column_names.index(name)
        views = views.set_column(at, name, views[name].cast(pa.string_view()))
    frame = table.to_pandas()
    frame["tab"] = frame["tab"].astype("category")
    frame["user"] = frame["user"].astype("category")
    categories = pl.from_arrow(table)
    assert isinstance(categories, pl.DataFrame)
    categories = categories.with_columns(pl.col("item", "tab").cast(pl.Categorical))
    for source in (views, frame, categories):
        assert stored(Dataset.from_table(config(), source)) == want


def test_features_of_one_kind_only(table: pa.Table) -> None:
    for name, feature in {
        "user": "categorical",
        "price": "numeric",
        "history": "categorical_list",
    }.items():
        dataset = Dataset.from_table(config(features={name: feature}), table)
        for rows in (dataset.rows("train"), dataset.rows("test")):
            assert sum(batch.rows for batch in rows.batches(64, seed=0)) == len(rows)


def test_memory_follows_the_block_and_not_the_table(tmp_path: Path) -> None:
    """What Arrow holds late in a pass is what it held early on, in one row group or in many."""
    rows = 120_000
    table = pa.table(
        {
            "user": np.random.default_rng(0).integers(0, 10**9, rows),
            "text": pa.array([f"text {i % 999}" for i in range(rows)]),
            "tab": np.arange(rows) % 2,
            "click": np.arange(rows) % 3 == 0,
        }
    )
    given = DataConfig.model_validate(
        {
            "domain": "tab",
            "label": "click",
            "features": {
                "user": {"kind": "categorical", "hash_buckets": 10},
                "text": "categorical",
            },
        }
    )
    for name, group in (("many", 3000), ("one", rows)):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(table, path, row_group_size=group, compression="none")
        held: dict[str, list[int]] = {"fit": [], "encode": []}
        before = pa.total_allocated_bytes()

        def note(stage: str, done: int, rows: int, held=held, before=before) -> None:
            held[stage].append(pa.total_allocated_bytes() - before)

        Dataset.from_table(given, path, block_rows=3000, progress=note)
        for stage in held.values():
            assert len(stage) == rows // 3000
            assert max(stage[20:]) < 1.2 * max(stage[3:15]) + 100_000
            assert max(stage) < 6_000_000


# ---------------------------------------------------------------- batches of rows


def test_rows_come_in_order_without_a_seed_and_shuffled_with_one(table: pa.Table) -> None:
    rows = Dataset.from_table(config(), table).rows("train")
    ordered = list(rows.batches(128))
    assert (torch.cat([b.label for b in ordered]).numpy() == rows.label).all()
    assert (torch.cat([b.categorical for b in ordered]).numpy() == rows.arrays.categorical).all()
    mixed = torch.cat([b.numeric for b in rows.batches(128, seed=0)]).numpy()
    assert not (mixed == rows.arrays.numeric).all()
    assert sorted(map(tuple, mixed.tolist())) == sorted(map(tuple, rows.arrays.numeric.tolist()))
    second = list(rows.batches(128, start=2))
    assert torch.equal(second[0].numeric, ordered[2].numeric)


def test_the_parts_of_the_batches_are_the_batches(
    table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Dataset.from_table(config(), table).rows("train")
    # Several buffers, so that batches hold rows of two of them.
    monkeypatch.setattr(order, "SHUFFLE_BLOCK_ROWS", 64)
    monkeypatch.setattr(order, "BUFFER_ROWS", 256)
    for parts, batch_rows, start in ((2, 100, 0), (3, 64, 2), (7, 1000, 0), (5, len(rows) - 2, 0)):
        for sampling in ("proportional", "uniform"):
            options = {"seed": 1, "start": start, "sampling": sampling}
            whole = list(rows.batches(batch_rows, **options))
            each = [list(rows.part(n, parts).batches(batch_rows, **options)) for n in range(parts)]
            assert rows.part(0, parts).steps(batch_rows) == rows.steps(batch_rows)
            for step, (batch, *pieces) in enumerate(zip(whole, *each, strict=True)):
                sizes = [order.part_of(batch.rows, (n, parts)) for n in range(parts)]
                assert [last - first for first, last in sizes] == [one.rows for one in pieces]
                assert rows.step_rows(batch_rows, start + step) == batch.rows
                assert equal(order.join(pieces), batch)


def equal(first: Batch, second: Batch) -> bool:
    """Whether two batches hold the same, list by list."""
    tensors: list[list[torch.Tensor]] = [[], []]
    for batch, found in zip((first, second), tensors, strict=True):
        batch.map(lambda tensor, found=found: found.append(tensor) or tensor)
    return all(map(torch.equal, *tensors))


def test_a_last_batch_of_one_row_is_dropped_in_training_only(table: pa.Table) -> None:
    rows = Dataset.from_table(config(), table).rows("train")
    size = len(rows) - 1
    assert rows.steps(size) == 1
    assert [b.rows for b in rows.batches(size, seed=0)] == [size]
    assert [b.rows for b in rows.batches(size)] == [size, 1]
    assert rows.steps(size - 1) == 2


def test_wrong_arguments_of_batches_are_value_errors(table: pa.Table) -> None:
    rows = Dataset.from_table(config(), table).rows("train")
    with pytest.raises(ValueError, match="part must be"):
        rows.part(1, 1)
    with pytest.raises(ValueError, match="start 0 or more"):
        next(rows.batches(10, start=-1))
    with pytest.raises(ValueError, match="sampling needs a seed"):
        next(rows.batches(10, sampling="uniform"))


# ---------------------------------------------------------------- refused tables leave nothing


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("tab", None, r"column 'tab' must have a value in every row \(it is the domain\), got null in 2.parquet, row 57"),
        ("price", float("nan"), r"column 'price' must be finite, got nan in 2.parquet, row 57"),
        ("click", 3, r"column 'click' must be 0 or 1 .*, got 3 in 2.parquet, row 57"),
        ("w", -1.0, r"column 'w' must be 0 or more .*, got -1 in 2.parquet, row 57"),
        ("user", None, r"column 'user' must have a value in every row \(it is the group\), got null in 2.parquet, row 57"),
        ("at", None, r"column 'at' must have a value in every row \(it is the time\), got null in 2.parquet, row 57"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("block_rows", [50, 10_000])
def test_one_bad_row_is_named_and_nothing_is_kept(
    column: str, value: object, message: str, block_rows: int, table: pa.Table, tmp_path: Path
) -> None:
    values = table[column].to_pylist()
    values[2 * 600 + 57] = value
    at = table.column_names.index(column)
    bad = table.set_column(at, column, pa.array(values, table[column].type))
    for i, start in enumerate(range(0, ROWS, 600)):
        pq.write_table(bad.slice(start, 600), tmp_path / f"{i}.parquet")
    with pytest.raises(SchemaError, match=message):
        Dataset.from_table(config(split={"by": "time"}), tmp_path, block_rows=block_rows)
    assert left_behind() == []


def test_a_wrong_dtype_in_one_file_names_that_file(table: pa.Table, tmp_path: Path) -> None:
    pq.write_table(table, tmp_path / "part-1.parquet")
    odd = table.set_column(3, "price", pa.array(["x"] * ROWS))
    pq.write_table(odd, tmp_path / "part-3.parquet")
    with pytest.raises(
        SchemaError, match=r"^column 'price' must be numeric, got string in part-3.parquet$"
    ):
        Dataset.from_table(config(), tmp_path)
    assert left_behind() == []


def test_an_empty_split_is_refused(table: pa.Table) -> None:
    with pytest.raises(SchemaError, match="every split must have at least one row, got none in '"):
        Dataset.from_table(config(), table.slice(0, 2))
    same = table.set_column(8, "at", pa.array([5] * ROWS))
    with pytest.raises(
        SchemaError, match=r"got none in 'validation' \(split by time, 2000 rows in the frame\)"
    ):
        Dataset.from_table(config(split={"by": "time"}), same)
    assert left_behind() == []


def test_no_table_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"data.table must name a table"):
        Dataset.from_table(config())


def test_a_domain_of_one_class_is_no_fault(table: pa.Table) -> None:
    click = np.where(np.array(table["tab"].to_pylist()) == "home", 1, table["click"].to_numpy())
    dataset = Dataset.from_table(config(), table.set_column(6, "click", pa.array(click)))
    assert dataset.summary()["train"]["home"].label_rate == 1.0
