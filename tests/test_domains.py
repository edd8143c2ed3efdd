"""``data.domains``: the other rows of a table might as well not be there, but for their numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import isthmus
from isthmus.data import SPLITS, Dataset
from isthmus.data.store import cache as caching
from isthmus.data.store import split as splits
from isthmus.data.store.dataset import dataset_key
from isthmus.errors import SchemaError
from isthmus.schema import DataConfig
from small_datasets import ROWS, clicks, config, stored
from small_runs import clicks as small_clicks
from small_runs import settings as small_settings

CHOSEN = ("home", "search")
BY = ["random", "time", "user"]


def of_domains(table: pa.Table, names: tuple[str, ...] = CHOSEN) -> np.ndarray:
    return np.flatnonzero([name in names for name in table["tab"].to_pylist()])


def put(table: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    values: list[Any] = table[name].to_pylist()
    values[row] = value
    dtype = table.schema.field(name).type
    return table.set_column(table.column_names.index(name), name, pa.array(values, dtype))


@pytest.fixture
def table() -> pa.Table:
    return clicks()


# ---------------------------------------------------------------- what is kept


@pytest.mark.parametrize("by", ["time", "user"])
def test_the_chosen_rows_alone_give_the_same_dataset(by: str, table: pa.Table) -> None:
    """Split, vocabularies, scalers and domains: the other rows leave no trace."""
    rows = of_domains(table)
    found = Dataset.from_table(config(split={"by": by}, domains=CHOSEN), table)
    alone = Dataset.from_table(config(split={"by": by}), table.take(pa.array(rows)))
    assert found.domain_names == alone.domain_names == CHOSEN
    assert found.summary() == alone.summary()
    assert found.encoder.fields == alone.encoder.fields
    assert found.encoder.scalers == alone.encoder.scalers
    for name, vocabulary in alone.encoder.vocabularies.items():
        assert found.encoder.vocabularies[name].values.equals(vocabulary.values)
    got, want = stored(found), stored(alone)
    for split in SPLITS:
        assert got.pop(f"{split}.row") == rows[want.pop(f"{split}.row")].tolist()
    assert got == want


@pytest.mark.parametrize("by", ["random", "user"])
def test_a_row_keeps_its_number_and_its_split(by: str, table: pa.Table) -> None:
    whole = Dataset.from_table(config(split={"by": by}), table)
    found = Dataset.from_table(config(split={"by": by}, domains=CHOSEN), table)
    chosen = set(of_domains(table).tolist())
    for split in SPLITS:
        want = [row for row in whole.rows(split).row.tolist() if row in chosen]
        assert found.rows(split).row.tolist() == want
        labels = table["click"].to_numpy()[want]
        assert found.rows(split).label.tolist() == labels.tolist()


def test_vocabularies_know_the_chosen_train_rows_only(table: pa.Table) -> None:
    found = Dataset.from_table(config(domains=["search"]), table)
    train = table.take(pa.array(found.rows("train").row))
    assert set(train["tab"].to_pylist()) == {"search"}
    counts = train["user"].value_counts().to_pylist()
    twice = [entry["values"] for entry in counts if entry["counts"] >= 2]
    assert sorted(found.encoder.vocabularies["user"].values.to_pylist()) == sorted(twice)
    assert found.encoder.domains == ("search",)
    assert found.encoder.vocabularies["tab"].values.to_pylist() == ["search"]


@pytest.mark.parametrize("by", BY)
def test_any_block_size_and_any_files_give_the_same_rows(
    by: str, table: pa.Table, tmp_path: Path
) -> None:
    # In order of domain, so that whole blocks and whole files hold none of the chosen rows.
    table = table.sort_by("tab")
    given = config(split={"by": by}, domains=["search"])
    want = stored(Dataset.from_table(given, table))
    (tmp_path / "parts").mkdir()
    for i, start in enumerate(range(0, ROWS, 300)):
        pq.write_table(table.slice(start, 300), tmp_path / "parts" / f"{i}.parquet")
    assert stored(Dataset.from_table(given, tmp_path / "parts")) == want
    for block_rows in (64, 999):
        cache = tmp_path / str(block_rows)
        small = Dataset.from_table(given, table, cache=cache, block_rows=block_rows)
        assert stored(small) == want


def test_progress_counts_every_row_that_is_read(table: pa.Table) -> None:
    told: list[tuple[str, int, int]] = []
    Dataset.from_table(
        config(split={"by": "time"}, domains=["home"]),
        table,
        block_rows=900,
        progress=lambda *parts: told.append(parts),
    )
    ends = [900, 1800, ROWS]
    assert told == [(stage, end, ROWS) for stage in ("time", "fit", "encode") for end in ends]


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize(
    ("column", "value"), [("click", 3), ("click", None), ("w", -1.0), ("at", None), ("tab", None)]
)
def test_a_row_left_out_may_hold_anything(
    by: str, column: str, value: Any, table: pa.Table
) -> None:
    at = int(np.flatnonzero(pc.call_function("equal", [table["tab"], "feed"]).to_numpy())[7])
    given = config(split={"by": by}, domains=CHOSEN)
    want = stored(Dataset.from_table(given, table))
    assert stored(Dataset.from_table(given, put(table, column, at, value))) == want


@pytest.mark.parametrize(
    ("by", "column", "value"),
    [("time", "at", None), ("user", "user", None), ("random", "click", 3), ("random", "w", -1.0),
     ("random", "price", float("inf"))],
)  # fmt: skip
def test_a_fault_names_the_row_of_the_file(
    by: str, column: str, value: Any, table: pa.Table, tmp_path: Path
) -> None:
    at = int(of_domains(table)[200])
    broken = put(table, column, at, value)
    (tmp_path / "parts").mkdir()
    pq.write_table(broken.slice(0, 400), tmp_path / "parts" / "0.parquet")
    pq.write_table(broken.slice(400), tmp_path / "parts" / "1.parquet")
    assert at > 400
    with pytest.raises(SchemaError, match=rf"{column!r} .* in 1\.parquet, row {at - 400}$"):
        Dataset.from_table(
            config(split={"by": by}, domains=CHOSEN), tmp_path / "parts", block_rows=150
        )


def test_numbered_domains_are_named_by_their_numbers(table: pa.Table) -> None:
    numbers = pa.array([{"feed": 3, "home": 10, "search": 2}[x] for x in table["tab"].to_pylist()])
    table = table.set_column(table.column_names.index("tab"), "tab", numbers)
    found = Dataset.from_table(config(domains=[10, 2]), table)
    assert found.domain_names == ("2", "10")
    assert found.config.domains == ("10", "2")


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("by", BY)
def test_a_domain_that_does_not_occur_is_refused_with_the_nearest(by: str, table: pa.Table) -> None:
    with pytest.raises(SchemaError) as fault:
        Dataset.from_table(config(split={"by": by}, domains=["home", "serch"]), table)
    text = "data.domains must name domains of the table, got 'serch' in the frame"
    assert str(fault.value) == f"{text}; the nearest is 'search'"
    with pytest.raises(
        SchemaError, match="got 'zzz' in the frame; it has 'feed', 'home', 'search'"
    ):
        Dataset.from_table(config(split={"by": by}, domains=["zzz"]), table)
    assert caching.entries() == []


def test_a_dictionary_may_name_a_domain_that_no_row_has(table: pa.Table) -> None:
    """A frame cut out of a larger one still carries all names."""
    kept = table.filter(pc.call_function("not_equal", [table["tab"], "home"]))
    names = pa.array(["home", "feed", "search"])
    codes = pa.array([names.to_pylist().index(x) for x in kept["tab"].to_pylist()], pa.int8())
    coded = pa.DictionaryArray.from_arrays(codes, names)
    kept = kept.set_column(kept.column_names.index("tab"), "tab", coded)
    with pytest.raises(SchemaError, match="got 'home' in the frame; it has 'feed', 'search'"):
        Dataset.from_table(config(domains=["home", "feed"]), kept)
    assert Dataset.from_table(config(domains=["feed"]), kept).domain_names == ("feed",)


def test_too_few_rows_of_the_chosen_domains_say_how_many(table: pa.Table) -> None:
    rows = np.append(np.flatnonzero([x == "feed" for x in table["tab"].to_pylist()]), of_domains(table)[:1])  # fmt: skip
    name = table["tab"][int(rows[-1])].as_py()
    with pytest.raises(SchemaError, match=r"1 rows in data\.domains of the frame\)"):
        Dataset.from_table(config(domains=[name]), table.take(pa.array(rows)))


@pytest.mark.parametrize(
    ("domains", "fault"),
    [
        ([], "at least 1 item"),
        (["a", "b", "a"], r"data\.domains must name each domain once, got 'a' twice"),
        ([1, "1"], "got '1' twice"),
        ("home", "valid tuple"),
        ([None], "valid string"),
    ],
)
def test_a_list_that_is_none_is_refused(domains: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        config(domains=domains)


# ---------------------------------------------------------------- the key in the cache


def test_what_is_set_is_in_the_key() -> None:
    configs = [
        config(),
        config(domains=["home"]),
        config(domains=["home", "feed"]),
        config(split={"rotation": 0.2}),
        config(split={"rotation": 0.4}),
    ]
    assert len({dataset_key(given, ()) for given in configs}) == len(configs)
    for given in configs:
        assert DataConfig.model_validate(given.content()) == given
    assert dataset_key(config(domains=None, split={"rotation": 0}), ()) == dataset_key(config(), ())


def test_rotations_of_a_dataset_test_every_row_once(table: pa.Table) -> None:
    tested = []
    for fold in range(4):
        split = {"fractions": [0.65, 0.1, 0.25], "rotation": fold / 4, "by": "random"}
        dataset = Dataset.from_table(config(split=split, domains=CHOSEN), table)
        tested += dataset.rows("test").row.tolist()
        hashed = splits.by_hash(dataset.rows("test").row, dataset.config.split)
        assert (hashed == 2).all()
    assert sorted(tested) == of_domains(table).tolist()


# ---------------------------------------------------------------- after training


def test_rows_of_other_domains_are_scored_as_unknown(tmp_path: Path) -> None:
    raw = small_settings(epochs=1)
    raw["data"]["domains"] = ["home", "search"]
    table = small_clicks()
    run = isthmus.fit(raw, table=table, out=tmp_path / "run")
    assert set(run.evaluate().domains) == {"home", "search"}
    bundle = isthmus.Bundle.load(run.path / "bundle")
    assert bundle.domains == ("home", "search")
    mail = table.filter(pc.call_function("equal", [table["tab"], "mail"]))
    stranger = mail.set_column(
        mail.column_names.index("tab"), "tab", pa.array(["nowhere"] * mail.num_rows)
    )
    np.testing.assert_array_equal(bundle.score(mail), bundle.score(stranger))
    with pytest.warns(UserWarning, match="never trained: 'mail'"):
        outside = run.evaluate(data=table)
    assert set(outside.domains) == {"home", "search", "mail"}
