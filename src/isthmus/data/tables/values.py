"""A value keeps its identity whatever carries it: 64-bit keys, names, stable hashes.

    number      the whole numbers of int64 are their own key; every other number has a mixed hash:
                of its uint64 from 2**63 on, of its float64, or of its digits where no float64 holds it
    text        text, or bytes where a column holds bytes; `hash_text` where 64 bits are asked for
    moment      microseconds since 1970, UTC; a date is its midnight, a naive time counts as UTC
    time, duration    microseconds; finer than that, a mixed hash of the nanoseconds

A float32 counts as the shortest decimal that gives it back: 0.1 is 0.1 in every width.
"""

from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.data.tables.kinds import BOTH_SIGNS, NUMBERS, family, kind
from isthmus.data.tables.plain import (
    cast_or_none,
    decode,
    masked,
    null_mask,
    numpy_of,
    replaced,
)

_ODD = np.uint64(0x9E3779B97F4A7C15)
# Masks that keep the first 0 .. 8 bytes of a little-endian word.
_LOW_BYTES = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)
# Seeds of the hashes that stand for values with no 64-bit integer of their own.
_UNSIGNED, _FLOAT, _FINE = 0xA1, 0xA2, 0xA3
_DAY = 86_400_000_000  # microseconds
_EXACT_DIGITS = 15  # decimals of so many digits come back from a float64
_NUMERATOR = {"s": 1_000_000, "ms": 1000, "us": 1}


def is_named(to: str) -> bool:
    """Whether values of this kind are kept as text or bytes rather than as 64-bit keys."""
    return to in ("string", "binary")


def canonical(array: pa.Array, to: str) -> pa.Array:
    """Values as ``large_string`` or ``large_binary``, or as ``int64`` keys where they are neither.

    ``array``: plain, and no dictionary. ``to``: the kind that the vocabulary was fitted with; the
    array is of a comparable one. NaN, a null, and bytes that are no text among texts become null.
    """
    if kind(array.type) == "null":
        return pa.nulls(len(array), stored_type(to))
    if is_named(to):
        return _text(array, to)
    if to == BOTH_SIGNS and array.type == pa.uint64():
        return array.view(pa.int64())
    return keys(array)


def keys(array: pa.Array) -> pa.Array:
    """Int64 keys of plain numbers, moments, times and durations; equal values, equal keys."""
    dtype = array.type
    have = kind(dtype)
    if dtype == pa.uint64():
        return _unsigned(array)
    if have in ("integer", "boolean"):
        return pc.cast(array, pa.int64())
    if have == "floating":
        return _float_keys(array)
    if have == "decimal":
        return _decimal_keys(array)
    if have == "date":
        days = pc.cast(array, pa.date32()).view(pa.int32())
        return pc.call_function("multiply", [pc.cast(days, pa.int64()), pa.scalar(_DAY)])
    return _ticks(array)


def stored_type(to: str) -> pa.DataType:
    """Type in which the values of a kind are kept."""
    return {"string": pa.large_string(), "binary": pa.large_binary()}.get(to, pa.int64())


def _text(array: pa.Array, to: str) -> pa.Array:
    if to == "binary" or kind(array.type) == "string":
        return pc.cast(array, stored_type(to))
    text = cast_or_none(array, pa.large_string())
    if text is not None:
        return text
    coded = (
        array.dictionary_encode()
    )  # a value that is no text equals none: distinct values are few
    found = [_spelled(value) for value in coded.dictionary.to_pylist()]
    return pa.array(found, pa.large_string()).take(coded.indices)


