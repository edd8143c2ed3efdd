"""Carriers: the many layouts in which Arrow holds the same values, brought to a few.

After `plain` an array is a number, a text, bytes, a moment, a list with offsets, or a dictionary of
one of them with int32 indices; views, run ends, extension types, half floats and narrow decimals
are gone. Types that hold no plain values (structs, maps, unions) stay as they are.
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
        return _plain_items(array)
    return pc.cast(array, to)


def plain_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Every column of a batch made plain."""
    columns = [plain(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def decode(array: pa.Array) -> pa.Array:
    """A dictionary as plain values; any other array as it is."""
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


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
    missing = np.asarray(array.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    return pa.array(_half_table().take(bits), mask=missing if missing.any() else None)


def _from_views(array: pa.Array) -> pa.Array:
    """List views as lists: their items may lie in any order, and overlap."""
    offsets = np.asarray(array.offsets).astype(np.int64)
    missing = np.asarray(array.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    lengths = np.where(missing, 0, np.asarray(array.sizes).astype(np.int64))
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    places = np.repeat(offsets - (ends - lengths), lengths) + np.arange(total, dtype=np.int64)
    return _large_list(plain(array.values).take(pa.array(places)), lengths, missing)


def _plain_items(array: pa.Array) -> pa.Array:
    missing = np.asarray(array.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    counted = pc.call_function("list_value_length", [array]).fill_null(0)
    lengths = np.where(missing, 0, np.asarray(counted).astype(np.int64))
    return _large_list(plain(array.flatten()), lengths, missing)


def _large_list(items: pa.Array, lengths: np.ndarray, missing: np.ndarray) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    mask = pa.array(missing) if missing.any() else None
    return pa.LargeListArray.from_arrays(pa.array(offsets), items, mask=mask)
