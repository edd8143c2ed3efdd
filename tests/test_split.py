"""Splits: the same rows in every process, cut where the fractions say, ties and groups whole."""

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isthmus.data.store import split as splits
from isthmus.data.tables.columns import Origin
from isthmus.data.tables.values import mix
from isthmus.errors import SchemaError
from isthmus.schema import Split

ORIGIN = Origin("a.parquet", 10)
BY_TIME = Split(by="time")


def cuts_of(keys: np.ndarray, split: Split, folder: Path, block: int = 7) -> tuple[int, int]:
    path = folder / "keys"
    keys.tofile(path)
    return splits.time_cuts(path, len(keys), split, block)


def by_time(array: pa.Array, folder: Path, split: Split = BY_TIME) -> np.ndarray:
    moments = pa.types.is_temporal(array.type)
    floats = pa.types.is_floating(array.type)
    order = "moment" if moments else "float" if floats else "signed"
    keys = splits.time_keys("t", array, ORIGIN, order)
    assert keys is not None
    return splits.cut(keys, cuts_of(keys, split, folder))


def test_a_random_split_keeps_its_fractions_and_never_moves() -> None:
    split = Split(fractions=(0.7, 0.2, 0.1), seed=3)
    rows = np.arange(200_000)
    found = splits.by_hash(rows, split)
    shares = np.bincount(found) / len(rows)
    np.testing.assert_allclose(shares, split.fractions, atol=5 * 0.5 / len(rows) ** 0.5)
    assert found[:24].tolist() == PINNED
    assert (splits.by_hash(rows[500:600], split) == found[500:600]).all()
    other = splits.by_hash(rows, Split(fractions=(0.7, 0.2, 0.1), seed=4))
    assert 0.4 < (other != found).mean() < 0.52  # independent: 1 - (.49 + .04 + .01)


PINNED = [2, 0, 0, 0, 1, 0, 2, 0, 1, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 2, 0, 1, 0, 0]


def test_wider_fractions_only_add_rows() -> None:
    rows = np.arange(10_000)
    small = splits.by_hash(rows, Split(fractions=(0.5, 0.25, 0.25)))
    large = splits.by_hash(rows, Split(fractions=(0.6, 0.15, 0.25)))
    assert (large[small == 0] == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 4), min_size=1, max_size=80),
    st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.1, 0.1, 0.8)]),
    st.integers(1, 100),
)
@example([2**63 - 1], (0.8, 0.1, 0.1), 1)  # no key lies behind the last time of all
@example([0, 2**63 - 1], (0.5, 0.25, 0.25), 1)
def test_time_is_cut_at_the_end_of_a_tie_nearest_to_the_fraction(
    tmp_path_factory, times: list[int], fractions: tuple[float, float, float], block: int
) -> None:
    split = Split(by="time", fractions=fractions)
    array = pa.array(times, pa.int64())
    keys = splits.time_keys("t", array, ORIGIN, "signed")
    assert keys is not None
    assert (np.argsort(keys, kind="stable") == np.argsort(times, kind="stable")).all()
    found = splits.cut(keys, cuts_of(keys, split, tmp_path_factory.mktemp("t"), block))
    assert (np.diff(found[np.argsort(times, kind="stable")].astype(int)) >= 0).all()
    for time in set(times):
        assert len(set(found[np.array(times) == time].tolist())) == 1
    # Every place where the sorted times could be cut; ours is as near as any of them, unless a
    # split would then be empty that need not be.
    ordered = np.sort(np.array(times))
    places = np.array([0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1), len(times)])
    cuts = [(found <= number).sum() for number in range(2)]
    wanted = np.cumsum(fractions[:2]) * len(times)
    near = [places[abs(abs(places - w) - min(abs(places - w))) < 1e-9] for w in wanted]
    assert set(cuts) <= set(places)
    if len(set(times)) >= 3:
        assert 0 < cuts[0] < cuts[1] < len(times)
    if all(0 < one < two < len(times) for one in near[0] for two in near[1]):
        assert all(cut in good for cut, good in zip(cuts, near, strict=True))


def test_three_days_are_a_day_for_each_split(tmp_path: Path) -> None:
    days = pa.array([dt.date(2024, 1, 1 + day) for day in (2, 0, 1, 1, 0, 2)])
    assert by_time(days, tmp_path, BY_TIME).tolist() == [2, 0, 1, 1, 0, 2]


