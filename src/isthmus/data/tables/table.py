"""A table: rows of files or of a frame, numbered through, read as record batches."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa

from isthmus.data.tables.faults import missing_column, wrong_type
from isthmus.data.tables.fingerprint import of_content, of_file
from isthmus.data.tables.kinds import comparable, decoded_name, is_list, item_type, joined, kind
from isthmus.data.tables.places.access import each
from isthmus.data.tables.places.listing import Place
from isthmus.data.tables.places.remote_file import RemoteFile
from isthmus.data.tables.plain import plain_batch
from isthmus.data.tables.values import is_utf8
from isthmus.errors import SchemaError

# Rows that are read at once: the setting that bounds the memory of reading and encoding.
BLOCK_ROWS = 1 << 18

Way = Literal["number", "known_number", "known_moment", "text"]
"""How to read a column of a CSV file in place of what its spelling says.

``number``: every usual spelling of a number, anything else is refused. ``known_number``,
``known_moment``: as when a model was fitted on numbers, or on dates and times; what is spelled in
another way is null. ``text``: as it stands.
"""

_T = TypeVar("_T")


def ahead(items: Iterator[_T]) -> Iterator[_T]:
    """The same items; a thread fetches the next one while one is worked on."""
    end = object()

    def fetch() -> object:
        return next(items, end)

    with ThreadPoolExecutor(1) as reader:
        coming: Future[object] = reader.submit(fetch)
        while (item := coming.result()) is not end:
            coming = reader.submit(fetch)
            yield item  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of one file in order."""

    file: str
    first_row: int  # number of the first row in the table
    file_row: int  # number of the first row in the file
    batch: pa.RecordBatch


Read = Callable[[list[str], int], Iterator[pa.RecordBatch]]
"""Gives record batches of chosen columns, of about as many rows as asked for."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some rows of one file, in order, that are read by themselves. ``first``: number of the first one there."""

    first: int
    rows: int
    read: Read


@dataclass(frozen=True, slots=True)
class TablePart:
    """One file of a table, or a frame.

    ``types``: the stored types. ``read``: reads all rows. ``unusable``: the columns whose values fit no use, each with the message for
    whoever uses the column. ``place``: of the file, None for a frame. ``reread``: only for a CSV file, gives the same rows with some columns
    read in another `Way`. ``odd``: the columns of a CSV file that hold a value that is no number,
    each with the row and the text of the first such value.
    ``cut``: what the rows of a large file are cut into, so that several processes can read one file.
    """

    name: str
    rows: int
    types: Mapping[str, pa.DataType]
    read: Read
    place: Place | None = None
    unusable: Mapping[str, str] = field(default_factory=dict)
    reread: "Callable[[Mapping[str, Way]], TablePart] | None" = None
    odd: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    cut: tuple[Stretch, ...] = ()

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """All rows, in the stretches that are read by themselves: one where nothing is cut."""
        return self.cut or (Stretch(0, self.rows, self.read),)


