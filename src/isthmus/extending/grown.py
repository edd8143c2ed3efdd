"""A bundle's encoder and networks with one more domain, and longer vocabularies: the old part unmoved.

Tensors only grow at their ends. A bank gets a set for the new domain, a table gets rows for the new ids.
Both begin as the unknown one's, index 0. So before anything is learnt, a row of the new domain is scored
as a row of a domain that nobody knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from isthmus.bundle import Part
from isthmus.bundle.calibration import Calibration
from isthmus.data.encoding.counted.later import regrown
from isthmus.data.encoding.encoder import Encoder
from isthmus.data.encoding.growth import Growth
from isthmus.data.encoding.taught import Taught
from isthmus.data.encoding.trees import ForestColumns
from isthmus.data.encoding.vocabulary import Vocabulary
from isthmus.data.store.known import Known
from isthmus.errors import BundleError
from isthmus.layers import domain_tensors, logical_tables
from isthmus.models import AbstractModel, ModelConfig, build_model
from isthmus.schema import FittedField
from isthmus.train.generators import turn


def grown_encoder(
    encoder: Encoder, vocabularies: Mapping[str, Vocabulary], domain: str | None = None
) -> Encoder:
    """The encoder with longer vocabularies, and one more domain at the end where one is named.

    With a domain, the new ids are the domain's alone. Without one, every domain sees every id.
    """
    growth = encoder.growth or Growth.of_fit(encoder.vocabularies, encoder.n_domains)
    config = encoder.config
    if domain is None:
        rows = {name: one.rows for name, one in vocabularies.items()}
        growth, domains = growth.seen_by_all(rows), encoder.domains
    else:
        before = {name: one.rows for name, one in encoder.vocabularies.items()}
        growth = growth.with_domain(before, {name: one.rows for name, one in vocabularies.items()})
        domains = (*encoder.domains, domain)
        if config.domains is not None:
            config = config.model_copy(update={"domains": (*config.domains, domain)})
    found = replace(
        encoder, config=config, vocabularies=vocabularies, domains=domains, growth=growth
    )
    return replace(found, taught=grown_taught(encoder.taught, found.fields, growth))


def grown_taught(taught: Taught, fields: Sequence[FittedField], growth: Growth) -> Taught:
    """Statistics and forest as they were, over longer vocabularies."""
    statistics, trees = taught.statistics, taught.trees
    return Taught(
        None if statistics is None else regrown(statistics, fields),
        None if trees is None else replace(trees, columns=ForestColumns.of(fields)),
        growth,
    )


def grown_model(model: AbstractModel, config: ModelConfig, encoder: Encoder) -> AbstractModel:
    """The model over a grown encoder, in eval mode. Raises BundleError where it cannot grow."""
    with turn():  # its first weights are drawn, though others take their place
        fresh = build_model(config, encoder.fields, encoder.n_domains)
    old, banks, tables = model.state_dict(), domain_tensors(fresh), logical_tables(fresh)
    found = {}
    for name, tensor in fresh.state_dict().items():
        given = old[name]
        more = tensor.shape[0] - given.shape[0] if tensor.ndim else 0
        if more and (name in banks or name in tables):
            like_unknown = given[:1].expand(more, *given.shape[1:])
            found[name] = torch.cat([given, like_unknown])
        elif given.shape == tensor.shape:
            found[name] = given.clone()
        else:
            worn = f"backbone {config.backbone.name}, adapter {config.adapter.name}"
            raise BundleError(
                "what belongs to domains must be declared in sets of their own to be extended or pruned,"
                f" but {name!r} of {worn} mixes all domains"
            )
    fresh.load_state_dict(found)
    return fresh.eval()


def grown_part(part: Part, encoder: Encoder, n_domains: int) -> Part:
    """A part of a bundle with several models, to which nothing new is known.

    ``n_domains``: of the bundle before it grew.
    """
    model = grown_model(part.model, part.config, encoder)
    if part.known is None:
        return replace(part, model=model)
    growth = encoder.growth
    assert growth is not None
    before = part.known.tables(part.model.fields)
    rows = {one.table: one.table_rows for one in encoder.fields if one.table}
    tables = {
        name: np.append(mask, np.zeros(rows[name] - len(mask), dtype=bool))
        for name, mask in before.items()
    }
    more = encoder.n_domains - n_domains
    domain = np.append(part.known.domain[: n_domains + 1], np.zeros(more, dtype=bool))
    taught = grown_taught(part.known.taught, encoder.fields, growth)
    known = Known.of_tables(encoder.fields, tables, domain, taught)
    return Part(model, part.config, known)


def grown_calibration(calibration: Calibration | None) -> Calibration | None:
    """One more domain, calibrated as the unknown one until its rows say more."""
    if calibration is None:
        return None
    return Calibration(
        slope=np.append(calibration.slope, calibration.slope[0]),
        offset=np.append(calibration.offset, calibration.offset[0]),
    )
