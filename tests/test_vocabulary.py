"""Vocabularies: ids by frequency whatever dtype carries a value, and hashes that never change."""

import collections
import datetime as dt
import decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data import Vocabulary
from isthmus.data.encoding.gathering import counter as counting
from isthmus.data.encoding.gathering.counter import Counter
from isthmus.data.encoding.lookup.index import Index
from isthmus.data.tables import values as v
from isthmus.data.tables.kinds import kind


def count(array: pa.Array, min_count: int = 1) -> Vocabulary:
    counter = Counter(kind(array.type))
    counter.add(array)
    return counter.vocabulary(min_count)


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

    counter = Counter(kind(dtype))
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
    monkeypatch.setattr(counting, "DENSE_RANGE", 1 << 16)
    monkeypatch.setattr(counting, "PENDING", 100)
    keys = np.random.default_rng(0).zipf(1.3, 5000) % 700 * spread - 300 * spread
    text = pc.cast(pa.array(keys), pa.string())
    train = np.random.default_rng(1).random(5000) < 0.7
    for array in (
        pa.array(keys),
        pa.array(keys).dictionary_encode(),
        text,
        text.dictionary_encode(),
    ):
        counter = Counter(kind(array.type))
        for start in range(0, 5000, 37):
            counter.add(array.slice(start, 37), np.flatnonzero(train[start : start + 37]))
        found = dict(counter.counts().rows())
        assert found == dict(collections.Counter(np.array(array.to_pylist())[train].tolist()))


@pytest.mark.parametrize("spread", [1, 2**40 + 7])
def test_an_index_finds_each_key_and_nothing_else(spread: int) -> None:
    random = np.random.default_rng(0)
    keys = random.choice(2_000_000, 100_000, replace=False) * spread - 10**6
    index = Index(keys)
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


@pytest.mark.parametrize("spread", [1, 2**40])
def test_counts_that_lie_in_a_file_are_those_in_memory(
    spread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers, texts and bytes, of which more are distinct than memory may hold; some come from others."""
    monkeypatch.setattr(counting, "DENSE_RANGE", 1 << 8)
    monkeypatch.setattr(counting, "PENDING", 50)
    keys = np.random.default_rng(0).zipf(1.2, 4000) % 1500 * spread - 300 * spread
    text = pc.cast(pa.array(keys), pa.string())
    for array in (pa.array(keys), text, pc.cast(text, pa.binary())):
        want = Counter(kind(array.type))
        want.add(array)
        with monkeypatch.context() as patch:
            patch.setattr(counting, "IN_MEMORY", 100)
            first, second = Counter(kind(array.type)), Counter(kind(array.type))
            for start in range(0, len(array), 37):
                counter = first if start < 2000 else second
                counter.add(array.slice(start, 37))
                assert counter._total is None or counter._total.height <= 100
            first.take_in(second.pairs())
            assert first.counts().equals(want.counts())
            assert first.vocabulary(3) == want.vocabulary(3)
            assert first.vocabulary(10**6).rows == 1
