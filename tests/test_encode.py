"""The encoder: vocabularies and scalers from train rows, the same numbers at fit and at serve."""

import collections
import datetime as dt
import decimal
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data import Encoder, Vocabulary
from isthmus.data import values as v
from isthmus.data import vocabulary as vocabularies
from isthmus.data.columns import Source
from isthmus.data.encode import EncodedRows
from isthmus.data.roles import check_types, value_kinds
from isthmus.data.scaler import ScalerFit
from isthmus.data.vocabulary import Counter
from isthmus.errors import BundleError, SchemaError
from isthmus.schema import DataConfig

FILE = "part-3.parquet"


def count(array: pa.Array, min_count: int = 1) -> Vocabulary:
    counter = Counter(v.kind(array.type))
    counter.add(array)
    return counter.vocabulary(min_count)


# ---------------------------------------------------------------- vocabularies


def test_ids_run_from_the_most_frequent_value_with_ties_by_value() -> None:
    vocabulary = count(pa.array(["b", "c", "a", "c", None, "b", "c"]))
    assert vocabulary.values.to_pylist() == ["c", "b", "a"]
    assert vocabulary.rows == 4
    assert vocabulary.ids(pa.array(["a", "b", "c", None, "d", ""])).tolist() == [3, 2, 1, 0, 0, 0]


def test_rare_values_fold_into_the_unknown() -> None:
    vocabulary = count(pa.array([5, 5, 5, 7, 7, 9]), min_count=2)
    assert vocabulary.ids(pa.array([5, 7, 9, 11])).tolist() == [1, 2, 0, 0]


DTYPES = {
    "ints": (pa.int64(), st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5)),
    "unsigned": (pa.uint64(), st.integers(0, 2**64 - 1) | st.integers(0, 5)),
    "floats": (pa.float64(), st.floats(allow_nan=False) | st.sampled_from([0.5, -0.0, 1e300])),
    "bools": (pa.bool_(), st.booleans()),
    "text": (pa.string(), st.text(max_size=20) | st.sampled_from(["a", "b", "é", "a\0"])),
    "dates": (pa.date32(), st.dates()),
    "times": (
        pa.timestamp("us"),
        st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)),
    ),
    "decimals": (
        pa.decimal128(8, 2),
        st.integers(-999, 999).map(lambda i: decimal.Decimal(i) / 100),
    ),
}


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("dictionary", [False, True])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_counts_and_ids_equal_the_slow_way(
    name: str, dictionary: bool, data: st.DataObject
) -> None:
    dtype, values = DTYPES[name]
    seen = data.draw(st.lists(st.none() | values, max_size=120))
    asked = data.draw(st.lists(st.none() | values, max_size=20)) + seen[:100]
    blocks = data.draw(st.integers(1, 50))
    min_count = data.draw(st.integers(1, 3))

    def array(values: list) -> pa.Array:
        made = pa.array(values, dtype)
        return made.dictionary_encode() if dictionary else made

    counter = Counter(v.kind(dtype))
    for start in range(0, len(seen), blocks):
        counter.add(array(seen[start : start + blocks]))
    vocabulary = counter.vocabulary(min_count)
    slow = collections.Counter(x for x in seen if x is not None)
    kept = {x for x, n in slow.items() if n >= min_count}
    ids = vocabulary.ids(array(asked))
    assert len(vocabulary.values) == len(kept)
    assert [i > 0 for i in ids] == [x in kept for x in asked]
    by_value = {x: i for x, i in zip(asked, ids, strict=True) if x in kept}
    assert all(by_value[x] == i for x, i in zip(asked, ids, strict=True) if x in kept)
    assert len(set(by_value.values())) == len(by_value)
    ranked = sorted(by_value, key=lambda x: by_value[x])
    assert all(slow[a] >= slow[b] for a, b in pairwise(ranked))


@pytest.mark.parametrize("spread", [1, 10**6, 2**40])
def test_counting_in_blocks_and_merges_equals_counting_at_once(
    spread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabularies, "DENSE_RANGE", 1 << 16)
    monkeypatch.setattr(vocabularies, "PENDING", 100)
    keys = np.random.default_rng(0).zipf(1.3, 5000) % 700 * spread - 300 * spread
    text = pc.cast(pa.array(keys), pa.string())
    train = np.random.default_rng(1).random(5000) < 0.7
    for array in (
        pa.array(keys),
        pa.array(keys).dictionary_encode(),
        text,
        text.dictionary_encode(),
    ):
        counter = Counter(v.kind(array.type))
        for start in range(0, 5000, 37):
            counter.add(array.slice(start, 37), np.flatnonzero(train[start : start + 37]))
        found = dict(counter.counts().rows())
        assert found == dict(collections.Counter(np.array(array.to_pylist())[train].tolist()))


