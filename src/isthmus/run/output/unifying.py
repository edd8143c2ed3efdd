"""One type for every column of a table over all its files, and values brought to it without loss.

The types are those that Arrow unifies to ("permissive"), with three differences: no integer is lost
(int64 with uint64 is a decimal), run ends and views go, and dictionaries go with plain values.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as test

from isthmus.data.tables.plain import offsets_of
from isthmus.errors import SchemaError

Schemas: TypeAlias = Sequence[tuple[str, Mapping[str, pa.DataType]]]

_EXACT_DIGITS = 15  # every decimal of so many is given back by a double
_DECIMALS = (
    (32, 9, pa.decimal32),
    (64, 18, pa.decimal64),
    (128, 38, pa.decimal128),
    (256, 76, pa.decimal256),
)


def unified(schemas: Schemas) -> pa.Schema:
    """Give one type for every column of all files, in order of first appearance.

    ``schemas``: the name and the column types of every file. A type that all files share is kept,
    unless the type has run ends. Raises ``SchemaError``, which names the column, files and types,
    where the types of a column do not go together, such as text and numbers.
    """
    found: dict[str, list[tuple[str, pa.DataType]]] = {}
    for file, columns in schemas:
        for name, dtype in columns.items():
            found.setdefault(name, []).append((file, dtype))
    return pa.schema([(name, _over_files(name, got, len(schemas))) for name, got in found.items()])


def risky(schemas: Schemas, schema: pa.Schema) -> list[str]:
    """Name the columns of which a file holds values that need not all fit the unified type.

    Such values are integers of 64 bits and long decimals among floats, and coarse moments among
    fine ones. ``schema``: what `unified` gave.
    """
    return [
        field.name
        for field in schema
        if any(_can_fail(columns.get(field.name, pa.null()), field.type) for _, columns in schemas)
    ]


def as_type(array: pa.Array, dtype: pa.DataType, column: str, file: str, row: int) -> pa.Array:
    """Bring values to a type that `unified` gave.

    ``row``: the number of the array's first row within its file. Raises ``SchemaError``, which
    names the column, file, row and value, for the first value that ``dtype`` does not hold exactly.
    """
    try:
        return converted(array, dtype)
    except pa.ArrowException as fault:
        at = _first_refused(array, dtype)
        got = f"{array.type} in {file}" if at is None else f"{_said(array[at:])} in {file}"
        place = "" if at is None else f", row {row + at}"
        raise SchemaError(
            f"column {column!r} must fit {dtype}, its type over all files, got {got}{place}"
        ) from fault


def _over_files(name: str, got: Sequence[tuple[str, pa.DataType]], files: int) -> pa.DataType:
    types = [dtype for _, dtype in got]
    alike = len(types) == files and all(dtype == types[0] for dtype in types)
    if alike and "run_end_encoded" not in str(types[0]):
        return types[0]
    plain = [plain_type(dtype) for dtype in types]
    known = plain[0]
    for place, dtype in enumerate(plain):
        joined = together(known, dtype)
        if joined is None:
            first = next(i for i in range(place) if together(plain[i], dtype) is None)
            raise SchemaError(
                f"column {name!r} must have types that go together in all files, got"
                f" {decoded(types[first])} in {got[first][0]} and {decoded(types[place])} in"
                f" {got[place][0]}"
            )
        known = joined
    return known


def plain_type(dtype: pa.DataType) -> pa.DataType:
    """Give the type without run ends and views, with nulls allowed at every depth.

    A dictionary stays where it is a column of its own.
    """
    if test.is_run_end_encoded(dtype):
        return plain_type(dtype.value_type)
    if test.is_dictionary(dtype):
        inner = plain_type(dtype.value_type)
        return dtype if inner == dtype.value_type else inner
    if test.is_struct(dtype):
        return pa.struct([(field.name, _inner(field.type)) for field in dtype])
    if test.is_map(dtype):
        return pa.map_(_inner(dtype.key_type), _inner(dtype.item_type))
    if is_list(dtype):
        return _list_type(_inner(dtype.value_type), dtype, dtype)
    if test.is_string_view(dtype):
        return pa.large_string()
    return pa.large_binary() if test.is_binary_view(dtype) else dtype


def _inner(dtype: pa.DataType) -> pa.DataType:
    return decoded(plain_type(dtype))


def together(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Give the type that holds the values of two plain types, or None where there is none."""
    both = (one, other)
    if one == other or test.is_null(other):
        return one
    if test.is_null(one):
        return other
    if any(map(test.is_dictionary, both)):
        return together(decoded(one), decoded(other))
    if all(map(test.is_struct, both)):
        return _struct_type(one, other)
    if all(map(test.is_map, both)):
        key = together(one.key_type, other.key_type)
        item = together(one.item_type, other.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if all(map(is_list, both)):
        item = together(one.value_type, other.value_type)
        return None if item is None else _list_type(item, one, other)
    if any(map(test.is_decimal, both)):
        return _decimal_type(one, other)
    if pa.uint64() in both and any(map(test.is_signed_integer, both)):
        return pa.decimal128(20, 0)  # Arrow gives int64, which does not hold every uint64
    try:
        fields = [pa.schema([("column", dtype)]) for dtype in both]
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def _struct_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    fields: dict[str, pa.DataType] = {}
    for dtype in (one, other):
        for field in dtype:
            joined = together(fields.get(field.name, pa.null()), field.type)
            if joined is None or len(dtype.get_all_field_indices(field.name)) > 1:
                return None
            fields[field.name] = joined
    return pa.struct(list(fields.items()))


def _list_type(item: pa.DataType, one: pa.DataType, other: pa.DataType) -> pa.DataType:
    fixed = test.is_fixed_size_list(one) and test.is_fixed_size_list(other)
    if fixed and one.list_size == other.list_size:
        return pa.list_(item, one.list_size)
    large = any(test.is_large_list(d) or test.is_large_list_view(d) for d in (one, other))
    return pa.large_list(item) if large else pa.list_(item)


def _decimal_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The narrowest decimal for both: Arrow's own is a digit too short for integers."""
    both = (one, other)
    if any(map(test.is_floating, both)):
        return pa.float64()  # Arrow gives the other's type, down to half floats
    if not all(test.is_decimal(d) or test.is_integer(d) for d in both):
        return None
    scales = [d.scale if test.is_decimal(d) else 0 for d in both]
    digits = [d.precision if test.is_decimal(d) else _digits(d) for d in both]
    least = max(d.bit_width for d in both if test.is_decimal(d))
    whole = max(n - scale for n, scale in zip(digits, scales, strict=True))
    for bits, most, make in _DECIMALS:
        if bits >= least and whole + max(scales) <= most:
            return make(whole + max(scales), max(scales))
    return None


def _digits(dtype: pa.DataType) -> int:
    """Digits of the largest integer of a type."""
    return len(str(2 ** (dtype.bit_width - test.is_signed_integer(dtype))))


def _can_fail(have: pa.DataType, to: pa.DataType) -> bool:
    have, to = _inner(have), _inner(to)
    if have == to or test.is_null(have):
        return False
    if test.is_struct(have):
        return any(_can_fail(field.type, to.field(field.name).type) for field in have)
    if test.is_map(have):
        return _can_fail(have.key_type, to.key_type) or _can_fail(have.item_type, to.item_type)
    if is_list(have):
        return _can_fail(have.value_type, to.value_type)
    if test.is_floating(to):
        long = test.is_decimal(have) and have.precision > _EXACT_DIGITS
        return long or have in (pa.int64(), pa.uint64())
    return test.is_timestamp(have) or test.is_duration(have)


def decoded(dtype: pa.DataType) -> pa.DataType:
    """Give the value type of a dictionary, and any other type as it is."""
    return dtype.value_type if test.is_dictionary(dtype) else dtype


def is_list(dtype: pa.DataType) -> bool:
    """Whether the type is a list, in whatever layout. A map is no list."""
    views = test.is_list_view(dtype) or test.is_large_list_view(dtype)
    return (
        views or test.is_list(dtype) or test.is_large_list(dtype) or test.is_fixed_size_list(dtype)
    )


def converted(array: pa.Array, dtype: pa.DataType) -> pa.Array:
    """Bring values to another type. Raises ``ArrowException`` where a value would be lost."""
    have = array.type
    if have == dtype:
        return array
    if test.is_null(have):
        return pa.nulls(len(array), dtype)
    if isinstance(dtype, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(dtype, converted(array, dtype.storage_type))
    if isinstance(have, pa.BaseExtensionType):
        return converted(array.storage, dtype)
    if test.is_run_end_encoded(have):
        rows = np.arange(array.offset, array.offset + len(array))
        runs = np.searchsorted(np.asarray(array.run_ends), rows, side="right")
        return _looked_up(array.values, pa.array(runs), dtype)
    if test.is_dictionary(dtype):
        return converted(array, dtype.value_type).dictionary_encode().cast(dtype)
    if test.is_dictionary(have):
        return _looked_up(array.dictionary, array.indices, dtype)
    if test.is_struct(have) and test.is_struct(dtype):
        return _struct(array, dtype)
    if (is_list(have) and is_list(dtype)) or (test.is_map(have) and test.is_map(dtype)):
        return _list(array, dtype)
    if test.is_floating(dtype) and test.is_decimal(have):
        return _decimals_as_floats(array, dtype)
    if test.is_floating(dtype) and have in (pa.int64(), pa.uint64()):
        return _integers_as_floats(array, dtype)
    return array.cast(dtype)


def children(array: pa.Array) -> list[pa.Array]:
    """Give the children of a struct. A child is null where the struct is null."""
    # Arrow ends the process when it is to give nulls to a union: there the union stays as it is.
    return [
        array.field(place)
        if test.is_union(_stored(field.type))
        else call("struct_field", array, options=pc.StructFieldOptions([place]))
        for place, field in enumerate(array.type)
    ]


def _stored(dtype: pa.DataType) -> pa.DataType:
    return _stored(dtype.storage_type) if isinstance(dtype, pa.BaseExtensionType) else dtype


def items_of(array: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Give the items of lists, one row's after another's, and how many each row has, int64 (rows,).

    The items of a map are structs of a key and a value. A null has no items.
    """
    if test.is_map(array.type):
        array = array.cast(pa.list_(array.type.field(0)))
    lengths = call("list_value_length", array).fill_null(0)
    return array.flatten(), np.asarray(lengths).astype(np.int64)


def call(name: str, *arguments: Any, options: Any = None) -> pa.Array:
    """Call one of Arrow's functions by its name."""
    return pc.call_function(name, list(arguments), options)


def _looked_up(values: pa.Array, places: pa.Array, dtype: pa.DataType) -> pa.Array:
    try:
        return converted(values, dtype).take(places)
    except pa.ArrowException:  # perhaps for a value that stands in no row
        return converted(values.take(places), dtype)


def _struct(array: pa.Array, dtype: pa.DataType) -> pa.Array:
    have = dict(zip((field.name for field in array.type), children(array), strict=True))
    filled = [
        converted(have[field.name], field.type)
        if field.name in have
        else pa.nulls(len(array), field.type)
        for field in dtype
    ]
    return pa.StructArray.from_arrays(filled, fields=list(dtype), mask=array.is_null())


def _list(array: pa.Array, dtype: pa.DataType) -> pa.Array:
    items, lengths = items_of(array)
    offsets = pa.array(offsets_of(lengths))
    missing = array.is_null()
    if test.is_map(dtype):
        keys = converted(items.field(0), dtype.key_type)
        values = converted(items.field(1), dtype.item_type)
        return pa.MapArray.from_arrays(offsets.cast(pa.int32()), keys, values, dtype, mask=missing)
    large = pa.large_list(dtype.value_field)
    values = converted(items, dtype.value_type)
    return pa.LargeListArray.from_arrays(offsets, values, type=large, mask=missing).cast(dtype)


def _integers_as_floats(array: pa.Array, dtype: pa.DataType) -> pa.Array:
    # Arrow refuses every integer above 2**53, also those that a double holds.
    plain = array.fill_null(0).to_numpy()
    wide = plain.astype(np.float64)
    limit = 2.0 ** (63 if array.type == pa.int64() else 64)
    with np.errstate(invalid="ignore"):
        if ((wide >= limit) | (wide.astype(plain.dtype) != plain)).any():
            raise pa.ArrowInvalid("an integer that no double equals")
    return array.cast(dtype, safe=False)


def _decimals_as_floats(array: pa.Array, dtype: pa.DataType) -> pa.Array:
    # By their digits: 0.1 becomes the double that is written 0.1.
    wide = array.cast(pa.large_string()).cast(dtype)
    if not wide.cast(pa.large_string()).cast(array.type).equals(array):
        raise pa.ArrowInvalid("a decimal with more digits than a double")
    return wide


def _first_refused(array: pa.Array, dtype: pa.DataType) -> int | None:
    """Place of the first value that cannot be converted; None if it is not a matter of values."""
    low, high = 0, len(array)
    if not high or _refused(array[:0], dtype):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if _refused(array[low:middle], dtype):
            high = middle
        else:
            low = middle
    return low if _refused(array[low:high], dtype) else None


def _refused(array: pa.Array, dtype: pa.DataType) -> bool:
    try:
        converted(array, dtype)
    except pa.ArrowException:
        return True
    return False


def _said(array: pa.Array) -> str:
    """How an error tells of the first value."""
    try:
        found = array[0].as_py()
    except (ValueError, OverflowError):  # a moment that Python does not hold
        return " ".join(str(array[:1]).split()).strip("[] ")
    return str(found) if isinstance(found, Decimal) else repr(found)