def test_time_without_ties_is_cut_exactly(tmp_path: Path) -> None:
    times = np.random.default_rng(0).permutation(1000)
    found = by_time(pa.array(times), tmp_path)
    assert np.bincount(found).tolist() == [800, 100, 100]
    assert times[found == 0].max() < times[found == 1].min() < 900
    assert times[found == 1].max() < times[found == 2].min()


@pytest.mark.parametrize(
    "array",
    [
        pa.array([-5, 3, 2, 10, 7, 1, 0, -9, 4, 6], pa.int8()),
        pa.array([-5.5, 3, 2, 10, 7, 1, -0.0, -9, 4, 6]),
        pa.array([dt.date(2020, 1, 11 + x) for x in [-5, 3, 2, 10, 7, 1, 0, -9, 4, 6]]),
        pa.array([dt.datetime(1970, 1, 11) + dt.timedelta(hours=x) for x in [-5, 3, 2, 10, 7, 1, 0, -9, 4, 6]]),
    ],
    ids=["ints", "floats", "dates", "timestamps"],
)  # fmt: skip
def test_every_dtype_of_time_sorts_alike(array: pa.Array, tmp_path: Path) -> None:
    split = Split(by="time", fractions=(0.6, 0.2, 0.2))
    assert by_time(array, tmp_path, split).tolist() == [0, 0, 0, 2, 2, 0, 0, 0, 1, 1]


def test_a_time_that_is_missing_or_nan_is_refused() -> None:
    with pytest.raises(
        SchemaError, match=r"column 't' must have a value .*got null in a.parquet, row 11"
    ):
        splits.time_keys("t", pa.array([1, None]), ORIGIN, "signed")
    with pytest.raises(
        SchemaError, match=r"column 't' must be finite, got nan in a.parquet, row 11"
    ):
        splits.time_keys("t", pa.array([1, float("nan")]), ORIGIN, "float")


def test_groups_are_never_parted() -> None:
    users = np.random.default_rng(0).integers(0, 3000, 20_000)
    found = splits.by_hash(users, Split(by="user"))
    owners = [set(users[found == number].tolist()) for number in range(3)]
    assert not owners[0] & owners[1]
    assert not owners[1] & owners[2]
    assert not owners[0] & owners[2]
    assert abs(len(owners[0]) / 3000 - 0.8) < 0.04


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 12),
    st.sampled_from([0.05, 0.1, 0.2]),
    st.integers(0, 2**32),
    st.sampled_from(["random", "user"]),
)
def test_rotations_test_every_key_exactly_once(
    folds: int, validation: float, seed: int, by: str
) -> None:
    fractions = (1 - 1 / folds - validation, validation, 1 / folds)
    keys = np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, 5_000)
    if by == "random":
        keys = np.arange(5_000)
    found = []
    for fold in range(folds):
        split = Split.model_validate(
            {"by": by, "fractions": fractions, "seed": seed, "rotation": fold / folds}
        )
        found.append(splits.by_hash(keys, split))
    times_in = [(np.array(found) == number).sum(axis=0) for number in range(3)]
    assert (times_in[2] == 1).all()
    assert (times_in[0] + times_in[1] == folds - 1).all()
    assert abs(times_in[1].mean() - validation * folds) < 0.05 * folds
    shares = np.bincount(found[-1], minlength=3) / len(keys)
    np.testing.assert_allclose(shares, fractions, atol=0.04)


def test_a_rotation_adds_to_the_hash_and_runs_over_at_one() -> None:
    rows = np.arange(20_000)
    u = mix(rows, seed=3) / 2.0**64
    plain = Split(fractions=(0.7, 0.2, 0.1), seed=3)
    assert (splits.by_hash(rows, plain) == np.digitize(u, [0.7, 0.9])).all()
    turned = splits.by_hash(rows, plain.model_copy(update={"rotation": 0.25}))
    assert (turned == np.digitize((u + 0.25) % 1, [0.7, 0.9])).all()
    assert (turned != np.digitize(u, [0.7, 0.9])).any()


@pytest.mark.parametrize("rotation", [-0.1, 1, 1.5, float("nan")])
def test_a_rotation_is_a_part_of_one_turn(rotation: float) -> None:
    with pytest.raises(ValueError, match="rotation"):
        Split(rotation=rotation)


def test_time_cannot_be_rotated() -> None:
    with pytest.raises(
        ValueError, match=r"split.rotation must be 0 where split.by is 'time', got 0.2"
    ):
        Split(by="time", rotation=0.2)
    assert Split(by="time", rotation=0).rotation == 0
