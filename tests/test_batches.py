"""Batches: every row once, in an order that seed and epoch alone decide, from any start."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data import Batch
from isthmus.data.store import order as ordering
from isthmus.data.store.order import Arrays, Shuffle, in_order


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and buffers so small that a hundred rows already have several of each."""
    monkeypatch.setattr(ordering, "SHUFFLE_BLOCK_ROWS", 8)
    monkeypatch.setattr(ordering, "BUFFER_ROWS", 32)


def arrays(rows: int, domain: np.ndarray | None = None) -> Arrays:
    """Rows that carry their own number in every column."""
    number = np.arange(rows)
    lengths = number % 4
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Arrays(
        categorical=np.stack([number, number * 2], 1).astype(np.int32),
        numeric=number[:, None].astype(np.float32),
        lists=((np.repeat(number, lengths).astype(np.int32), offsets),),
        domain=(number % 3 + 1 if domain is None else domain).astype(np.int32),
        label=(number % 2).astype(np.float32),
        weight=(number + 1).astype(np.float32),
    )


def numbers(batches: list[Batch]) -> list[int]:
    return [int(x) for batch in batches for x in batch.categorical[:, 0]]


def check_rows(batch: Batch, n_domains: int) -> None:
    """All columns of a batch speak of the same rows."""
    number = batch.categorical[:, 0].long()
    assert batch.categorical.dtype == torch.int32
    assert (batch.categorical[:, 1] == 2 * number).all()
    assert (batch.numeric[:, 0] == number).all()
    assert (batch.label == number % 2).all()
    assert batch.weight is not None
    assert (batch.weight == number + 1).all()
    domain = number % 3 + 1
    assert (batch.domain == torch.where(domain > n_domains, 0, domain)).all()
    assert batch.domain.dtype == torch.int64
    (jagged,) = batch.lists
    assert jagged.offsets.dtype == torch.int64
    assert (jagged.offsets.diff() == number % 4).all()
    assert (jagged.values == number.repeat_interleave(number % 4)).all()


def shuffled(
    rows: int,
    batch_rows: int,
    seed: int = 0,
    epoch: int = 0,
    start: int = 0,
    stop: int | None = None,
    **options,
) -> list[Batch]:
    shuffle = Shuffle(
        options.pop("of", None) or arrays(rows),
        seed=seed,
        epoch=epoch,
        sampling=options.pop("sampling", "proportional"),
        n_domains=2,
    )
    return list(shuffle.batches(batch_rows, start, rows if stop is None else stop))


def test_take_gives_the_rows_at_positions_in_that_order() -> None:
    (batch,) = in_order(arrays(12), 12, 0, 12, 2)
    taken = batch.take(torch.tensor([7, 3, 3, 0, 11]))
    assert taken.categorical[:, 0].tolist() == [7, 3, 3, 0, 11]
    check_rows(taken, 2)
    none = batch.take(torch.tensor([], dtype=torch.int64))
    assert none.rows == 0
    assert none.lists[0].offsets.tolist() == [0]


def test_map_changes_every_tensor() -> None:
    (batch,) = in_order(arrays(5), 5, 0, 5, 2)
    doubled = batch.map(lambda tensor: tensor * 2)
    assert doubled.weight is not None
    assert doubled.weight.tolist() == [2, 4, 6, 8, 10]
    assert doubled.label.tolist() == [0, 2, 0, 2, 0]
    assert doubled.domain.tolist() == (batch.domain * 2).tolist()
    assert doubled.lists[0].values.tolist() == (batch.lists[0].values * 2).tolist()
    assert doubled.lists[0].offsets.tolist() == [0, 0, 2, 6, 12, 12]
    assert batch.map(lambda tensor: tensor.long()).categorical.dtype == torch.int64


def test_in_order_keeps_the_order_and_the_short_end() -> None:
    batches = list(in_order(arrays(20), 8, 0, 20, 2))
    assert [batch.rows for batch in batches] == [8, 8, 4]
    assert numbers(batches) == list(range(20))
    for batch in batches:
        check_rows(batch, 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 60), st.integers(0, 5), st.integers(0, 2))
def test_an_epoch_holds_every_row_once(rows: int, batch_rows: int, seed: int, epoch: int) -> None:
    batches = shuffled(rows, batch_rows, seed, epoch)
    assert sorted(numbers(batches)) == list(range(rows))
    assert [batch.rows for batch in batches[:-1]] == [batch_rows] * (len(batches) - 1)
    for batch in batches:
        check_rows(batch, 2)


