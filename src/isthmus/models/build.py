"""A model from its config and the fitted fields."""

from isthmus.adapters import AbstractConditionedConfig, PromptConfig
from isthmus.backbones import BackboneSpec
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.sites import SiteSpec
from isthmus.models.domain_model import DomainModel, Head
from isthmus.models.model_config import ModelConfig
from isthmus.schema import FittedField


def build_model(
    config: ModelConfig, fields: tuple[FittedField, ...], n_domains: int
) -> DomainModel:
    """Build the network that ``config`` describes for features ``fields`` and its domains.

    Parameters are drawn from torch's global generator: seed it first. Raises ``ValueError`` where
    the config asks for features that are not there or that do not fit.
    """
    if n_domains < 1:
        raise ValueError(f"n_domains must be at least 1, got {n_domains}")
    spare = config.adapter.spare if isinstance(config.adapter, PromptConfig) else 0
    inputs = FeatureEmbedding(fields=fields, spare=spare)
    backbone = config.backbone.build(BackboneSpec(inputs, config.towers, n_domains))
    condition = _condition(config, inputs)
    read = list(inputs.columns) if condition is None else condition
    adapter = config.adapter.build(
        SiteSpec(backbone.site_widths, n_domains, inputs.width, backbone.linears),
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
    missing = [name for name in condition if name not in inputs.columns]
    if missing or not condition:
        raise ValueError(
            f"adapter.condition must be 'all' or name features of {list(inputs.columns)},"
            f" got {list(condition)}"
        )
    return tuple(condition)


def _width(columns: slice) -> int:
    return columns.stop - columns.start
