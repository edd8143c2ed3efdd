"""Carriers: the many layouts in which Arrow holds the same values, brought to a few.

After `plain` an array is a number, a text, bytes, a moment, a list with offsets, or a dictionary of
one of them with int32 indices; views, run ends, extension types, half floats and narrow decimals
are gone. Types that hold no plain values (structs, maps, unions) stay as they are. The steps from
Arrow to NumPy, and those of pyarrow that all of this folder takes, stand here too.
"""

from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.data.tables.kinds import is_plain_list, plain_type


def plain(array: pa.Array) -> pa.Array:
    """The same values, in the layout that `plain_type` names."""
    dtype, to = array.type, plain_type(array.type)
    if pa.types.is_dictionary(dtype):
        return _plain_dictionary(array, to)
    if dtype == to:
        return array
    test = pa.types
    if isinstance(dtype, pa.BaseExtensionType):
        return plain(array.storage)
    if test.is_run_end_encoded(dtype):
        return _from_run_ends(array, to)
    if test.is_float16(dtype):
        return _half_floats(array)
    if test.is_list_view(dtype) or test.is_large_list_view(dtype):
        return _from_views(array)
    if is_plain_list(dtype):
        items, lengths = items_of(array)
        return _large_list(plain(items), lengths, array)
    return pc.cast(array, to)


def plain_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Every column of a batch made plain."""
    columns = [plain(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _plain_dictionary(array: pa.DictionaryArray, to: pa.DataType) -> pa.Array:
    values = plain(array.dictionary)
    if not pa.types.is_dictionary(to):
        return values.take(array.indices)
    if values.null_count:  # nulls belong to the rows, not to the values
        return decode(pa.DictionaryArray.from_arrays(array.indices, values)).dictionary_encode()
    indices = array.indices
    if indices.type == pa.int32() and values is array.dictionary:
        return array
    return pa.DictionaryArray.from_arrays(pc.cast(indices, pa.int32()), values)


def _from_run_ends(array: pa.Array, to: pa.DataType) -> pa.Array:
    """A dictionary whose rows repeat: each value is then looked up once a run, not once a row."""
    values = decode(plain(array.values))
    ends = np.asarray(array.run_ends).astype(np.int64)
    rows = np.arange(array.offset, array.offset + len(array))
    taken = values.take(pa.array(np.searchsorted(ends, rows, side="right")))
    return taken.dictionary_encode() if pa.types.is_dictionary(to) else taken


@cache
def _half_table() -> np.ndarray:
    """The shortest decimal of every half float, as float64 (65536,)."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return np.array([float(str(half)) for half in halves])


def _half_floats(array: pa.Array) -> pa.Array:
    bits = np.frombuffer(array.buffers()[1], dtype=np.uint16)[array.offset :][: len(array)]
    return masked(_half_table().take(bits), array)


def _from_views(array: pa.Array) -> pa.Array:
    """List views as lists: their items may lie in any order, and overlap."""
    # Not by a cast: pyarrow 26 gives empty lists for some of them.
    lengths = np.where(null_mask(array), 0, np.asarray(array.sizes).astype(np.int64))
    places = ragged(np.asarray(array.offsets).astype(np.int64), lengths)
    return _large_list(plain(array.values).take(pa.array(places)), lengths, array)


def _large_list(items: pa.Array, lengths: np.ndarray, like: pa.Array) -> pa.Array:
    mask = pa.array(null_mask(like)) if like.null_count else None
    return pa.LargeListArray.from_arrays(pa.array(offsets_of(lengths)), items, mask=mask)


def decode(array: pa.Array) -> pa.Array:
    """A dictionary as plain values; any other array as it is."""
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def encoded(array: pa.Array) -> pa.DictionaryArray:
    """An array as a dictionary: its distinct values, and the place of each row's among them."""
    return array if isinstance(array, pa.DictionaryArray) else array.dictionary_encode()


def null_mask(array: pa.Array) -> np.ndarray:
    """True where the array is null, as a bool array (rows,)."""
    return np.asarray(array.is_null().to_numpy(zero_copy_only=False), dtype=bool)


def numpy_of(array: pa.Array, null: float) -> np.ndarray:
    """The array as NumPy, with ``null`` in place of nulls; zero-copy where it has none."""
    if array.null_count:
        array = pc.fill_null(array, pa.scalar(null, array.type))
    return array.to_numpy(zero_copy_only=False)


def masked(found: np.ndarray, like: pa.Array) -> pa.Array:
    """``found`` as an Arrow array that is null where ``like`` is."""
    return pa.array(found, mask=null_mask(like) if like.null_count else None)


def cast_or_none(array: pa.Array, dtype: pa.DataType) -> pa.Array | None:
    """The array as another type; None where some value would be lost."""
    try:
        return pc.cast(array, dtype)
    except pa.ArrowInvalid:
        return None


def matches(text: pa.Array, pattern: str) -> pa.Array:
    """Bool (rows,): whether a regular expression is found in each text; null for a null."""
    return pc.call_function("match_substring_regex", [text], pc.MatchSubstringOptions(pattern))


def replaced(text: pa.Array, pattern: str, by: str) -> pa.Array:
    """The texts with every match of a regular expression replaced."""
    options = pc.ReplaceSubstringOptions(pattern, by)
    return pc.call_function("replace_substring_regex", [text], options)


def any_true(found: pa.Array) -> bool:
    """Whether a bool array is true in some row."""
    return bool(pc.call_function("any", [found]).as_py())


def items_of(array: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The items of plain lists, one list after another, and the length int64 of each list.

    A null list is empty.
    """
    lengths = numpy_of(pc.call_function("list_value_length", [array]), 0).astype(np.int64)
    if array.null_count:  # one of fixed length has that length, null or not
        lengths[null_mask(array)] = 0
    return array.flatten(), lengths


def ragged(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indices ``starts[r] .. starts[r] + lengths[r] - 1`` of every row, one after another."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total, dtype=np.int64)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Offsets int64 (rows + 1,) of lists with these lengths."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
