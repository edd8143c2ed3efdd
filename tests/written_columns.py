"""Columns of odd types, and what comes back when files of them are written with scores."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from isthmus.run.output.unifying import as_type, unified
from isthmus.run.output.writing import ScoredWriter

D, S, I8, I32, I64 = Decimal, pa.string(), pa.int8(), pa.int32(), pa.int64()
U64, F16, F32, F64 = pa.uint64(), pa.float16(), pa.float32(), pa.float64()
NULL, LIST, STRUCT, MAP, BIG = pa.null(), pa.list_, pa.struct, pa.map_, pa.large_string()
NOT_NULL = STRUCT([pa.field("a", I8, nullable=False)])


def runs(values: pa.Array) -> pa.Array:
    """Each value twice, run-end encoded."""
    ends = pa.array(np.arange(2, 2 * len(values) + 1, 2), pa.int32())
    return pa.RunEndEncodedArray.from_arrays(ends, values)


def coded(values: pa.Array, index: pa.DataType = I32) -> pa.Array:
    """Each value once and a null, as a dictionary."""
    places = pa.array([*range(len(values)), None], index)
    return pa.DictionaryArray.from_arrays(places, values)


def uuids(*values: bytes | None) -> pa.Array:
    return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(values, pa.binary(16)))


def union(mode: str) -> pa.Array:
    """The values 1 and y."""
    codes, children = pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["x", "y"])]
    if mode == "sparse":
        return pa.UnionArray.from_sparse(codes, children)
    return pa.UnionArray.from_dense(codes, pa.array([0, 1], pa.int32()), children)


def files(*arrays: pa.Array) -> list[tuple[str, dict[str, pa.DataType]]]:
    return [(f"{'abc'[i]}.parquet", {"c": array.type}) for i, array in enumerate(arrays)]


def write(path: Path, *arrays: pa.Array) -> tuple[str, ...]:
    """Write arrays of several files as one column, each in two batches; gives what was turned."""
    schema = unified(files(*arrays)).append(pa.field("score", F64))
    with ScoredWriter(path, schema) as writer:
        for array, (file, _) in zip(arrays, files(*arrays), strict=True):
            for piece in (array[:1], array[1:]):
                column = as_type(piece, schema.field("c").type, "c", file, 0)
                column.validate(full=True)
                score = pa.array(np.full(len(piece), 1e-12))
                writer.write(pa.RecordBatch.from_arrays([column, score], schema=schema))
    return writer.turned


def values(*arrays: pa.Array) -> list[Any]:
    return [value for array in arrays for value in array.to_pylist()]


def same(given: Any, back: Any) -> bool:
    """Equal values; a struct may have gained fields without a value."""
    if isinstance(given, dict) and isinstance(back, dict):
        return all(same(given.get(name), back.get(name)) for name in given | back)
    if isinstance(given, list | tuple) and isinstance(back, list | tuple):
        return len(given) == len(back) and all(map(same, given, back))
    return bool(given == back)


def moments(unit: str, *values: datetime, zone: str | None = None) -> pa.Array:
    return pa.array(values, pa.timestamp(unit, zone))
