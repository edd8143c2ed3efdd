"""Build the encoded rows on disk: one pass fits the encoder, a second encodes and writes.

After that, on the encoded rows, validation rows confirm pairs of columns, and value statistics and the
forest are fitted. The table is not read again. Several processes share both passes out among them.
"""

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from isthmus.data.encoding import encoder_file
from isthmus.data.encoding.counted.counted_columns import columns_of
from isthmus.data.encoding.encoder import Encoder
from isthmus.data.encoding.numbers.library import check_embeddings_installed
from isthmus.data.encoding.roles import Usage, needed
from isthmus.data.encoding.taught import Taught
from isthmus.data.encoding.trees import check_installed
from isthmus.data.encoding.vocabulary import Vocabulary
from isthmus.data.store.arrays import CHUNK, ArrayWriter, read_array
from isthmus.data.store.cache import META, room_in_cache
from isthmus.data.store.chosen import Chosen, Progress
from isthmus.data.store.counting.confirming import confirm
from isthmus.data.store.counting.out_of_fold import SplitRows, fill
from isthmus.data.store.rows import Rows
from isthmus.data.store.shares.split_writer import SplitWriter, join
from isthmus.data.store.shares.table_fit import TableFit
from isthmus.data.store.split import LEFT_OUT, SPLITS, Splitter
from isthmus.data.store.teaching import teach
from isthmus.data.tables import BLOCK_ROWS, Table
from isthmus.errors import SchemaError
from isthmus.ranks import ALONE, Ranks
from isthmus.schema import STATISTICS_WIDTH, DataConfig

VERSION = 4
WRITTEN = ("label", "weight", "group")
WORKERS = 2
UNLABELLED_ROWS = "unlabelled"  # their folder
_ENCODER = "encoder"


