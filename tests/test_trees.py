"""The forest whose score is an input: out of fold, of its own rows, on disk, and faults."""

import math
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import roc_auc_score

from isthmus.data import SPLITS, Dataset, Subset
from isthmus.data.batch import DomainPlaces
from isthmus.data.encoding import trees as trees_file
from isthmus.data.encoding.encoder import Encoder
from isthmus.data.store import teaching
from isthmus.data.store.rows import stopping_half
from isthmus.errors import BundleError, ConfigError, SchemaError
from isthmus.schema import DataConfig

NAMES = ["a", "b", "c"]
ROWS = 16_000


def table(seed: int, rows: int = 4000, strength: float = 1.5) -> pa.Table:
    """Numbers that act by thresholds, a small category that acts otherwise in ``c``, rare users."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=rows), rng.exponential(size=rows)
    tab, city = rng.choice(NAMES, rows, p=[0.5, 0.3, 0.2]), rng.integers(0, 8, rows)
    sign = np.where(tab == "c", -1, 1)
    logit = strength * ((x > 0.3) ^ (y > 1)) + strength * sign * (city % 2) - strength
    return pa.table(
        {
            "x": x,
            "y": y,
            "city": city,
            "user": rng.integers(0, 900, rows),
            "tab": tab,
            "click": (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int8),
            "at": np.arange(rows),
        }
    )


def config(**changes: Any) -> DataConfig:
    content = {
        "domain": "tab",
        "label": "click",
        "time": "at",
        "trees": True,
        "features": {
            "x": "numeric",
            "y": {"kind": "numeric", "scale": "log"},
            "city": "categorical",
            "user": {"kind": "categorical", "statistics": True},
            "tab": "categorical",
        },
        "split": {"fractions": [0.6, 0.2, 0.2]},
    }
    return DataConfig.model_validate(content | changes)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.from_table(config(), table(0, ROWS), cache=tmp_path_factory.mktemp("cache"))


def scores(made: Dataset | Subset, split: str) -> np.ndarray:
    """The score, and the score without the domain, of a split's rows."""
    return np.asarray(made.rows(split).arrays.numeric)[:, -2:]  # type: ignore[arg-type]


def label(made: Dataset, split: str) -> np.ndarray:
    return np.asarray(made.rows(split).label)  # type: ignore[arg-type]


def area(made: Dataset, split: str) -> float:
    return float(roc_auc_score(label(made, split), scores(made, split)[:, 0]))


def booster(made: Dataset) -> lightgbm.Booster:
    trees = made.encoder.taught.trees
    assert trees is not None
    assert trees.booster is not None
    return trees.booster


def test_a_score_is_lightgbms_of_numbers_statistics_small_columns_and_domain(dataset: Dataset):
    arrays = dataset.rows("test").arrays
    numbers = np.asarray(arrays.numeric)[:, :6]  # x, y, four of user
    city, domain = np.asarray(arrays.categorical)[:, :1], np.asarray(arrays.domain)[:, None]
    rows = np.hstack([numbers, city, domain])
    expected = np.asarray(booster(dataset).predict(rows, raw_score=True))
    np.testing.assert_allclose(scores(dataset, "test")[:, 0], expected, rtol=1e-6)
    assert not scores(dataset, "test")[:, 1].any()


def test_a_train_rows_score_tells_no_more_than_a_test_rows(dataset: Dataset):
    arrays = dataset.rows("train").arrays
    found = np.array(arrays.numeric)
    trees = dataset.encoder.taught.trees
    assert trees is not None
    trees.fill(found, np.asarray(arrays.categorical), np.asarray(arrays.domain))
    in_sample = roc_auc_score(label(dataset, "train"), found[:, -2])
    assert area(dataset, "test") > 0.75
    assert abs(area(dataset, "train") - area(dataset, "test")) < 0.03
    assert in_sample > area(dataset, "test") + 0.02


def test_a_random_label_gives_no_lift(tmp_path: Path):
    found = []
    for seed in range(20):
        made = Dataset.from_table(config(), table(seed, 1500, strength=0.0), cache=tmp_path)
        found.append((area(made, "train") - 0.5, area(made, "test") - 0.5))
    lift, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / math.sqrt(20)
    assert (np.abs(lift) < 3 * error + 1e-3).all(), (lift, error)


def test_hiding_the_domain_takes_the_second_score(dataset: Dataset):
    arrays = dataset.rows("train").arrays
    batch = arrays.batch(np.arange(len(arrays.domain)), dataset.n_domains)
    places = DomainPlaces.of(dataset.encoder.fields)
    assert places.score == 6
    hidden = batch.hide_domain(batch.domain == 3, places).numeric.numpy()
    of_c = np.asarray(arrays.domain) == 3
    found = scores(dataset, "train")
    np.testing.assert_array_equal(hidden[of_c, 6], found[of_c, 1])
    np.testing.assert_array_equal(hidden[~of_c, 6], found[~of_c, 0])
    # In c the small column acts otherwise, which nobody can know who does not know the domain.
    y = label(dataset, "train")[of_c]
    known, unknown = (roc_auc_score(y, found[of_c, place]) for place in (0, 1))
    assert known > unknown + 0.1
    # A row of no domain is scored as one whose domain is hidden: by a forest that has learnt it.
    nowhere = np.array(dataset.rows("test").arrays.numeric)
    trees = dataset.encoder.taught.trees
    assert trees is not None
    test = dataset.rows("test").arrays
    trees.fill(nowhere, np.asarray(test.categorical), np.zeros(len(nowhere), dtype=np.int32))
    y = label(dataset, "test")
    assert 0.6 < roc_auc_score(y, nowhere[:, 6]) < area(dataset, "test")


