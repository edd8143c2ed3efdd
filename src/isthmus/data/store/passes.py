"""Build the encoded rows on disk: one pass fits the encoder, a second encodes and writes."""

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from isthmus.data.encoding.encoder import EncodedRows, Encoder, EncoderFit, in_order
from isthmus.data.encoding.roles import DOMAIN, as_used, check_types, needed, value_kinds
from isthmus.data.encoding.vocabulary import Counter, Vocabulary
from isthmus.data.store import split as splits
from isthmus.data.store.arrays import ArrayWriter
from isthmus.data.store.cache import META
from isthmus.data.store.chosen import Chosen, Piece, Progress
from isthmus.data.store.split import SPLITS
from isthmus.data.tables import BLOCK_ROWS, Table, refuse_empty
from isthmus.data.tables import columns as c
from isthmus.data.tables.kinds import MOMENTS, kind
from isthmus.errors import SchemaError
from isthmus.schema import DataConfig

VERSION = 2
ROLES = ("label", "weight", "time", "group")
WRITTEN = ("label", "weight", "group")
WORKERS = 2


class _Splitter:
    """Split number of every row of a piece, from the cuts that all chosen rows have."""

    def __init__(
        self,
        config: DataConfig,
        cuts: tuple[int, int] = (0, 0),
        order: splits.TimeOrder = "moment",
    ) -> None:
        self.config = config
        self.cuts = cuts
        self.order: splits.TimeOrder = order

    @property
    def columns(self) -> list[str]:
        column = {"time": self.config.time, "user": self.config.group}.get(self.config.split.by)
        return [] if column is None else [column]

    def assign(self, piece: Piece) -> np.ndarray:
        config = self.config
        if config.split.by == "random":
            return splits.by_hash(piece.row, config.split)
        (column,) = self.columns
        array, source = piece.batch.column(column), piece.source
        if config.split.by == "user":
            return splits.by_hash(c.groups(column, array, source), config.split)
        keys = splits.time_keys(column, array, source, self.order)
        assert keys is not None  # the order held all of them when the cuts were found
        return splits.cut(keys, self.cuts)


def build(
    folder: Path,
    config: DataConfig,
    table: Table,
    *,
    block_rows: int = BLOCK_ROWS,
    progress: Progress | None = None,
) -> None:
    """Fit the encoder on the train rows of a table and write all its rows, encoded, to a folder.

    Rows whose domain is not among ``config.domains``, where that is given, are left out of both.
    Peak memory follows ``block_rows`` and the vocabularies, not the table.
    """
    note = progress or (lambda *_: None)
    refuse_empty(table)
    table = as_used(table, config)
    table.check_usable(needed(config, roles=ROLES))
    for file, types in table.schemas:
        check_types(config, types, file, roles=ROLES)
    kinds = {**value_kinds(config, table.schemas), DOMAIN: table.name_kind(config.domain)}
    with ThreadPoolExecutor(WORKERS) as workers, ThreadPoolExecutor(1) as reader:
        chosen = Chosen(
            config, kinds[DOMAIN], table, block_rows=block_rows, reader=reader, progress=note
        )
        splitter = _splitter(folder, config, chosen)
        encoder, names = _fit(config, chosen, kinds, splitter, workers)
        # What was held to count and to sort goes back before the second pass takes its own.
        pa.default_memory_pool().release_unused()
        encoder.save(folder / "encoder")
        _write(folder, encoder, names, chosen, splitter, workers)
    pa.default_memory_pool().release_unused()


def _splitter(folder: Path, config: DataConfig, chosen: Chosen) -> _Splitter:
    if config.split.by != "time" or config.time is None:
        return _Splitter(config)
    kinds = {kind(types[config.time]) for _, types in chosen.table.schemas}
    orders = ("moment",) if kinds & {*MOMENTS} else splits.NUMBER_ORDERS
    path = folder / "time.bin"
    for order in orders:
        rows = _write_times(path, config.time, order, chosen)
        if rows is not None:
            cuts = splits.time_cuts(path, rows, config.split, chosen.block_rows)
            path.unlink()
            return _Splitter(config, cuts, order)
    raise AssertionError("floats hold every number")


