"""A bundle without the ids that a newer table no longer has; their rows leave the embedding tables.

A bundle does not know when an id was last seen: that would be a number for each id, to be kept right by every
refresh. Whoever prunes has the newer rows, and knows how long ago is long. So a table says which ids stay,
such as the rows of the last 90 days.

The ids that stay keep their order and move together. So a score stays, bit by bit, where all that is looked
up by id moves with them. Where a number rests on all ids together, such as a strength among value
statistics, nothing can be dropped, and the bundle is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Int64
from torch import Tensor

from isthmus.bundle import Bundle, Part
from isthmus.data import open_table
from isthmus.data.batch import Batch
from isthmus.data.encoding.encoder import Encoder
from isthmus.data.encoding.roles import as_used, check_types, needed, vocabulary_name
from isthmus.data.encoding.vocabulary import Vocabulary
from isthmus.data.store.known import Known, by_ids
from isthmus.data.tables import columns as c
from isthmus.data.tables import refuse_empty
from isthmus.data.tables.table import ahead
from isthmus.errors import BundleError, RunError
from isthmus.extending.pruning.refilled import refilled
from isthmus.layers import logical_tables
from isthmus.layers.inputs.wide import Wide
from isthmus.models import AbstractModel, ModelConfig, build_model
from isthmus.schema import Categorical, CategoricalList, FittedField
from isthmus.train.generators import turn

Kept = Mapping[str, Int64[np.ndarray, " ids"]]
"""By vocabulary: the old ids that stay, in rising order, 0 first. A vocabulary that stays whole has no entry."""


def kept_ids(encoder: Encoder, table: Any, least: int) -> tuple[Kept, int]:
    """The ids that stand in ``least`` places or more of a table, and how many rows it has.

    Raises RunError where all ids stay, or none of a column; SchemaError for a table of other columns.
    """
    if least < 1:
        raise RunError(f"least must be 1 or more, got {least}")
    config, opened = encoder.config, open_table(table)
    refuse_empty(opened)
    used = as_used(opened, config, encoder.kinds)
    used.check_usable(needed(config, roles=()))
    for file, types in used.schemas:
        check_types(config, types, file, roles=(), fitted=encoder.kinds)
    own = vocabulary_name(config, config.domain) if config.domain in config.features else None
    columns = {
        name: vocabulary
        for name, feature in config.features.items()
        if isinstance(feature, Categorical | CategoricalList)
        and (vocabulary := vocabulary_name(config, name)) != own
        and encoder.vocabularies[vocabulary].index is not None
        and encoder.vocabularies[vocabulary].rows > 1
    }
    counts = {
        name: np.zeros(encoder.vocabularies[name].rows, np.int64) for name in columns.values()
    }
    for block in ahead(used.blocks(list(columns))):
        for name, vocabulary in columns.items():
            array, feature = block.batch.column(name), config.features[name]
            if isinstance(feature, CategoricalList):
                if pa.types.is_null(array.type):
                    continue
                array, _ = c.list_items(array, feature.max_length)
            ids = encoder.vocabularies[vocabulary].ids(array)
            counts[vocabulary] += np.bincount(ids, minlength=len(counts[vocabulary]))
    kept = {}
    for vocabulary, count in counts.items():
        count[0] = least
        kept[vocabulary] = np.flatnonzero(count >= least)
        if len(kept[vocabulary]) == 1:
            raise RunError(
                f"the table must have a value of {vocabulary!r} that stays, got none of"
                f" {len(count) - 1:,} ids at least {least:,} times in {used.rows:,} rows of {used.source}"
            )
    kept = {name: ids for name, ids in kept.items() if len(ids) < len(counts[name])}
    if not kept:
        raise RunError(
            f"some id must be unused, but each stands at least {least:,} times in the {used.rows:,} rows"
            f" of {used.source}"
        )
    return kept, used.rows


def bundle_without_ids(before: Bundle, kept: Kept) -> Bundle:
    """A bundle with these ids only. Raises BundleError where its scores rest on all of them."""
    if before.encoder.config.taught:
        raise BundleError(
            "a bundle to prune of ids must have no statistics of values and no forest, which rest on"
            " the counts of all values"
        )
    if before.detector is not None:
        raise BundleError(
            "a bundle to prune must have no detector, which reads the ids of its own fit"
        )
    encoder = _encoder_of(before.encoder, kept)
    parts = {name: _part_of(part, encoder, kept) for name, part in before.parts.items()}
    profile = before.profile
    if profile is not None:
        of = {one.name: kept[one.table] for one in encoder.fields if one.table in kept}
        profile = profile.of_ids(of)
    return Bundle(
        config=before.config,
        encoder=encoder,
        model=_model_of(before.model, before.config.model, encoder, kept),
        calibration=before.calibration,
        parts=parts,
        routes=before.routes,
        profile=profile,
        history=before.history,
    )


def with_old_ids(batch: Batch, fields: Sequence[FittedField], kept: Kept) -> Batch:
    """Rows of the bundle after, by the ids that the bundle before has for their values."""
    single, listed = by_ids(fields)
    columns = [
        _old(batch.categorical[:, place], kept.get(one.table)) for place, one in enumerate(single)
    ]
    lists = tuple(
        replace(column, values=_old(column.values, kept.get(one.table)))
        for one, column in zip(listed, batch.lists, strict=True)
    )
    ids = torch.stack(columns, dim=1) if columns else batch.categorical
    return replace(batch, categorical=ids, lists=lists)


def _old(ids: Tensor, kept: np.ndarray | None) -> Tensor:
    return ids if kept is None else torch.from_numpy(kept)[ids.long()].to(ids.dtype)


def _encoder_of(encoder: Encoder, kept: Kept) -> Encoder:
    vocabularies = dict(encoder.vocabularies)
    for name, ids in kept.items():
        known = vocabularies[name]
        vocabularies[name] = Vocabulary(known.kind, known.values.take(pa.array(ids[1:] - 1)))
    growth = None if encoder.growth is None else encoder.growth.of_ids(kept)
    found = replace(encoder, vocabularies=vocabularies, growth=growth)
    return replace(found, taught=replace(encoder.taught, growth=growth))


def _model_of(
    model: AbstractModel, config: ModelConfig, encoder: Encoder, kept: Kept
) -> AbstractModel:
    """The model with the rows of its tables that stay. Raises BundleError where it crosses ids."""
    table_of = {one.table: one.table for one in encoder.fields if one.table in kept}
    table_of |= {one.name: one.table for one in encoder.fields if one.table in kept}
    for part in model.modules():
        crossed = part.crossed & table_of.keys() if isinstance(part, Wide) else set()
        if crossed:
            raise BundleError(
                "a bundle to prune of ids must have no crosses of their columns, which number all"
                f" combinations, got {', '.join(map(repr, sorted(crossed)))}"
            )
    with turn():  # its first weights are drawn, though others take their place
        fresh = build_model(config, encoder.fields, encoder.n_domains)
    rows = {
        name: torch.from_numpy(kept[table_of[table]])
        for name, (_, table) in logical_tables(fresh).items()
        if table in table_of
    }
    found = {
        name: tensor.index_select(0, rows[name]) if name in rows else tensor
        for name, tensor in model.state_dict().items()
    }
    rule = (
        "what belongs to ids must lie in embedding tables to be pruned, but"
        f" {{name}} of backbone {config.backbone.name} does not"
    )
    return refilled(fresh, found, rule)


def _part_of(part: Part, encoder: Encoder, kept: Kept) -> Part:
    model = _model_of(part.model, part.config, encoder, kept)
    if part.known is None:
        return replace(part, model=model)
    masks = part.known.tables(part.model.fields)
    tables = {name: mask[kept[name]] if name in kept else mask for name, mask in masks.items()}
    taught = replace(part.known.taught, growth=encoder.growth)
    known = Known.of_tables(encoder.fields, tables, part.known.domain, taught)
    return Part(model, part.config, known)