def test_a_solo_has_the_forest_of_its_own_rows(tmp_path: Path):
    everything = Dataset.from_table(config(), table(1, 8000), cache=tmp_path)
    subset = Subset(everything, domains=["b"])
    features = config().features | {
        "user": {"kind": "categorical", "statistics": True, "min_count": 2},
        "city": {"kind": "categorical", "min_count": 2},
    }
    alone = Dataset.from_table(
        config(domains=["b"], features=features), table(1, 8000), cache=tmp_path
    )
    for split in ("train", "validation"):
        np.testing.assert_array_equal(subset.rows(split).row, alone.rows(split).row)
        y = np.asarray(alone.rows(split).label)
        mine, own = (
            roc_auc_score(y, np.asarray(one.rows(split).arrays.numeric)[:, -2])
            for one in (subset, alone)
        )
        assert abs(mine - own) < 0.02  # ids are in another order, so ties fall otherwise
    joint = np.asarray(everything.rows("validation").arrays.numeric)[:, -2]
    own_rows = np.isin(everything.rows("validation").row, subset.rows("validation").row)
    assert (joint[own_rows] != scores(subset, "validation")[:, 0]).any()
    assert subset.known is not None
    assert subset.known.taught.trees is not None
    again = Subset(everything, domains=["b"])
    np.testing.assert_array_equal(scores(again, "train"), scores(subset, "train"))


def test_rows_that_a_guard_decides_by_do_not_stop_the_forest(dataset: Dataset, tmp_path: Path):
    rows = dataset.rows("validation")
    stops = stopping_half(rows)
    found = []
    for flipped in (rows.row[~stops], rows.row[stops]):
        click = np.array(table(0, ROWS)["click"]).copy()
        click[flipped] = 1 - click[flipped]
        changed = table(0, ROWS).set_column(5, "click", pa.array(click))
        found.append(booster(Dataset.from_table(config(), changed, cache=tmp_path)))
    plain = booster(dataset).model_to_string()
    assert found[0].model_to_string() == plain
    assert found[1].model_to_string() != plain


def test_the_same_rows_give_the_same_forest(dataset: Dataset, tmp_path: Path):
    again = Dataset.from_table(config(), table(0, ROWS), cache=tmp_path)
    assert again.key == dataset.key
    for split in SPLITS:
        np.testing.assert_array_equal(scores(again, split), scores(dataset, split))
    assert booster(again).model_to_string() == booster(dataset).model_to_string()


def test_few_rows_or_one_class_are_no_fault(dataset: Dataset):
    one = Subset(dataset, domains=["a"], rows_per_domain=1)
    assert not scores(one, "train").any()
    assert one.known is not None
    assert one.known.taught.trees is not None
    assert one.known.taught.trees.to_text() == ""
    few = Subset(dataset, domains=["a"], rows_per_domain=30)
    assert np.isfinite(scores(few, "train")).all()


def test_a_large_table_is_learnt_from_a_draw_of_its_rows(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(teaching, "MOST_ROWS", 4000)
    made = Dataset.from_table(config(), table(2, ROWS), cache=tmp_path)
    assert area(made, "test") > 0.65
    assert abs(area(made, "train") - area(made, "test")) < 0.04


def test_an_encoder_on_disk_gives_the_same_scores(dataset: Dataset, tmp_path: Path):
    dataset.encoder.save(tmp_path / "encoder")
    again = Encoder.load(tmp_path / "encoder")
    block = table(0).to_batches()[0]
    first, second = (one.encode(block, 0, "table") for one in (dataset.encoder, again))
    np.testing.assert_array_equal(first.numeric, second.numeric)
    assert first.numeric[:, 6].any()
    path = tmp_path / "encoder" / "taught.trees.txt"
    text = path.read_text()
    path.write_text(text.replace("leaf_value=", "leaf_value=1", 1))
    with pytest.raises(BundleError, match=r"must be unchanged.*taught\.trees\.txt"):
        Encoder.load(tmp_path / "encoder")
    path.unlink()
    with pytest.raises(BundleError, match="encoder is damaged"):
        Encoder.load(tmp_path / "encoder")


def test_without_lightgbm_the_config_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trees_file, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'isthmus\[trees\]'"):
        Dataset.from_table(config(), table(0), cache=tmp_path)
    assert not [p for p in (tmp_path / "datasets").iterdir() if p.name != "locks"]


def test_one_class_is_refused(tmp_path: Path):
    features = {"x": "numeric", "tab": "categorical"}
    late = (np.arange(4000) > 3600).astype(np.int8)
    rows = table(0).set_column(5, "click", pa.array(late))
    with pytest.raises(SchemaError, match=r"data\.trees is on, so the train rows must hold both"):
        Dataset.from_table(config(features=features, split={"by": "time"}), rows, cache=tmp_path)


def test_no_feature_may_have_the_name_of_the_score():
    with pytest.raises(ValueError, match="no feature must have that name"):
        config(features={"trees": "numeric", "tab": "categorical"})


def test_threads_are_torchs():
    assert trees_file.threads() == torch.get_num_threads()
