"""A table written out with its scores, block by block, and again from where it was stopped."""

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from isthmus.bundle import Bundle, DetectBy, stored_blocks, to_score
from isthmus.data.tables import Block, Table, ahead, open_table
from isthmus.errors import RunError, SchemaError
from isthmus.run.external import Untrained, tell_rows
from isthmus.run.notice import Listener, Notice
from isthmus.run.output.finished_rows import FinishedRows
from isthmus.run.output.sending import Target
from isthmus.run.output.unifying import as_type, risky, unified
from isthmus.run.output.writing import ScoredWriter
from isthmus.schema.address import Address
from isthmus.version import VERSION

SCORE = "score"
DETECTED = "detected_domain"


def predict_to(
    bundle: Bundle,
    table: Any,
    output: str | Path,
    *,
    detect_domain: DetectBy | None = None,
    about: Mapping[str, Any],
    resume: bool = False,
    progress: Listener,
) -> int:
    """Write a table with a column ``score`` added, block by block. Give the number of rows.

    ``detect_domain``: add the column ``detected_domain`` too, see `Bundle.score`. ``about``: what the
    scores depend on beside the table. ``resume``: score the rows only that a stopped call with the same
    ``output`` did not score; see `FinishedRows`. Reading, scoring and writing go on side by side.

    ``output``: a path, or an address on an object store. What goes to a store is written in the folder
    of temporary files first, and sent when it is whole (`isthmus.run.output.sending`); such a call
    begins again, so ``resume`` is refused.

    Warns of columns that the file can hold as text only, and of domains that were not trained.
    """
    address = Address.of(output) if isinstance(output, str) else None
    if address is not None and resume:
        raise RunError(
            f"--resume must have a file of this machine to go on with, got {address}; predict to a"
            " local file, or leave out --resume"
        )
    target = None if address is None else Target(address)
    opened = open_table(table)
    added = {SCORE: pa.float64()} | ({} if detect_domain is None else {DETECTED: pa.string()})
    for file, types in opened.schemas:
        for name in added:
            if name in types:
                raise SchemaError(f"column {name!r} must not be in the table yet, got it in {file}")
    path = Path(output)
    if target is None:
        if resume and FinishedRows.clear_if_ended(path):
            return opened.rows
        if path.exists():
            raise RunError(f"file to write must not exist yet, got {path}")
        if not path.parent.is_dir():
            raise RunError(f"folder of the file to write must exist, got {path.parent}")
    rate = bundle.config.data.negative_rate
    schema = unified(opened.schemas)
    _check_values(opened, schema)
    untrained = Untrained(bundle.config.data.domain)
    about = {**about, "detect_domain": detect_domain, **_surroundings(opened)}
    columns = pa.schema([*schema, *added.items()])
    with ExitStack() as stack:
        done = None
        if target is not None:
            path = stack.enter_context(target.written())
        else:
            done = stack.enter_context(FinishedRows.kept(path, about, resume=resume))
        writer = stack.enter_context(ScoredWriter(path, columns))

        def write(block: Block, arrays: list[pa.Array]) -> None:
            held = [*_as_written(block, schema), *arrays]
            writer.write(pa.RecordBatch.from_arrays(held, names=columns.names))

        begun = 0 if done is None else done.rows
        if done is not None and begun:
            untrained.recall(done.note)
            progress(Notice("score", f"{begun:,} of {opened.rows:,} rows were scored before"))
            for arrays, block in zip(done.blocks(list(added)), stored_blocks(opened), strict=False):
                if len(arrays[0]) != block.batch.num_rows:
                    raise RunError(
                        f"a table must come in the blocks that were scored, got {block.batch.num_rows}"
                        f" rows for {len(arrays[0])} in {opened.source}; without --resume the"
                        " prediction begins again"
                    )
                write(block, arrays)
        scored_blocks = bundle.score_blocks(
            opened, all_columns=True, detect_domain=detect_domain, first_row=begun
        )
        for scored in ahead(scored_blocks):
            untrained.add(scored)
            arrays = [pa.array(to_score(scored.logits, rate))]
            if scored.told is not None:
                arrays.append(scored.told)
            if done is not None:
                scores = pa.RecordBatch.from_arrays(arrays, names=list(added))
                done.add(scores, untrained.to_dict)
            write(scored.block, arrays)
            tell_rows(progress, scored, opened)
        if done is not None:
            done.end()
    mixed = {name for part in opened.parts for name in part.unusable if name in schema.names}
    turned = sorted({*writer.turned, *(mixed if not opened.is_csv else ())})
    if turned:
        warnings.warn(
            f"columns that {path.name} holds as text only: {', '.join(map(repr, turned))}",
            UserWarning,
            stacklevel=2,
        )
    untrained.warn()
    return opened.rows


def _surroundings(table: Table) -> dict[str, Any]:
    """What a score depends on beside the bundle: the table, wherever it lies, and the libraries."""
    files = [{name: one[name] for name in one if name != "path"} for one in table.files]
    return {
        "table": files,
        "libraries": {"isthmus": VERSION, "torch": torch.__version__, "pyarrow": pa.__version__},
    }


def _check_values(table: Table, schema: pa.Schema) -> None:
    """Refuse, before a row is scored, a value that the type of its column over all files lacks."""
    columns = risky(table.schemas, schema)
    for block in table.blocks(columns, stored=True) if columns else ():
        _as_written(block, pa.schema([schema.field(name) for name in columns]))


def _as_written(block: Block, schema: pa.Schema) -> list[pa.Array]:
    """Give a block's columns as the whole table has them. A column that the file lacks is null."""
    held = set(block.batch.schema.names)
    return [
        as_type(block.batch.column(item.name), item.type, item.name, block.file, block.file_row)
        if item.name in held
        else pa.nulls(block.batch.num_rows, item.type)
        for item in schema
    ]
