"""Pairs of columns from config to served score: refused, cached, cut into parts, fitted, guarded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import isthmus
from counted_tables import crossed, crossed_config, four
from isthmus.bundle import Bundle
from isthmus.config import Config
from isthmus.data import SPLITS, Dataset, Subset
from isthmus.data.batch import DomainPlaces
from isthmus.data.encoding.encoder import Encoder
from isthmus.errors import BundleError
from isthmus.run import Notice
from isthmus.run.scores import read_scores
from small_runs import content

PAIR = slice(8, 12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crosses")


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return crossed(5, 6000, pair=2.5, values=25)


@pytest.fixture(scope="module")
def dataset(folder: Path, table: pa.Table) -> Dataset:
    return Dataset.from_table(crossed_config(), table, cache=folder / "cache")


# ---------------------------------------------------------------- the config


@pytest.mark.parametrize(
    ("crosses", "features", "said"),
    [
        ([["user", "who"]], {}, "must be features, got no feature 'who'"),
        ([["user", "tab"]], {}, "a pair must not hold the domain 'tab'"),
        ([["user", "user"]], {}, "must be of two columns, got one twice"),
        ([["user", "author"], ["author", "user"]], {}, "must be there once, got it twice"),
        ([["user", "at"]], {"at": "numeric"}, "must be categorical, got 'numeric' for 'at'"),
        (
            [["user", "at"]],
            {"at": {"kind": "categorical_list", "statistics": True}},
            "must be categorical, got 'categorical_list' for 'at'",
        ),
        ([["user", "at"]], {"at": "categorical"}, "must have statistics: true, got none for 'at'"),
        (
            [["user", "author"]],
            {"user x author:statistics": "numeric"},
            "no feature must have that name",
        ),
    ],
)
def test_pairs_that_are_refused(crosses: list[list[str]], features: dict[str, Any], said: str):
    plain = crossed_config().model_dump()["features"]
    with pytest.raises(ValueError, match=said):
        crossed_config(crosses=crosses, features=plain | features)


# ---------------------------------------------------------------- on disk


def test_an_encoder_on_disk_gives_the_same_numbers(
    dataset: Dataset, table: pa.Table, tmp_path: Path
):
    dataset.encoder.save(tmp_path / "encoder")
    again = Encoder.load(tmp_path / "encoder")
    assert again.crosses == dataset.encoder.crosses
    assert again.fields == dataset.encoder.fields
    block = table.to_batches()[0]
    first, second = (one.encode(block, 0, "table") for one in (dataset.encoder, again))
    np.testing.assert_array_equal(first.numeric, second.numeric)
    for split in ("validation", "test"):
        rows = dataset.rows(split)
        np.testing.assert_array_equal(first.numeric[rows.row], four(dataset, split))
    assert first.numeric[:, PAIR].any()
    path = tmp_path / "encoder" / "encoder.json"
    written = json.loads(path.read_text())
    for crosses in ([], [{**written["crosses"][0], "left": "who"}], [{"left": "user"}]):
        path.write_text(json.dumps(written | {"crosses": crosses}))
        with pytest.raises(BundleError, match="encoder is damaged"):
            Encoder.load(tmp_path / "encoder")


def test_damaged_pairs_are_refused(dataset: Dataset):
    statistics = dataset.encoder.taught.statistics
    assert statistics is not None
    arrays = statistics.to_arrays()
    columns = [one.column for one in statistics.columns]
    keys = arrays["2.keys"]
    for wrong in (keys[::-1], keys + 1_000_000, keys - keys[0], keys[:-1]):
        with pytest.raises(ValueError, match="'user x author'"):
            type(statistics).of_arrays(arrays | {"2.keys": wrong}, columns, 1.0)


def test_the_cache_gives_the_same_rows_again(dataset: Dataset, table: pa.Table, folder: Path):
    again = Dataset.from_table(crossed_config(), table, cache=folder / "cache")
    assert again.folder == dataset.folder
    assert again.encoder.crosses == dataset.encoder.crosses
    fresh = Dataset.from_table(crossed_config(), table, cache=folder / "fresh")
    for split in SPLITS:
        np.testing.assert_array_equal(four(fresh, split), four(again, split))
    assert not list(dataset.folder.rglob("*.wider"))


# ---------------------------------------------------------------- parts of a dataset


def test_a_solo_counts_its_own_rows_and_keeps_the_confirmed_pairs(
    dataset: Dataset, table: pa.Table
):
    subset = Subset(dataset, domains=["a"])
    click, tab = np.array(table["click"]), np.array(table["tab"])
    # Other domains' labels turned round, and the list of pairs kept: a solo sees no difference.
    mine = dataset.rows("train").domain == 1
    rows = subset.rows("train")
    assert len(rows) == mine.sum()
    numbers = np.asarray(rows.arrays.numeric)[:, PAIR]
    assert numbers.any()
    assert np.abs(numbers - four(dataset, "train")[mine][:, PAIR]).max() > 0.1
    at = table.schema.get_field_index("click")
    turned = table.set_column(at, "click", pa.array(np.where(tab == "a", click, 1 - click)))
    other = Dataset.from_table(crossed_config(), turned, cache=dataset.folder.parents[1] / "turned")
    assert other.encoder.fields == dataset.encoder.fields
    again = Subset(other, domains=["a"]).rows("train")
    np.testing.assert_array_equal(again.arrays.numeric, rows.arrays.numeric)


def test_a_hidden_domain_is_the_unknown_one(dataset: Dataset):
    arrays = dataset.rows("test").arrays
    batch = arrays.batch(np.arange(len(arrays.domain)), dataset.n_domains)
    places = DomainPlaces.of(dataset.encoder.fields)
    hidden = batch.hide_domain(torch.ones(batch.rows, dtype=torch.bool), places)
    expected = batch.numeric.numpy().copy()
    nowhere = np.zeros(batch.rows, dtype=np.int32)
    dataset.encoder.taught.fill(expected, batch.categorical.numpy(), (), nowhere)
    np.testing.assert_array_equal(hidden.numeric.numpy(), expected)


# ---------------------------------------------------------------- from fit to served score


def settings(**data: Any) -> Config:
    return Config.model_validate(
        {
            "data": crossed_config(**data).model_dump(),
            "model": {"backbone": {"name": "mlp", "widths": [8]}},
            "train": {"epochs": 2, "batch_rows": 256},
        }
    )


@pytest.mark.parametrize("guard", [None, "balanced"])
def test_a_raw_row_gets_the_score_that_was_evaluated(
    guard: Any, table: pa.Table, folder: Path, tmp_path: Path
):
    told = []
    run = isthmus.fit(
        settings(trees=guard is None),
        table,
        out=tmp_path / "run",
        cache=folder / "cache",
        guard=guard,
        progress=told.append,
    )
    lines = [one.text for one in told if isinstance(one, Notice) and one.text.startswith("cross ")]
    assert len(lines) == 1
    assert lines[0].startswith("cross user x author: confirmed, an input; logloss of ")
    bundle = Bundle.load(run.path / "bundle")
    logits = bundle.logits(table)
    for split in ("validation", "test"):
        scored = read_scores(run.path / "scores" / f"{split}.parquet")
        np.testing.assert_allclose(logits[scored.row], scored.logits, atol=1e-5)
    alone = [bundle.logits(table.slice(row, 1))[0] for row in range(8)]
    np.testing.assert_allclose(alone, logits[:8], atol=1e-5)
    strange = table.slice(0, 20).set_column(0, "user", pa.array(np.full(20, 10**6)))
    assert np.isfinite(bundle.logits(strange)).all()
    bundle.save(tmp_path / "again")
    assert content(tmp_path / "again") == content(run.path / "bundle")


@pytest.mark.truth
def test_a_diagnosis_counts_pairs_for_each_arm(table: pa.Table, folder: Path, tmp_path: Path):
    path = tmp_path / "table.parquet"
    pq.write_table(table, path)
    config = settings(table=str(path))
    found = isthmus.diagnose(config, out=tmp_path / "out", level="quick", cache=folder / "cache")
    assert set(found.report["domains"]) == {"a", "b", "c"}
    assert found.report["domains"]["a"]["auc"]["net"] is not None