def _spelled(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def is_utf8(array: pa.Array) -> bool:
    """Whether every value of an array of bytes is text."""
    return cast_or_none(decode(array), pa.large_string()) is not None


def _unsigned(array: pa.Array) -> pa.Array:
    plain = numpy_of(array, 0)
    large = plain >= np.uint64(1 << 63)
    if not large.any():
        return array.view(pa.int64())
    found = plain.view(np.int64).copy()
    found[large] = mix(plain[large], seed=_UNSIGNED).view(np.int64)
    return masked(found, array)


def _float_keys(array: pa.Array) -> pa.Array:
    plain = numpy_of(shortest(array), np.nan)
    with np.errstate(invalid="ignore"):
        whole = (np.floor(plain) == plain) & (plain >= -(2.0**63)) & (plain < 2.0**63)
        found = np.where(whole, plain, 0).astype(np.int64)
    if not whole.all():
        found[~whole] = _odd_floats(plain[~whole])
    missing = np.isnan(plain)
    return pa.array(found, mask=missing if missing.any() else None)


def _odd_floats(x: np.ndarray) -> np.ndarray:
    """Keys of floats that no int64 equals."""
    found = mix(x.view(np.int64), seed=_FLOAT)
    unsigned = (x >= 2.0**63) & (x < 2.0**64)  # every float of this size is whole
    found[unsigned] = mix(x[unsigned].astype(np.uint64), seed=_UNSIGNED)
    return found.view(np.int64)


def shortest(array: pa.Array) -> pa.Array:
    """Floats as float64: a float32 as the shortest decimal that gives it back."""
    if array.type == pa.float64():
        return array
    if array.type != pa.float32():
        return pc.cast(array, pa.float64(), safe=False)
    wide = pc.cast(array, pa.float64())
    plain = numpy_of(wide, 0.0)
    with np.errstate(invalid="ignore"):
        odd = np.flatnonzero((np.floor(plain) != plain) & np.isfinite(plain))
    if not len(odd):
        return wide
    found = plain.copy()
    digits = pc.cast(array.take(pa.array(odd)), pa.large_string())
    found[odd] = pc.cast(digits, pa.float64()).to_numpy()
    return masked(found, array)


def _decimal_keys(array: pa.Array) -> pa.Array:
    whole = cast_or_none(array, pa.int64())
    if whole is not None:
        return whole
    coded = array.dictionary_encode()
    text = plain_digits(pc.cast(coded.dictionary, pa.large_string()))
    return pa.array(digit_keys(text)).take(coded.indices)


def plain_digits(text: pa.Array) -> pa.Array:
    """Decimals as a person writes them: no zeros behind the point, no exponent, no -0."""
    if "E" in "".join(text.drop_null().to_pylist()):
        spelled = [None if x is None else format(Decimal(x), "f") for x in text.to_pylist()]
        text = pa.array(spelled, pa.large_string())
    for pattern, by in ((r"^(-?\d+)\.0*$", r"\1"), (r"^(-?\d+\.\d*?)0+$", r"\1"), ("^-0$", "0")):
        text = replaced(text, pattern, by)
    return text


def digit_keys(text: pa.Array) -> np.ndarray:
    """Keys int64 (n,) of numbers written out: those that a float64 gives back, by the float64."""
    digits = replaced(text, r"^-?0*|\.|-", "")
    short = numpy_of(pc.call_function("utf8_length", [digits]), 0) <= _EXACT_DIGITS
    if short.all():
        return _float_keys(pc.cast(text, pa.float64())).to_numpy()
    found = np.empty(len(text), dtype=np.int64)
    brief = text.filter(pa.array(short))
    found[short] = _float_keys(pc.cast(brief, pa.float64())).to_numpy()
    # More digits than a float64 holds, distinct values only.
    found[~short] = [_long_key(digits) for digits in text.filter(pa.array(~short)).to_pylist()]
    return found


def _long_key(digits: str) -> int:
    number, close = Decimal(digits), float(digits)
    if number == number.to_integral_value() and abs(number) < 2**64:
        whole = int(number)
        if -(2**63) <= whole < 2**63:
            return whole
        if whole > 0:
            return int(mix(np.array([whole], np.uint64), seed=_UNSIGNED).view(np.int64)[0])
    if number in (Decimal(repr(close)), Decimal(close)):
        return int(_float_keys(pa.array([close]))[0].as_py())
    return int(hash_text(pa.array([digits]))[0])


def _ticks(array: pa.Array) -> pa.Array:
    """Microseconds of timestamps, times and durations; a mixed hash where they are finer."""
    unit, width = array.type.unit, pa.int32() if array.type.bit_width == 32 else pa.int64()
    ticks = pc.cast(array.view(width), pa.int64())
    if unit != "ns":
        return pc.call_function("multiply", [ticks, pa.scalar(_NUMERATOR[unit])])
    plain = numpy_of(ticks, 0)
    found, rest = np.divmod(plain, 1000)
    if rest.any():
        found[rest > 0] = mix(plain[rest > 0], seed=_FINE).view(np.int64)
    return masked(found, array)


def names(array: pa.Array, like: str | None = None) -> pa.Array:
    """The text by which a person knows each value; null and NaN give null.

    ``like``: the kind that the names were fitted with, where it is not the array's own: among
    integers True is named ``1``, among dates midnight is named by its date, among bytes a text is
    named by the hexadecimal digits of its UTF-8. Values of another family keep the name that they
    have among themselves. ``array``: plain; the work follows its length.
    """
    array = decode(array)
    have = kind(array.type)
    like = have if like in (None, "null") else like
    if have == "null":
        return pc.cast(array, pa.large_string())
    like = like if family(like) == family(have) else have
    if like == "string":
        return _text(array, "string")
    if like == "binary":
        found = [None if x is None else x.hex() for x in _text(array, "binary").to_pylist()]
    elif have == "integer" and like != "boolean":
        return pc.cast(array, pa.large_string())
    elif have in NUMBERS:
        found = [_number_name(x, like) for x in _plain_numbers(array)]
    elif family(have) == "moment":
        found = _moment_names(array, like)
    else:
        found = _clock_names(array)
    return pa.array(found, pa.large_string())


def _plain_numbers(array: pa.Array) -> list[bool | int | float | Decimal | None]:
    if kind(array.type) == "floating":
        return shortest(array).to_pylist()
    return array.to_pylist()


def _number_name(x: bool | int | float | Decimal | None, like: str) -> str | None:
    if x is None or x != x:
        return None
    if like == "boolean" and x in (0, 1):
        return str(bool(x))
    if isinstance(x, float) and not (x.is_integer() and abs(x) < 2**64):
        return repr(x)
    if not isinstance(x, Decimal):
        return str(int(x))
    if x == x.to_integral_value() and abs(x) < 2**64:
        return str(int(x))
    close = float(x)
    if x in (Decimal(repr(close)), Decimal(close)):
        return repr(close)
    return format(x.normalize(), "f")


def _moment_names(array: pa.Array, like: str) -> list[str | None]:
    """ISO, with a blank; a fraction only where it is not zero; days alone among dates."""
    if pa.types.is_date(array.type):
        array = pc.cast(array, pa.timestamp("us" if pa.types.is_date32(array.type) else "ms"))
    ticks = numpy_of(pc.cast(array.view(pa.int64()), pa.int64()), 0)
    texts = np.datetime_as_string(ticks.view(f"datetime64[{array.type.unit}]"))
    found = []
    for text, missing in zip(texts.tolist(), null_mask(array).tolist(), strict=True):
        day, _, clock = text.partition("T")
        second, _, fraction = clock.partition(".")
        fraction = fraction.ljust(6, "0").removesuffix("000" * (len(fraction) > 6))
        clock = f"{second}.{fraction}" if fraction.strip("0") else second
        alone = like == "date" and clock == "00:00:00"
        found.append(None if missing else day if alone else f"{day} {clock}")
    return found


def _clock_names(array: pa.Array) -> list[str | None]:
    """Times and durations as Python writes them; the nanoseconds follow where there are any."""
    width = pa.int32() if array.type.bit_width == 32 else pa.int64()
    ticks = pc.cast(array.view(width), pa.int64()).to_pylist()
    to_nanos = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}[array.type.unit]
    found: list[str | None] = []
    for tick in ticks:
        if tick is None:
            found.append(None)
            continue
        micros, rest = divmod(tick * to_nanos, 1000)
        try:
            span = timedelta(microseconds=micros)
        except OverflowError:  # more than three million years
            found.append(f"{tick} {array.type.unit}")
            continue
        text = str(span) if pa.types.is_duration(array.type) else str((datetime.min + span).time())
        if rest:
            text = f"{text}{'' if '.' in text else '.000000'}{rest:03d}"
        found.append(text)
    return found


