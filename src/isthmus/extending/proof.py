"""The proof that a bundle which was extended or pruned says of its other domains what it said before.

The *probe* of an extension is a table of raw rows. Each row of it names one of the domains that were there
before, or none, in turn, and as many rows as possible carry values that came with the new table. Both
bundles score the probe from raw rows on, in the same batches. Every logit must have the same 64 bits, and
every tensor that was there must have the same bytes.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from isthmus.bundle import Bundle
from isthmus.bundle.named_values import values_named
from isthmus.data.batch import Batch
from isthmus.data.encoding.encoder import EncodedRows, Encoder
from isthmus.data.encoding.roles import needed
from isthmus.data.tables.plain import plain
from isthmus.errors import RunError, SchemaError
from isthmus.extending.new_table import NewTable, encode
from isthmus.schema import TREES_WIDTH

PROBE_ROWS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Raw rows. ``domain``: the id that each row has in the bundle from before. ``carrying``: how many rows
    carry an id that this bundle did not have.
    """

    table: pa.Table
    domain: Int64[np.ndarray, " rows"]
    carrying: int


def probe_of(table: NewTable, before: Bundle, grown: Encoder) -> Probe:
    """Train rows of a new table as rows of a bundle's domains and of none, in turn.

    ``grown``: the encoder that knows the new ids. Rows come from the first file of the table. Raises
    SchemaError where the column of the domain cannot hold the names of the domains.
    """
    columns = needed(before.encoder.config, roles=())
    carrying: list[pa.RecordBatch] = []
    others: list[pa.RecordBatch] = []
    found = 0
    for piece in table.pieces_of("train"):
        batch = piece.batch.select(columns)
        if carrying and batch.schema != carrying[0].schema:
            break
        new = _carries_new(before.encoder, grown, encode(grown, piece))
        carrying.append(batch.filter(pa.array(new)))
        others.append(batch.filter(pa.array(~new)))
        found += int(new.sum())
        if found >= PROBE_ROWS:
            break
    rows = pa.Table.from_batches([*carrying, *others]).slice(0, PROBE_ROWS)
    sets = before.encoder.n_domains + 1
    copies = min(sets, -(-PROBE_ROWS // rows.num_rows))
    number = np.arange(rows.num_rows * copies)
    domain = (number + number // rows.num_rows) % sets
    told = _told(pa.concat_tables([rows] * copies), before.encoder, domain)
    return Probe(told, domain, min(found, rows.num_rows) * copies)


def _told(rows: pa.Table, encoder: Encoder, domain: np.ndarray) -> pa.Table:
    """The rows with the names of these domains in their column; null for 0."""
    column = encoder.config.domain
    place = rows.schema.get_field_index(column)
    dtype = plain(rows.column(place).combine_chunks()).type
    dtype = dtype.value_type if isinstance(dtype, pa.DictionaryType) else dtype
    values = values_named(encoder.domains, encoder.domain_kind, dtype)
    if values is None:
        raise SchemaError(
            f"column {column!r} must be of a type that can hold the domains"
            f" {', '.join(encoder.domains[:5])}, got {dtype}"
        )
    return rows.set_column(place, column, values.take(pa.array(domain - 1, mask=domain == 0)))


def _carries_new(before: Encoder, grown: Encoder, rows: EncodedRows) -> Bool[np.ndarray, " rows"]:
    """Which rows carry an id that was not there; the domain's own column does not count."""
    known = {one.name: one.table_rows for one in before.fields}
    found = np.zeros(len(rows.row), dtype=bool)
    single = [one for one in grown.fields if one.kind == "categorical"]
    for place, one in enumerate(single):
        if not one.is_domain:
            found |= rows.categorical[:, place] >= known[one.name]
    listed = [one for one in grown.fields if one.kind.endswith("_list")]
    for one, (values, offsets) in zip(listed, rows.lists, strict=True):
        if one.table:
            late = np.flatnonzero(values >= known[one.name])
            found[np.searchsorted(offsets, late, side="right") - 1] = True
    return found


def drawn_rows(encoder: Encoder, rows: int = PROBE_ROWS) -> Batch:
    """Encoded rows that no table holds: every id, every domain and the unknown ones as likely."""
    random = np.random.default_rng(0)
    fields = encoder.fields
    single = [one.table_rows for one in fields if one.kind == "categorical"]
    width = sum(one.numbers for one in fields) + (TREES_WIDTH - 1) * bool(encoder.config.trees)
    lists = []
    for one in fields:
        if one.kind.endswith("_list"):
            lengths = random.integers(0, 5, rows)
            items = int(lengths.sum())
            values = (
                random.integers(0, one.table_rows, items).astype(np.int32)
                if one.table
                else random.normal(size=items).astype(np.float32)
            )
            lists.append((values, np.concatenate([[0], np.cumsum(lengths)])))
    return Batch.of_arrays(
        categorical=random.integers(0, single, (rows, len(single))).astype(np.int32),
        numeric=random.normal(size=(rows, width)).astype(np.float32),
        lists=lists,
        domain=random.integers(0, encoder.n_domains + 1, rows),
        label=np.full(rows, np.nan, dtype=np.float32),
        weight=None,
    )


def same_bits(old: Float64[np.ndarray, " rows"], new: Float64[np.ndarray, " rows"]) -> str:
    """The sha256 of logits that two bundles gave to the same rows.

    Raises RunError where a bit differs.
    """
    differ = np.flatnonzero(old.view(np.int64) != new.view(np.int64))
    if len(differ):
        raise RunError(
            "the domains that stay must be scored as before, bit by bit, but"
            f" {len(differ):,} of {len(old):,} probe rows differ, by"
            f" {np.abs(old - new)[differ].max():.2g} at most; nothing was written"
        )
    return hashlib.sha256(old.tobytes()).hexdigest()


def same_tensors(before: Bundle, after: Bundle) -> dict[str, str]:
    """The sha256 of every tensor of a bundle's models and calibration, with which the other's begins.

    Raises RunError, naming the tensor, where it does not.
    """
    found = {}
    for prefix, old, new in _states(before, after):
        for name, tensor in old.items():
            cut = new[name][: tensor.shape[0]] if tensor.ndim else new[name]
            found[f"{prefix}{name}"] = _checksum(tensor)
            if _checksum(cut) != found[f"{prefix}{name}"]:
                raise RunError(
                    f"what was there must stay, but tensor {prefix + name!r} moved; nothing was written"
                )
    return found


def _states(
    before: Bundle, after: Bundle
) -> Iterator[tuple[str, Mapping[str, Tensor], Mapping[str, Tensor]]]:
    yield "model.", before.model.state_dict(), after.model.state_dict()
    for name, part in before.parts.items():
        yield f"parts.{name}.", part.model.state_dict(), after.parts[name].model.state_dict()
    if before.calibration is not None:
        assert after.calibration is not None
        yield "calibration.", before.calibration.to_tensors(), after.calibration.to_tensors()


def _checksum(tensor: Tensor) -> str:
    bits = tensor.detach().cpu().contiguous().view(torch.uint8) if tensor.ndim else tensor.cpu()
    return hashlib.sha256(bits.numpy().tobytes()).hexdigest()


def told(probe: Probe, logits: str, tensors: Mapping[str, str]) -> dict[str, Any]:
    """The proof as plain values."""
    return {
        "probe_rows": probe.table.num_rows,
        "probe_rows_with_new_ids": probe.carrying,
        "probe_domains": len(np.unique(probe.domain[probe.domain > 0])),
        "probe_rows_without_domain": int((probe.domain == 0).sum()),
        "logits_sha256": logits,
        "tensors": dict(tensors),
    }