def build(
    folder: Path,
    config: DataConfig,
    table: Table,
    *,
    block_rows: int = BLOCK_ROWS,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> None:
    """Fit the encoder on the train rows of a table and write all its rows, encoded, to a folder.

    Rows whose domain is not among ``config.domains``, where that is given, are left out of both.
    Peak memory follows ``block_rows`` and the vocabularies, not the table. ``ranks``: processes that each
    read a share of the table and write to the same folder, with the result of one. Together.
    """
    if config.trees:
        check_installed()
    check_embeddings_installed(config.features.values())
    usage = ranks.every(lambda: Usage.of(config, table))
    progress = progress or (lambda *_: None)
    chosen = Chosen(usage, block_rows=block_rows, progress=progress, ranks=ranks)
    with ThreadPoolExecutor(WORKERS) as workers:
        splitter = Splitter.of(usage, chosen, folder / "time.bin")
        encoder, names = _fit(folder, usage, chosen, splitter, workers)
        # What was held to count and to sort goes back before the second pass takes its own.
        pa.default_memory_pool().release_unused()
        written = _write(folder, encoder, names, chosen, splitter, workers)
    ranks.first(lambda: _finish(folder, encoder, names, chosen, written))
    pa.default_memory_pool().release_unused()


def _finish(
    folder: Path, encoder: Encoder, names: Sequence[str], chosen: Chosen, written: "_Written"
) -> None:
    """Fit what the encoded train rows teach, and write the encoder."""
    _refuse_one_class(encoder.config, written, chosen)
    if encoder.config.taught:
        _refuse_one_train_class(encoder, written, chosen)
        encoder = _with_crosses(folder, encoder)
        encoder = replace(encoder, taught=_taught(folder, encoder))
    encoder.save(folder / _ENCODER)
    _write_meta(folder, encoder, names, chosen, written)


def _fit(
    folder: Path, usage: Usage, chosen: Chosen, splitter: Splitter, workers: Executor
) -> tuple[Encoder, tuple[str, ...]]:
    """The encoder, and the names of all chosen domains: the trained ones, then the others."""
    fit, ranks = TableFit(usage), chosen.ranks
    shares = [folder / f"fit-{rank}" for rank in range(ranks.size)]
    columns = list(dict.fromkeys([*fit.columns, *splitter.columns]))
    found: list[Encoder] = []

    def gather() -> bool:
        for piece in chosen.pieces(columns, "fit"):
            fit.add(piece, splitter.assign(piece), workers)
        if not ranks.is_first:
            with room_in_cache(folder):
                fit.save(shares[ranks.rank])
        return True

    def finish() -> list[str]:
        for share in shares[1:]:
            fit.take_in(share)
            shutil.rmtree(share)
        encoder, names = fit.finish(chosen)
        if not ranks.many and not encoder_file.has_mapped(encoder.vocabularies):
            found.append(encoder)
        else:  # large vocabularies are mapped from here on, and no longer held
            encoder.save(folder / _ENCODER)
        return list(names)

    chosen.apart(gather)
    names = ranks.first(finish)
    if found:
        return found[0], tuple(names)
    return ranks.every(lambda: Encoder(**encoder_file.load(folder / _ENCODER))), tuple(names)


def folders(config: DataConfig) -> tuple[str, ...]:
    """The folders of encoded rows: the splits, then the unlabelled rows where they are kept."""
    return (*SPLITS, UNLABELLED_ROWS) if config.keeps_unlabelled else SPLITS


@dataclass(frozen=True, slots=True, eq=False)
class _Written:
    """Rows and positives that were written, (folders, report ids + 1) int64, and what was left out."""

    rows: np.ndarray
    positives: np.ndarray
    unlabelled_left_out: int
    weightless: int

    @classmethod
    def of(cls, shares: Sequence[Mapping[str, Any]]) -> "_Written":
        """What several processes have written."""

        def total(name: str) -> np.ndarray:
            return np.sum([one[name] for one in shares], axis=0)

        return cls(
            rows=total("rows"),
            positives=total("positives"),
            unlabelled_left_out=int(total("unlabelled_left_out")),
            weightless=int(total("weightless")),
        )


def _write(
    folder: Path,
    encoder: Encoder,
    names: tuple[str, ...],
    chosen: Chosen,
    splitter: Splitter,
    workers: Executor,
) -> _Written:
    """Encode all rows and write them, each to its split."""
    ranks = chosen.ranks
    if not ranks.many:
        return _Written.of([_write_share(folder, encoder, names, chosen, splitter, workers)])
    shares = [folder / f"share-{rank}" for rank in range(ranks.size)]

    def write() -> dict[str, Any]:
        own = shares[ranks.rank]
        with room_in_cache(folder):
            own.mkdir()
            return _write_share(own, encoder, names, chosen, splitter, workers)

    def arrays() -> list[str]:
        for name in folders(encoder.config):
            (folder / name).mkdir()
        found = {path.relative_to(one) for one in shares for path in one.glob("*/*.npy")}
        return sorted(path.as_posix() for path in found)

    def join_some(arrays: Sequence[str]) -> None:
        for name in arrays:
            parts = [path for share in shares if (path := share / name).exists()]
            with room_in_cache(folder):
                join(parts, folder / name)
            ranks.heed()

    def tidy() -> None:
        for share in shares:
            shutil.rmtree(share)

    told = ranks.apart(write)
    found = ranks.first(arrays)
    ranks.apart(lambda: join_some(found[ranks.rank :: ranks.size]))
    ranks.first(tidy)
    return _Written.of(told)


def _write_share(
    folder: Path,
    encoder: Encoder,
    names: tuple[str, ...],
    chosen: Chosen,
    splitter: Splitter,
    workers: Executor,
) -> dict[str, Any]:
    """Encode the rows of this process and write them; give what `_Written` holds, as plain values."""
    config = encoder.config
    report = Vocabulary("string", pa.array(names, pa.large_string()))
    columns = list(dict.fromkeys([*needed(config, roles=WRITTEN), *splitter.columns]))
    writers: list[SplitWriter] = []
    left_out = 0
    try:
        for name in folders(config):
            writers.append(SplitWriter(folder / name, len(names)))
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
    return {
        "rows": [writer.counts.tolist() for writer in writers],
        "positives": [writer.positives.tolist() for writer in writers],
        "unlabelled_left_out": left_out,
        "weightless": chosen.weightless,
    }


def _refuse_one_train_class(encoder: Encoder, written: _Written, chosen: Chosen) -> None:
    """Train rows of one class teach nothing of a value."""
    positives, rows = int(written.positives[0].sum()), int(written.rows[0].sum())
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


def _refuse_one_class(config: DataConfig, written: _Written, chosen: Chosen) -> None:
    """A label that is the same in every row teaches nothing, and has no metric."""
    rows = int(written.rows[: len(SPLITS)].sum())
    positives = int(written.positives[: len(SPLITS)].sum())
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
    names: Sequence[str],
    chosen: Chosen,
    written: _Written,
) -> None:
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    rows = written.rows.sum(axis=1).tolist()
    meta = {
        "version": VERSION,
        "source": chosen.table.source,
        "created": time.time(),
        "config": encoder.config.model_dump(mode="json"),
        "domain_names": list(names),
        "rows": dict(zip(folders(encoder.config), rows, strict=True)),
        "domain_rows": written.rows[:, 1:].tolist(),
        "weightless": written.weightless,
        "domain_positives": written.positives[:, 1:].tolist(),
        "sizes": sizes,
    }
    if encoder.config.keeps_unlabelled:
        meta["unlabelled_left_out"] = written.unlabelled_left_out
    with (folder / META).open("w", encoding="utf-8") as file:
        json.dump(meta, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
