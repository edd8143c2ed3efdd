"""A part of a dataset: the rows that were chosen, and nothing that they could not teach."""

import errno
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data import Dataset, Rows, Subset, subset
from isthmus.data.subset import Known, domain_columns, hide, stopping_half
from isthmus.errors import IsthmusError
from isthmus.schema import DataConfig

ROWS = 900
NAMES = ["feed", "home", "search", "late"]  # late has test rows only


def make_table() -> pa.Table:
    rng = np.random.default_rng(3)
    tab = rng.choice(["feed", "home", "search"], ROWS, p=[0.6, 0.3, 0.1]).astype(object)
    tab[-40:] = rng.choice(["feed", "late"], 40)
    history = [[f"i{x}" for x in rng.integers(0, 60, n)] for n in rng.integers(0, 4, ROWS)]
    prices = [rng.normal(size=n).tolist() for n in rng.integers(0, 3, ROWS)]
    return pa.table(
        {
            "user": rng.integers(0, 150, ROWS),
            "item": [f"i{x}" for x in rng.integers(0, 60, ROWS)],
            "city": rng.integers(0, 200, ROWS),
            "history": history,
            "prices": prices,
            "age": rng.normal(size=ROWS),
            "tab": tab.tolist(),
            "click": rng.integers(0, 2, ROWS),
            "w": rng.random(ROWS) + 0.5,
            "who": [f"who {x}" for x in rng.integers(0, 120, ROWS)],
            "at": np.arange(ROWS),
        }
    )


def data_config(**changes: Any) -> DataConfig:
    content = {
        "domain": "tab",
        "label": "click",
        "weight": "w",
        "group": "who",
        "time": "at",
        "features": {
            "user": "categorical",
            "item": {"kind": "categorical", "min_count": 3},
            "city": {"kind": "categorical", "hash_buckets": 40},
            "history": {"kind": "categorical_list", "shares": "item"},
            "prices": "numeric_list",
            "age": "numeric",
            "tab": "categorical",
        },
        "split": {"by": "time", "fractions": (0.6, 0.3, 0.1)},
    }
    return DataConfig.model_validate(content | changes)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    made = Dataset.from_table(data_config(), make_table(), cache=tmp_path_factory.mktemp("cache"))
    assert made.domain_names == tuple(NAMES)
    assert made.n_domains == 3
    return made


# ---------------------------------------------------------------- the slow version


def plain(rows: Rows) -> list[dict[str, Any]]:
    """Every row as plain values; ``seen``: the domain that the model is shown."""
    arrays, found = rows.arrays, []
    for at in range(len(rows)):
        found.append(
            {
                "ids": arrays.categorical[at].tolist(),
                "numbers": arrays.numeric[at].tolist(),
                "lists": [
                    values[offsets[at] : offsets[at + 1]].tolist()
                    for values, offsets in arrays.lists
                ],
                "seen": int(arrays.domain[at]),
                "domain": int(rows.domain[at]),
                "label": float(rows.label[at]),
                "weight": None if rows.weight is None else float(rows.weight[at]),
                "group": None if rows.group is None else int(rows.group[at]),
                "row": int(rows.row[at]),
            }
        )
    return found


COLUMNS = ["user", "item", "city", "tab"]  # the table of each column of ids
LISTS = ["item", None]
LEAST = {"user": 2, "item": 3, "city": 2, "tab": 2}


def counted(train: list[dict[str, Any]]) -> dict[str, Counter[int]]:
    """How often the rows hold each id, by table."""
    counts: dict[str, Counter[int]] = {table: Counter() for table in COLUMNS}
    for row in train:
        for table, number in zip(COLUMNS, row["ids"], strict=True):
            counts[table][number] += 1
        for table, items in zip(LISTS, row["lists"], strict=True):
            for item in items if table else ():
                counts[table][item] += 1  # type: ignore[index]
    return counts


def blinded(row: dict[str, Any], train: list[dict[str, Any]] | None) -> dict[str, Any]:
    """A row as a model of the ``train`` rows is to see it; None: it knows everything."""
    if train is None:
        return row
    counts = counted(train)

    def seen(table: str | None, number: float) -> float:
        return number if table is None or counts[table][int(number)] >= LEAST[table] else 0

    return row | {
        "ids": [seen(table, number) for table, number in zip(COLUMNS, row["ids"], strict=True)],
        "lists": [
            [seen(table, item) for item in items]
            for table, items in zip(LISTS, row["lists"], strict=True)
        ],
        "seen": row["domain"] if row["domain"] in {one["domain"] for one in train} else 0,
    }


