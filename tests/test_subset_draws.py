"""A part of a dataset: caps, stopping halves, hiding from a batch, memory, refusals."""

import errno
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from isthmus.data import Dataset, Rows, Subset
from isthmus.data.store import arrays, subset
from isthmus.data.store.known import Known
from isthmus.data.store.rows import HALF_SEED, stopping_half
from isthmus.data.store.subset import hide
from isthmus.errors import IsthmusError
from small_parts import ROWS, make_dataset, plain


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("cache"))


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
    empty = arrays.Arrays(
        categorical=np.zeros((count, 0), dtype=np.int32),
        numeric=np.zeros((count, 0), dtype=np.float32),
        lists=(),
        domain=np.ones(count, dtype=np.int32),
        label=np.zeros(count, dtype=np.float32),
        weight=None,
    )
    return Rows(empty, row=np.arange(first, first + count), group=group, n_domains=1)


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


@pytest.mark.parametrize("seed", [0, 1, HALF_SEED, HALF_SEED + 1])
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
    monkeypatch.setattr(arrays, "MAPPED_BYTES", 0)
    for module in (arrays, subset):
        monkeypatch.setattr(module, "CHUNK", chunk)
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
    monkeypatch.setattr(arrays, "MAPPED_BYTES", 0)
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