def _write_times(path: Path, column: str, order: splits.TimeOrder, chosen: Chosen) -> int | None:
    """Write the keys of all times; how many there are, or None where the order cannot hold one."""
    rows = 0
    with path.open("wb") as file:
        for piece in chosen.pieces([column], "time"):
            keys = splits.time_keys(column, piece.batch.column(column), piece.source, order)
            if keys is None:
                return None
            file.write(keys.data)
            rows += len(keys)
    return rows


def _fit(
    config: DataConfig,
    chosen: Chosen,
    kinds: dict[str, str],
    splitter: _Splitter,
    workers: Executor,
) -> tuple[Encoder, tuple[str, ...]]:
    """The encoder, and the names of all chosen domains: the trained ones, then the others."""
    fit = EncoderFit(config, kinds)
    all_domains = Counter("string")
    columns = list(dict.fromkeys([*fit.columns, *splitter.columns]))
    totals = np.zeros(len(SPLITS), dtype=np.int64)
    homeless = 0
    for piece in chosen.pieces(columns, "fit"):
        source = piece.source
        assigned = splitter.assign(piece)
        totals += np.bincount(assigned, minlength=len(SPLITS))
        fit.add(piece.batch, np.flatnonzero(assigned == 0), source, workers=workers)
        domain = piece.batch.column(config.domain)
        codes, names = c.domains(domain, kinds[DOMAIN])
        if config.null_domain == "refuse":
            c.refuse_null_domain(config.domain, codes, source)
        present = codes[codes >= 0]
        homeless += len(codes) - len(present)
        all_domains.add_counts(names, np.bincount(present, minlength=len(names)))
    for name, rows in zip(SPLITS, totals, strict=True):
        if not rows:
            raise SchemaError(
                f"every split must have at least one row, got none in {name!r}"
                f" (split by {config.split.by}, {totals.sum()} rows in {chosen.source})"
            )
    encoder = fit.encoder()
    known = all_domains.counts()["value"].to_list()
    trained = set(encoder.domains)
    others = in_order([name for name in known if name not in trained], kinds[DOMAIN])
    if homeless:
        others.append(null_name(known))
    return encoder, (*encoder.domains, *others)


def null_name(known: Sequence[str]) -> str:
    """What reports call the rows without a domain: a name that no domain has."""
    name = "(null)"
    while name in known:
        name = f"({name})"
    return name


class _SplitWriter:
    """The arrays of one split."""

    def __init__(self, folder: Path, encoder: Encoder, n_names: int) -> None:
        folder.mkdir()
        config, fields = encoder.config, encoder.fields
        listed = [field for field in fields if field.kind.endswith("_list")]
        n_categorical = sum(field.kind == "categorical" for field in fields)
        n_numeric = sum(f.width for f in fields if f.kind in ("numeric", "vector"))

        def array(name: str, dtype: str, width: int | None = None) -> ArrayWriter:
            return ArrayWriter(folder / f"{name}.npy", dtype, width)

        self.categorical = array("categorical", "<i4", n_categorical)
        self.numeric = array("numeric", "<f4", n_numeric)
        self.values = [
            array(f"list-{i}-values", "<i4" if field.kind == "categorical_list" else "<f4")
            for i, field in enumerate(listed)
        ]
        self.offsets = [array(f"list-{i}-offsets", "<i8") for i in range(len(listed))]
        self.domain = array("domain", "<i4")
        self.label = array("label", "<f4")
        self.row = array("row", "<i8")
        self.weight = array("weight", "<f4") if config.weight else None
        self.group = array("group", "<i8") if config.group else None
        for offsets in self.offsets:
            offsets.write(np.zeros(1, dtype=np.int64))
        self.counts = np.zeros(n_names + 1, dtype=np.int64)
        self.positives = np.zeros(n_names + 1, dtype=np.int64)

    @property
    def arrays(self) -> list[ArrayWriter]:
        fixed = [self.categorical, self.numeric, self.domain, self.label, self.row]
        chosen = [array for array in (self.weight, self.group) if array is not None]
        return [*fixed, *self.values, *self.offsets, *chosen]

    def write(self, rows: EncodedRows, domain: np.ndarray, at: np.ndarray) -> None:
        """Append the rows at positions ``at``; ``domain`` are the report ids of the block."""
        assert rows.label is not None
        domain, label = domain.take(at), rows.label.take(at)
        self.categorical.write(rows.categorical.take(at, axis=0))
        self.numeric.write(rows.numeric.take(at, axis=0))
        for (values, offsets), value_file, offset_file in zip(
            rows.lists, self.values, self.offsets, strict=True
        ):
            lengths = np.diff(offsets).take(at)
            base = value_file.rows
            value_file.write(values.take(c.ragged(offsets[:-1].take(at), lengths)))
            offset_file.write(np.cumsum(lengths) + base)
        self.domain.write(domain)
        self.label.write(label)
        self.row.write(rows.row.take(at))
        if self.weight is not None and rows.weight is not None:
            self.weight.write(rows.weight.take(at))
        if self.group is not None and rows.group is not None:
            self.group.write(rows.group.take(at))
        self.counts += np.bincount(domain, minlength=len(self.counts))
        self.positives += np.bincount(domain[label > 0], minlength=len(self.counts))