some = st.none() | st.lists(st.sampled_from(NAMES[:3]), min_size=1, max_size=3)


@settings(max_examples=25, deadline=None)
@given(
    domains=some,
    watch=some,
    scored=st.none() | st.lists(st.sampled_from(NAMES), min_size=1, max_size=4),
    cap=st.none() | st.sampled_from([1, 3, 20, 100, 1000]),
    hide_domain=st.booleans(),
    half=st.booleans(),
    all_known=st.booleans(),
    chunk=st.sampled_from([1, 7, 1 << 20]),
)
def test_rows_are_those_of_a_slow_selection(
    dataset: Dataset, domains, watch, scored, cap, hide_domain, half, all_known, chunk
):
    part = Subset(
        dataset,
        domains=domains,
        watch=watch,
        rows_per_domain=cap,
        hide_domain=hide_domain,
        half=half,
        all_known=all_known,
    )
    every = {split: plain(dataset.rows(split)) for split in ("train", "validation", "test")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subset, "CHUNK", chunk)
        train, watched = part.rows("train"), part.rows("validation")
        tested = part.scored("test", scored)

    number = {name: place for place, name in enumerate(NAMES, start=1)}
    wanted = {number[name] for name in (NAMES if domains is None else domains)}
    candidates = [row for row in every["train"] if row["domain"] in wanted]
    if cap is not None:  # which of them: see the test of the caps
        kept = set(train.row.tolist())
        drawn = [row for row in candidates if row["row"] in kept]
        sizes = Counter(row["domain"] for row in candidates)
        assert Counter(row["domain"] for row in drawn) == {
            domain: min(cap, size) for domain, size in sizes.items()
        }
        candidates = drawn
    taught = None if all_known or (domains is None and cap is None) else candidates

    def expected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows = [blinded(row, taught) for row in rows]
        if hide_domain:
            return [row | {"ids": [*row["ids"][:3], 0]} for row in rows]
        return rows

    assert plain(train) == expected(candidates)
    watching = wanted if watch is None else {number[name] for name in watch}
    rows = [row for row in every["validation"] if row["domain"] in watching]
    if half:
        stops = stopping_half(dataset.rows("validation"))
        stopping = {
            row["row"] for row, stop in zip(every["validation"], stops, strict=True) if stop
        }
        rows = [row for row in rows if row["row"] in stopping]
    assert plain(watched) == expected(rows)
    places = {number[name] for name in (NAMES if scored is None else scored)}
    assert plain(tested) == expected([row for row in every["test"] if row["domain"] in places])


# ---------------------------------------------------------------- by hand


def small(**changes: Any) -> Dataset:
    """Twelve train rows, then two to validate and four to test; ``c`` comes in the test rows."""
    rows = [  # tab, user, item, history
        ("a", 1, "x", ["y"]),
        ("a", 1, "z", []),
        ("a", 2, "x", ["z", "v"]),
        ("a", 3, "q", ["v"]),
        ("b", 2, "x", ["q"]),
        ("b", 2, "q", []),
        ("b", 3, "q", ["y"]),
        ("b", 4, "w", ["w"]),
        ("b", 5, "v", ["y"]),
        ("b", 5, "y", ["v"]),
        ("b", 6, "z", []),
        ("b", 6, "z", []),
        ("a", 1, "x", ["q", "x", "v"]),
        ("b", 2, "q", ["x"]),
        ("a", 2, "z", []),
        ("b", 1, "y", ["z"]),
        ("c", 4, "w", ["z", "y"]),
        ("c", 1, "v", []),
    ]
    table = pa.table(
        {
            "tab": [row[0] for row in rows],
            "user": [row[1] for row in rows],
            "item": [row[2] for row in rows],
            "history": [row[3] for row in rows],
            "label": [0, 1] * 9,
            "at": range(18),
        }
    )
    config = {
        "domain": "tab",
        "label": "label",
        "time": "at",
        "features": {
            "user": "categorical",
            "item": "categorical",
            "history": {"kind": "categorical_list", "shares": "item"},
            "tab": "categorical",
        },
        "split": {"by": "time", "fractions": (12 / 18, 2 / 18, 4 / 18)},
    }
    return Dataset.from_table(DataConfig.model_validate(config | changes), table)