@pytest.mark.parametrize("spread", [1, 2**40 + 7])
def test_an_index_finds_each_key_and_nothing_else(spread: int) -> None:
    random = np.random.default_rng(0)
    keys = random.choice(2_000_000, 100_000, replace=False) * spread - 10**6
    index = vocabularies.Index(keys)
    assert (index.find(keys) == np.arange(1, len(keys) + 1)).all()
    strangers = np.setdiff1d(random.integers(-(2**62), 2**62, 10_000), keys)
    edges = np.array([keys.min() - 1, keys.max() + 1, -(2**63), 2**63 - 1])
    assert not index.find(np.concatenate([strangers, np.setdiff1d(edges, keys)])).any()


def test_a_value_keeps_its_id_whatever_dtype_carries_it() -> None:
    vocabulary = count(pa.array([3, 1, 3, 250], pa.int16()))
    want = [1, 2, 0]
    for array in (
        pa.array([3, 1, 9], pa.uint8()),
        pa.array([3, 1, 9], pa.uint64()),
        pa.array([3.0, 1.0, 9.0]),
        pa.array([3, 1, 9]).dictionary_encode(),
    ):
        assert vocabulary.ids(array).tolist() == want
    assert vocabulary.ids(pa.array([3.5, float("nan"), None, 1e30])).tolist() == [0, 0, 0, 0]
    assert vocabulary.ids(pa.nulls(2)).tolist() == [0, 0]
    text = count(pa.array(["x", "y", "x"]))
    for dtype in (pa.string(), pa.large_string(), pa.string_view(), pa.binary()):
        assert text.ids(pa.array(["x", "z"]).cast(dtype)).tolist() == [1, 0]


def test_unsigned_64_bit_hashes_are_told_apart() -> None:
    big = [2**64 - 1, 2**63, 5]
    assert count(pa.array([*big, *big], pa.uint64())).ids(pa.array(big, pa.uint64())).min() > 0


def test_a_column_of_nulls_has_an_empty_vocabulary() -> None:
    vocabulary = count(pa.nulls(3))
    assert vocabulary.rows == 1
    assert vocabulary.ids(pa.array(["a"])).tolist() == [0]


def test_texts_that_share_a_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = count(pa.array(["a", "b"]))
    real = v.hash_text
    clash = real(pa.array(["a"]))[0]
    monkeypatch.setattr(v, "hash_text", lambda array: np.full(len(array), clash, dtype=np.int64))
    assert vocabulary.ids(pa.array(["a", "other"])).tolist() == [1, 0]


# ---------------------------------------------------------------- hashing


def test_hashes_are_the_same_in_every_process_and_release() -> None:
    text = pa.array(["", "a", "item-00000001", "ünïcödé", "a\0", None])
    assert v.hash_text(text).view(np.uint64).tolist() == PINNED_TEXT
    assert v.mix(np.array([0, 1, -1])).tolist() == PINNED_KEYS
    hashed = Vocabulary("string", pa.array([], pa.int64()), hash_buckets=1000)
    assert hashed.ids(pa.array(["a", "b", None])).tolist() == PINNED_BUCKETS


PINNED_TEXT = [
    7960286522194355700,
    10283769343566067481,
    2057694358892720223,
    17894794765853172150,
    7822520524427399756,
    7960286522194355700,
]
PINNED_KEYS = [16294208416658607535, 7960286522194355700, 0]
PINNED_BUCKETS = [235, 738, 0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=30), st.integers(0, 5))
def test_the_hash_of_a_text_follows_its_bytes_only(texts: list[str], skip: int) -> None:
    whole = v.hash_text(pa.array(texts))
    alone = [v.hash_text(pa.array([text], pa.large_string()))[0] for text in texts]
    assert whole.tolist() == alone
    assert v.hash_text(pa.array(texts).slice(skip)).tolist() == alone[skip:]
    assert len(set(alone)) == len(set(texts))


