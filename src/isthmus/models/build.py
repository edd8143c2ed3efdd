"""A model from its config and the fitted fields."""

from isthmus.adapters import build_adapter
from isthmus.backbones import build_backbone
from isthmus.layers.domain_norm import DomainNorm
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.models.config import ModelConfig
from isthmus.models.domain_model import DomainModel, Head
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
    inputs = FeatureEmbedding(fields=fields)
    backbone = build_backbone(
        config.backbone, inputs=inputs, towers=config.towers, n_domains=n_domains
    )
    condition = _condition(config, inputs)
    adapter = build_adapter(
        config.adapter,
        site_widths=backbone.site_widths,
        condition_width=(
            inputs.width
            if condition is None
            else sum(_width(inputs.columns[name]) for name in condition)
        ),
        n_domains=n_domains,
    )
    head = config.head or config.towers
    norms = any(isinstance(module, DomainNorm) for module in backbone.modules())
    return DomainModel(
        inputs=inputs,
        backbone=backbone,
        head=Head(width=backbone.out_width, n_domains=n_domains if head == "per_domain" else None),
        adapter=adapter,
        n_domains=n_domains,
        condition=condition,
        routed=config.towers == "per_domain" or norms or adapter is not None,
    )


def _condition(config: ModelConfig, inputs: FeatureEmbedding) -> tuple[str, ...] | None:
    condition = config.adapter.condition
    if isinstance(condition, str):
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