class Table:
    """The rows of files or of a frame, numbered through the files in the order of their names.

    ``open_table`` makes a table. Only a frame is held in memory.
    """

    def __init__(self, parts: Sequence[TablePart], source: str) -> None:
        self.parts = tuple(parts)
        self.source = source
        self._fingerprints: dict[bool, tuple[dict[str, Any], ...]] = {}

    def __repr__(self) -> str:
        return f"Table({self.source!r}, rows={self.rows}, columns={len(self.columns)})"

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Columns of all files. The type is that of the first file where the column is not null."""
        found: dict[str, pa.DataType] = {}
        for part in self.parts:
            for name, dtype in part.types.items():
                if pa.types.is_null(found.setdefault(name, dtype)):
                    found[name] = dtype
        return found

    @property
    def is_csv(self) -> bool:
        """Whether the columns can be read in more ways than one."""
        return any(part.reread is not None for part in self.parts)

    @property
    def rows(self) -> int:
        """Number of rows in all files."""
        return sum(part.rows for part in self.parts)

    @property
    def schemas(self) -> list[tuple[str, Mapping[str, pa.DataType]]]:
        """Name and stored column types of every file."""
        return [(part.name, part.types) for part in self.parts]

    @property
    def files(self) -> tuple[dict[str, Any], ...]:
        """What identifies each file, without a reading of the whole file: see ``fingerprint``."""
        return self.fingerprint()

    def fingerprint(self, *, verify_content: bool = False) -> tuple[dict[str, Any], ...]:
        """Path, size, time and footer hash of each file; for a frame the hash of its content.

        ``verify_content``: hash every byte of every file too. Taken once for each open table.
        """
        if verify_content not in self._fingerprints:

            def of_part(part: TablePart) -> dict[str, Any]:
                if part.place is None:
                    return of_content(
                        part.types, part.rows, part.read(list(part.types), BLOCK_ROWS)
                    )
                return of_file(part.place, is_csv=part.reread is not None, whole=verify_content)

            is_remote = isinstance(self.parts[0].place, RemoteFile)
            self._fingerprints[verify_content] = tuple(each(of_part, self.parts, remote=is_remote))
        return self._fingerprints[verify_content]

    def reading(self, ways: Mapping[str, Way]) -> "Table":
        """The same rows, with these columns of CSV files read in these ways."""
        parts = [part if part.reread is None else part.reread(ways) for part in self.parts]
        return Table(parts, self.source)

    def check_usable(self, columns: Sequence[str]) -> None:
        """Raise ``SchemaError`` where a file lacks a column, or no use fits what it holds."""
        for part in self.parts:
            for column in columns:
                if column not in part.types:
                    raise missing_column(column, part.types, part.name)
                if column in part.unusable:
                    raise SchemaError(part.unusable[column])

    def check(self, columns: Sequence[str]) -> None:
        """Raise ``SchemaError`` where a file lacks a column or has it with other values."""
        self.check_usable(columns)
        for column in columns:
            known = [p for p in self.parts if kind(p.types[column]) != "null"]
            for part in known[1:]:
                one, other = known[0].types[column], part.types[column]
                kinds = kind(item_type(one)), kind(item_type(other))
                if is_list(one) != is_list(other) or not comparable(*kinds):
                    rule = f"be {decoded_name(one)} as in {known[0].name}"
                    raise wrong_type(column, rule, decoded_name(other), part.name)

    @property
    def stretches(self) -> list[tuple[TablePart, Stretch]]:
        """What is read by itself, in table order, each with its file."""
        return [(part, stretch) for part in self.parts for stretch in part.stretches]

    def share(self, number: int, shares: int) -> range:
        """The stretches that the process ``number`` of so many reads: of about as many rows as the others'.

        The shares follow each other in table order. One may be empty.
        """
        ends = np.cumsum([stretch.rows for _, stretch in self.stretches])
        middles = ends - np.diff(ends, prepend=0) / 2
        start, stop = np.searchsorted(middles, self.rows * np.array([number, number + 1]) / shares)
        return range(int(start), int(stop) if number + 1 < shares else len(ends))

    def blocks(
        self,
        columns: Sequence[str],
        rows: int = BLOCK_ROWS,
        *,
        stored: bool = False,
        share: range | None = None,
    ) -> Iterator[Block]:
        """Blocks of at most ``rows`` rows in table order, with these columns in this order.

        The columns are plain (`isthmus.data.tables.plain`). ``stored``: as the files hold them, and
        only those that a file has. ``share``: only these stretches (`share`); their blocks are the same
        as among all.
        """
        if not stored:
            self.check(columns)
        first_row = 0
        for number, (part, stretch) in enumerate(self.stretches):
            if share is not None and number not in share:
                first_row += stretch.rows
                continue
            done = 0
            wanted = [column for column in columns if column in part.types]
            for batch in stretch.read(wanted, rows):
                for start in range(0, batch.num_rows, rows):
                    piece = batch.slice(start, rows)
                    if not stored:
                        piece = plain_batch(piece)
                    yield Block(part.name, first_row + done, stretch.first + done, piece)
                    done += piece.num_rows
            if done != stretch.rows:
                found = part.rows - stretch.rows + done
                raise SchemaError(
                    f"{part.name} must hold {part.rows} rows as when it was opened, got {found}"
                )
            first_row += done

    def kind(self, column: str) -> str:
        """Kind of a column's values over all files, which must all have the column, of one family."""
        found = "null"
        for part in self.parts:
            found = joined(found, kind(part.types[column]))
        return found

    def odd(self, column: str) -> tuple[str, int, str] | None:
        """File, row and text of the first value in a CSV column that is no number."""
        for part in self.parts:
            if column in part.odd:
                return part.name, *part.odd[column]
        return None

    def name_kind(self, column: str) -> str:
        """The kind by which a column's values are named: bytes that are all text are text.

        Old writers store text so, while bytes of a fixed length are ids and digests. Reads a
        column of bytes.
        """
        found = self.kind(column)
        fixed = any(
            isinstance(part.types[column], pa.BaseExtensionType)
            or pa.types.is_fixed_size_binary(part.types[column])
            for part in self.parts
        )
        if found != "binary" or fixed:
            return found
        blocks = self.blocks([column])
        return "string" if all(is_utf8(block.batch.column(0)) for block in blocks) else "binary"