@pytest.mark.parametrize("kind", ["integer", "string"])
def test_hash_buckets_are_filled_evenly(kind: str) -> None:
    vocabulary = Vocabulary(kind, pa.array([], pa.int64()), hash_buckets=50)
    array = pa.array(np.arange(20_000) * 64)
    array = array if kind == "integer" else pc.cast(array, pa.string())
    ids = vocabulary.ids(array)
    counts = np.bincount(ids, minlength=51)
    assert vocabulary.rows == 51
    assert counts[0] == 0
    assert abs(counts[1:] - 400).max() < 5 * 20
    assert (vocabulary.ids(array.dictionary_encode()) == ids).all()


# ---------------------------------------------------------------- scaling


@pytest.mark.parametrize("scale", ["standard", "log", "min_max", "none"])
@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.integers(1, 20))
def test_scalers_equal_numpy_over_all_rows(scale, numbers: list[float], block: int) -> None:
    fit = ScalerFit(scale)
    x = np.array(numbers)
    for start in range(0, len(x), block):
        fit.add(x[start : start + block])
    scaler = fit.scaler()
    y = np.sign(x) * np.log(1 + np.abs(x)) if scale == "log" else x
    if scale in ("standard", "log"):
        want = (y - y.mean()) / (
            y.std() if y.max() > y.min() and y.std() > 1e-9 * abs(y).max() else 1
        )
        fill = 0.0
    elif scale == "min_max":
        want = (y - y.min()) / ((y.max() - y.min()) or 1)
        fill = want.mean()
    else:
        want, fill = y, y.mean()
    if y.std() > 1e-6 * abs(y).max() or y.max() == y.min():
        np.testing.assert_allclose(scaler.apply(x), want, rtol=1e-4, atol=1e-4)
        assert scaler.fill == pytest.approx(fill, rel=1e-6, abs=1e-6)


# ---------------------------------------------------------------- the encoder


def config(features: dict | None = None, **changes) -> DataConfig:
    settings = {
        "domain": "tab",
        "label": "click",
        "features": features or {"user": "categorical", "price": "numeric"},
    }
    return DataConfig.model_validate(settings | changes)


def table(**columns) -> pa.RecordBatch:
    rows = {"user": [1, 2, 1, 3], "price": [1.0, 3.0, None, 5.0], "tab": ["a", "b", "a", "c"]}
    rows |= {"click": [0, 1, 1, 0]} | columns
    return pa.record_batch(
        {name: pa.array(x) if isinstance(x, list) else x for name, x in rows.items()}
    )


def fit(given: DataConfig, batch: pa.RecordBatch, train: list[int] | None = None) -> Encoder:
    types = {field.name: field.type for field in batch.schema}
    check_types(given, types, FILE, roles=("label", "weight", "group"))
    rows = np.arange(batch.num_rows) if train is None else np.array(train)
    kinds = value_kinds(given, [(FILE, types)])
    return Encoder.fit(given, kinds, [(batch, rows, Source(FILE, 0))])


def encode(encoder: Encoder, batch: pa.RecordBatch, **options) -> EncodedRows:
    return encoder.encode(batch, 0, FILE, **options)


def test_everything_is_fitted_on_train_rows_only() -> None:
    encoder = fit(config(), table(price=[1.0, 3.0, None, 500.0]), train=[0, 1, 2])
    assert encoder.domains == ("a", "b")
    rows = encode(encoder, table())
    assert rows.categorical[:, 0].tolist() == [1, 2, 1, 0]
    np.testing.assert_allclose(rows.numeric[:, 0], [-1, 1, 0, 3])  # mean 2, spread 1; null 0
    assert rows.domain.tolist() == [1, 2, 1, 0]
    assert rows.label is not None
    assert rows.label.tolist() == [0, 1, 1, 0]
    assert rows.row.tolist() == [0, 1, 2, 3]