def words(dataset: Dataset, rows: Rows) -> list[tuple[Any, ...]]:
    """Rows as the values that stand behind the ids; - for the unknown."""
    values = {
        name: ["-", *vocabulary.values.to_pylist()]
        for name, vocabulary in dataset.encoder.vocabularies.items()
    }
    return [
        (
            values["user"][row["ids"][0]],
            values["item"][row["ids"][1]],
            [values["item"][item] for item in row["lists"][0]],
            values["tab"][row["ids"][2]],
            row["seen"],
            row["domain"],
        )
        for row in plain(rows)
    ]


def test_what_a_part_has_seen_once_or_never_is_unknown_in_every_split():
    dataset = small()
    assert dataset.domain_names == ("a", "b", "c")
    part = Subset(dataset, domains=["a"])
    # a's train rows: user 1 twice, 2 and 3 once; x, z and v twice (v and one z in lists), y, q once.
    assert words(dataset, part.rows("train")) == [
        (1, "x", ["-"], "a", 1, 1),
        (1, "z", [], "a", 1, 1),
        ("-", "x", ["z", "v"], "a", 1, 1),
        ("-", "-", ["v"], "a", 1, 1),
    ]
    assert words(dataset, part.rows("validation")) == [(1, "x", ["-", "x", "v"], "a", 1, 1)]
    assert words(dataset, part.scored("test", None)) == [
        ("-", "z", [], "a", 1, 1),
        (1, "-", ["z"], "-", 0, 2),  # b is another domain: unknown to a's model, b in the report
        ("-", "-", ["z", "-"], "-", 0, 3),
        (1, "v", [], "-", 0, 3),
    ]
    batch = next(part.scored("test", None).batches(10))
    assert batch.domain.tolist() == [1, 0, 0, 0]


def test_nothing_is_hidden_from_all_rows_and_nothing_is_copied():
    dataset = small()
    whole = Subset(dataset)
    assert whole.known is None
    for split in ("train", "validation"):
        assert whole.rows(split) is dataset.rows(split)
    assert whole.scored("test", None) is dataset.rows("test")
    # A value of one train row keeps its id there: user 1 of a is user 1, and w of b is w.
    assert words(dataset, dataset.rows("train"))[7] == (4, "w", ["w"], "b", 2, 2)
    # The domain without train rows is none of the model's, whatever is hidden.
    assert next(whole.scored("test", ["c"]).batches(10)).domain.tolist() == [0, 0]
    assert whole.scored("test", ["c"]).domain.tolist() == [3, 3]


def test_a_model_that_has_seen_all_rows_goes_on_knowing_them():
    dataset = small()
    part = Subset(dataset, domains=["a"], all_known=True)
    assert part.known is None
    assert words(dataset, part.rows("train")) == words(dataset, dataset.rows("train"))[:4]
    assert words(dataset, part.scored("test", ["b"])) == [(1, "y", ["z"], "b", 2, 2)]


def test_the_floor_of_a_column_counts_in_a_part_too():
    features = {
        "user": {"kind": "categorical", "min_count": 2},
        "item": {"kind": "categorical", "min_count": 3},
        "history": {"kind": "categorical_list", "shares": "item"},
        "tab": "categorical",
    }
    dataset = small(features=features)
    part = Subset(dataset, domains=["a"])
    assert [row[:3] for row in words(dataset, part.rows("train"))] == [
        (1, "-", ["-"]),
        (1, "-", []),
        ("-", "-", ["-", "-"]),
        ("-", "-", ["-"]),
    ]


def test_the_hidden_domain_is_no_input_but_stays_in_the_report():
    dataset = small()
    part = Subset(dataset, hide_domain=True)
    assert domain_columns(dataset.encoder.fields) == (2,)
    for rows in (part.rows("train"), part.rows("validation"), part.scored("test", None)):
        assert not rows.arrays.categorical[:, 2].any()
        assert rows.domain.min() > 0
    shown = dataset.rows("train").arrays.categorical
    assert shown[:, 2].all(), "the dataset itself must stay as it is"
    assert np.array_equal(part.rows("train").arrays.categorical[:, :2], shown[:, :2])
    both = Subset(dataset, domains=["a"], hide_domain=True)
    assert [row[3] for row in words(dataset, both.rows("train"))] == ["-"] * 4
    assert [row[1] for row in words(dataset, both.rows("train"))] == ["x", "z", "x", "-"]


