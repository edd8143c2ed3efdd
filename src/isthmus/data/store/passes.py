"""Build the encoded rows on disk: one pass fits the encoder, a second encodes and writes.

After that, on the encoded rows, validation rows confirm pairs of columns, and value statistics and the
forest are fitted. The table is not read again.
"""

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from isthmus.data.encoding.counted.counted_columns import columns_of
from isthmus.data.encoding.encoder import EncodedRows, Encoder, EncoderFit, in_order
from isthmus.data.encoding.numbers.library import check_embeddings_installed
from isthmus.data.encoding.roles import DOMAIN, Usage, needed
from isthmus.data.encoding.taught import Taught
from isthmus.data.encoding.trees import check_installed
from isthmus.data.encoding.vocabulary import Counter, Vocabulary
from isthmus.data.store.arrays import CHUNK, ArrayWriter, read_array
from isthmus.data.store.cache import META
from isthmus.data.store.chosen import Chosen, Progress
from isthmus.data.store.counting.confirming import confirm
from isthmus.data.store.counting.out_of_fold import SplitRows, fill
from isthmus.data.store.rows import Rows
from isthmus.data.store.split import LEFT_OUT, SPLITS, UNLABELLED, Splitter, no_label
from isthmus.data.store.teaching import teach
from isthmus.data.tables import BLOCK_ROWS, Table
from isthmus.data.tables import columns as c
from isthmus.data.tables.plain import ragged
from isthmus.errors import SchemaError
from isthmus.schema import STATISTICS_WIDTH, DataConfig

VERSION = 4
WRITTEN = ("label", "weight", "group")
WORKERS = 2
UNLABELLED_ROWS = "unlabelled"  # their folder


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
    if config.trees:
        check_installed()
    check_embeddings_installed(config.features.values())
    usage = Usage.of(config, table)
    chosen = Chosen(usage, block_rows=block_rows, progress=progress or (lambda *_: None))
    with ThreadPoolExecutor(WORKERS) as workers:
        splitter = Splitter.of(usage, chosen, folder / "time.bin")
        encoder, names = _fit(usage, chosen, splitter, workers)
        # What was held to count and to sort goes back before the second pass takes its own.
        pa.default_memory_pool().release_unused()
        writers, left_out = _write(folder, encoder, names, chosen, splitter, workers)
    _refuse_one_class(config, writers, chosen)
    if config.taught:
        _refuse_one_train_class(encoder, writers, chosen)
        encoder = _with_crosses(folder, encoder)
        encoder = replace(encoder, taught=_taught(folder, encoder))
    encoder.save(folder / "encoder")
    _write_meta(folder, encoder, names, chosen, writers, left_out)
    pa.default_memory_pool().release_unused()


def _fit(
    usage: Usage, chosen: Chosen, splitter: Splitter, workers: Executor
) -> tuple[Encoder, tuple[str, ...]]:
    """The encoder, and the names of all chosen domains: the trained ones, then the others."""
    config, domain_kind = usage.config, usage.kinds[DOMAIN]
    fit = EncoderFit(config, usage.kinds)
    all_domains = Counter("string")
    columns = list(dict.fromkeys([*fit.columns, *splitter.columns]))
    totals = np.zeros(len(SPLITS), dtype=np.int64)
    homeless = 0
    labelled = Counter("string")
    for piece in chosen.pieces(columns, "fit"):
        origin = piece.origin
        assigned = splitter.assign(piece)
        totals += np.bincount(assigned, minlength=len(SPLITS))[: len(SPLITS)]
        train = np.flatnonzero(assigned == 0)
        fit.add(piece.batch, train, origin, row=piece.row, workers=workers)
        domain = piece.batch.column(config.domain)
        codes, names = c.domains(domain, domain_kind)
        if config.null_domain == "refuse":
            c.refuse_null_domain(config.domain, codes, origin)
        present = codes[codes >= 0]
        homeless += len(codes) - len(present)
        all_domains.add_counts(names, np.bincount(present, minlength=len(names)))
        if config.keeps_unlabelled:
            known = codes[(codes >= 0) & (assigned < UNLABELLED)]
            labelled.add_counts(names, np.bincount(known, minlength=len(names)))
    if config.keeps_unlabelled:
        if not totals.sum():
            raise no_label(config, chosen)
        _refuse_unlabelled_domain(config, all_domains, labelled, chosen)
    for name, rows in zip(SPLITS, totals, strict=True):
        if not rows:
            raise SchemaError(
                f"every split must have at least one row, got none in {name!r}"
                f" (split by {config.split.by}, {totals.sum()} rows in {chosen.source})"
            )
    encoder = fit.encoder()
    known = all_domains.counts()["value"].to_list()
    trained = set(encoder.domains)
    others = in_order([name for name in known if name not in trained], domain_kind)
    if homeless:
        others.append(null_name(known))
    return encoder, (*encoder.domains, *others)


