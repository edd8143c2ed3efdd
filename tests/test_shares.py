"""A table encoded by several processes, each of which reads its share: the bytes of one process."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encodes_of_shares import STRETCH_ROWS, encoded
from isthmus.data import Dataset, open_table
from isthmus.data.store.cache import META
from isthmus.data.tables import parquet_file
from isthmus.data.tables.table import Stretch, Table, TablePart
from isthmus.ranks import ALONE
from rows_of_every_kind import KINDS, drawn, frame
from small_datasets import FEATURES, clicks
from worlds import HERE, ends, start_world

CUTS = (0, 1, 330, 480, 900)  # unequal files, one of a single row
SIZES = (2, 3)


def of_every_kind() -> pa.Table:
    random = np.random.default_rng(5)
    shops = pl.Series([f"shop {number}" for number in random.integers(1, 5, CUTS[-1])])
    label = pl.Series("label", random.integers(0, 2, CUTS[-1]))
    return frame(drawn(CUTS[-1], 3), shops).with_columns(label).to_arrow()


def in_files(table: pa.Table, folder: Path, *, csv: bool = False) -> str:
    folder.mkdir()
    for number, (start, stop) in enumerate(pairwise(CUTS)):
        part = table.slice(start, stop - start)
        if csv:
            pyarrow.csv.write_csv(part, folder / f"{number}.csv")
        else:
            pq.write_table(part, folder / f"{number}.parquet", row_group_size=40)
    return str(folder)


def with_half_a_second(table: pa.Table) -> pa.Table:
    """Whole numbers of time, but in the last file."""
    at = table["at"].to_numpy() + 0.5 * (np.arange(len(table)) == len(table) - 1)
    return table.set_column(table.column_names.index("at"), "at", pa.array(at))


def unlabelled(table: pa.Table) -> pa.Table:
    label = pa.array(table["click"].to_numpy(), mask=np.arange(len(table)) % 5 == 0)
    return table.set_column(table.column_names.index("click"), "click", label)


def orders_of(folder: Path) -> list[dict[str, Any]]:
    table = clicks(CUTS[-1])
    plain = table.drop_columns(["history", "embedding"])
    whole = folder / "tree" / "region=north"
    whole.mkdir(parents=True)
    pq.write_table(table, whole / "whole.parquet", row_group_size=60)
    north = {name: one for name, one in FEATURES.items() if name != "price"}
    north["price"] = {"kind": "numeric", "scale": "standard", "embedding": "piecewise"}
    simple = {name: FEATURES[name] for name in ("user", "item", "price", "tab")}
    broken = plain.to_pandas()
    broken.loc[CUTS[-1] - 2, "price"] = np.inf
    roles = {"domain": "tab", "label": "click", "weight": "w", "group": "user", "time": "at"}

    def order(name: str, table: str, features: dict[str, Any], **changes: Any) -> dict[str, Any]:
        config = {**roles, "features": features, **changes}
        return {"name": name, "table": table, "config": config}

    return [
        {
            "name": "every kind",
            "table": in_files(of_every_kind(), folder / "every"),
            "config": {"label": "label", "domain": "shop", "features": KINDS},
        },
        order(
            "time",
            in_files(unlabelled(table), folder / "time"),
            FEATURES,
            split={"by": "time"},
            domains=["search", "home"],
            null_label="unlabelled",
        ),
        order(
            "floats",
            in_files(with_half_a_second(table), folder / "floats"),
            {**FEATURES, "item": {"kind": "categorical", "statistics": True}},
            split={"by": "time"},
        ),
        order("csv", in_files(plain, folder / "csv", csv=True), simple, split={"by": "user"}),
        order("whole", str(folder / "tree"), {**north, "region": "categorical"}),
        order("infinite", in_files(pa.Table.from_pandas(broken), folder / "broken"), simple),
        order("no such domain", str(folder / "floats"), simple, domains=["home", "mail"]),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What worlds of 1, 2 and 3 processes have encoded."""
    folder = tmp_path_factory.mktemp("shares")
    orders = orders_of(folder)
    (folder / "orders.json").write_text(json.dumps(orders))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_file, "STRETCH_ROWS", STRETCH_ROWS)
        for order in orders[:5]:
            encoded(order, folder, ALONE)
    worlds = [
        start_world(size, [HERE / "encodes_of_shares.py", folder / "orders.json"]) for size in SIZES
    ]
    for world in worlds:
        for code, _, err in ends(world, seconds=400):
            assert code == 0, err
    return folder


