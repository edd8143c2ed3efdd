"""The encoder of single rows and small requests: the same ids and numbers as `Encoder.encode`, no frame.

`Encoder.encode` reads a block of Arrow columns. Its work on a block is some 2 ms, however small the block.
Here a row is a mapping, or a column is a list of values; ids come from dictionaries (`ids_by_value`), and the
single numbers of all columns are scaled together. What a dictionary does not know is asked of the encoder's
own parts, so the two cannot disagree.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int32

from isthmus.data.batch import Batch
from isthmus.data.encoding.block_layout import BlockLayout
from isthmus.data.encoding.encoder import Encoder
from isthmus.data.encoding.numbers.scaler import Scaler, transform
from isthmus.data.encoding.roles import needed, vocabulary_name
from isthmus.data.requests import given
from isthmus.data.requests.ids_by_value import DomainLookup, Lookup
from isthmus.data.tables.columns import Origin
from isthmus.data.tables.plain import offsets_of
from isthmus.schema import Categorical, CategoricalList, Numeric, NumericList, Time, Vector

SOURCE = "the request"


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """Rows as numbers. Columns stand as in `isthmus.data.encoding.encoder.EncodedRows`."""

    categorical: Int32[np.ndarray, "rows columns"]
    numeric: Float32[np.ndarray, "rows numbers"]
    lists: tuple[tuple[np.ndarray, np.ndarray], ...]  # values int32 or float32; offsets int64
    domain: Int32[np.ndarray, " rows"]  # 0 unknown or missing

    def batch(self) -> Batch:
        """The rows as tensors, without labels."""
        return Batch.of_arrays(
            categorical=self.categorical,
            numeric=self.numeric,
            lists=self.lists,
            domain=self.domain,
            label=np.full(len(self.domain), np.nan, dtype=np.float32),
            weight=None,
        )


class RowEncoder:
    """Turns rows of a request into ids and numbers. Threads may share one.

    >>> RowEncoder(encoder).encode([{"user": 7, "tab": "home"}]).categorical  # doctest: +SKIP
    array([[3]], dtype=int32)

    ``columns``: the columns that a row must have, features first. A row may have others.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        config = encoder.config
        self.columns: tuple[str, ...] = tuple(needed(config, roles=()))
        self._fields = encoder.fields
        self._layout = BlockLayout.of(self._fields)
        self._domain = DomainLookup(encoder.domains, encoder.domain_kind)
        tables = {name: Lookup(vocabulary) for name, vocabulary in encoder.vocabularies.items()}
        self._lookups = {
            name: tables[vocabulary_name(config, name)]
            for name, feature in config.features.items()
            if isinstance(feature, Categorical | CategoricalList)
        }
        self._numbers = Numbers(encoder, self._layout, self.columns)
        # Where single values stand in the ids, and among the columns of a request.
        single = [
            (name, place)
            for place, name in enumerate(self._layout.categorical)
            if isinstance(config.features.get(name), Categorical)
        ]
        self._single = [(name, self._lookups[name]) for name, _ in single]
        self._known = [lookup.known for _, lookup in self._single]
        self._from = [self.columns.index(name) for name, _ in single]
        self._places = _run_of([place for _, place in single])
        self._others = [
            (name, one, self.columns.index(name))
            for name, one in config.features.items()
            if not isinstance(one, Categorical | Numeric)
        ]
        self._domain_from = self.columns.index(config.domain)

    def encode(self, rows: Sequence[Mapping[str, Any]], source: str = SOURCE) -> EncodedRequest:
        """Encode rows that name their columns. ``source``: what errors call them.

        Raises ``SchemaError``, with column and row, for a column that a row lacks and for what the
        schema does not allow. None is a missing value.
        """
        try:
            found = list(map(itemgetter(*self.columns), rows))
        except (KeyError, TypeError):
            self._refuse_row(rows, source)
            raise
        columns = zip(*found, strict=True) if len(self.columns) > 1 else (found,)
        return self.encode_columns(list(columns) or [()] * len(self.columns), source)

    def _refuse_row(self, rows: Sequence[Mapping[str, Any]], source: str) -> None:
        origin = Origin(source, 0)
        for at, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise origin.fault(
                    "*", "stand in a row that names its columns", given.shown(row), at
                )
            for column in self.columns:
                if column not in row:
                    raise origin.fault(column, "be in every row", "none", at)

    def encode_columns(
        self, columns: Sequence[Sequence[Any]], source: str = SOURCE, *, typed: bool = False
    ) -> EncodedRequest:
        """Encode columns of values, each (rows,), in the order of ``self.columns``.

        ``typed``: the values of a column of numbers are known to be bool, int, float or None. Raises
        ``SchemaError``, with column and row, for what the schema does not allow.
        """
        origin, encoder = Origin(source, 0), self.encoder
        rows = len(columns[0])
        if self._others:
            ids, x, into = self._layout.empty(rows)
        else:
            ids, x, into = *self._layout.arrays(rows), {}
        lists = []
        if self._single:
            ids[:, self._places] = self._ids(columns, rows, origin).T
        for name, feature, at in self._others:
            values = columns[at]
            if isinstance(feature, CategoricalList | NumericList):
                lists.append(self._list(name, values, origin))
            elif isinstance(feature, Vector):
                _put_vectors(into[name], name, values, origin)
            elif isinstance(feature, Time):
                array = _times(name, feature, values, origin)
                encoder.clocks[name].fill(into, name, array, origin)
        self._numbers.fill(x, columns, origin, typed=typed)
        domain = self._domain.ids(encoder.config.domain, columns[self._domain_from], origin)
        if encoder.growth is not None:
            encoder.growth.hide(self._fields, ids, lists, domain)
        encoder.taught.fill(x, ids, tuple(lists), domain)
        return EncodedRequest(ids, x, tuple(lists), domain)

    def _ids(
        self, columns: Sequence[Sequence[Any]], rows: int, origin: Origin
    ) -> Int32[np.ndarray, "columns rows"]:
        """Ids of the single values."""
        some = [columns[at] for at in self._from]
        try:
            # One pass over all columns, so that a request of one row has no step per column.
            found: Any = map(map, self._known, some, repeat(repeat(0)))
            flat = np.fromiter(chain.from_iterable(found), np.int32, len(some) * rows)
        except TypeError:
            for (name, lookup), values in zip(self._single, some, strict=True):
                lookup.refuse_unhashable(name, values, origin, _same)
            raise
        ids = flat.reshape(len(some), rows)
        if not flat.all():
            unknown: dict[int, list[int]] = {}
            for place in (flat == 0).nonzero()[0].tolist():
                unknown.setdefault(place // rows, []).append(place % rows)
            for at, places in unknown.items():
                name, lookup = self._single[at]
                lookup.search(name, some[at], ids[at], places, origin, _same)
        return ids

    def _list(
        self, name: str, values: Sequence[Any], origin: Origin
    ) -> tuple[np.ndarray, np.ndarray]:
        feature = self.encoder.config.features[name]
        assert isinstance(feature, CategoricalList | NumericList)
        kept = [
            _items(name, at, one, origin)[-feature.max_length :] for at, one in enumerate(values)
        ]
        offsets = offsets_of(np.array([len(one) for one in kept], dtype=np.int64))
        items = list(chain.from_iterable(kept))
        row_of = _rows_of(offsets)
        if isinstance(feature, CategoricalList):
            ids = self._lookups[name].ids(name, items, origin, row_of)
            return np.array(ids, dtype=np.int32), offsets
        return self._numbers.items(name, items, origin, row_of, np.diff(offsets)), offsets


class Numbers:
    """Scales the single numbers of all columns together, and those of lists."""

    def __init__(self, encoder: Encoder, layout: BlockLayout, columns: Sequence[str]) -> None:
        self._features, self._scalers = encoder.config.features, encoder.scalers
        self._names = [name for name, one in self._features.items() if isinstance(one, Numeric)]
        self._from = [columns.index(name) for name in self._names]
        places = [layout.numbers[name].start for name in self._names]
        self._places = _run_of(places)
        # The columns of each plain scale, which one step of NumPy brings to scale.
        self._plain: dict[str, tuple[list[int], np.ndarray, np.ndarray]] = {}
        self._others: list[int] = []
        groups: dict[str, list[int]] = {}
        for at, name in enumerate(self._names):
            scaler = self._scalers[name]
            if isinstance(scaler, Scaler):
                groups.setdefault(scaler.scale, []).append(at)
            else:
                self._others.append(at)
        for scale, members in groups.items():
            scalers = [self._scalers[self._names[at]] for at in members]
            shift = np.array([one.shift for one in scalers if isinstance(one, Scaler)])
            spread = np.array([one.spread for one in scalers if isinstance(one, Scaler)])
            self._plain[scale] = (members, shift[:, None], spread[:, None])

    def fill(
        self,
        x: Float32[np.ndarray, "rows numbers"],
        columns: Sequence[Sequence[Any]],
        origin: Origin,
        *,
        typed: bool,
    ) -> None:
        """Write the scaled single numbers into their columns of ``x``; see `RowEncoder.encode_columns`."""
        if not self._names:
            return
        some = [columns[at] for at in self._from]
        raw = self._read(some, origin, typed)
        out = np.empty(raw.shape, dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for scale, (members, shift, spread) in self._plain.items():
                whole = len(members) == len(raw)
                y = raw if whole else raw[members]
                if scale != "none":
                    y = (transform(scale, y) - shift) / spread  # type: ignore[arg-type]
                out[slice(None) if whole else members] = y
        for at in self._others:
            out[at] = self._scalers[self._names[at]].apply(raw[at])
        if not np.isfinite(out).all():
            for at in np.flatnonzero(~np.isfinite(out).all(axis=1)):
                self._mend(self._names[at], some[at], raw[at], out[at], origin, None)
        x[:, self._places] = out.T

    def _read(
        self, columns: Sequence[Sequence[Any]], origin: Origin, typed: bool
    ) -> Float64[np.ndarray, "columns rows"]:
        """Numbers; nan where a value is None."""
        if typed or given.PLAIN_NUMBERS.issuperset(map(type, chain.from_iterable(columns))):
            shape = (len(columns), len(columns[0]))
            try:
                flat = np.fromiter(chain.from_iterable(columns), np.float64, shape[0] * shape[1])
                return flat.reshape(shape)
            except TypeError:  # a value is None, which an array of known type reads as nan
                with contextlib.suppress(OverflowError):
                    return np.array(columns, dtype=np.float64).reshape(shape)
            except OverflowError:
                pass  # one is too large: the columns are read one by one, and it is named
        found = [
            given.numbers(name, values, origin, _same)
            for name, values in zip(self._names, columns, strict=True)
        ]
        return np.array(found)

    def items(
        self,
        name: str,
        values: Sequence[Any],
        origin: Origin,
        row_of: Callable[[int], int],
        lengths: np.ndarray,
    ) -> np.ndarray:
        """Scaled items float32 (items,) of lists with these lengths."""
        raw = given.numbers(name, values, origin, row_of)
        out = self._scalers[name].apply(raw)
        if not np.isfinite(out).all():
            self._mend(name, values, raw, out, origin, lengths)
        return out

    def _mend(
        self,
        name: str,
        values: Sequence[Any],
        raw: np.ndarray,
        out: np.ndarray,
        origin: Origin,
        lengths: np.ndarray | None,
    ) -> None:
        """Fill the missing numbers of a column; refuse numbers that are not finite."""
        feature = self._features[name]
        assert isinstance(feature, Numeric | NumericList)
        missing = np.array([value is None for value in values], dtype=bool)
        if feature.nan == "missing":
            missing |= np.isnan(raw)
        out[missing] = self._scalers[name].fill
        wrong = ~np.isfinite(out)
        origin.refuse(name, "be finite", wrong & ~np.isfinite(raw), raw, lengths=lengths)
        origin.refuse(name, "fit in 32-bit floats once scaled", wrong, raw, lengths=lengths)


def _run_of(places: list[int]) -> slice | np.ndarray:
    """Places to write to; a slice, which costs less, where one stands next to the other."""
    if places and places == list(range(places[0], places[-1] + 1)):
        return slice(places[0], places[-1] + 1)
    return np.array(places, dtype=np.int64)


def _same(at: int) -> int:
    return at


def _rows_of(offsets: np.ndarray) -> Callable[[int], int]:
    """The row of an item of lists with these offsets."""
    return lambda at: int(np.searchsorted(offsets, at, side="right")) - 1


def _items(name: str, row: int, value: Any, origin: Origin) -> Sequence[Any]:
    """The items of one list; none of a missing one."""
    if isinstance(value, list | tuple):
        return value
    if value is None:
        return ()
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return value.tolist()
    return given.refuse(name, "be a list", value, origin, row)  # type: ignore[return-value]


def _put_vectors(out: np.ndarray, name: str, values: Sequence[Any], origin: Origin) -> None:
    """Write given vectors; a missing one is 0."""
    width = out.shape[1]
    found = [_items(name, at, value, origin) for at, value in enumerate(values)]
    for at, (value, items) in enumerate(zip(values, found, strict=True)):
        if value is not None and len(items) != width:
            raise origin.fault(name, f"hold {width} numbers", len(items), at)
        if None in items:
            raise origin.fault(name, "hold no null", "null", at)
    lengths = np.array([len(items) for items in found], dtype=np.int64)
    row_of = _rows_of(offsets_of(lengths))
    raw = given.numbers(name, list(chain.from_iterable(found)), origin, row_of)
    with np.errstate(over="ignore"):
        flat = raw.astype(np.float32)
    origin.refuse(name, "be finite", ~np.isfinite(flat), flat, lengths=lengths)
    out[lengths > 0] = flat.reshape(-1, width)


def _times(name: str, feature: Time, values: Sequence[Any], origin: Origin) -> pa.Array:
    """A time as Arrow holds it: integers of its unit, or timestamps."""
    for at, value in enumerate(values):
        if value is None:
            continue
        if feature.unit is not None:
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                rule = f"be an integer, since its time has the unit {feature.unit!r}"
                given.refuse(name, rule, value, origin, at)
            if not -(2**63) <= value < 2**63:
                rule = f"lie in the years 1 to 9999 ({feature.unit} since 1970)"
                given.refuse(name, rule, value, origin, at)
        elif given.moment(value) is None:
            given.refuse(name, given.rule_of("timestamp"), value, origin, at)
    if feature.unit is not None:
        return pa.array(list(values), pa.int64())
    micros = [None if value is None else given.moment(value) for value in values]
    return pa.array(micros, pa.int64()).view(pa.timestamp("us", "UTC"))