def _refuse_unlabelled_domain(
    config: DataConfig, every: Counter, labelled: Counter, chosen: Chosen
) -> None:
    """A domain without any label can be neither trained nor judged."""
    have = set(labelled.counts()["value"].to_list())
    counts = every.counts()
    for name, rows in zip(counts["value"].to_list(), counts["count"].to_list(), strict=True):
        if name not in have:
            raise SchemaError(
                f"every domain must have a row with a label, got domain {name!r} with null in column"
                f" {config.label.column!r} in all {rows:,} rows of {chosen.source}; data.domains"
                " leaves out what it does not name"
            )


def null_name(known: Sequence[str]) -> str:
    """What reports call the rows without a domain: a name that no domain has."""
    name = "(null)"
    while name in known:
        name = f"({name})"
    return name


def folders(config: DataConfig) -> tuple[str, ...]:
    """The folders of encoded rows: the splits, then the unlabelled rows where they are kept."""
    return (*SPLITS, UNLABELLED_ROWS) if config.keeps_unlabelled else SPLITS


class _SplitWriter:
    """The files of one split: one for each array, two for each list."""

    def __init__(self, folder: Path, n_names: int) -> None:
        folder.mkdir()
        self._folder = folder
        self._files: dict[str, ArrayWriter] = {}
        self.counts = np.zeros(n_names + 1, dtype=np.int64)
        self.positives = np.zeros(n_names + 1, dtype=np.int64)

    @property
    def rows(self) -> int:
        """Rows that were written."""
        return int(self.counts.sum())

    def add(self, name: str, rows: np.ndarray) -> None:
        """Append to one array."""
        if name not in self._files:
            self._files[name] = ArrayWriter(self._folder / f"{name}.npy", rows)
        self._files[name].write(rows)

    def write(self, rows: EncodedRows, domain: np.ndarray, at: np.ndarray) -> None:
        """Append the rows at positions ``at``; ``domain`` are the report ids of the block."""
        assert rows.label is not None
        domain, label = domain.take(at), rows.label.take(at)
        self.add("domain", domain)
        self.add("label", label)
        for name in ("categorical", "numeric", "row", "weight", "group"):
            array = getattr(rows, name)
            if array is not None:
                self.add(name, array.take(at, axis=0))
        for i, (values, offsets) in enumerate(rows.lists):
            lengths = np.diff(offsets).take(at)
            of_items, of_ends = f"list-{i}-values", f"list-{i}-offsets"
            if of_ends not in self._files:
                self.add(of_ends, np.zeros(1, dtype=np.int64))
            base = self._files[of_items].rows if of_items in self._files else 0
            self.add(of_items, values.take(ragged(offsets[:-1].take(at), lengths)))
            self.add(of_ends, np.cumsum(lengths) + base)
        self.counts += np.bincount(domain, minlength=len(self.counts))
        self.positives += np.bincount(domain[label > 0], minlength=len(self.counts))

    def close(self) -> None:
        """Make the files whole."""
        for file in self._files.values():
            file.close()

    def abandon(self) -> None:
        """Close the files as they are."""
        for file in self._files.values():
            file.abandon()


