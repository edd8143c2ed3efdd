"""A model from its config and the fitted fields."""

from dataclasses import replace

import torch

from isthmus.adapters import AbstractConditionedConfig, PromptConfig
from isthmus.backbones import AbstractBackboneConfig, BackboneSpec
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.sites import SiteSpec
from isthmus.models.abstract_model import AbstractModel
from isthmus.models.domain_model import DomainModel, Head
from isthmus.models.model_config import ModelConfig
from isthmus.models.sizing import widths_for
from isthmus.models.trees_model import TreesModel
from isthmus.schema import FittedField

FEW = 2  # rows of a table in a network that is only counted: tables are no part of the trunk


def build_model(
    config: ModelConfig, fields: tuple[FittedField, ...], n_domains: int
) -> AbstractModel:
    """Build the model that ``config`` describes for features ``fields`` and its domains.

    A `DomainModel`, or a `TreesModel` where the config's name is ``trees``. Parameters are drawn from
    torch's global generator: seed it first. Raises ``ValueError`` where the config asks for features
    that are not there or that do not fit, and for a budget that no size meets.
    """
    if config.is_trees:
        return TreesModel(fields=fields, n_domains=n_domains)
    return build_network(config, fields, n_domains)


def build_network(
    config: ModelConfig, fields: tuple[FittedField, ...], n_domains: int
) -> DomainModel:
    """Build the network that ``config`` describes, as `build_model` does."""
    if n_domains < 1:
        raise ValueError(f"n_domains must be at least 1, got {n_domains}")
    config = sized(config, fields, n_domains)
    inputs = FeatureEmbedding(fields=fields, spare=_spare(config))
    return _assembled(config, inputs, n_domains)


def _spare(config: ModelConfig) -> int:
    """Columns of the embedded row that an adapter fills."""
    return config.adapter.spare if isinstance(config.adapter, PromptConfig) else 0


def sized(config: ModelConfig, fields: tuple[FittedField, ...], n_domains: int) -> ModelConfig:
    """The config with widths that meet its ``sizes``, and without ``sizes``.

    The trunk is all that `ParameterReport.trunk` counts. A config without ``sizes`` is returned as
    it is. The widths follow from the arguments alone: nothing is drawn. Raises ``ValueError``, which
    names the smallest possible, for a budget that no size meets.
    """
    if config.sizes is None:
        return config
    plain = config.model_copy(update={"sizes": None})
    with torch.random.fork_rng(devices=[]):
        small = tuple(replace(f, table_rows=FEW) if f.table else f for f in fields)
        inputs = FeatureEmbedding(fields=small, spare=_spare(config))

        def count(backbone: AbstractBackboneConfig) -> int:
            with torch.device("meta"):  # shapes alone, without memory
                wider = plain.model_copy(update={"backbone": backbone})
                return _assembled(wider, inputs, n_domains).parameter_report().trunk

        found = widths_for(plain.backbone, config.sizes.trunk, count)
    return plain.model_copy(update={"backbone": found})


def _assembled(config: ModelConfig, inputs: FeatureEmbedding, n_domains: int) -> DomainModel:
    backbone = config.backbone.build(BackboneSpec(inputs, config.towers, n_domains))
    condition = _condition(config, inputs)
    read = list(inputs.columns) if condition is None else condition
    adapter = config.adapter.build(
        SiteSpec(backbone.site_widths, n_domains, inputs.width, dict(backbone.linears)),
        condition_width=sum(_width(inputs.columns[name]) for name in read),
    )
    head = config.head or config.backbone.paper_head or config.towers
    return DomainModel(
        inputs=inputs,
        backbone=backbone,
        head=Head(width=backbone.out_width, n_domains=n_domains if head == "per_domain" else None),
        adapter=adapter,
        n_domains=n_domains,
        condition=condition,
    )


def _condition(config: ModelConfig, inputs: FeatureEmbedding) -> tuple[str, ...] | None:
    if not isinstance(config.adapter, AbstractConditionedConfig):
        return None
    condition = config.adapter.condition
    if condition == "all":
        return None
    if condition == "without_domain":
        own = {field.name for field in inputs.fields if field.is_domain}
        condition = tuple(f.name for f in inputs.fields if not {f.name, f.source} & own)
        if not condition:
            raise ValueError(
                "adapter.condition 'without_domain' must leave a feature beside the domain's own"
                f" column, got {list(inputs.columns)}"
            )
    missing = [name for name in condition if name not in inputs.columns]
    if missing or not condition:
        raise ValueError(
            f"adapter.condition must be 'all' or name features of {list(inputs.columns)},"
            f" got {list(condition)}"
        )
    return tuple(condition)


def _width(columns: slice) -> int:
    return columns.stop - columns.start
