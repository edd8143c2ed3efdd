"""Values of any Arrow type as text, for CSV and for what Parquet cannot take.

Numbers between 1e-40 and 1e40 have no exponent. Floats always have a point. Moments are ISO with a
blank, and moments with a zone are in UTC. Bytes are hexadecimal digits. Durations read ``1500 ms``,
intervals read ``1M2d3ns``. Lists, structs and maps are JSON.
"""

import json
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as test

from isthmus.data.tables.kinds import is_bytes
from isthmus.data.tables.plain import any_true, matches, offsets_of, replaced
from isthmus.run.output.unifying import (
    call,
    children,
    converted,
    is_list,
    items_of,
    plain_type,
)

TEXT = pa.large_string()
_LONGEST = 40  # a larger exponent is kept
_UUID = (r"(.{8})(.{4})(.{4})(.{4})(.*)", r"\1-\2-\3-\4-\5")

Spelling = Callable[[pa.Array], pa.Array]


def as_text(array: pa.Array) -> pa.Array:
    """Give the values as large_string (rows,). A null stays null."""
    array = converted(array, plain_type(array.type))
    dtype = array.type
    if test.is_dictionary(dtype):
        return as_text(array.dictionary).take(array.indices)
    if test.is_union(dtype):
        return _of_union(array, as_text)
    if test.is_struct(dtype) or test.is_map(dtype) or is_list(dtype):
        return call("if_else", array.is_valid(), as_json(array), pa.scalar(None, TEXT))
    if dtype == pa.uuid():
        return replaced(_hexadecimal(array.storage), *_UUID)
    if isinstance(dtype, pa.BaseExtensionType):
        return as_text(array.storage)
    if test.is_interval(dtype):
        return _intervals(array)
    if test.is_duration(dtype):
        return _glued(array.cast(pa.int64()).cast(TEXT), f" {dtype.unit}")
    if test.is_timestamp(dtype):
        text = array.cast(pa.timestamp(dtype.unit, dtype.tz and "UTC")).cast(TEXT)
        # Most readers take six digits of a second, not nine.
        return replaced(text, r"(\.\d{6})000", r"\1") if dtype.unit == "ns" else text
    if test.is_floating(dtype):
        return _floats(array)
    if test.is_decimal(dtype):
        return _where("E", array.cast(TEXT), lambda odd: _each(odd, _spelled_out))
    if is_bytes(dtype) or test.is_fixed_size_binary(dtype):
        return _hexadecimal(array)
    return array.cast(TEXT)


def as_json(array: pa.Array) -> pa.Array:
    """Give the values as JSON, large_string (rows,). A null is ``null``."""
    array = converted(array, plain_type(array.type))
    dtype = array.type
    if test.is_dictionary(dtype):
        text = as_json(array.dictionary).take(array.indices)
    elif test.is_union(dtype):
        text = _of_union(array, as_json)
    elif isinstance(dtype, pa.BaseExtensionType) and dtype != pa.uuid():
        text = as_json(array.storage)
    elif test.is_struct(dtype):
        text = _json_of_struct(array)
    elif test.is_map(dtype):
        items, lengths = items_of(array)
        key, value = children(items)
        pairs = _glued(_quoted(as_text(key)), ":", as_json(value))
        text = _glued("{", _joined_by_row(pairs, lengths), "}")
    elif is_list(dtype):
        items, lengths = items_of(array)
        text = _glued("[", _joined_by_row(as_json(items), lengths), "]")
    elif test.is_floating(dtype):
        text = replaced(as_text(array), "^(nan|-?inf)$", r'"\1"')
    elif test.is_boolean(dtype) or test.is_integer(dtype) or test.is_decimal(dtype):
        text = as_text(array)
    else:
        text = _quoted(as_text(array))
    if test.is_union(dtype):
        return text
    return call("if_else", array.is_valid(), text, pa.scalar("null", TEXT))


def csv_lines(columns: list[pa.Array], separator: str) -> bytes:
    """Give the rows of a CSV file, each with its line end. ``columns``: at least one, of any type.

    A field is quoted where it holds a quote, a separator, a line end or outer blanks, and where it
    is the empty text. A null is empty, without quotes.
    """
    odd = rf'^$|["\r\n{separator}]|^\s|\s$'
    null = '""' if len(columns) == 1 else ""  # an empty line would be no row

    def quoted(text: pa.Array) -> pa.Array:
        return _glued('"', replaced(text, '"', '""'), '"')

    fields = []
    for column in columns:
        text = as_text(column)
        fields.append((text if is_bare(column.type) else _where(odd, text, quoted)).fill_null(null))
    return _bytes_of(_glued(call("binary_join_element_wise", *fields, _text(separator)), "\n"))


def is_bare(dtype: pa.DataType) -> bool:
    """Whether a type has a usual spelling that needs no quotes: numbers, dates, truth values."""
    number = test.is_integer(dtype) or test.is_floating(dtype) or test.is_decimal(dtype)
    moment = test.is_date(dtype) or test.is_timestamp(dtype)
    return number or moment or test.is_boolean(dtype) or test.is_null(dtype)


def _json_of_struct(array: pa.Array) -> pa.Array:
    pieces: list[pa.Array | str] = ["{"]
    for field, child in zip(array.type, children(array), strict=True):
        name = json.dumps(field.name, ensure_ascii=False)
        pieces += [("," if len(pieces) > 1 else "") + name + ":", as_json(child)]
    if len(pieces) == 1:
        return pa.repeat(_text("{}"), len(array))
    return _glued(*pieces, "}")