def test_fields_tell_a_model_what_it_needs_in_the_order_of_the_config() -> None:
    given = config(
        {
            "price": "numeric",
            "tags": {"kind": "categorical_list", "shares": "tag", "dim": 4, "pooling": "max"},
            "tab": "categorical",
            "tag": {"kind": "categorical", "dim": 4},
            "item": {"kind": "vector", "width": 2},
            "open": {"kind": "categorical", "hash_buckets": 7},
        }
    )
    batch = table(
        tag=[9, 8, None, 8],
        tags=[[8, 7], None, [], [8]],
        item=[[1.0, 2.0]] * 4,
        open=["x", "y", "z", None],
    )
    encoder = fit(given, batch)
    fields = {field.name: field for field in encoder.fields}
    assert list(fields) == list(given.features)
    assert (fields["tag"].table, fields["tag"].table_rows) == ("tag", 4)
    assert (fields["tags"].table, fields["tags"].table_rows, fields["tags"].pooling) == (
        "tag",
        4,
        "max",
    )
    assert [name for name, field in fields.items() if field.is_domain] == ["tab"]
    assert (fields["open"].table_rows, fields["item"].width, fields["price"].width) == (8, 2, 1)
    rows = encode(encoder, batch)
    # 8 occurs four times over both columns, then 7 and 9 once each.
    values, offsets = rows.lists[0]
    assert values.tolist() == [1, 2, 1]
    assert offsets.tolist() == [0, 2, 2, 2, 3]
    assert rows.categorical[:, 1].tolist() == [3, 1, 0, 1]
    assert rows.categorical[3, 2] == 0
    assert rows.numeric[:, 1:].tolist() == [[1.0, 2.0]] * 4


def test_lists_keep_their_last_values() -> None:
    given = config(
        {"history": {"kind": "categorical_list", "max_length": 2}, "gaps": "numeric_list"}
    )
    batch = table(
        history=[[1, 2, 3], [4], None, [3, None, 2, 3]], gaps=[[1.0, None], [3.0], [], None]
    )
    for dtype in (pa.list_(pa.int64()), pa.large_list(pa.int32())):
        made = batch.set_column(4, "history", batch["history"].cast(dtype))
        encoder = fit(given, made)
        # Kept: 2 3 | 4 | | 2 3, so 2 and 3 are the frequent ones and 1 was never kept.
        assert encoder.vocabularies["history"].values.to_pylist() == [2, 3, 4]
        rows = encode(encoder, made.slice(1))
        values, offsets = rows.lists[0]
        assert values.tolist() == [3, 1, 2]
        assert offsets.tolist() == [0, 1, 1, 3]
    numbers, offsets = encode(encoder, made).lists[1]
    assert numbers.tolist() == [-1, 0, 1]  # mean 2, spread 1; a null is the mean
    assert offsets.tolist() == [0, 2, 3, 3, 3]


def test_vectors_are_used_as_they_are() -> None:
    given = config({"item": {"kind": "vector", "width": 2}})
    plain = [[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0]]
    want = [[1, 2], [0, 0], [3, 4], [5, 6]]
    for dtype in (pa.list_(pa.float64()), pa.list_(pa.float32(), 2), pa.large_list(pa.int64())):
        batch = table(item=pa.array(plain).cast(dtype))
        assert encode(fit(given, batch), batch).numeric.tolist() == want
        assert encode(fit(given, batch), batch.slice(1)).numeric.tolist() == want[1:]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([10, 9, 10, 2], ("2", "9", "10")),
        ([True, False, True, True], ("False", "True")),
        ([dt.date(2020, 1, 2), dt.date(2020, 1, 1)] * 2, ("2020-01-01", "2020-01-02")),
        ([1.5, 10.0, 9.0, 9.0], ("1.5", "9.0", "10.0")),
        (["b", "a", "b", "B"], ("B", "a", "b")),
    ],
)
def test_domains_are_names(values: list, names: tuple[str, ...]) -> None:
    batch = table(tab=values)
    encoder = fit(config(), batch)
    assert encoder.domains == names
    found = encode(encoder, batch).domain
    assert [names[i - 1] for i in found] == [str(x) for x in values]
    as_text = table(tab=[str(x) for x in values])
    assert encode(encoder, as_text).domain.tolist() == found.tolist()


def test_domains_of_integers_survive_a_frame_that_made_them_floats() -> None:
    encoder = fit(config(), table(tab=[7, 8, 7, 7]))
    rows = encode(encoder, table(tab=[8.0, None, 7.0, 9.5]), roles=())
    assert rows.domain.tolist() == [2, 0, 1, 0]
    assert rows.domain_codes[1] == -1
    assert rows.domain_names[int(rows.domain_codes[3])].as_py() == "9.5"


