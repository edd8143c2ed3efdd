"""Columns of a block as NumPy: numbers, lists, labels, checked value by value."""

from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.data.tables import values as v
from isthmus.data.tables.faults import bad_value
from isthmus.data.tables.kinds import MOMENTS, NUMBERS, TEXTS, kind
from isthmus.data.tables.plain import decode, encoded, items_of, null_mask, numpy_of, ragged
from isthmus.errors import SchemaError
from isthmus.schema import Label, NotANumber


class Origin:
    """Where a block comes from: its file and the number of its first row within that file.

    ``kept``: of a block that lost rows, the places int64 (rows,) that the others had in it.
    """

    __slots__ = ("file", "first_row", "kept")

    def __init__(self, file: str, first_row: int, kept: np.ndarray | None = None) -> None:
        self.file = file
        self.first_row = first_row
        self.kept = kept

    def fault(self, column: str, rule: str, value: object, row: int) -> SchemaError:
        """The error for a value at ``row`` of the block."""
        place = row if self.kept is None else self.kept[row]
        return bad_value(column, rule, value, self.file, self.first_row + int(place))

    def only(self, places: np.ndarray) -> "Origin":
        """The origin of some rows of these. ``places``: int64 (chosen,) among them."""
        kept = places if self.kept is None else self.kept[places]
        return Origin(self.file, self.first_row, kept)

    def refuse(
        self,
        column: str,
        rule: str,
        wrong: np.ndarray,
        value: np.ndarray | str,
        *,
        lengths: np.ndarray | None = None,
        form: str = "",
    ) -> None:
        """Raise ``SchemaError`` for the first place that is ``wrong``, a bool array (places,).

        ``value``: what stands in each place, written in the format ``form``, or the word for all.
        ``lengths``: of the lists, where the places are those of their items.
        """
        if not wrong.any():
            return
        at = int(np.argmax(wrong))
        row = at
        if lengths is not None:
            row = int(np.searchsorted(np.cumsum(lengths), at, side="right"))
        told = value if isinstance(value, str) else format(value[at], form)
        raise self.fault(column, rule, told, row)


def list_items(array: pa.Array, max_length: int | None) -> tuple[pa.Array, np.ndarray]:
    """Items of a list column and the length of each row; a null list is empty.

    With ``max_length`` only the last items of a row are kept.
    """
    items, lengths = items_of(array)
    if max_length is not None and len(lengths) and lengths.max() > max_length:
        kept = np.minimum(lengths, max_length)
        items = items.take(pa.array(ragged(np.cumsum(lengths) - kept, kept)))
        lengths = kept
    return items, lengths


def numbers(array: pa.Array) -> np.ndarray:
    """Float64 (rows,) of a numeric or boolean column; nulls become 0."""
    array = decode(array)
    if pa.types.is_null(array.type):
        return np.zeros(len(array))
    if array.type != pa.float64():
        array = pc.cast(array, pa.float64(), safe=False)
    return numpy_of(array, 0.0)