def _quoted(text: pa.Array) -> pa.Array:
    """Text as JSON texts."""

    def escaped(odd: pa.Array) -> pa.Array:
        return _each(odd, lambda x: json.dumps(x, ensure_ascii=False)[1:-1])

    return _glued('"', _where(r'[\x00-\x1f"\\]', text, escaped), '"')


def _where(pattern: str, text: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Change those texts that a pattern finds."""
    odd = matches(text, pattern)
    if not any_true(odd):
        return text
    odd = odd.fill_null(False)
    return call("replace_with_mask", text, odd, change(text.filter(odd)))


def _each(text: pa.Array, change: Callable[[str], str]) -> pa.Array:
    """Change texts one by one, equal ones once."""
    coded = text.dictionary_encode()
    changed = pa.array([change(x) for x in coded.dictionary.to_pylist()], TEXT)
    return changed.take(coded.indices)


def _joined_by_row(items: pa.Array, lengths: np.ndarray) -> pa.Array:
    """The items of each row with commas between; the items stand one after another in memory."""
    if not len(items):
        return pa.repeat(_text(""), len(lengths))
    joined = _glued(items, ",")
    _, offsets, content = joined.buffers()
    places = np.frombuffer(offsets, np.int64)[joined.offset : joined.offset + len(items) + 1]
    rows = [None, pa.py_buffer(places[offsets_of(lengths)]), content]
    return call(
        "utf8_rtrim",
        pa.Array.from_buffers(TEXT, len(lengths), rows),
        options=pc.TrimOptions(","),
    )


def _of_union(array: pa.Array, spelling: Spelling) -> pa.Array:
    texts = [spelling(array.field(place)) for place in range(array.type.num_fields)]
    starts = np.cumsum([0, *map(len, texts)])
    numbers = np.zeros(128, np.int64)
    numbers[array.type.type_codes] = np.arange(len(texts))
    # From memory: pyarrow forgets where a slice begins.
    rows = slice(array.offset, array.offset + len(array))
    codes = np.frombuffer(array.buffers()[1], np.int8)[rows]
    places = np.arange(len(array))
    if array.type.mode == "dense":
        places = np.frombuffer(array.buffers()[2], np.int32)[rows]
    return pa.concat_arrays(texts).take(pa.array(starts[numbers[codes]] + places))


def _intervals(array: pa.Array) -> pa.Array:
    parts = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanoseconds", "<i8")])
    values = np.frombuffer(array.buffers()[1], parts)[array.offset : array.offset + len(array)]
    months, days, rest = (
        pa.array(np.ascontiguousarray(values[name])).cast(TEXT) for name in parts.names or ()
    )
    text = _glued(months, "M", days, "d", rest, "ns")
    return call("if_else", array.is_valid(), text, pa.scalar(None, TEXT))


def _hexadecimal(array: pa.Array) -> pa.Array:
    array = array.cast(pa.large_binary())
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset :][: len(array) + 1]
    content = np.frombuffer(array.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    spelled = np.stack([digits[content >> 4], digits[content & 15]], axis=1)
    buffers = [None, pa.py_buffer((offsets - offsets[0]) * 2), pa.py_buffer(spelled.tobytes())]
    text = pa.Array.from_buffers(TEXT, len(array), buffers)
    return call("if_else", array.is_valid(), text, pa.scalar(None, TEXT))


def _floats(array: pa.Array) -> pa.Array:
    text = array.cast(TEXT)
    plain = array.cast(pa.float64()).fill_null(0.5).to_numpy()
    with np.errstate(invalid="ignore"):
        whole = (np.floor(plain) == plain) & (np.abs(plain) < 2.0**63)
    if whole.any():
        digits = pa.array(plain[whole].astype(np.int64)).cast(TEXT)
        text = call("replace_with_mask", text, pa.array(whole), _glued(digits, ".0"))
    text = _where(rf"e-(\d|[1-3]\d|{_LONGEST})$", text, _small)
    large = rf"e\+([1-3]\d|{_LONGEST})$"
    return _where(large, text, lambda odd: _each(odd, _with_point))


def _small(text: pa.Array) -> pa.Array:
    """Floats of negative exponents, written out."""
    sign = replaced(text, "[^-].*", "")
    digits = replaced(text, r"^-|\.|e.*", "")
    places = replaced(text, ".*e-", "").cast(pa.int32())
    zeros = pa.array(["0." + "0" * (place - 1) for place in range(_LONGEST + 1)], TEXT)
    return _glued(sign, zeros.take(places), digits)


def _spelled_out(number: str) -> str:
    return format(Decimal(number), "f")


def _with_point(number: str) -> str:
    plain = _spelled_out(number)
    return plain if "." in plain else plain + ".0"


def _bytes_of(text: pa.Array) -> bytes:
    """The content of texts one after another."""
    _, offsets, content = text.buffers()
    places = np.frombuffer(offsets or b"", np.int64)[text.offset : text.offset + len(text) + 1]
    return content[places[0] : places[-1]].to_pybytes() if len(text) else b""


def _glued(*pieces: pa.Array | str) -> pa.Array:
    """Texts side by side, null where one of them is."""
    parts = [_text(piece) if isinstance(piece, str) else piece for piece in pieces]
    return call("binary_join_element_wise", *parts, _text(""))


def _text(value: str) -> pa.Scalar:
    return pa.scalar(value, TEXT)
