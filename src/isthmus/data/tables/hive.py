"""Hive trees: the ``key=value`` folders of a path are columns of the files below them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from isthmus.data.tables.csv.spelling import Spelled, typed
from isthmus.data.tables.faults import bad_value
from isthmus.data.tables.kinds import comparable, kind
from isthmus.data.tables.plain import encoded, numpy_of, plain
from isthmus.data.tables.table import Stretch, TablePart
from isthmus.data.tables.values import names as named
from isthmus.errors import SchemaError

_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def partitions(names: list[str]) -> list[dict[str, pa.Scalar]]:
    """The columns that the folders of each file hold; their type is the narrowest for all files."""
    given = [_pairs(name) for name in names]
    found: list[dict[str, pa.Scalar]] = [{} for _ in names]
    for key in dict.fromkeys(key for pairs in given for key in pairs):
        if not all(key in pairs for pairs in given):
            raise SchemaError(f"column {key!r} must be in the path of every file, got some without")
        texts = [None if pairs[key] == _NO_PARTITION else pairs[key] for pairs in given]
        column = pa.array(texts, pa.string())
        dtype = Spelled.of(column).type
        # Folders name ids, days and words: a number with a fraction or a truth value is a word.
        kept = pa.types.is_integer(dtype) or pa.types.is_temporal(dtype)
        for scalars, value in zip(found, typed(column, dtype) if kept else column, strict=True):
            scalars[key] = value
    return found


def _pairs(name: str) -> dict[str, str]:
    pairs = (part.split("=", 1) for part in name.split("/")[:-1] if "=" in part)
    return {unquote(key): unquote(value) for key, value in pairs}


def with_partitions(part: TablePart, given: Mapping[str, pa.Scalar]) -> TablePart:
    """Add the columns of a file's path; one that the file holds too must hold the same value."""
    if not given:
        return part
    types = {**part.types, **{key: value.type for key, value in given.items()}}

    def read(within: Stretch, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        stored = [column for column in columns if column in part.types]
        done = within.first
        # With no stored column asked for, any one of them still tells how many rows there are.
        for batch in within.read(stored or [next(iter(part.types))], rows):
            for column in stored:
                if column in given:
                    _check_same(column, batch.column(column), given[column], part.name, done)
            arrays = [
                pa.repeat(given[column], batch.num_rows)
                if column in given
                else batch.column(column)
                for column in columns
            ]
            done += batch.num_rows
            yield pa.RecordBatch.from_arrays(arrays, names=columns)

    reread = part.reread
    return replace(
        part,
        types=types,
        read=partial(read, Stretch(0, part.rows, part.read)),
        cut=tuple(replace(stretch, read=partial(read, stretch)) for stretch in part.cut),
        reread=None if reread is None else lambda ways: with_partitions(reread(ways), given),
    )


def _check_same(column: str, array: pa.Array, given: pa.Scalar, file: str, row: int) -> None:
    """Refuse the first row whose value is not the path's. ``row``: of the array's first."""
    array = plain(array)
    coded = encoded(array)
    like = kind(given.type) if comparable(kind(array.type), kind(given.type)) else None
    wanted = named(pa.array([given.as_py()], given.type))[0].as_py()
    same = [name == wanted for name in named(coded.dictionary, like).to_pylist()]
    codes = numpy_of(coded.indices, len(same))
    wrong = np.flatnonzero(~np.array([*same, wanted is None]).take(codes))
    if len(wrong):
        place = int(wrong[0])
        rule = f"agree with the path of its file, which says {wanted!r}"
        raise bad_value(column, rule, repr(coded[place].as_py()), file, row + place)