def test_scoring_needs_no_label_weight_or_group() -> None:
    given = config(weight="w", group="user")
    encoder = fit(given, table(w=[1.0, 2.0, 1.0, 1.0]))
    bare = table().drop_columns(["click"])
    rows = encode(encoder, bare, roles=())
    assert rows.label is None
    assert rows.weight is None
    assert rows.group is None
    assert rows.batch().label.isnan().all()
    with pytest.raises(SchemaError, match="column 'click' must be in the table"):
        encode(encoder, bare)


def test_groups_are_numbers_or_stable_hashes() -> None:
    numbers = table(user=[7, 8, 7, -1])
    plain = encode(fit(config(group="user"), numbers), numbers).group
    assert plain is not None
    assert plain.tolist() == [7, 8, 7, -1]
    text = table(user=["x", "y", "x", "z"])
    found = encode(fit(config(group="user"), text), text).group
    assert found is not None
    assert found[0] == found[2] == v.hash_text(pa.array(["x"]))[0]
    assert len(set(found.tolist())) == 3


INF, NAN = float("inf"), float("nan")
SINGLE = {"user": "categorical", "price": {"kind": "numeric", "scale": "none"}}
LISTS = {"item": {"kind": "vector", "width": 2}}


@pytest.mark.parametrize(
    ("given", "columns", "message"),
    [
        ({}, {"price": [1.0, NAN, 2.0, INF]}, r"column 'price' must be finite, got nan in part-3.parquet, row 1"),
        ({}, {"price": [1.0, 2.0, 2.0, -INF]}, r"column 'price' must be finite, got -inf in part-3.parquet, row 3"),
        ({"features": SINGLE}, {"price": [1.0, 1e300, 1.0, 1.0]}, r"'price' must fit in 32-bit floats once scaled, got 1e\+300 .* row 1"),
        ({}, {"price": ["a"] * 4}, r"column 'price' must be numeric, got string in part-3.parquet$"),
        ({}, {"price": [[1.0]] * 4}, r"column 'price' must hold one value a row \(it is numeric\), got list<"),
        ({"features": {"user": "categorical_list"}}, {}, r"column 'user' must be a list, got int64 in part-3"),
        ({"features": {"user": "numeric_list"}}, {"user": [["a"]] * 4}, r"column 'user' must be a list of numbers, got list<"),
        ({"features": {"user": "numeric_list"}}, {"user": [[1.0], [], [1.0, NAN], []]}, r"'user' must be finite, got nan in part-3.parquet, row 2"),
        ({"features": LISTS}, {"item": [[1.0, 2.0], [1.0], [], []]}, r"column 'item' must hold 2 numbers, got 1 in part-3.parquet, row 1"),
        ({"features": LISTS}, {"item": [[1.0, 2.0]] * 3 + [[1.0, INF]]}, r"'item' must be finite, got inf in part-3.parquet, row 3"),
        ({"features": LISTS}, {"item": [[1.0, 2.0]] * 3 + [[None, 1.0]]}, r"'item' must hold no null, got null in part-3.parquet, row 3"),
        ({"features": {"userid": "categorical"}}, {}, r"column 'userid' must be in the table, got none in part-3.parquet; the nearest is 'user'"),
        ({}, {"click": [0, 1, 2, 0]}, r"column 'click' must be 0 or 1 .*, got 2 in part-3.parquet, row 2"),
        ({}, {"click": [0, 1, None, 0]}, r"column 'click' must have a value in every row \(it is the label\), got null in part-3.parquet, row 2"),
        ({}, {"click": [0.0, NAN, 1.0, 0.0]}, r"column 'click' must be 0 or 1 .*, got nan in part-3.parquet, row 1"),
        ({"label": {"column": "click", "above": 0}}, {"click": [0.0, NAN, 1.0, 0.0]}, r"column 'click' must be a number .*, got nan in part-3.parquet, row 1"),
        ({}, {"click": ["0", "1", "0", "0"]}, r"column 'click' must be numeric or boolean \(it is the label\), got string in part-3"),
        ({"weight": "w"}, {"w": [1.0, 0.0, 1.0, 1.0]}, r"column 'w' must be above 0 and finite \(it is the weight\), got 0 in part-3.parquet, row 1"),
        ({"weight": "w"}, {"w": [1.0, 1.0, None, 1.0]}, r"column 'w' must have a value in every row \(it is the weight\), got null in part-3.parquet, row 2"),
        ({"weight": "w"}, {"w": [1.0, 1.0, 1.0, INF]}, r"column 'w' must be above 0 and finite .* got inf in part-3.parquet, row 3"),
        ({"group": "g"}, {"g": ["x", None, "y", "y"]}, r"column 'g' must have a value in every row \(it is the group\), got null in part-3.parquet, row 1"),
        ({"domain": "item"}, {"item": [[1]] * 4}, r"column 'item' must hold plain values \(it is the domain\), got list<"),
    ],
)  # fmt: skip
def test_bad_input_names_file_column_row_and_value(
    given: dict, columns: dict, message: str
) -> None:
    batch = table(**columns)
    with pytest.raises(SchemaError, match=message):
        encode(
            fit(
                config(
                    given.get("features"), **{k: x for k, x in given.items() if k != "features"}
                ),
                batch,
            ),
            batch,
        )