def numbers_and_missing(array: pa.Array, nan: NotANumber) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers float64 (rows,), and where they are missing, bool (rows,) or None for nowhere.

    A missing number is 0. A null is missing. ``nan``: a NaN is missing too, or the NaN stays and is
    refused later.
    """
    x = numbers(array)
    missing = null_mask(array) if array.null_count else None
    if nan == "missing" and (broken := np.isnan(x)).any():
        x = np.where(broken, 0.0, x)
        missing = broken if missing is None else missing | broken
    return x, missing


def check_finite(
    column: str, x: np.ndarray, origin: Origin, lengths: np.ndarray | None = None
) -> None:
    """Raise ``SchemaError`` for the first NaN or inf.

    ``lengths``: of the lists, where ``x`` are the items of lists.
    """
    origin.refuse(column, "be finite", ~np.isfinite(x), x, lengths=lengths)


def refuse_nulls(column: str, role: str, array: pa.Array, origin: Origin) -> None:
    """Raise ``SchemaError`` for the first null of a column that needs a value in every row."""
    if array.null_count:
        origin.refuse(column, f"have a value in every row ({role})", null_mask(array), "null")


def refuse_null_label(column: str, array: pa.Array, origin: Origin) -> None:
    """Raise ``SchemaError``, with the way out, for the first null of the label."""
    try:
        refuse_nulls(column, "it is the label", array, origin)
    except SchemaError as fault:
        raise SchemaError(
            f"{fault}; data.null_label: unlabelled keeps such rows as unlabelled train rows"
        ) from None


def vectors(column: str, array: pa.Array, width: int, origin: Origin) -> np.ndarray:
    """Float32 (rows, width) of a list column; a null list gives zeros."""
    items, lengths = list_items(array, None)
    missing = null_mask(array) if array.null_count else np.zeros(len(array), dtype=bool)
    origin.refuse(column, f"hold {width} numbers", (lengths != width) & ~missing, lengths)
    if items.null_count:
        origin.refuse(column, "hold no null", null_mask(items), "null", lengths=lengths)
    given = numbers(items)
    with np.errstate(over="ignore"):
        flat = given.astype(np.float32)
    check_finite(column, flat, origin, lengths)
    if not missing.any():
        return flat.reshape(len(array), width)
    out = np.zeros((len(array), width), dtype=np.float32)
    out[~missing] = flat.reshape(-1, width)
    return out


def labels(
    label: Label, array: pa.Array, origin: Origin, *, unlabelled: bool = False
) -> np.ndarray:
    """Labels float32 (rows,) in {0, 1}. Raises ``SchemaError`` for a null and for other values.

    ``unlabelled``: a null is no error, and gives nan.
    """
    column = label.column
    decoded = decode(array)
    if decoded.null_count and unlabelled:
        missing = null_mask(decoded)
        kept = np.flatnonzero(~missing)
        found = np.full(len(array), np.nan, dtype=np.float32)
        # Faults are told by their place among all rows of the table.
        if len(kept):
            found[kept] = labels(label, array.take(pa.array(kept)), origin.only(kept))
        return found
    refuse_null_label(column, decoded, origin)
    if label.equals is not None:
        return _equal(array, label.equals).astype(np.float32)
    x = numbers(decoded)
    origin.refuse(column, "be a number (it is the label)", np.isnan(x), "nan")
    if label.above is not None:
        # A float32 is compared as one, so that 0.1 is not above 0.1.
        narrow = pa.types.is_float32(decoded.type)
        above = np.float64(np.float32(label.above)) if narrow else label.above
        return (x > above).astype(np.float32)
    rule = "be 0 or 1 (it is the label; for others give label: {column, above} or {column, equals})"
    origin.refuse(column, rule, (x != 0) & (x != 1), x, form="g")
    return x.astype(np.float32)


def _equal(array: pa.Array, value: bool | int | float | date | str) -> np.ndarray:
    """Bool (rows,): where a column holds a value, whatever types carry the two."""
    coded = encoded(array)
    held = coded.dictionary
    have = kind(held.type)
    # An integer beyond 64 bits comes as a decimal, for Arrow finds no type for it.
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        value = Decimal(value)  # pyright: ignore[reportAssignmentType]
    one = pa.array([value])
    if have in NUMBERS and kind(one.type) in NUMBERS:
        same = numpy_of(v.keys(held), 0) == v.keys(one)[0].as_py()
    else:
        wanted = v.names(one, have if have in MOMENTS else None)[0].as_py()
        found = v.names(held).to_pylist()
        if have == "binary":  # bytes that are text are known by it, others by their digits
            spelled = v.names(held, "string").to_pylist()
            found = [text or digits for text, digits in zip(spelled, found, strict=True)]
        same = np.array([name == wanted for name in found], dtype=bool)
    return same.take(coded.indices.to_numpy())


def weights(column: str, array: pa.Array, origin: Origin) -> np.ndarray:
    """Weights float32 (rows,). A row of weight 0 is to be left out.

    Raises ``SchemaError`` for a weight below 0, a weight that is not finite, and a null.
    """
    array = decode(array)
    refuse_nulls(column, "it is the weight", array, origin)
    with np.errstate(over="ignore"):
        x = numbers(array).astype(np.float32)
    rule = "be 0 or more and finite (it is the weight)"
    origin.refuse(column, rule, ~(np.isfinite(x) & (x >= 0)), x, form="g")
    return x


def groups(column: str, array: pa.Array, origin: Origin) -> np.ndarray:
    """Ids int64 (rows,) of the groups: the key of a value, or the stable 64-bit hash of a text.

    Raises ``SchemaError`` for a null and for NaN.
    """
    decoded = decode(array)
    refuse_nulls(column, "it is the group", decoded, origin)
    if kind(decoded.type) in TEXTS:
        coded = encoded(array)
        return v.hash_text(coded.dictionary).take(coded.indices.to_numpy())
    keys = v.keys(decoded)
    if keys.null_count:
        rule = "have a value in every row (it is the group)"
        origin.refuse(column, rule, null_mask(keys), "nan")
    return keys.to_numpy()


def domains(array: pa.Array, like: str | None) -> tuple[np.ndarray, pa.Array]:
    """Codes int32 (rows,) of the domains, and the names that the codes count, from 0.

    A row without a domain has code -1. ``like``: the kind that the names were fitted with.
    """
    if pa.types.is_null(array.type):
        return np.full(len(array), -1, np.int32), pa.array([], pa.large_string())
    coded = encoded(array)
    names = v.names(coded.dictionary, like)
    codes = numpy_of(coded.indices, -1).astype(np.int32)
    if names.null_count:
        table = np.where(null_mask(names), -1, np.arange(len(names))).astype(np.int32)
        codes = np.append(table, np.int32(-1)).take(codes)
    return codes, names


def refuse_null_domain(column: str, codes: np.ndarray, origin: Origin) -> None:
    """Refuse the first row without a domain, and say how such rows can be taken."""
    try:
        origin.refuse(column, "have a value in every row (it is the domain)", codes < 0, "null")
    except SchemaError as fault:
        way_out = "data.null_domain: unknown takes rows of a null domain as rows of the unknown one"
        raise SchemaError(f"{fault}; {way_out}") from None