def _write(
    folder: Path,
    encoder: Encoder,
    names: tuple[str, ...],
    chosen: Chosen,
    splitter: _Splitter,
    workers: Executor,
) -> None:
    config = encoder.config
    report = Vocabulary("string", pa.array(names, pa.large_string()))
    columns = list(dict.fromkeys([*needed(config, roles=WRITTEN), *splitter.columns]))
    writers: list[_SplitWriter] = []
    try:
        for name in SPLITS:
            writers.append(_SplitWriter(folder / name, encoder, len(names)))
        for piece in chosen.pieces(columns, "encode"):
            block = piece.block
            assigned = splitter.assign(piece)
            rows = encoder.encode(
                piece.batch,
                block.first_row,
                block.file,
                file_row=block.file_row,
                kept=piece.kept,
                workers=workers,
            )
            # Code -1, a row without a domain, takes the last entry: the name behind all others.
            ids = np.append(report.ids(rows.domain_names), np.int32(len(names)))
            domain = ids.take(rows.domain_codes)
            for number, writer in enumerate(writers):
                writer.write(rows, domain, np.flatnonzero(assigned == number))
        for writer in writers:
            for array in writer.arrays:
                array.close()
    finally:
        for writer in writers:
            for array in writer.arrays:
                array.abandon()
    _refuse_one_class(config, writers, chosen)
    _write_meta(folder, encoder, names, chosen, writers)


def _refuse_one_class(config: DataConfig, writers: list[_SplitWriter], chosen: Chosen) -> None:
    """A label that is the same in every row teaches nothing, and has no metric."""
    rows = sum(writer.row.rows for writer in writers)
    positives = sum(int(writer.positives.sum()) for writer in writers)
    if positives not in (0, rows):
        return
    label = config.label
    rule = "hold both classes (it is the label)"
    if label.equals is not None and not positives:
        rule = f"hold {label.equals!r} in some row and another value in others (it is the label)"
    elif label.above is not None:
        rule = f"hold values above {label.above:g} and others (it is the label)"
    raise SchemaError(
        f"column {label.column!r} must {rule}, got the label {int(positives > 0)} in all {rows:,}"
        f" rows of {chosen.source}"
    )


def _write_meta(
    folder: Path,
    encoder: Encoder,
    names: tuple[str, ...],
    chosen: Chosen,
    writers: list[_SplitWriter],
) -> None:
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    meta = {
        "version": VERSION,
        "source": chosen.table.source,
        "created": time.time(),
        "config": encoder.config.model_dump(mode="json"),
        "domain_names": list(names),
        "rows": {name: writer.row.rows for name, writer in zip(SPLITS, writers, strict=True)},
        "domain_rows": [writer.counts[1:].tolist() for writer in writers],
        "weightless": chosen.weightless,
        "domain_positives": [writer.positives[1:].tolist() for writer in writers],
        "sizes": sizes,
    }
    with (folder / META).open("w", encoding="utf-8") as file:
        json.dump(meta, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
