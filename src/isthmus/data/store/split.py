"""Splits: which rows train, which validate, which test. A training seed never moves them.

A row without a label, where the config keeps such rows, trains only: where the split would train it.
Elsewhere it is left out, so that the test users of a split by user, and the days after the train rows
of a split by time, stay unseen.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from isthmus.data.encoding.counted.statistics import FOLDS, fold_of
from isthmus.data.encoding.roles import Usage
from isthmus.data.store.chosen import Chosen, Piece
from isthmus.data.tables import columns as c
from isthmus.data.tables import values as v
from isthmus.data.tables.kinds import kind
from isthmus.data.tables.plain import cast_or_none, decode, null_mask
from isthmus.errors import SchemaError
from isthmus.schema import DataConfig, Split

SplitName = Literal["train", "validation", "test"]
"""The name of a split."""
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
"""The three splits, in their order on disk."""

TimeOrder = Literal["moment", "signed", "unsigned", "float"]
"""As what times are compared: microseconds, int64, uint64, or float64 where neither holds all."""
UNLABELLED, LEFT_OUT = 3, 4
"""What the splitter says, behind the numbers of the splits, of rows without a label."""
NUMBER_ORDERS: tuple[TimeOrder, ...] = ("signed", "unsigned", "float")

_HALF = np.uint64(1 << 63)


class Splitter:
    """Split number of every row of a piece: 0 train, 1 validation, 2 test.

    `UNLABELLED` is a row without a label among the train rows, `LEFT_OUT` one among the others.
    ``cuts``: where ``time`` is cut, in the keys of ``order``. ``stretches``: where the time of train
    rows is cut into folds.
    """

    def __init__(
        self,
        config: DataConfig,
        cuts: tuple[int, int] = (0, 0),
        order: TimeOrder = "moment",
        stretches: tuple[int, ...] = (),
    ) -> None:
        self._split = config.split
        self._cuts = cuts
        self._stretches = np.array(stretches, dtype=np.uint64)
        self._order: TimeOrder = order
        self._column = {"time": config.time, "user": config.group}.get(config.split.by)
        self._label = config.label.column if config.keeps_unlabelled else None

    @classmethod
    def of(cls, usage: Usage, chosen: Chosen, path: Path) -> "Splitter":
        """The splitter of the chosen rows of a table. ``path``: of files to write their times to.

        Together, where several processes share the rows out. Raises ``SchemaError`` for a time that is null or NaN.
        """
        config = usage.config
        if config.split.by != "time":
            return cls(config)
        assert config.time is not None  # the config was refused without
        ranks = chosen.ranks
        paths = [path.with_name(f"{path.name}-{rank}") for rank in range(ranks.size)]
        for order in ("moment",) if usage.moments else NUMBER_ORDERS:
            write = partial(_write_times, paths[ranks.rank], config, order, chosen)
            counts = chosen.apart(write)
            if None not in counts:
                found = ranks.first(partial(_found_cuts, paths, sum(counts), config, chosen))
                return cls(config, tuple(found["cuts"]), order, tuple(found["folds"]))
        raise AssertionError("floats hold every number")

    @property
    def columns(self) -> list[str]:
        """Columns that splitting reads."""
        return [name for name in (self._column, self._label) if name is not None]

    def assign(self, piece: Piece) -> np.ndarray:
        """Split number uint8 (rows,) of a piece."""
        if self._split.by == "time":
            assigned = cut(self._times(piece), self._cuts)
        else:
            assigned = by_hash(self._keys(piece), self._split)
        if self._label is None:
            return assigned
        apart = np.where(assigned == 0, np.uint8(UNLABELLED), np.uint8(LEFT_OUT))
        return np.where(unlabelled(piece, self._label), apart, assigned)

    def folds(self, piece: Piece) -> np.ndarray:
        """Fold uint8 (rows,) of the train rows of a piece (`isthmus.data.encoding.counted.statistics`)."""
        if self._split.by == "time":
            places = np.searchsorted(self._stretches, self._times(piece), side="right")
            return places.astype(np.uint8)
        return fold_of(self._keys(piece))

    def _keys(self, piece: Piece) -> np.ndarray:
        """What is hashed of each row: its number, or its group."""
        if self._column is None:
            return piece.row
        return c.groups(self._column, piece.batch.column(self._column), piece.origin)

    def _times(self, piece: Piece) -> np.ndarray:
        assert self._column is not None
        array = piece.batch.column(self._column)
        keys = time_keys(self._column, array, piece.origin, self._order)
        assert keys is not None  # the order held all of them when the cuts were found
        return keys


def unlabelled(piece: Piece, column: str) -> Bool[np.ndarray, " rows"]:
    """Which rows of a piece have no label."""
    return null_mask(decode(piece.batch.column(column)))


def no_label(config: DataConfig, chosen: Chosen) -> SchemaError:
    """The error for a table without any label."""
    return SchemaError(
        f"column {config.label.column!r} must hold a label in some row, got null in all rows of"
        f" {chosen.source}"
    )


def _write_times(path: Path, config: DataConfig, order: TimeOrder, chosen: Chosen) -> int | None:
    """Write the keys of the times of rows with a label, which alone decide where time is cut.

    Gives how many there are, or None where the order cannot hold one.
    """
    column = config.time
    assert column is not None
    label = config.label.column if config.keeps_unlabelled else None
    rows = 0
    with path.open("wb") as file:
        for piece in chosen.pieces([column] if label is None else [column, label], "time"):
            keys = time_keys(column, piece.batch.column(column), piece.origin, order)
            if keys is None:
                return None
            if label is not None:
                keys = keys[~unlabelled(piece, label)]
            file.write(keys.data)
            rows += len(keys)
    return rows


def _found_cuts(
    paths: list[Path], rows: int, config: DataConfig, chosen: Chosen
) -> dict[str, list[int]]:
    """Where the times in these files are cut, and where the folds are. The files are gone then."""
    if rows == 0 and config.keeps_unlabelled:
        raise no_label(config, chosen)
    path, *others = paths
    with path.open("ab") as file:
        for other in others:
            with other.open("rb") as more:
                shutil.copyfileobj(more, file)
            other.unlink()
    cuts = time_cuts(path, rows, config.split, chosen.block_rows)
    folds = time_folds(path, rows, cuts[0], chosen.block_rows) if config.taught else ()
    path.unlink()
    return {"cuts": list(cuts), "folds": list(folds)}


def by_hash(keys: np.ndarray, split: Split) -> np.ndarray:
    """Split number uint8 (rows,) of int64 keys: 0 train, 1 validation, 2 test.

    The hash of key and split seed is uniform on 64 bits, is turned by the rotation and is cut at
    the fractions, so a row number (``random``) or a group (``user``) falls in the same split in
    every process. With a hash u in [0, 1), the place that is cut is (u + rotation) mod 1. Cuts and
    rotations are floats: where those of K folds should meet, they do so to about 1e-16.
    """
    hashed = v.mix(keys, seed=split.seed)
    if split.rotation:
        hashed += np.uint64(_threshold(split.rotation))  # runs over: modulo 2**64
    train, validation, _ = split.fractions
    return cut(hashed, (_threshold(train), _threshold(train + validation)))


def _threshold(fraction: float) -> int:
    return min(int(fraction * 2.0**64), 2**64 - 1)


def cut(keys: np.ndarray, cuts: tuple[int, int]) -> np.ndarray:
    """Split number of uint64 keys: how many of the two cuts, 0 to 2**64, each has reached."""
    first, second = (_reached(keys, at) for at in cuts)
    return first.astype(np.uint8) + second


def _reached(keys: np.ndarray, at: int) -> np.ndarray:
    # No key reaches a cut behind the largest one, which uint64 cannot hold.
    return np.zeros(len(keys), dtype=bool) if at >= 2**64 else keys >= np.uint64(at)


def time_keys(
    column: str, array: pa.Array, origin: c.Origin, order: TimeOrder
) -> np.ndarray | None:
    """Uint64 keys (rows,) in the order of the times; None where the order cannot hold one.

    Raises ``SchemaError`` for a null or NaN.
    """
    array = decode(array)
    c.refuse_nulls(column, "it is the time", array, origin)
    if order == "moment":
        micros = pc.cast(array, pa.timestamp("us", getattr(array.type, "tz", None)), safe=False)
        return micros.view(pa.int64()).to_numpy().view(np.uint64) + _HALF
    if kind(array.type) in ("floating", "decimal"):
        c.check_finite(column, c.numbers(array), origin)
    if order == "float":
        bits = (c.numbers(array) + 0.0).view(np.uint64)
        # Negative floats sort backwards by their bits.
        return np.where(bits >= _HALF, ~bits, bits | _HALF)
    # None for a fraction, and for a number out of range.
    whole = cast_or_none(array, pa.int64() if order == "signed" else pa.uint64())
    if whole is None:
        return None
    return whole.to_numpy().view(np.uint64) + (_HALF if order == "signed" else np.uint64(0))


def time_cuts(path: Path, rows: int, split: Split, block: int = 1 << 18) -> tuple[int, int]:
    """The two keys at which time is cut, found exactly and in bounded memory.

    ``path``: a file with the uint64 keys of all rows. Rows with one time are never parted: each
    cut moves to the end of its tie that is nearer to the fraction asked for, or one time further
    where a split would have no row: three days are one day each.
    """

    def tie(rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Where the tie of a rank begins and ends: rows before that place, and the key to cut at."""
        key, below, ties = _select(path, rows, rank, block)
        return (below, key), (below + ties, key + 1)

    def nearest(fraction: float) -> tuple[int, int]:
        wanted = fraction * rows
        start, end = tie(min(round(wanted), rows - 1))
        return end if end[0] - wanted < wanted - start[0] else start

    first, second = nearest(split.fractions[0]), nearest(sum(split.fractions[:2]))
    if first[0] == 0:
        first = tie(0)[1]
    if second[0] <= first[0] < rows:
        second = tie(first[0])[1]
    if second[0] >= rows:
        second = tie(rows - 1)[0]
    if 0 < second[0] <= first[0]:
        first = tie(second[0] - 1)[0]
    return first[1], max(first[1], second[1])


