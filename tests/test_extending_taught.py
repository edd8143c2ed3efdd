"""extend where rows have numbers that train rows teach, where a forest scores, and where domains have parts."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import isthmus
import small_parts
from grown_tables import as_domain, clicks, config_of, new_clicks
from isthmus.bundle import Bundle, Part
from isthmus.data import Encoder, Subset, open_table
from isthmus.data.encoding.counted.statistics import pair_effect, value_effect
from isthmus.data.encoding.growth import Growth
from isthmus.data.tables.plain import offsets_of
from isthmus.errors import BundleError
from isthmus.extending import extend
from isthmus.extending.extension import extended_bundle
from isthmus.extending.grown import grown_encoder
from isthmus.extending.new_table import EncodedTable, NewTable
from isthmus.extending.own_statistics import teach_own
from isthmus.models import build_model
from isthmus.schema import FittedField
from small_runs import content, settings

OLD = ["home", None, "search", "mail", "never seen"]
COUNTED = [
    *(f"data.features.{name}.statistics=true" for name in ("user", "item", "history")),
    "data.trees={least_rows: 5}",
    "train.epochs=1",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoded")


@pytest.fixture(scope="module")
def config() -> isthmus.Config:
    return isthmus.load_config(settings(), COUNTED)


@pytest.fixture(scope="module")
def dataset(cache: Path, config: isthmus.Config) -> isthmus.Dataset:
    return isthmus.Dataset.from_table(config.data, clicks(), cache=cache)


def taught(encoder: Encoder, table: pa.Table, domain: str) -> EncodedTable:
    new = NewTable(encoder, open_table(table), (domain,))
    sizes = {name: one.rows for name, one in encoder.vocabularies.items()}
    return teach_own(new.encoded(grown_encoder(encoder, new.vocabularies(), domain)), sizes)


@pytest.fixture(scope="module")
def grown(dataset: isthmus.Dataset) -> EncodedTable:
    return taught(dataset.encoder, new_clicks(400), "app")


def numbers(encoder: Encoder, table: pa.Table) -> np.ndarray:
    (batch,) = table.combine_chunks().to_batches()
    return encoder.encode(batch, 0, "probe").numeric


def bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def test_numbers_of_old_domains_stay(dataset: isthmus.Dataset, grown: EncodedTable):
    probe = as_domain(new_clicks(300), OLD)
    assert bits(numbers(dataset.encoder, probe)) == bits(numbers(grown.encoder, probe))


def test_an_encoder_that_grew_is_saved_whole(grown: EncodedTable, tmp_path: Path):
    """What is read gives the same numbers, also after a second domain came."""
    twice = taught(grown.encoder, new_clicks(200, domain="web", seed=8), "web")
    for number, encoder in enumerate((grown.encoder, twice.encoder)):
        encoder.save(tmp_path / str(number))
        again = Encoder.load(tmp_path / str(number))
        probe = as_domain(new_clicks(300), [*OLD, "app", "web"])
        assert bits(numbers(encoder, probe)) == bits(numbers(again, probe))
    probe = as_domain(new_clicks(300), [*OLD, "app"])
    assert bits(numbers(twice.encoder, probe)) == bits(numbers(grown.encoder, probe))


def test_statistics_of_the_new_domain_by_hand(dataset: isthmus.Dataset, grown: EncodedTable):
    """The numbers of a user by the slow formula: base rate, strengths and units are those of the fit."""
    fitted = dataset.encoder.taught.statistics
    assert fitted is not None
    found = grown.encoder.taught.statistics
    assert found is not None
    assert found.later is not None
    one, own = fitted.columns[0], found.columns[0]
    assert one.column.name == "user"
    train = grown.rows("train")
    users, label = train.arrays.categorical[:, 0], np.asarray(train.label)
    rate = found.later.rates[0]
    of_values, of_pairs = one.effects.strengths
    sizes = dataset.encoder.vocabularies["user"].rows
    for user in (int(users[users < sizes].max()), int(users.max())):
        n = np.array([float((users == user).sum())])
        k = np.array([float(label[users == user].sum())])
        if user < sizes:
            effect = one.effects.by_value[user, :1].astype(np.float64)
        else:
            effect = value_effect(n, k, np.array([rate]), of_values)
        within = pair_effect(n, k, np.array([rate]), effect, of_pairs)
        expected = np.array([effect[0], np.nan, within[0], np.log1p(n[0])])
        got = own.effects.find(np.array([user], np.int32), np.array([4], np.int32))[0]
        np.testing.assert_allclose(got[[0, 2, 3]], expected[[0, 2, 3]], rtol=1e-5)


def test_a_train_row_is_not_told_its_own_label(dataset: isthmus.Dataset):
    """Labels by chance of users with one row each: their statistics say nothing of them."""
    new = new_clicks(1200)
    frame = pl.DataFrame(new).with_columns(
        user=(pl.int_range(pl.len()) + 1000).cast(pl.Int32),
        click=pl.Series(np.random.default_rng(3).integers(0, 2, 1200)).cast(pl.Int8),
    )
    encoded = taught(dataset.encoder, frame.to_arrow(), "app")
    train = encoded.rows("train")
    start = 1  # age stands first; then the four numbers of the user
    told = np.asarray(train.arrays.numeric)[:, start : start + 4]
    assert np.abs(told).max() == 0  # a single row of another fold's nobody


def test_the_forest_reads_what_came_later_as_unknown(dataset: isthmus.Dataset, grown: EncodedTable):
    """The score of a row of the new domain is that of the same row without a domain and new ids."""
    forest = grown.encoder.taught.trees
    assert forest is not None
    assert forest.to_text() == dataset.encoder.taught.trees.to_text()  # type: ignore[union-attr]
    place = forest.columns.score
    new = new_clicks(100)
    ours = numbers(grown.encoder, new)
    (batch,) = new.combine_chunks().to_batches()
    theirs = dataset.encoder.encode(batch, 0, "probe")
    numeric = ours.copy()
    assert dataset.encoder.taught.trees is not None
    dataset.encoder.taught.trees.fill(numeric, theirs.categorical, np.zeros(100, np.int32))
    np.testing.assert_array_equal(ours[:, place], numeric[:, place])


@pytest.mark.parametrize("trees", [False, True])
def test_a_run_with_statistics_and_forest_is_extended(
    trees: bool, tmp_path: Path, cache: Path, config: isthmus.Config
):
    changes = [*COUNTED]
    asked: dict[str, Any] = settings()
    if trees:
        asked["model"] = {"name": "trees", "calibration": "per_domain"}
        changes = ["data.trees={least_rows: 5}"]
    run = isthmus.fit(asked, clicks(), out=tmp_path / "run", cache=cache, set=changes)
    new = new_clicks(400)
    found = extend(run, new, domain="app", out=tmp_path / "run2")
    after, probe = found.run.bundle, as_domain(new, OLD)
    assert bits(run.bundle.logits(probe)) == bits(after.logits(probe))
    scored = found.run.scored("test")
    logits = after.logits(new)[scored.row]
    np.testing.assert_allclose(logits, scored.logits, rtol=0, atol=1e-5)
    assert np.abs(logits - run.bundle.logits(new)[scored.row]).max() > 1e-3


def test_parts_of_domains_stay_and_the_new_domain_goes_to_the_joint_model(
    dataset: isthmus.Dataset, grown: EncodedTable, config: isthmus.Config, tmp_path: Path
):
    """A part that knows all ids, and one that knows those of its own rows, with its own statistics."""
    model, other, third = (
        build_model(config.model, dataset.encoder.fields, dataset.n_domains) for _ in range(3)
    )
    known = Subset(dataset, domains=["home"]).known
    before = Bundle(
        config=config,
        encoder=dataset.encoder,
        model=model,
        parts={"solo": Part(other, config.model, known), "tuned": Part(third, config.model)},
        routes={"home": "solo", "mail": "tuned"},
    )
    after, _ = extended_bundle(before, config.train, grown)
    after.save(tmp_path / "bundle")
    again = Bundle.load(tmp_path / "bundle")
    probe, new = as_domain(new_clicks(300), OLD), new_clicks(50)
    for bundle in (after, again):
        assert bits(bundle.logits(probe)) == bits(before.logits(probe))
    assert bits(again.logits(new)) == bits(after.logits(new))
    assert content(tmp_path / "bundle")  # written
    joint = Bundle(config=after.config, encoder=after.encoder, model=after.model)
    assert bits(joint.logits(new)) == bits(after.logits(new))


def test_a_detector_is_refused(tmp_path: Path, cache: Path):
    asked = config_of({"backbone": {"name": "mlp", "widths": [8]}, "detector": True}, epochs=1)
    run = isthmus.fit(asked, clicks(), out=tmp_path / "run", cache=cache)
    with pytest.raises(BundleError, match="must have no detector"):
        extend(run, new_clicks(100), domain="app", out=tmp_path / "run2")


@pytest.mark.parametrize("by", ["time", "user"])
def test_numbered_domains_weights_hashes_and_other_splits(by: str, tmp_path: Path):
    """Every role that a column can have; the new table is split as the run's was."""
    table = small_parts.make_table()
    place = table.schema.get_field_index("tab")
    code = {"feed": 1, "home": 2, "search": 3, "late": 4}
    told = pa.array([code[name] for name in table.column("tab").to_pylist()], pa.int64())
    old = table.set_column(place, "tab", told)
    new = table.set_column(place, "tab", pa.array([7] * table.num_rows, pa.int16()))
    new = new.set_column(0, "user", pa.array(new.column("user").to_numpy() + 75))
    data = small_parts.data_config(split={"by": by, "fractions": (0.6, 0.2, 0.2)})
    asked = {
        "data": data.model_dump(mode="json", exclude={"table"}),
        "model": {"backbone": {"name": "mlp", "widths": [8]}, "calibration": "per_domain"},
        "train": {"epochs": 1, "batch_rows": 64},
    }
    run = isthmus.fit(asked, old, out=tmp_path / "run")
    found = extend(run, new, domain="7", out=tmp_path / "run2")
    after = found.run.bundle
    assert after.domains[-1] == "7"
    probe = new.set_column(place, "tab", pa.array([1, None, 2, 3, 9, 3] * 150, pa.int16()))
    assert bits(run.bundle.logits(probe)) == bits(after.logits(probe))
    parts = {split: set(found.run.scored(split).row) for split in ("validation", "test")}
    assert not parts["validation"] & parts["test"]
    if by == "time":
        assert min(parts["test"]) > max(parts["validation"])
    assert {one.weight is not None for one in map(found.run.scored, parts)} == {True}