def mix(keys: np.ndarray, seed: int = 0) -> np.ndarray:
    """splitmix64 of 64-bit keys (n,) -> uint64 (n,): the same in every process and version."""
    with np.errstate(over="ignore"):
        start = (np.uint64(seed & 0xFFFFFFFFFFFFFFFF) + np.uint64(1)) * _ODD
        z = keys.view(np.uint64) if keys.dtype == np.int64 else keys.astype(np.uint64)
        z = z * _ODD
        z += start
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return z


def hash_text(array: pa.Array) -> np.ndarray:
    """Stable 64-bit hash of every text, int64 (n,): eight bytes at a time, mixed with the length.

    Nulls hash like the empty text. Bytes, not characters: a text and its UTF-8 hash alike.
    The number of NumPy steps follows the longest text, not the rows.
    """
    rows = len(array)
    if rows == 0:
        return np.empty(0, dtype=np.int64)
    array = pc.cast(array, pa.large_binary())
    _, places, content = array.buffers()
    offsets = np.frombuffer(places, dtype=np.int64, count=rows + 1, offset=array.offset * 8)
    start, stop = int(offsets[0]), int(offsets[-1])
    # Eight bytes more, so that a word may begin at the last byte of the last text.
    text = np.zeros(stop - start + 8, dtype=np.uint8)
    if stop > start:
        text[:-8] = np.frombuffer(content, dtype=np.uint8, count=stop - start, offset=start)
    words = np.ndarray((stop - start + 1,), dtype="<u8", buffer=text, strides=(1,))
    at, left = offsets[:-1] - start, np.diff(offsets)
    if array.null_count:
        left = np.where(null_mask(array), 0, left)
    hashed = mix(left, seed=1)
    live = np.flatnonzero(left)
    while len(live):
        here, rest = at[live], left[live]
        word = words[here] & _LOW_BYTES[np.minimum(rest, 8)]
        hashed[live] = mix(hashed[live] ^ word, seed=1)
        at[live], left[live] = here + 8, rest - 8
        live = live[rest > 8]
    return hashed.view(np.int64)
