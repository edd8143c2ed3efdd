"""A table written out with scores, as Parquet or CSV, in the types that `unified` finds.

What a kind of file does not hold is written as text (`isthmus.run.output.writable`), never left
out.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types as test

from isthmus.data.tables.kinds import is_text
from isthmus.disk import whole_file
from isthmus.errors import RunError
from isthmus.run.output.unifying import converted, decoded, is_list, plain_type
from isthmus.run.output.writable import TEXT, as_text, csv_lines, is_bare

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
# Names that promise what is not written.
_PACKED = {".gz", ".bz2", ".zst", ".xz", ".zip", ".lz4", ".br", ".7z", ".snappy"}
_FOREIGN = {".json", ".jsonl", ".ndjson", ".txt", ".xls", ".xlsx", ".feather", ".arrow", ".orc"}

Write = Callable[[pa.RecordBatch], None]


class ScoredWriter:
    """Writes record batches of one schema to a file. The class is a context manager.

    The last suffix of the name, in either case, chooses the kind of file. ``.csv`` and ``.tsv`` are
    text with a header. A null is then an empty field, and the empty text is ``""``. Any other name
    is Parquet. The file appears under its name when the block ends without an error, also when no
    row was written. ``turned``: the columns that become text because such a file does not hold
    their type.

    Raises ``RunError`` for a name that promises another kind of file, and for a file that cannot be
    written.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        suffix = path.suffix.lower()
        if suffix in _PACKED | _FOREIGN:
            raise RunError(
                "file to write must end in .parquet, .pq, .parq, .csv or .tsv, or have no suffix,"
                f" got {path.name}"
            )
        self.path = path
        self._separator = _SEPARATORS.get(suffix)
        held = _held_by_parquet if self._separator is None else _held_by_csv
        types = {field.name: held(field.type) for field in schema}
        self.turned = tuple(name for name, dtype in types.items() if dtype is None)
        self.schema = pa.schema([(name, dtype or TEXT) for name, dtype in types.items()])
        self._open: AbstractContextManager[Write] | None = None
        self._write: Write | None = None

    def __enter__(self) -> Self:
        with named(self.path):
            if self.path.exists() and not self.path.is_file():
                raise OSError("it is there and no regular file")
            self._open = self._opened()
            self._write = self._open.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._open is not None
        self._write = None
        with named(self.path):
            self._open.__exit__(kind, fault, trace)

    def write(self, batch: pa.RecordBatch) -> None:
        """Write rows. ``batch``: the columns of the schema, in the order of the schema."""
        if self._write is None:
            raise ValueError("a ScoredWriter must be entered before it writes")
        columns = [
            as_text(column) if field.name in self.turned else converted(column, field.type)
            for column, field in zip(batch.columns, self.schema, strict=True)
        ]
        written = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        with named(self.path):
            self._write(written)

    @contextmanager
    def _opened(self) -> Iterator[Write]:
        with whole_file(self.path) as temporary, temporary.open("wb") as file:
            if self._separator is not None:
                yield _csv_into(file, self.schema, self._separator)
                return
            writer = pq.ParquetWriter(file, self.schema)
            try:
                yield writer.write_batch
                writer.close()
            finally:
                writer.is_open = False  # else it would be closed again when it is forgotten


def _csv_into(file: BinaryIO, schema: pa.Schema, separator: str) -> Write:
    file.write(csv_lines([pa.array([name], TEXT) for name in schema.names], separator))

    def write(batch: pa.RecordBatch) -> None:
        file.write(csv_lines(batch.columns, separator))

    return write


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn what the disk or Arrow refuses into a ``RunError`` that names the file."""
    try:
        yield
    except (OSError, pa.ArrowException) as fault:
        reason = (fault.strerror if isinstance(fault, OSError) else None) or fault
        raise RunError(f"{path} must be a file that can be written, got: {reason}") from fault


def _held_by_csv(dtype: pa.DataType) -> pa.DataType | None:
    """The type itself where CSV has a usual spelling for it, else None."""
    plain = decoded(plain_type(dtype))
    return dtype if is_bare(plain) or is_text(plain) else None


def _held_by_parquet(dtype: pa.DataType) -> pa.DataType | None:
    """The type in which Parquet takes these values, found by trial; None if there is none."""
    plain = plain_type(decoded(dtype))
    # Views inside lists are refused now and then, depending on where a block begins.
    for candidate in [plain] if "_view" in str(dtype) else [dtype, plain]:
        try:
            pq.write_table(pa.table([_sample(candidate)], ["column"]), io.BytesIO())
        except (pa.ArrowException, OSError):
            continue
        return candidate
    return None


def _sample(dtype: pa.DataType) -> pa.Array:
    """One row of a type, filled down to the leaves: some types are refused by their values only."""
    if test.is_dictionary(dtype):
        place = pa.array([0], dtype.index_type)
        return pa.DictionaryArray.from_arrays(place, _sample(dtype.value_type))
    if test.is_struct(dtype) and dtype.num_fields:
        filled = [_sample(field.type) for field in dtype]
        return pa.StructArray.from_arrays(filled, fields=list(dtype))
    if is_list(dtype) and not test.is_fixed_size_list(dtype):
        offsets = pa.array([0, 1], pa.int64())
        items = _sample(dtype.value_type)
        large = pa.large_list(dtype.value_field)
        return pa.LargeListArray.from_arrays(offsets, items, type=large).cast(dtype)
    return pa.nulls(1, dtype)