@given(
    st.lists(st.integers(1, 30), min_size=3, max_size=3),
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 2)), max_size=40),
    st.lists(st.integers(0, 4), max_size=10),
)
def test_ids_are_hidden_as_the_rule_says(
    limits: list[int], rows: list[tuple[int, int]], lengths: list[int]
):
    """The slow formula: an id is seen where it is below the number that the row's domain sees."""
    seen = np.array(limits, dtype=np.int32)
    growth = Growth(2, {"user": 30}, np.arange(3, dtype=np.int32), 2, {"user": seen})
    fields = (
        FittedField("user", "categorical", 4, table="user", table_rows=30),
        FittedField("past", "categorical_list", 4, table="user", table_rows=30),
    )
    ids = np.array([id for id, _ in rows], dtype=np.int32).reshape(-1, 1)
    domain = np.array([of for _, of in rows], dtype=np.int32)
    lengths = (lengths + [0] * len(rows))[: len(rows)]
    values = np.arange(sum(lengths), dtype=np.int32) % 30
    owner = np.repeat(domain, lengths)
    expected = [id if id < limits[of] else 0 for id, of in rows]
    in_lists = [id if id < limits[of] else 0 for id, of in zip(values, owner, strict=True)]
    growth.hide(fields, ids, [(values, offsets_of(np.array(lengths, dtype=np.int64)))], domain)
    assert ids[:, 0].tolist() == expected
    assert values.tolist() == in_lists
