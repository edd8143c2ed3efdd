"""What the values of an Arrow type are: their kind, and the family within which they compare.

Numbers of any type are one family, so are text and bytes, so are dates and timestamps: an id that
one file holds as int64 and the next as float64 is the same id.
"""

import pyarrow as pa

NUMBERS = ("boolean", "integer", "floating", "decimal")
TEXTS = ("string", "binary")
MOMENTS = ("date", "timestamp")
UNUSABLE = ("list", "other")
BOTH_SIGNS = "integer of 0.1"
"""Kind of a vocabulary of the first release with negative keys: 64 bits, -1 as well as 2**64 - 1."""

# Within a family the kind of a column is the last of the kinds of its files.
_FAMILIES = {
    **dict.fromkeys((*NUMBERS, BOTH_SIGNS), "number"),
    **dict.fromkeys(TEXTS, "text"),
    **dict.fromkeys(MOMENTS, "moment"),
}


def plain_type(dtype: pa.DataType) -> pa.DataType:
    """The type that `isthmus.data.tables.plain.plain` gives to an array of this one."""
    test = pa.types
    if isinstance(dtype, pa.BaseExtensionType):
        return plain_type(dtype.storage_type)
    if test.is_run_end_encoded(dtype) or test.is_dictionary(dtype):
        inner = plain_type(dtype.value_type)
        return inner if is_plain_list(inner) else pa.dictionary(pa.int32(), inner)
    if test.is_string_view(dtype):
        return pa.large_string()
    if test.is_binary_view(dtype) or (test.is_fixed_size_binary(dtype) and not is_decimal(dtype)):
        return pa.large_binary()
    if test.is_float16(dtype):
        return pa.float64()
    if test.is_decimal32(dtype) or test.is_decimal64(dtype):
        return pa.decimal128(dtype.precision, dtype.scale)
    if test.is_list_view(dtype) or test.is_large_list_view(dtype):
        return pa.large_list(plain_type(dtype.value_type))
    if is_plain_list(dtype):
        inner = plain_type(dtype.value_type)
        return dtype if inner == dtype.value_type else pa.large_list(inner)
    return dtype


def kind(dtype: pa.DataType) -> str:
    """Kind of the values of an Arrow type; ``other`` for what cannot be a category."""
    dtype = plain_type(dtype)
    if pa.types.is_dictionary(dtype):
        return kind(dtype.value_type)
    for name, test in (
        ("null", pa.types.is_null),
        ("boolean", pa.types.is_boolean),
        ("integer", pa.types.is_integer),
        ("floating", pa.types.is_floating),
        ("decimal", is_decimal),
        ("string", is_text),
        ("binary", is_bytes),
        ("date", pa.types.is_date),
        ("timestamp", pa.types.is_timestamp),
        ("time", pa.types.is_time),
        ("duration", pa.types.is_duration),
        ("list", is_plain_list),
    ):
        if test(dtype):
            return name
    return "other"


def family(of: str) -> str:
    """Kinds of one family hold values that can be equal."""
    return _FAMILIES.get(of, of)


def comparable(one: str, other: str) -> bool:
    """Whether values of two kinds can be the same value; nulls go with everything."""
    return "null" in (one, other) or family(one) == family(other)


def joined(one: str, other: str) -> str:
    """The kind of a column that has one kind in one file and a comparable kind in another file."""
    if "null" in (one, other):
        return other if one == "null" else one
    for members in (NUMBERS, TEXTS, MOMENTS):
        if one in members:
            return max(one, other, key=members.index)
    return one


def is_text(dtype: pa.DataType) -> bool:
    """Whether the type holds text."""
    test = pa.types
    return test.is_string(dtype) or test.is_large_string(dtype) or test.is_string_view(dtype)


def is_bytes(dtype: pa.DataType) -> bool:
    """Whether a plain type holds bytes."""
    return pa.types.is_binary(dtype) or pa.types.is_large_binary(dtype)


def is_decimal(dtype: pa.DataType) -> bool:
    """Whether the type holds decimals, of any of the four widths."""
    return pa.types.is_decimal(dtype)


def is_plain_list(dtype: pa.DataType) -> bool:
    """Whether the type is a list with offsets, or of fixed length."""
    test = pa.types
    return test.is_list(dtype) or test.is_large_list(dtype) or test.is_fixed_size_list(dtype)


def is_list(dtype: pa.DataType) -> bool:
    """Whether the type holds a list in every row, in whatever layout."""
    return kind(dtype) == "list"


def item_type(dtype: pa.DataType) -> pa.DataType:
    """Type of the items of a list type; any other type is its own item."""
    dtype = plain_type(dtype)
    return dtype.value_type if is_plain_list(dtype) else dtype


def decoded_name(dtype: pa.DataType) -> str:
    """Name of a type for an error: a dictionary counts as the type of its values."""
    return str(dtype.value_type if pa.types.is_dictionary(dtype) else dtype)
