"""What a text spells: a number, a truth value, a moment, or only itself.

A column of texts gets another type only where nothing is lost by it: ``7`` is an integer, ``007``
is a text, and so is the digest ``3e5``, because no writer spells 300000 like that. ``NA`` is a
null. Nothing here takes a Python step per row; a step per distinct value is named where it is.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.data.tables.plain import any_true, cast_or_none, matches, replaced

NULLS = ("", "NA", "N/A", "n/a", "<NA>", "null", "NULL", "nan", "NaN")
TRUE = ("true", "True", "TRUE")
FALSE = ("false", "False", "FALSE")

MOMENT = pa.timestamp("us")
ZONED = pa.timestamp("us", "UTC")
_DECIMAL = pa.decimal128(38, 18)

# Every integer up to here is exactly a float64.
_EXACT = 2**53

_INTEGER = r"^(?:0|-?[1-9][0-9]*)$"
# The forms of Python (and pandas), polars and pyarrow. They write decimals plainly from 1e-4, 1e-5
# and 1e-6 up to 1e16, 1e16 and 1e10; outside these bounds they write an exponent.
_FLOAT = (
    r"^-?(?:(?:0\.(?:0|0{0,5}[1-9](?:[0-9]*[1-9])?)|[1-9][0-9]{0,15}\.(?:0|[0-9]*[1-9]))"
    r"|[1-9](?:\.[0-9]*[1-9])?e(?:\+[1-9][0-9]{1,2}|-0[5-9]|-[6-9]|-[1-9][0-9]{1,2})|inf)$"
)
_LOOSE = (
    r"^[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
    r"|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?)$"
)
_HELD = r"^-?[0-9]{1,20}(?:\.[0-9]{1,18})?$"  # what decimal128(38, 18) holds
_CLOCK = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"
_NAIVE_CLOCK = _CLOCK + "$"
_ZONED_CLOCK = _CLOCK + r"(?:Z|[+-][0-9]{2}:[0-9]{2})$"
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"

_PROBE = 64


@dataclass(frozen=True, slots=True)
class Spelled:
    """The narrowest type that loses none of the texts seen, and what it needs to be joined.

    ``type``: null, int64, uint64, float64, bool, date32, timestamp[us], timestamp[us, tz=UTC] or
    string.

    >>> Spelled.of(pa.array(["7", "8", None])).type
    DataType(int64)
    >>> Spelled.of(pa.array(["007", "8"])).type
    DataType(string)
    """

    type: pa.DataType = field(default_factory=pa.null)
    negative: bool = False  # whether some integer is below zero; False unless all are integers
    widest: int = 0  # the largest absolute integer; 0 unless all are integers

    @staticmethod
    def of(text: pa.Array, known: "Spelled | None" = None) -> "Spelled":
        """What the texts spell together with all that is ``known`` of their column already.

        ``text``: strings (rows,), where `NULLS` and nulls count as missing. Most blocks keep the
        type of their column, so the known type is tried first.
        """
        known = known or Spelled()
        if known.type == pa.string() or text.null_count == len(text):
            return known
        text = _strings(text).drop_null()
        if known.type in _LOOKS and (found := _LOOKS[known.type](text)):
            return known.join(found)
        # A cast that fails is slow, because it words a fault for each row: few rows go first.
        probe = text.take(pa.array(np.linspace(0, len(text) - 1, _PROBE).astype(np.int64)))
        for look in _LOOKS.values():
            if look(probe) and (found := look(text)):
                return known.join(found)
        rest = present(text).drop_null()
        return Spelled(pa.string()) if len(rest) == len(text) else Spelled.of(rest, known)

    def join(self, other: "Spelled") -> "Spelled":
        """What the texts of both spell: text where no other type holds them without a loss."""
        if pa.null() in (self.type, other.type):
            return self if other.type == pa.null() else other
        types = {self.type, other.type}
        negative, widest = self.negative or other.negative, max(self.widest, other.widest)
        if len(types) == 1:
            return Spelled(self.type, negative, widest)
        if types == {pa.int64(), pa.uint64()} and not negative:
            return Spelled(pa.uint64(), negative, widest)
        if types == {pa.int64(), pa.float64()} and widest <= _EXACT:
            return Spelled(pa.float64())
        if types == {pa.date32(), MOMENT}:
            return Spelled(MOMENT)
        return Spelled(pa.string())


def present(text: pa.Array) -> pa.Array:
    """The texts with a null in the place of each of `NULLS`."""
    text = _strings(text)
    missing = _is_in(text, NULLS)
    return _where(pc.call_function("invert", [missing]), text) if any_true(missing) else text


def typed(text: pa.Array, dtype: pa.DataType) -> pa.Array:
    """Texts (rows,) that are known to spell ``dtype``, a type of `Spelled`, as that type."""
    text = present(text)
    if pa.types.is_null(dtype):
        return pa.nulls(len(text))
    if pa.types.is_boolean(dtype):
        return _where(text.is_valid(), _is_in(text, TRUE))
    return pc.cast(text, dtype)


def numbers(text: pa.Array) -> pa.Array:
    """Texts as float64 in every usual spelling; null where a text is no number.

    ``007``, ``1.50``, ``3e5``, ``+5``, ``.5`` and ``-Infinity`` are numbers, `` 1.5``, ``1,5`` and
    ``0x1F`` are none. A number beyond float64 is infinite.
    """
    text = present(text)
    found = _all_numbers(text)
    if found is not None:
        return found
    text = _where(matches(text, _LOOSE), text)
    return pc.cast(replaced(text, r"^\+", ""), pa.float64())


def first_no_number(text: pa.Array) -> int | None:
    """Place of the first text that `numbers` takes for none; None where all are, or missing."""
    text = present(text)
    if _all_numbers(text) is not None:
        return None
    for rows in (_PROBE, len(text)):
        loose = pc.fill_null(matches(text[:rows], _LOOSE), pa.scalar(True))
        if any_true(pc.call_function("invert", [loose])):
            return int(np.argmin(loose.to_numpy(zero_copy_only=False)))
    return None


def _all_numbers(text: pa.Array) -> pa.Array | None:
    """The texts as float64 where all of them are numbers, loosely."""
    found = None
    for rows in (_PROBE, len(text)):
        found = cast_or_none(text[:rows], pa.float64())
        if found is None or any_true(pc.call_function("is_nan", [found])):
            return None
    return found


def known_numbers(text: pa.Array) -> pa.Array:
    """Exact spellings of numbers as numbers, everything else null.

    int64 where all fit, else uint64, else float64 where each is exactly one, else decimal128(38,
    18) with nulls for what even that cannot hold. bool where all texts are truth values. Takes a
    Python step per distinct value where integers of 16 digits and more stand beside floats or are
    beyond uint64, and for exponents among such integers.
    """
    text = present(text)
    dense = text.drop_null()
    if len(dense) and _spells_bool(dense):
        return typed(text, pa.bool_())
    integer = matches(text, _INTEGER)
    decimal = _come_back(_where(matches(text, _FLOAT), text))
    kept = _where(pc.call_function("or", [integer, decimal]), text)
    for dtype in () if any_true(decimal) else (pa.int64(), pa.uint64()):
        found = cast_or_none(kept, dtype)
        if found is not None:
            return found
    if _are_doubles(text.filter(integer)):
        return pc.cast(kept, pa.float64())
    if any_true(_has(kept, "e")):
        kept = _per_distinct(kept, lambda written: format(Decimal(written), "f"), pa.string())
    return pc.cast(_where(matches(kept, _HELD), kept), _DECIMAL)


def known_moments(text: pa.Array, to: pa.DataType) -> pa.Array:
    """ISO dates and timestamps as timestamp[us]; null where a text spells none.

    A zoned timestamp is brought to UTC. The result has a zone only where ``to`` has one; a text
    without a zone is then taken for UTC. Takes a Python step per distinct value where a text has
    the shape of a moment and is none, as ``2024-02-30``.
    """
    text = present(text)
    naive = _moments(_where(matches(text, f"{_DAY}|{_NAIVE_CLOCK}"), text), MOMENT)
    zoned = _moments(_where(matches(text, _ZONED_CLOCK), text), ZONED)
    ticks = pc.call_function("coalesce", [naive.view(pa.int64()), zoned.view(pa.int64())])
    has_zone = pa.types.is_timestamp(to) and to.tz is not None
    return ticks.view(pa.timestamp("us", to.tz) if has_zone else MOMENT)


def _moments(text: pa.Array, dtype: pa.DataType) -> pa.Array:
    found = cast_or_none(text, dtype)
    return _per_distinct(text, _moment, dtype) if found is None else found


def _moment(written: str) -> dt.datetime | None:
    try:
        moment = dt.datetime.fromisoformat(written)
        return moment.astimezone(dt.UTC) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return None


def _spells_integer(text: pa.Array, dtype: pa.DataType) -> Spelled | None:
    found = cast_or_none(text, dtype)
    if found is None or not _are_bare(text):
        return None
    ends = pc.call_function("min_max", [found]).as_py()
    return Spelled(dtype, ends["min"] < 0, max(-ends["min"], ends["max"]))


def _spells_float(text: pa.Array) -> Spelled | None:
    found = cast_or_none(text, pa.float64())
    # ``nan`` spells a missing value, not a float: alone it must not decide the type.
    if found is None or any_true(pc.call_function("is_nan", [found])):
        return None
    return Spelled(pa.float64()) if _come_back_or_integers(text, found).all() else None


def _spells_bool(text: pa.Array) -> Spelled | None:
    said = pc.call_function("all", [_is_in(text, (*TRUE, *FALSE))]).as_py()
    return Spelled(pa.bool_()) if said else None


def _spells_date(text: pa.Array) -> Spelled | None:
    return None if cast_or_none(text, pa.date32()) is None else Spelled(pa.date32())


def _spells_moment(text: pa.Array) -> Spelled | None:
    # Of the shapes that the cast takes, only an hour without minutes has 13 bytes.
    good = cast_or_none(text, MOMENT) is not None and not (_lengths(text) == 13).any()
    return Spelled(MOMENT) if good else None


def _spells_zoned(text: pa.Array) -> Spelled | None:
    if cast_or_none(text, ZONED) is None:
        return None
    shaped = pc.call_function("all", [matches(text, _ZONED_CLOCK)]).as_py()
    return Spelled(ZONED) if shaped else None


# From narrow to wide. Each takes one text or more, without nulls.
_LOOKS: dict[pa.DataType, Callable[[pa.Array], Spelled | None]] = {
    pa.int64(): lambda text: _spells_integer(text, pa.int64()),
    pa.uint64(): lambda text: _spells_integer(text, pa.uint64()),
    pa.float64(): _spells_float,
    pa.bool_(): _spells_bool,
    pa.date32(): _spells_date,
    MOMENT: _spells_moment,
    ZONED: _spells_zoned,
}


def _are_bare(text: pa.Array) -> bool:
    """Whether integers, as a cast takes them, have no zero in front, no ``0x`` and no ``-0``."""
    content, start, length = _bytes(text)
    lead = content[start]
    minus = lead == ord("-")
    if minus.any():
        lead = content[start + minus]
    zero = lead == ord("0")
    return not zero.any() or bool(length[zero].max() == 1)


def _come_back(text: pa.Array) -> pa.Array:
    """Bool (rows,): whether a text in the form of a float is what a writer of that float writes."""
    good = text.is_valid().to_numpy(zero_copy_only=False).copy()
    dense = text.drop_null()
    good[good] = _come_back_or_integers(dense, pc.cast(dense, pa.float64()))
    return pa.array(good)


def _come_back_or_integers(text: pa.Array, number: pa.Array) -> np.ndarray:
    """Whether each text is what a writer of ``number`` writes, or an integer up to 2**53.

    Bool (rows,). ``text``: without nulls; ``number``: the same texts as float64. Each look is slower
    than the one before it, and only for the rows which that left open.
    """
    good = np.zeros(len(text), dtype=bool)
    for look in (_polars_writes, _pyarrow_writes, _has_shortest):
        rest = np.flatnonzero(~good)
        if not len(rest):
            break
        if len(rest) == len(good):
            good = look(text, number)
        else:
            good[rest] = look(text.take(pa.array(rest)), number.take(pa.array(rest)))
    return good


def _polars_writes(text: pa.Array, number: pa.Array) -> np.ndarray:
    # Most floats end here: polars prints in half of the time that pyarrow takes.
    return (pl.Series(text) == pl.Series(number).cast(pl.String)).to_numpy()


def _pyarrow_writes(text: pa.Array, number: pa.Array) -> np.ndarray:
    """True where pyarrow writes the text; it writes 1.0 as ``1``, and ``-0`` is no such integer."""
    same = pc.call_function("equal", [text, pc.cast(number, text.type)])
    odd = pc.call_function("equal", [text, pa.scalar("-0", text.type)])
    return pc.call_function("and_not", [same, odd]).to_numpy(zero_copy_only=False)


def _has_shortest(text: pa.Array, number: pa.Array) -> np.ndarray:
    """True where the form is one that a writer uses and the digits are the shortest."""
    form = matches(text, _FLOAT)
    same = pc.call_function("equal", [_digits(text), _digits(pc.cast(number, pa.string()))])
    good = pc.call_function("and", [form, same]).to_numpy(zero_copy_only=False).copy()
    integer = matches(text, _INTEGER).to_numpy(zero_copy_only=False)
    places = np.flatnonzero(integer & (_lengths(text) <= 17))
    value = pc.cast(text.take(pa.array(places)), pa.int64()).to_numpy()
    good[places] = np.abs(value) <= _EXACT
    return good


def _digits(text: pa.Array) -> pa.Array:
    """The digits of a float that count: no sign, point, exponent or zeros at the ends."""
    bare = replaced(text, r"e.*|[.-]", "")
    return pc.call_function("utf8_trim", [bare], pc.TrimOptions("0"))


def _are_doubles(integers: pa.Array) -> bool:
    """Whether each is exactly a float64, as every integer of 15 digits is."""
    long = integers.filter(pa.array(_lengths(integers) > 15)).unique().to_pylist()
    return all(Decimal(written) == Decimal(float(written)) for written in long)


def _bytes(text: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bytes of texts without nulls; of each text (rows,) its first byte and its length."""
    _, places, content = text.buffers()
    width = np.dtype(np.int64 if pa.types.is_large_string(text.type) else np.int32)
    offsets = np.frombuffer(places, width, len(text) + 1, text.offset * width.itemsize)
    return np.frombuffer(content, np.uint8), offsets[:-1], np.diff(offsets)


def _lengths(text: pa.Array) -> np.ndarray:
    return pc.call_function("binary_length", [text]).to_numpy(zero_copy_only=False)


def _strings(text: pa.Array) -> pa.Array:
    plain = pa.types.is_string(text.type) or pa.types.is_large_string(text.type)
    return text if plain else pc.cast(text, pa.string())


def _is_in(text: pa.Array, words: tuple[str, ...]) -> pa.Array:
    return pc.call_function("is_in", [text], pc.SetLookupOptions(pa.array(words, text.type)))


def _has(text: pa.Array, part: str) -> pa.Array:
    return pc.call_function("match_substring", [text], pc.MatchSubstringOptions(part))


def _where(chosen: pa.Array, array: pa.Array) -> pa.Array:
    return pc.call_function("if_else", [chosen, array, pa.scalar(None, array.type)])


def _per_distinct(text: pa.Array, step: Callable[[str], object], dtype: pa.DataType) -> pa.Array:
    coded = text.dictionary_encode()
    values = [step(written) for written in coded.dictionary.to_pylist()]
    return pa.array(values, dtype).take(coded.indices)
