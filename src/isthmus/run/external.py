"""Tables that no run has seen. They are scored for evaluation, or written out with their scores."""

import hashlib
import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from isthmus.bundle import Bundle, DetectBy, ScoredBlock, to_score
from isthmus.data.tables import Block, Table, open_table, refuse_empty
from isthmus.errors import RunError, SchemaError
from isthmus.metrics import ScoredRows
from isthmus.metrics.text_table import count_text
from isthmus.run.notice import Listener, Notice
from isthmus.run.output.unifying import as_type, risky, unified
from isthmus.run.output.writing import ScoredWriter

SCORE = "score"
DETECTED = "detected_domain"
NAMED = 5  # untrained domains that a message names


@dataclass(slots=True)
class Untrained:
    """The domains of a table that were not trained.

    ``column``: the column of domains. ``rows``: the number of rows of each such domain. ``first``:
    the file and the row where each domain comes first.
    """

    column: str
    rows: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, scored: ScoredBlock) -> None:
        """Count the rows of one block."""
        encoded = scored.encoded
        unknown = encoded.domain == 0
        if not unknown.any():
            return
        codes = encoded.domain_codes[unknown]
        places = np.flatnonzero(unknown)
        for code, at, count in zip(
            *np.unique(codes, return_index=True, return_counts=True), strict=True
        ):
            name = "null" if code < 0 else repr(encoded.domain_names[int(code)].as_py())
            row = scored.block.file_row + int(places[at])
            self.rows[name] = self.rows.get(name, 0) + int(count)
            self.first.setdefault(name, f"{scored.block.file}, row {row}")

    def warn(self) -> None:
        """Warn once of all domains that were not trained, where there are any."""
        if self.rows:
            warnings.warn(str(self), UserWarning, stacklevel=3)

    def __str__(self) -> str:
        ordered = sorted(self.rows, key=lambda name: -self.rows[name])
        told = [
            f"{name} ({count_text(self.rows[name], 'row')}, first in {self.first[name]})"
            for name in ordered[:NAMED]
        ]
        more = f" and {len(ordered) - NAMED:,} more" if len(ordered) > NAMED else ""
        return (
            f"column {self.column!r} holds domains that were never trained: {', '.join(told)}{more};"
            " their rows get the answer that was trained for the unknown domain"
        )


def score_external(bundle: Bundle, table: Any, *, source: str, progress: Listener) -> ScoredRows:
    """Score a whole labelled table. The split is named ``external``.

    Domains that were not trained are reported under their own names. Rows of weight 0 are left out.
    """
    opened = open_table(table)
    refuse_empty(opened)
    config = bundle.encoder.config
    roles = ("label", "weight", "group")
    untrained = Untrained(config.domain)
    names = {name: place for place, name in enumerate(bundle.domains, start=1)}
    parts: dict[str, list[np.ndarray]] = {}
    for scored in bundle.score_blocks(opened, roles=roles):
        untrained.add(scored)
        encoded = scored.encoded
        for name in encoded.domain_names.to_pylist():
            if name is not None:
                names.setdefault(name, len(names) + 1)
        ids = [*(names.get(name, 0) for name in encoded.domain_names.to_pylist()), 0]
        values = {
            "row": encoded.row,
            "logits": scored.logits,
            "label": encoded.label,
            "domain": np.array(ids, dtype=np.int64)[encoded.domain_codes],
            "weight": encoded.weight,
            "group": encoded.group,
        }
        weighty = None if encoded.weight is None else encoded.weight > 0
        for name, value in values.items():
            if value is not None:
                value = value if weighty is None else value[weighty]
                parts.setdefault(name, []).append(value)
        _tell(progress, scored, opened)
    untrained.warn()
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    return ScoredRows(
        split="external",
        row=joined["row"],
        logits=joined["logits"],
        label=joined["label"],
        domain=joined["domain"],
        names=tuple(names),
        weight=joined.get("weight"),
        group=group_numbers(joined.get("group")),
        negative_rate=config.negative_rate,
        fingerprint=fingerprint(opened),
        source=source,
    )


def predict_to(
    bundle: Bundle,
    table: Any,
    output: Path,
    *,
    detect_domain: DetectBy | None = None,
    progress: Listener,
) -> int:
    """Write a table with a column ``score`` added, block by block. Give the number of rows.

    ``detect_domain``: add the column ``detected_domain`` too, see `Bundle.score`. Warns of columns that the file can hold as text only, and of domains that were not trained.
    """
    opened = open_table(table)
    added = {SCORE: pa.float64()} | ({} if detect_domain is None else {DETECTED: pa.string()})
    for file, types in opened.schemas:
        for name in added:
            if name in types:
                raise SchemaError(f"column {name!r} must not be in the table yet, got it in {file}")
    if output.exists():
        raise RunError(f"file to write must not exist yet, got {output}")
    if not output.parent.is_dir():
        raise RunError(f"folder of the file to write must exist, got {output.parent}")
    rate = bundle.config.data.negative_rate
    schema = unified(opened.schemas)
    _check_values(opened, schema)
    untrained = Untrained(bundle.config.data.domain)
    blocks = bundle.score_blocks(opened, all_columns=True, detect_domain=detect_domain)
    with ScoredWriter(output, pa.schema([*schema, *added.items()])) as writer:
        for scored in blocks:
            untrained.add(scored)
            arrays = [*_as_written(scored.block, schema), pa.array(to_score(scored.logits, rate))]
            if scored.told is not None:
                arrays.append(scored.told)
            writer.write(pa.RecordBatch.from_arrays(arrays, names=[*schema.names, *added]))
            _tell(progress, scored, opened)
    mixed = {name for part in opened.parts for name in part.unusable if name in schema.names}
    turned = sorted({*writer.turned, *(mixed if not opened.is_csv else ())})
    if turned:
        warnings.warn(
            f"columns that {output.name} holds as text only: {', '.join(map(repr, turned))}",
            UserWarning,
            stacklevel=2,
        )
    untrained.warn()
    return opened.rows


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


def predict(bundle: Bundle, table: Any, *, detect_domain: DetectBy | None = None) -> np.ndarray:
    """Give probabilities, (rows,) float64. Warns of domains that were not trained."""
    untrained = Untrained(bundle.config.data.domain)
    parts = []
    for scored in bundle.score_blocks(table, detect_domain=detect_domain):
        untrained.add(scored)
        parts.append(to_score(scored.logits, bundle.config.data.negative_rate))
    untrained.warn()
    return np.concatenate([np.empty(0), *parts])


def group_numbers(group: np.ndarray | None) -> np.ndarray | None:
    """Number the groups from 0, int64. Their keys are hashes, which may be negative."""
    if group is None:
        return None
    return np.unique(group, return_inverse=True)[1].astype(np.int64)


def fingerprint(table: Table) -> str:
    """Give what tells a table from others, wherever it lies: the sizes and footers of its files."""
    parts = [
        {name: value for name, value in file.items() if name not in ("path", "time")}
        for file in table.files
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _tell(progress: Listener, scored: ScoredBlock, table: Table) -> None:
    done = scored.block.first_row + scored.block.batch.num_rows
    text = f"{done:,} of {table.rows:,} rows"
    progress(Notice("score", text, done / table.rows))