def test_rows_in_errors_are_counted_within_the_file() -> None:
    encoder = fit(config(), table())
    with pytest.raises(SchemaError, match=r"row 107$"):
        encoder.encode(table(price=[1.0, 1.0, 1.0, NAN]), 5000, FILE, file_row=104)


def test_a_column_of_another_type_than_when_it_was_fitted_is_refused() -> None:
    encoder = fit(config(), table())
    with pytest.raises(
        SchemaError, match="'user' must be integer as when it was fitted, got string"
    ):
        encode(encoder, table(user=["1", "2", "1", "3"]))
    shared = config({"user": "categorical", "past": {"kind": "categorical_list", "shares": "user"}})
    with pytest.raises(
        SchemaError,
        match=r"'past' must have one type everywhere \(integer in 'user' of part-3.parquet\), got string",
    ):
        fit(shared, table(past=[["a"]] * 4))


# ---------------------------------------------------------------- on disk


@pytest.fixture
def rich() -> tuple[Encoder, pa.RecordBatch]:
    given = config(
        {
            "user": {"kind": "categorical", "min_count": 2},
            "name": "categorical",
            "day": "categorical",
            "open": {"kind": "categorical", "hash_buckets": 9},
            "past": {"kind": "categorical_list", "shares": "user"},
            "price": {"kind": "numeric", "scale": "log"},
            "size": {"kind": "numeric", "scale": "min_max"},
        }
    )
    batch = table(
        name=["x", "ü", None, "x"],
        day=[dt.date(2020, 1, 1), dt.date(2021, 1, 1), None, dt.date(2020, 1, 1)],
        open=["p", "q", "r", None],
        past=[[1, 2], [], None, [3, 4, 3]],
        size=[1, 2, None, 4],
    )
    return fit(given, batch), batch


def test_an_encoder_survives_the_disk(rich: tuple[Encoder, pa.RecordBatch], tmp_path: Path) -> None:
    encoder, batch = rich
    encoder.save(tmp_path / "encoder")
    again = Encoder.load(tmp_path / "encoder")
    assert again.config == encoder.config
    assert again.fields == encoder.fields
    assert again.domains == encoder.domains
    assert again.scalers == encoder.scalers
    one, two = encode(encoder, batch), encode(again, batch)
    np.testing.assert_array_equal(one.categorical, two.categorical)
    np.testing.assert_array_equal(one.numeric, two.numeric)
    np.testing.assert_array_equal(one.lists[0][0], two.lists[0][0])
    np.testing.assert_array_equal(one.domain, two.domain)


def test_a_damaged_encoder_says_so(rich: tuple[Encoder, pa.RecordBatch], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    rich[0].save(whole)
    with pytest.raises(BundleError, match="cannot be read"):
        Encoder.load(tmp_path / "nowhere")
    for path in sorted(whole.iterdir()):
        for change in ("cut", "flip", "remove"):
            broken = tmp_path / f"{path.name}-{change}"
            shutil.copytree(whole, broken)
            content = bytearray(path.read_bytes())
            if change == "remove":
                (broken / path.name).unlink()
            elif change == "cut":
                (broken / path.name).write_bytes(content[: len(content) // 2])
            else:
                content[10] ^= 0xFF
                (broken / path.name).write_bytes(content)
            with pytest.raises(BundleError, match=r"encoder|vocabulary"):
                Encoder.load(broken)
    described = json.loads((whole / "encoder.json").read_text())
    (whole / "encoder.json").write_text(json.dumps(described | {"version": 99}))
    with pytest.raises(BundleError, match="of version 1, got 99"):
        Encoder.load(whole)
