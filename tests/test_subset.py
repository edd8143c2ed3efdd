"""A part of a dataset: the rows that were chosen, and nothing that they could not teach."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data import Dataset, Rows, Subset
from isthmus.data.batch import DomainPlaces
from isthmus.data.store import subset
from isthmus.data.store.rows import stopping_half
from isthmus.schema import DataConfig
from small_parts import NAMES, make_dataset, plain


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("cache"))


# ---------------------------------------------------------------- the slow version


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
    assert DomainPlaces.of(dataset.encoder.fields) == DomainPlaces((2,))
    for rows in (part.rows("train"), part.rows("validation"), part.scored("test", None)):
        assert not rows.arrays.categorical[:, 2].any()
        assert rows.domain.min() > 0
    shown = dataset.rows("train").arrays.categorical
    assert shown[:, 2].all(), "the dataset itself must stay as it is"
    assert np.array_equal(part.rows("train").arrays.categorical[:, :2], shown[:, :2])
    both = Subset(dataset, domains=["a"], hide_domain=True)
    assert [row[3] for row in words(dataset, both.rows("train"))] == ["-"] * 4
    assert [row[1] for row in words(dataset, both.rows("train"))] == ["x", "z", "x", "-"]
