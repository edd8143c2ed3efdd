"""How a CSV file is written: its delimiter, its compression and its encoding, found on a sample."""

import codecs
import csv
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

import pyarrow as pa

from isthmus.data.tables.places.access import unpacked
from isthmus.data.tables.places.listing import Place
from isthmus.data.tables.places.remote_file import store_fault
from isthmus.errors import SchemaError

_SAMPLE_BYTES = 64 << 10
# In the order in which they are preferred where two of them split a file equally well.
_DELIMITERS = (",", ";", "\t", "|")

# The marks of UTF-32 begin like those of UTF-16, so they come first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# By these endings pyarrow unpacks a file too.
_PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
_UNPACK = {"gzip": "gzip -dc", "bz2": "bzip2 -dc", "zstd": "zstd -dc", "lz4": "lz4 -dc"}
# How Python keeps a byte that is not UTF-8: byte 0xe9 is read as U+DCE9.
_KEPT = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written. The encoding is always UTF-8, with or without a mark in front."""

    delimiter: str
    compression: str | None = None  # as pyarrow names it: gzip, bz2, zstd or lz4


def find_dialect(place: Place, name: str) -> Dialect:
    """The dialect of a file, from its first 64 KiB.

    ``name``: of the file, for errors. Raises ``SchemaError`` for a file that cannot be read, that
    has no header, or that is not UTF-8 within the sample.
    """
    compression = _PACKED.get(place.suffix)
    try:
        sample, whole = _sample(place, compression)
    except (pa.ArrowException, OSError) as fault:
        if (of_store := store_fault(place, fault)) is not None:
            raise of_store from None
        raise refused(name, fault) from fault
    _check_marks(sample, name, compression)
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    text = decoder.decode(sample, final=whole)
    if not text.strip("\r\n"):
        raise refused(name, "an empty file")
    tabs = ".tsv" in place.suffixes
    dialect = Dialect("\t" if tabs else _delimiter(text, whole), compression)
    if kept := _KEPT.search(text):
        raise slow_fault(place, name, dialect) or _not_utf8(name, dialect, kept[0], "")
    return dialect


def slow_fault(place: Place, name: str, dialect: Dialect) -> SchemaError | None:
    """The first row with too few or too many fields, or with a byte that is not UTF-8, as an error.

    Takes a Python step per row, which only a file that was refused already is worth. None where
    no such row is found.
    """
    try:
        rows = _rows_slowly(place, dialect)
        header = next(rows, [])
        if kept := _KEPT.search("".join(header)):
            return _not_utf8(name, dialect, kept[0], " in the header")
        for row, values in enumerate(rows):
            if kept := _KEPT.search("".join(values)):
                return _not_utf8(name, dialect, kept[0], f" in row {row}")
            if len(values) != len(header):
                fields = "1 field" if len(header) == 1 else f"{len(header)} fields"
                return SchemaError(
                    f"{name} must have {fields} in every row, got {len(values)} in row {row}"
                )
    except (pa.ArrowException, OSError, csv.Error):
        return None  # the fault that pyarrow named is told instead
    return None


def lone_header(place: Place, dialect: Dialect) -> list[str] | None:
    """The header of a file that has nothing else; None where a row follows, or where none is."""
    try:
        rows = _rows_slowly(place, dialect)
        header = next(rows, None)
        return header if next(rows, None) is None else None
    except (pa.ArrowException, OSError, csv.Error):
        return None


def refused(name: str, got: object) -> SchemaError:
    """The error for a file that is no CSV file at all."""
    return SchemaError(f"{name} must be a CSV file with a header, got {got}")


def _sample(place: Place, compression: str | None) -> tuple[bytes, bool]:
    """The first bytes of a file, and whether they are all of it."""
    with unpacked(place, compression) as stream:
        sample = b""
        while len(sample) <= _SAMPLE_BYTES:
            more = stream.read(_SAMPLE_BYTES + 1 - len(sample))
            if not more:
                return sample, True
            sample += more
    return sample, False


def _delimiter(text: str, whole: bool) -> str:
    """The delimiter with which most rows have as many fields as the header, then most fields."""
    best, reached = ",", (0.0, 0)
    for delimiter in _DELIMITERS:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        counts = [len(row) for row in rows if row]
        if not whole and len(counts) > 1:
            counts.pop()  # the sample ends within this row
        # One field says nothing, for any delimiter that does not occur gives as many.
        if counts[0] > 1:
            agreed = counts.count(counts[0]) / len(counts)
            if (agreed, counts[0]) > reached:
                best, reached = delimiter, (agreed, counts[0])
    return best


def _check_marks(sample: bytes, name: str, compression: str | None) -> None:
    """Refuse what the first bytes show to be UTF-16, UTF-32 or no text."""
    for mark, encoding in _MARKS:
        if sample.startswith(mark):
            way = _way_out(name, encoding, compression)
            raise SchemaError(f"{name} must be UTF-8, got {encoding.upper()}; {way}")
    zeros = sample.count(0)
    if not zeros:
        return
    # Latin letters in UTF-16 are a letter and a zero, or a zero and a letter.
    for first, encoding in ((1, "utf-16le"), (0, "utf-16be")):
        if 4 * zeros >= len(sample) and sample[first::2].count(0) >= 0.9 * zeros:
            way = _way_out(name, encoding, compression)
            raise SchemaError(f"{name} must be UTF-8, got NUL bytes ({encoding.upper()}?); {way}")
    raise SchemaError(
        f"{name} must be UTF-8, got a NUL byte at position {sample.index(0)}; save it again as text"
    )


def _not_utf8(name: str, dialect: Dialect, letter: str, where: str) -> SchemaError:
    byte = ord(letter) - 0xDC00
    # Latin-1 has no letters from 0x80 to 0x9f, where Windows has dashes and quotes.
    guess, encoding = ("Windows-1252", "cp1252") if byte < 0xA0 else ("Latin-1", "latin1")
    way = _way_out(name, encoding, dialect.compression)
    return SchemaError(f"{name} must be UTF-8, got byte {byte:#04x}{where} ({guess}?); {way}")


def _way_out(name: str, encoding: str, compression: str | None) -> str:
    stem = name if compression is None else str(PurePath(name).with_suffix(""))
    to = PurePath(stem)
    to = to.with_name(f"{to.stem}-utf8{to.suffix or '.csv'}")
    of, to = shlex.quote(name), shlex.quote(str(to))
    if compression is None:
        return f"convert it: iconv -f {encoding} -t utf-8 {of} > {to}"
    return f"convert it: {_UNPACK[compression]} {of} | iconv -f {encoding} -t utf-8 > {to}"


def _rows_slowly(place: Place, dialect: Dialect) -> Iterator[list[str]]:
    """Rows as pyarrow sees them, the header first; a byte that is not UTF-8 is kept as a letter."""
    with (
        unpacked(place, dialect.compression) as stream,
        io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="") as text,
    ):
        for values in csv.reader(text, delimiter=dialect.delimiter):
            if values:  # pyarrow passes over empty lines too
                yield values
