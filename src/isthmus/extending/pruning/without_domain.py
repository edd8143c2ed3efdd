"""A bundle without one of its domains, whose rows then get the answer of the unknown domain.

The domain's sets leave every bank, its calibration and its route go too. All that the other domains use stays
where it is, so their scores keep every bit. Ids, and what the domain's rows taught shared weights,
statistics and forest, stay as well: the other domains' scores rest on them.
"""

from dataclasses import replace

import numpy as np
import torch

from isthmus.bundle import Bundle, Part
from isthmus.bundle.calibration import Calibration
from isthmus.data.batch import Batch
from isthmus.data.encoding.encoder import Encoder
from isthmus.data.encoding.growth import Growth
from isthmus.data.encoding.roles import vocabulary_name
from isthmus.data.store.known import Known
from isthmus.errors import BundleError, RunError
from isthmus.extending.grown import grown_taught
from isthmus.extending.pruning.refilled import refilled
from isthmus.layers import domain_tensors
from isthmus.metrics import ScoredRows
from isthmus.models import AbstractModel, ModelConfig, build_model
from isthmus.train.generators import turn


def pruned_bundle(before: Bundle, domain: str) -> Bundle:
    """A bundle without a domain. Raises RunError and BundleError as `prune` does."""
    encoder = before.encoder
    if domain not in encoder.domains:
        raise RunError(
            f"the domain to remove must be one of {', '.join(encoder.domains)}, got {domain!r}"
        )
    if encoder.n_domains < 2:
        raise RunError(f"a run must keep a domain, but {domain!r} is its last one")
    if before.detector is not None:
        raise BundleError(
            "a bundle to prune must have no detector, which tells the domains of its own fit apart"
        )
    number = encoder.domains.index(domain) + 1
    encoder = _pruned_encoder(encoder, domain, number)
    routes = {name: part for name, part in before.routes.items() if name != domain}
    parts = {
        name: _pruned_part(part, encoder, number)
        for name, part in before.parts.items()
        if name in routes.values()
    }
    calibration = before.calibration
    if calibration is not None:
        calibration = Calibration(
            np.delete(calibration.slope, number), np.delete(calibration.offset, number)
        )
    return Bundle(
        config=before.config.model_copy(update={"data": encoder.config}),
        encoder=encoder,
        model=_pruned_model(before.model, before.config.model, encoder, number),
        calibration=calibration,
        parts=parts,
        routes=routes,
        profile=None if before.profile is None else before.profile.of_domains(encoder.domains),
        history=before.history,
    )


def _pruned_encoder(encoder: Encoder, domain: str, number: int) -> Encoder:
    config, own, rows = encoder.config, None, 0
    if config.domain in config.features:
        own = vocabulary_name(config, config.domain)
        rows = encoder.vocabularies[own].rows
        others = [one.name for one in encoder.fields if one.table == own and not one.is_domain]
        if others:
            raise BundleError(
                "the domain's column must have a vocabulary of its own to be pruned, but it shares that of"
                f" {others[0]!r}"
            )
    growth = encoder.growth or Growth.of_fit(encoder.vocabularies, encoder.n_domains)
    growth = growth.without_domain(number, own, rows)
    domains = tuple(name for name in encoder.domains if name != domain)
    if config.domains is not None:
        kept = tuple(name for name in config.domains if name != domain)
        config = config.model_copy(update={"domains": kept})
    found = replace(encoder, config=config, domains=domains, growth=growth)
    return replace(found, taught=grown_taught(encoder.taught, found.fields, growth))


def _pruned_model(
    model: AbstractModel, config: ModelConfig, encoder: Encoder, number: int
) -> AbstractModel:
    """The model without a domain's sets. Raises BundleError where other tensors mix all domains."""
    with turn():  # its first weights are drawn, though others take their place
        fresh = build_model(config, encoder.fields, encoder.n_domains)
    banks, old = domain_tensors(fresh), model.state_dict()
    kept = torch.tensor([place for place in range(encoder.n_domains + 2) if place != number])
    found = {
        name: tensor.index_select(0, kept) if name in banks else tensor
        for name, tensor in old.items()
    }
    rule = (
        "what belongs to domains must be declared in sets of their own to be pruned, but"
        f" {{name}} of adapter {config.adapter.name} mixes all domains"
    )
    return refilled(fresh, found, rule)


def _pruned_part(part: Part, encoder: Encoder, number: int) -> Part:
    model = _pruned_model(part.model, part.config, encoder, number)
    if part.known is None:
        return replace(part, model=model)
    growth = encoder.growth
    assert growth is not None
    domain = np.delete(part.known.domain[: encoder.n_domains + 2], number)
    tables = part.known.tables(part.model.fields)
    taught = grown_taught(part.known.taught, encoder.fields, growth)
    return Part(model, part.config, Known.of_tables(encoder.fields, tables, domain, taught))


def renumbered(batch: Batch, number: int) -> Batch:
    """Rows of the domains that stay, by their new ids."""
    return replace(batch, domain=batch.domain - (batch.domain > number).long())


def scored_without(scored: ScoredRows, domain: str, source: str) -> ScoredRows:
    """The rows of the other domains."""
    if domain not in scored.names:
        return replace(scored, source=source)
    number = scored.names.index(domain) + 1
    rest = scored.take(np.flatnonzero(scored.domain != number))
    names = tuple(name for name in scored.names if name != domain)
    return replace(rest, names=names, domain=rest.domain - (rest.domain > number), source=source)
