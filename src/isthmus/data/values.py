"""What a column's values are: their kind, their canonical keys, their stable hashes.

A value keeps its identity whatever dtype carries it: an int32, an int64 and a dictionary of
int64 all give the same 64-bit key, so a table and the frame it was read into encode alike.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NUMBERS = ("integer", "floating", "boolean")

_ODD = np.uint64(0x9E3779B97F4A7C15)
# Masks that keep the first 0 .. 8 bytes of a little-endian word.
_LOW_BYTES = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)


def kind(dtype: pa.DataType) -> str:
    """Kind of the values of an Arrow type; ``other`` for what cannot be a category."""
    if pa.types.is_dictionary(dtype):
        return kind(dtype.value_type)
    for name, test in (
        ("null", pa.types.is_null),
        ("boolean", pa.types.is_boolean),
        ("integer", pa.types.is_integer),
        ("floating", pa.types.is_floating),
        ("date", pa.types.is_date),
        ("timestamp", pa.types.is_timestamp),
        ("time", pa.types.is_time),
        ("duration", pa.types.is_duration),
        ("list", is_list),
    ):
        if test(dtype):
            return name
    if is_text(dtype) or pa.types.is_binary(dtype) or pa.types.is_large_binary(dtype):
        return "string"
    return "decimal" if pa.types.is_decimal(dtype) else "other"


def is_text(dtype: pa.DataType) -> bool:
    """Whether the type holds text."""
    test = pa.types
    return test.is_string(dtype) or test.is_large_string(dtype) or test.is_string_view(dtype)


def is_list(dtype: pa.DataType) -> bool:
    """Whether the type holds a list in every row, of any or of fixed length."""
    test = pa.types
    return test.is_list(dtype) or test.is_large_list(dtype) or test.is_fixed_size_list(dtype)


def item_type(dtype: pa.DataType) -> pa.DataType:
    """Type of the items of a list type; any other type is its own item."""
    return dtype.value_type if is_list(dtype) else dtype


def decoded_name(dtype: pa.DataType) -> str:
    """Name of a type for an error: a dictionary counts as the type of its values."""
    return str(dtype.value_type if pa.types.is_dictionary(dtype) else dtype)


def comparable(one: str, other: str) -> bool:
    """Whether values of two kinds can be the same value: numbers of any dtype can."""
    if "null" in (one, other):
        return True
    return one == other or (one in NUMBERS and other in NUMBERS)


def canonical(array: pa.Array, to: str) -> pa.Array:
    """Values as ``large_string``, or as ``int64`` keys for every other kind of value.

    ``to``: the kind that the vocabulary was fitted with. A number that the kind cannot hold
    (2.5 among integers), NaN, and a null become null. Dictionaries must be decoded before.
    """
    dtype = array.type
    have = kind(dtype)
    if have == "null":
        return pa.nulls(len(array), pa.large_string() if is_named(to) else pa.int64())
    if is_named(to):
        return pc.cast(array, pa.large_string())
    if to == "floating":
        numbers = pc.cast(array, pa.float64(), safe=False) if dtype != pa.float64() else array
        # + 0.0 makes one key of 0.0 and -0.0.
        plain = numpy_of(numbers, 0.0) + 0.0
        missing = np.isnan(plain)
        if array.null_count:
            missing |= null_mask(array)
        return pa.array(plain.view(np.int64), mask=missing if missing.any() else None)
    if have == "floating":
        return _whole_numbers(array)
    if dtype == pa.uint64():
        return array.view(pa.int64())  # the same bits: a 64-bit hash keeps its identity
    if to == "date":
        array = pc.cast(array, pa.date32())
        return pc.cast(array.view(pa.int32()), pa.int64())
    if to == "timestamp":
        unit = pa.timestamp("us", tz=getattr(dtype, "tz", None))
        return pc.cast(array, unit, safe=False).view(pa.int64())
    if to == "time":
        array = pc.cast(array, pa.time64("us"), safe=False).view(pa.int64())
    elif to == "duration":
        array = pc.cast(array, pa.duration("us"), safe=False).view(pa.int64())
    return array if array.type == pa.int64() else pc.cast(array, pa.int64())


def is_named(to: str) -> bool:
    """Whether values of this kind are kept as text rather than as 64-bit keys."""
    return to in ("string", "decimal")


def _whole_numbers(array: pa.Array) -> pa.Array:
    """Integer keys of floats, as a frame with nulls carries them; a fraction becomes null."""
    plain = numpy_of(pc.cast(array, pa.float64(), safe=False), np.nan)
    whole = (np.abs(plain) < 2.0**63) & (np.floor(plain) == plain)
    keys = np.where(whole, plain, 0).astype(np.int64)
    return pa.array(keys, mask=None if whole.all() else ~whole)


def null_mask(array: pa.Array) -> np.ndarray:
    """True where the array is null, as a bool array (rows,)."""
    return np.asarray(array.is_null().to_numpy(zero_copy_only=False), dtype=bool)


def numpy_of(array: pa.Array, null: float) -> np.ndarray:
    """The array as NumPy, with ``null`` in place of nulls; zero-copy where it has none."""
    if array.null_count:
        array = pc.fill_null(array, pa.scalar(null, array.type))
    return array.to_numpy(zero_copy_only=False)


def decode(array: pa.Array) -> pa.Array:
    """A dictionary as plain values; any other array as it is."""
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def names(array: pa.Array, like: str | None = None) -> pa.Array:
    """``str(value)`` of every value, the name of a domain; null and NaN give null.

    ``like``: the kind that the names were fitted with. Integers come back from a frame with
    nulls as floats, so among integers 3.0 is named ``3``.
    """
    array = decode(array)
    have = kind(array.type)
    if have in ("integer", "string", "date", "null"):
        return pc.cast(array, pa.large_string())
    found = array.to_pylist()
    if have == "floating":
        found = [None if value is None or value != value else value for value in found]
        if like == "integer":
            found = [int(x) if x is not None and x.is_integer() else x for x in found]
    return pa.array([None if x is None else str(x) for x in found], pa.large_string())


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
    """Stable 64-bit hash of every string, int64 (n,): eight bytes at a time, mixed with the length.

    Nulls hash like the empty string. Bytes, not characters: UTF-8 gives one form to each text.
    The number of NumPy steps follows the longest text, not the rows.
    """
    rows = len(array)
    if rows == 0:
        return np.empty(0, dtype=np.int64)
    array = pc.cast(array, pa.large_string())
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