def time_folds(path: Path, rows: int, end: int, block: int = 1 << 18) -> tuple[int, ...]:
    """The keys at which the time of train rows is cut into `FOLDS` stretches of as many rows.

    ``path``: a file with the uint64 keys of all rows. ``end``: the key that ends the train rows.
    """
    keys = np.memmap(path, dtype=np.uint64, mode="r", shape=(rows,))
    train = sum(
        int(np.count_nonzero(~_reached(np.asarray(keys[start : start + block]), end)))
        for start in range(0, rows, block)
    )
    ranks = (train * fold // FOLDS for fold in range(1, FOLDS))
    return tuple(_select(path, rows, rank, block)[0] for rank in ranks)


def _select(path: Path, rows: int, rank: int, block: int) -> tuple[int, int, int]:
    """The key of a rank, how many keys are below it and how many equal it: radix selection."""
    prefix, below, ties = 0, 0, 0
    keys = np.memmap(path, dtype=np.uint64, mode="r", shape=(rows,))
    for shift in (48, 32, 16, 0):
        counts = np.zeros(1 << 16, dtype=np.int64)
        for start in range(0, rows, block):
            part = np.asarray(keys[start : start + block])
            if shift < 48:
                part = part[part >> np.uint64(shift + 16) == np.uint64(prefix)]
            digits = (part >> np.uint64(shift)) & np.uint64(0xFFFF)
            counts += np.bincount(digits.astype(np.int64), minlength=1 << 16)
        reached = np.cumsum(counts)
        digit = int(np.searchsorted(reached, rank - below, side="right"))
        ties = int(counts[digit])
        below += int(reached[digit]) - ties
        prefix = prefix << 16 | digit
    return prefix, below, ties
