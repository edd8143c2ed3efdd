"""CSV files as parts of a table: each column with the type that it spells, or as it is asked for."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from isthmus.data.tables.csv.file import CsvFile, KnownMoment, Reading, open_csv, read
from isthmus.data.tables.faults import bad_value
from isthmus.data.tables.kinds import MOMENTS, NUMBERS, family, kind
from isthmus.data.tables.table import Part, Way


def csv_parts(paths: Sequence[Path], names: Sequence[str]) -> list[Part]:
    """All CSV files, every row of which is read once to find the types of the columns.

    A column is text in all files where it spells values of two families, such as numbers and text.
    """
    files = [open_csv(path, name) for path, name in zip(paths, names, strict=True)]
    families: dict[str, set[str]] = {}
    for file in files:
        for name, column in file.columns.items():
            families.setdefault(name, set()).add(family(kind(column.spelled.type)))
    mixed = {name for name, found in families.items() if len(found - {"null"}) > 1}
    return [_part(file, dict.fromkeys(mixed, "text")) for file in files]


def _part(file: CsvFile, ways: Mapping[str, Way]) -> Part:
    types = {name: column.spelled.type for name, column in file.columns.items()}
    odd = {name: column.odd for name, column in file.columns.items() if column.odd is not None}
    readings: dict[str, Reading] = dict(types)
    unusable: dict[str, str] = {}
    for name in types.keys() & ways.keys():
        way, have = ways[name], kind(types[name])
        if way == "text":
            types[name], readings[name] = pa.string(), "text"
        elif way == "number" and have not in (*NUMBERS, "null"):
            if name in odd:
                row, text = odd[name]
                unusable[name] = str(bad_value(name, "be numeric", repr(text), file.name, row))
            types[name], readings[name] = pa.float64(), "number"
        elif way == "known_number" and have not in (*NUMBERS, "null"):
            types[name], readings[name] = pa.float64(), "known_number"
        elif way == "known_moment" and have not in (*MOMENTS, "null"):
            types[name] = pa.timestamp("us")
            readings[name] = KnownMoment(pa.timestamp("us"))

    def rows_of(columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        del rows  # the blocks are cut to size by who reads them
        yield from read(file, {column: readings[column] for column in columns})

    def reread(more: Mapping[str, Way]) -> Part:
        return _part(file, {**ways, **more})

    return Part(file.name, file.rows, types, rows_of, file.path, unusable, reread, odd)