def content(cache: Path) -> dict[str, Any]:
    """Every byte of a cache that holds one table, but for the moment when it was made."""
    (dataset,) = (path for path in (cache / "datasets").iterdir() if path.name != "locks")
    found: dict[str, Any] = {
        path.relative_to(dataset).as_posix(): path.read_bytes()
        for path in sorted(dataset.rglob("*"))
        if path.is_file()
    }
    found["key"] = dataset.name
    found[META] = {**json.loads(found[META]), "created": 0}
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["every kind", "time", "floats", "csv", "whole"])
def test_several_processes_write_the_bytes_of_one(folder: Path, name: str, size: int):
    alone, shared = content(folder / f"{name}-1"), content(folder / f"{name}-{size}")
    assert list(shared) == list(alone)
    assert [key for key in alone if shared[key] != alone[key]] == []


def test_the_table_is_shared_out(folder: Path):
    """Each world of the tests above had more than one process at work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_file, "STRETCH_ROWS", STRETCH_ROWS)
        for order in json.loads((folder / "orders.json").read_text())[:5]:
            dataset = Dataset.open(
                next((folder / f"{order['name']}-1" / "datasets").glob("*/" + META)).parent
            )
            assert len(dataset.rows("train")) > 100
            shares = [open_table(order["table"]).share(number, 3) for number in range(3)]
            assert all(len(share) for share in shares), order["name"]


@pytest.mark.parametrize("size", SIZES)
def test_what_one_process_finds_wrong_ends_all(folder: Path, size: int):
    told = [json.loads((folder / f"orders-{size}-{rank}.json").read_text()) for rank in range(size)]
    for at, rule in (
        (5, f"rank {size - 1}: column 'price' must be finite, got inf in 3.parquet, row 418"),
        (6, "data.domains must name domains of the table, got 'mail'"),
    ):
        assert rule in told[0][at]["text"]
        for other in told[1:]:
            assert other[at]["fault"] == "ToldElsewhereError"
    for name in ("infinite", "no such domain"):
        left = (folder / f"{name}-{size}" / "datasets").iterdir()
        assert [path.name for path in left] == ["locks"]


@pytest.mark.parametrize("stage", ["encode", pytest.param("fit", marks=pytest.mark.soak)])
def test_a_killed_process_ends_the_others_and_leaves_nothing(stage: str, tmp_path: Path):
    table = in_files(clicks(CUTS[-1]).drop_columns(["history", "embedding"]), tmp_path / "table")
    config = {"domain": "tab", "label": "click", "features": {"user": "categorical"}}
    order = {"name": "killed", "table": table, "config": config, "die": stage}
    (tmp_path / "orders.json").write_text(json.dumps([order]))
    (first, *_), second = ends(
        start_world(2, [HERE / "encodes_of_shares.py", tmp_path / "orders.json"]), seconds=400
    )
    assert (first, second[0]) == (1, -9)
    (told,) = json.loads((tmp_path / "orders-2-0.json").read_text())
    assert told["fault"] == "RankError"
    assert [path.name for path in (tmp_path / "killed-2" / "datasets").iterdir()] == ["locks"]


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=5), st.integers(1, 6))
def test_shares_cut_a_table_in_order_and_leave_no_row(files: list[list[int]], shares: int):
    def part(name: int, counts: list[int]) -> TablePart:
        firsts = np.cumsum([0, *counts]).tolist()

        def read(first: int, rows: int):
            return lambda columns, size: iter(
                [pa.record_batch({"x": np.arange(first, first + rows)})]
            )

        cut = tuple(
            Stretch(first, rows, read(first, rows))
            for first, rows in zip(firsts, counts, strict=False)
        )
        return TablePart(str(name), firsts[-1], {"x": pa.int64()}, read(0, firsts[-1]), cut=cut)

    table = Table([part(*one) for one in enumerate(files)], "made")
    taken = [table.share(number, shares) for number in range(shares)]
    assert [number for share in taken for number in share] == list(range(len(table.stretches)))
    blocks = [block for share in taken for block in table.blocks(["x"], 4, share=share)]
    want = list(table.blocks(["x"], 4))
    assert [(b.file, b.first_row, b.file_row, b.batch) for b in blocks] == [
        (b.file, b.first_row, b.file_row, b.batch) for b in want
    ]
    if files:  # a share is no further from its due than the longest stretch
        rows = [sum(table.stretches[number][1].rows for number in share) for share in taken]
        longest = max(stretch.rows for _, stretch in table.stretches)
        assert max(abs(one - table.rows / shares) for one in rows) <= longest