# ---------------------------------------------------------------- caps, halves, hiding, memory


def test_fewer_rows_of_each_domain_are_among_the_more(dataset: Dataset):
    counts = Counter(dataset.rows("train").domain.tolist())
    drawn = {
        cap: Subset(dataset, rows_per_domain=cap).rows("train") for cap in (1, 5, 30, 200, 10**6)
    }
    for cap, rows in drawn.items():
        again = Subset(dataset, rows_per_domain=cap).rows("train")
        assert again.row.tolist() == rows.row.tolist()
        assert sorted(rows.row.tolist()) == rows.row.tolist(), "in table order"
        found = Counter(rows.domain.tolist())
        assert found == {domain: min(cap, rows) for domain, rows in counts.items()}
    for fewer, more in pairwise(drawn.values()):
        assert set(fewer.row.tolist()) < set(more.row.tolist())
    # A domain's draw does not depend on which others are there.
    alone = Subset(dataset, domains=["feed"], rows_per_domain=30).rows("train")
    assert alone.row.tolist() == drawn[30].row[drawn[30].domain == 1].tolist()
    # It is spread over the table, not taken from one end.
    assert (
        np.abs(np.quantile(drawn[30].row / (0.6 * ROWS), [0.25, 0.75]) - [0.25, 0.75]).max() < 0.2
    )
    # The draw is for ever: outcomes are kept under the number alone.
    assert drawn[1].row.tolist() == [433, 500, 525]


def rows_of(group: np.ndarray | None, count: int, first: int = 0) -> Rows:
    arrays = subset.Arrays(
        categorical=np.zeros((count, 0), dtype=np.int32),
        numeric=np.zeros((count, 0), dtype=np.float32),
        lists=(),
        domain=np.ones(count, dtype=np.int32),
        label=np.zeros(count, dtype=np.float32),
        weight=None,
    )
    return Rows(arrays, row=np.arange(first, first + count), group=group, n_domains=1)


def test_groups_stay_whole_whatever_their_sign(dataset: Dataset):
    rows = dataset.rows("validation")
    assert rows.group is not None
    assert (rows.group < 0).sum() > 50, "texts hash to numbers of both signs"
    stop = stopping_half(rows)
    for group in np.unique(rows.group):
        assert len(set(stop[rows.group == group].tolist())) == 1