def test_seed_and_epoch_decide_the_order_and_nothing_else_does() -> None:
    torch.set_num_threads(1)
    first = numbers(shuffled(100, 16, seed=1))
    assert first == numbers(shuffled(100, 16, seed=1))
    assert first == numbers(shuffled(100, 5, seed=1))
    assert first != numbers(shuffled(100, 16, seed=2))
    assert first != numbers(shuffled(100, 16, seed=1, epoch=1))
    assert first[:16] != sorted(first[:16])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 150),
    st.integers(1, 50),
    st.integers(0, 160),
    st.sampled_from(["proportional", "uniform", 0.5]),
)
def test_a_resumed_epoch_goes_on_with_the_same_batches(rows, batch_rows, at, sampling) -> None:
    whole = shuffled(rows, batch_rows, sampling=sampling)
    at = min(at, len(whole))
    rest = shuffled(rows, batch_rows, start=at * batch_rows, sampling=sampling)
    assert len(rest) == len(whole) - at
    for one, two in zip(whole[at:], rest, strict=True):
        assert torch.equal(one.categorical, two.categorical)
        assert torch.equal(one.lists[0].values, two.lists[0].values)
        assert torch.equal(one.lists[0].offsets, two.lists[0].offsets)


def test_a_split_that_fits_one_buffer_is_shuffled_completely() -> None:
    """Each row comes first equally often: the mean place of each is the middle."""
    places = np.zeros(32)
    for seed in range(400):
        places[numbers(shuffled(32, 32, seed=seed))] += np.arange(32)
    assert abs(places / 400 - 15.5).max() < 5 * 9.2 / 400**0.5
    neighbours = sum(
        abs(a - b) == 1
        for seed in range(400)
        for a, b in itertools.pairwise(numbers(shuffled(32, 32, seed=seed)))
    )
    assert abs(neighbours / (400 * 31) - 2 / 32) < 0.02


def test_rows_from_all_over_a_large_split_meet_in_a_batch() -> None:
    """A buffer takes blocks from everywhere, so a batch spans most of the table."""
    spans = [np.ptp(numbers([batch])) for seed in range(20) for batch in shuffled(1000, 16, seed)]
    assert np.mean(spans) > 500


@pytest.mark.parametrize("sampling", ["uniform", 0.5, 0.0, 1.0, "proportional"])
def test_an_epoch_is_shared_among_domains_exactly(sampling: str | float) -> None:
    have = [600, 90, 9, 1]
    domain = np.random.default_rng(0).permutation(np.repeat([1, 2, 3, 4], have))
    exponent = (
        {"uniform": 0.0, "proportional": 1.0}[sampling] if isinstance(sampling, str) else sampling
    )
    share = np.array(have, dtype=float) ** exponent
    want = share / share.sum() * 700
    of = arrays(700, domain)
    taken = []
    for epoch in range(3):
        batches = shuffled(700, 64, epoch=epoch, sampling=sampling, of=of)
        rows = np.array(numbers(batches))
        taken.append(np.bincount(rows, minlength=700))
        counts = np.bincount(domain[rows], minlength=5)[1:]
        assert counts.sum() == 700
        assert abs(counts - want).max() <= 1
        # Each row as often as the others of its domain, to within one.
        for name in range(1, 5):
            own = taken[-1][domain == name]
            assert own.max() - own.min() <= 1
    if exponent < 1:
        assert (taken[0] != taken[1]).any()  # which rows are left out changes with the epoch


def test_the_rows_of_a_small_domain_are_spread_over_the_epoch_when_the_table_is_mixed() -> None:
    domain = np.random.default_rng(0).permutation(np.repeat([1, 2], [560, 80]))
    batches = shuffled(640, 64, sampling="uniform", of=arrays(640, domain))
    seen = [int((domain[numbers([batch])] == 2).sum()) for batch in batches]
    assert sum(seen) == 320
    assert min(seen) > 8


@pytest.mark.parametrize("sampling", ["often", -0.5, 2.0])
def test_sampling_out_of_range_is_refused(sampling: str | float) -> None:
    with pytest.raises(ValueError, match="sampling must be"):
        shuffled(10, 2, sampling=sampling)


def test_batches_own_their_memory() -> None:
    of = arrays(40)
    (batch, *_) = shuffled(40, 8, of=of)
    batch.categorical.zero_()
    batch.label.zero_()
    assert of.categorical[:, 0].tolist() == list(range(40))