def _write(
    folder: Path,
    encoder: Encoder,
    names: tuple[str, ...],
    chosen: Chosen,
    splitter: Splitter,
    workers: Executor,
) -> tuple[list[_SplitWriter], int]:
    """Encode all rows and write them, each to its split. Gives how many were left out, too."""
    config = encoder.config
    report = Vocabulary("string", pa.array(names, pa.large_string()))
    columns = list(dict.fromkeys([*needed(config, roles=WRITTEN), *splitter.columns]))
    writers: list[_SplitWriter] = []
    left_out = 0
    try:
        for name in folders(config):
            writers.append(_SplitWriter(folder / name, len(names)))
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
            for number, writer in enumerate(writers):  # the unlabelled rows' number is the last
                writer.write(rows, domain, np.flatnonzero(assigned == number))
            left_out += int(np.count_nonzero(assigned == LEFT_OUT))
            if config.taught:
                writers[0].add("fold", splitter.folds(piece)[assigned == 0])
        for writer in writers:
            writer.close()
    finally:
        for writer in writers:
            writer.abandon()
    return writers, left_out


def _refuse_one_train_class(encoder: Encoder, writers: list[_SplitWriter], chosen: Chosen) -> None:
    """Train rows of one class teach nothing of a value."""
    positives, rows = int(writers[0].positives.sum()), writers[0].rows
    if positives not in (0, rows):
        return
    columns = columns_of(encoder.fields)
    what = f"column {columns[0].name!r} has statistics" if columns else "data.trees is on"
    raise SchemaError(
        f"{what}, so the train rows must hold both classes, got the label {int(positives > 0)}"
        f" in all {rows:,} train rows of {chosen.source}"
    )


def _with_crosses(folder: Path, encoder: Encoder) -> Encoder:
    """Let validation rows judge the pairs of columns, and make room for the confirmed ones."""
    config = encoder.config
    if not config.crosses:
        return encoder
    train, validation = (_writable(folder / split, encoder) for split in SPLITS[:2])
    crosses = confirm(train, validation, encoder.fields, config, encoder.domains)
    confirmed = sum(one.confirmed for one in crosses)
    if confirmed:
        for split in folders(config):
            _widen(folder / split / "numeric.npy", STATISTICS_WIDTH * confirmed)
    return replace(encoder, crosses=crosses)


def _widen(path: Path, more: int) -> None:
    """Write an array (rows, width) again with so many more columns of zeros behind the others."""
    array = read_array(path)
    wider = path.with_suffix(".wider")
    zeros = np.zeros((1, more), dtype=array.dtype)
    writer = ArrayWriter(wider, np.concatenate([array[:1], zeros[: len(array)]], axis=1))
    try:
        for start in range(0, len(array), CHUNK):
            part = array[start : start + CHUNK]
            writer.write(np.concatenate([part, np.repeat(zeros, len(part), axis=0)], axis=1))
        writer.close()
    finally:
        writer.abandon()
    wider.replace(path)


def _taught(folder: Path, encoder: Encoder) -> Taught:
    """Fit what the train rows teach, and write the numbers of all rows into their place."""
    train, validation, *others = (
        _writable(folder / split, encoder) for split in folders(encoder.config)
    )
    taught = teach(train, validation, encoder.fields, encoder.config)
    for rows in others:  # test rows, and unlabelled rows, which taught nothing
        fill(taught, rows)
    return taught


def _writable(folder: Path, encoder: Encoder) -> SplitRows:
    """The encoded rows of one split, whose numbers can be written."""
    n_lists = sum(field.kind.endswith("_list") for field in encoder.fields)
    rows = Rows.open(folder, encoder.n_domains, n_lists)
    numeric = np.load(folder / "numeric.npy", mmap_mode="r+", allow_pickle=False)
    return replace(
        SplitRows.of(rows, encoder.n_domains), arrays=replace(rows.arrays, numeric=numeric)
    )


def _refuse_one_class(config: DataConfig, writers: list[_SplitWriter], chosen: Chosen) -> None:
    """A label that is the same in every row teaches nothing, and has no metric."""
    labelled = writers[: len(SPLITS)]
    rows = sum(writer.rows for writer in labelled)
    positives = sum(int(writer.positives.sum()) for writer in labelled)
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
    left_out: int,
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
        "rows": dict(zip(folders(encoder.config), (one.rows for one in writers), strict=True)),
        "domain_rows": [writer.counts[1:].tolist() for writer in writers],
        "weightless": chosen.weightless,
        "domain_positives": [writer.positives[1:].tolist() for writer in writers],
        "sizes": sizes,
        **({"unlabelled_left_out": left_out} if encoder.config.keeps_unlabelled else {}),
    }
    with (folder / META).open("w", encoding="utf-8") as file:
        json.dump(meta, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
