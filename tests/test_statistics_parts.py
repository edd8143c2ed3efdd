"""Value statistics of parts of a dataset, on disk, and what is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from counted_tables import WITH, four, planted, planted_config
from isthmus.data import Dataset, Subset
from isthmus.data.batch import DomainPlaces
from isthmus.data.encoding.encoder import Encoder
from isthmus.errors import BundleError, SchemaError
from small_parts import data_config, make_table


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    config = data_config(features=WITH, negative_rate=0.25)
    return Dataset.from_table(config, make_table(), cache=tmp_path_factory.mktemp("cache"))


# ---------------------------------------------------------------- parts of a dataset


def test_a_solo_knows_what_a_table_of_its_rows_would_teach(tmp_path: Path):
    table = planted(4, 6000, 300, spread=1.0)
    everything = Dataset.from_table(planted_config(), table, cache=tmp_path)
    subset = Subset(everything, domains=["b"])
    features = {
        "user": {"kind": "categorical", "statistics": True, "min_count": 2},
        "tab": "categorical",
    }
    alone = Dataset.from_table(
        planted_config(domains=["b"], features=features), table, cache=tmp_path
    )
    for split in ("train", "validation"):
        mine, own = subset.rows(split), alone.rows(split)
        np.testing.assert_array_equal(mine.row, own.row)
        np.testing.assert_allclose(mine.arrays.numeric, own.arrays.numeric, rtol=1e-5, atol=1e-6)
    scored = subset.scored("test", ["b"])
    np.testing.assert_allclose(
        scored.arrays.numeric, alone.rows("test").arrays.numeric, rtol=1e-5, atol=1e-6
    )
    # Rows of another domain are rows of no domain to it.
    foreign = subset.scored("test", ["a"]).arrays.numeric
    np.testing.assert_array_equal(foreign[:, 2], foreign[:, 0])
    assert not foreign[:, 3].any()
    assert foreign[:, 1].any()


def test_a_hidden_domain_is_the_unknown_one(dataset: Dataset):
    arrays = dataset.rows("test").arrays
    batch = arrays.batch(np.arange(len(arrays.domain)), dataset.n_domains)
    places = DomainPlaces.of(dataset.encoder.fields)
    hidden = batch.hide_domain(torch.ones(batch.rows, dtype=torch.bool), places)
    expected = batch.numeric.numpy().copy()
    lists = [(one.values.numpy(), one.offsets.numpy()) for one in batch.lists]
    assert dataset.encoder.taught.statistics is not None
    nowhere = np.zeros(batch.rows, dtype=np.int32)
    dataset.encoder.taught.statistics.fill(expected, batch.categorical.numpy(), lists, nowhere)
    np.testing.assert_array_equal(hidden.numeric.numpy(), expected)
    assert (batch.numeric.numpy() != expected).any()
    none = batch.hide_domain(torch.zeros(batch.rows, dtype=torch.bool), places)
    np.testing.assert_array_equal(none.numeric.numpy(), batch.numeric.numpy())


# ---------------------------------------------------------------- on disk, and faults


def test_an_encoder_on_disk_gives_the_same_numbers(dataset: Dataset, tmp_path: Path):
    dataset.encoder.save(tmp_path / "encoder")
    again = Encoder.load(tmp_path / "encoder")
    block = make_table().to_batches()[0]
    first, second = (one.encode(block, 0, "table") for one in (dataset.encoder, again))
    np.testing.assert_array_equal(first.numeric, second.numeric)
    assert first.numeric[:, -12:].any()
    path = tmp_path / "encoder" / "taught.statistics.safetensors"
    path.write_bytes(path.read_bytes()[:-8] + b"01234567")
    with pytest.raises(BundleError, match="must be unchanged"):
        Encoder.load(tmp_path / "encoder")
    path.unlink()
    with pytest.raises(BundleError, match="encoder is damaged"):
        Encoder.load(tmp_path / "encoder")


def test_train_rows_of_one_class_have_no_statistics(tmp_path: Path):
    table = planted(5, 1000)
    label = (np.arange(1000) > 900).astype(np.int8)
    config = planted_config(split={"by": "time"})
    with pytest.raises(
        SchemaError, match="'user' has statistics, so the train rows must hold both"
    ):
        Dataset.from_table(config, table.set_column(3, "click", pa.array(label)), cache=tmp_path)
    assert not [p for p in (tmp_path / "datasets").iterdir() if p.name != "locks"]


def test_no_feature_may_have_the_name_of_statistics():
    features = {"user": {"kind": "categorical", "statistics": True}, "user:statistics": "numeric"}
    with pytest.raises(ValueError, match="no other feature must have that name"):
        planted_config(features=features)


def test_a_column_that_no_value_is_kept_of_says_nothing(tmp_path: Path):
    table = planted(7, 600, 10**7)
    features = {
        "user": {"kind": "categorical", "statistics": True, "min_count": 2},
        "tab": "categorical",
    }
    made = Dataset.from_table(planted_config(features=features), table, cache=tmp_path)
    assert not four(made, "train").any()
    assert not four(made, "test").any()
    made.encoder.save(tmp_path / "encoder")
    again = Encoder.load(tmp_path / "encoder").taught.statistics
    assert again is not None
    assert len(again.columns[0].counts.value) == 0