@pytest.mark.parametrize("first", [0, 10**12])
def test_about_half_of_the_groups_or_rows_stop(first: int):
    count = 20_000
    deviation = 4 * np.sqrt(count) / 2
    groups = np.repeat(np.arange(-count // 2, count // 2), 3)
    stop = stopping_half(rows_of(groups, 3 * count))[::3]
    assert abs(stop.sum() - count / 2) < deviation
    stop = stopping_half(rows_of(None, count, first))
    assert abs(stop.sum() - count / 2) < deviation
    # Neighbours are not of one mind.
    assert abs((stop[1:] == stop[:-1]).sum() - count / 2) < deviation


@pytest.mark.parametrize("seed", [0, 1, subset.HALF_SEED, subset.HALF_SEED + 1])
def test_halves_know_nothing_of_the_split(seed: int):
    """Validation rows are those whose hash lies in a tenth of the circle."""
    keys = np.arange(40_000)
    hashed = subset.v.mix(keys, seed=seed) / 2.0**64
    chosen = keys[(hashed > 0.8) & (hashed < 0.9)]
    stop = stopping_half(rows_of(chosen, len(chosen)))
    assert abs(stop.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(chosen))


def test_the_watched_half_is_the_stopping_one(dataset: Dataset):
    rows = dataset.rows("validation")
    part = Subset(dataset, half=True)
    assert part.known is None
    assert part.rows("validation").row.tolist() == rows.row[stopping_half(rows)].tolist()
    assert part.rows("train") is dataset.rows("train")
    assert len(part.scored("validation", None)) == len(rows), "both halves are scored"


@pytest.mark.parametrize("domains", [["feed"], ["search"], ["home", "search"]])
def test_hiding_from_a_batch_gives_the_rows_of_the_part(dataset: Dataset, domains: list[str]):
    part = Subset(dataset, domains=domains)
    known = part.known
    assert isinstance(known, Known)
    batch = next(dataset.rows("test").batches(ROWS))
    before = batch.categorical.clone(), batch.domain.clone(), batch.lists[0].values.clone()
    hidden, wanted = hide(batch, known), next(part.scored("test", None).batches(ROWS))
    for name in ("categorical", "numeric", "domain", "label", "weight"):
        one, other = getattr(hidden, name), getattr(wanted, name)
        assert one.dtype == other.dtype, name
        assert torch.equal(one, other), name
    for one, other in zip(hidden.lists, wanted.lists, strict=True):
        assert one.values.dtype == other.values.dtype
        assert torch.equal(one.values, other.values)
        assert torch.equal(one.offsets, other.offsets)
    assert not torch.equal(hidden.categorical, before[0]), "something must be hidden here"
    assert torch.equal(batch.categorical, before[0]), "the batch itself must stay as it is"
    assert torch.equal(batch.domain, before[1])
    assert torch.equal(batch.lists[0].values, before[2])
    unlabelled = replace(batch, domain=torch.zeros_like(batch.domain), weight=None)
    assert not hide(unlabelled, known).domain.any()


@pytest.mark.parametrize("chunk", [50, 1 << 20])
def test_rows_in_a_file_equal_rows_in_memory(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chunk: int
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    wanted = Subset(dataset, domains=["feed", "home"], rows_per_domain=150)
    mapped = Subset(dataset, domains=["feed", "home"], rows_per_domain=150)
    expected = [plain(wanted.rows("train")), plain(wanted.scored("test", None))]
    batches = [batch.categorical.tolist() for batch in wanted.rows("train").batches(40, seed=1)]
    monkeypatch.setattr(subset, "MAPPED_BYTES", 0)
    monkeypatch.setattr(subset, "CHUNK", chunk)
    rows = mapped.rows("train")
    assert isinstance(rows.arrays.categorical, np.memmap)
    assert isinstance(rows.arrays.lists[0][0], np.memmap)
    assert [plain(rows), plain(mapped.scored("test", None))] == expected
    assert [batch.categorical.tolist() for batch in rows.batches(40, seed=1)] == batches
    assert len(mapped.scored("test", ["search"])) == len(wanted.scored("test", ["search"]))
    assert list(tmp_path.iterdir()) == [], "the file has no name"


def test_a_full_disk_is_an_error_that_names_it(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    class Full:
        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, _: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("tempfile.TemporaryFile", Full)
    monkeypatch.setattr(subset, "MAPPED_BYTES", 0)
    rule = f"{tmp_path} must have room for a copy of chosen rows, .* bytes, got: .*No space left"
    with pytest.raises(IsthmusError, match=rule):
        Subset(dataset, domains=["feed"]).rows("train")


def test_names_and_numbers_that_do_not_fit_are_refused(dataset: Dataset):
    with pytest.raises(ValueError, match=r"among those of the dataset, feed, .*, got \['shop'\]"):
        Subset(dataset, domains=["feed", "shop"])
    with pytest.raises(ValueError, match=r"got \['shop'\]"):
        Subset(dataset, watch=["shop"])
    with pytest.raises(ValueError, match=r"got \['shop'\]"):
        Subset(dataset).scored("test", ["shop"])
    with pytest.raises(ValueError, match="domains must name at least one domain, got none"):
        Subset(dataset, domains=[])
    with pytest.raises(ValueError, match="watch must name at least one domain, got none"):
        Subset(dataset, watch=[])
    for cap in (0, -3):
        with pytest.raises(ValueError, match=f"rows_per_domain must be at least 1, got {cap}"):
            Subset(dataset, rows_per_domain=cap)
    with pytest.raises(ValueError, match="split must be train or validation, got 'test'"):
        Subset(dataset).rows("test")


def test_a_name_given_twice_counts_once(dataset: Dataset):
    twice, once = Subset(dataset, domains=["home", "home"]), Subset(dataset, domains=["home"])
    assert twice.rows("train").row.tolist() == once.rows("train").row.tolist()
