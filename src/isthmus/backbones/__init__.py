"""Backbones: (rows, in_width) -> (rows, out_width), each with sites for adapters."""

from typing import Annotated

from pydantic import Field

from isthmus.backbones._base import AbstractBackbone, Adapt, leave_alone
from isthmus.backbones.dcn import DCN, DcnConfig
from isthmus.backbones.deepfm import DeepFM, DeepFMConfig
from isthmus.backbones.mlp import MLP, DeepConfig, MlpConfig
from isthmus.backbones.wide_deep import WideDeep, WideDeepConfig
from isthmus.layers.blocks import Towers
from isthmus.layers.embedding import FeatureEmbedding

BackboneConfig = Annotated[
    MlpConfig | DcnConfig | WideDeepConfig | DeepFMConfig, Field(discriminator="name")
]

BACKBONES: dict[str, type[AbstractBackbone]] = {
    "mlp": MLP,
    "dcn": DCN,
    "wide_deep": WideDeep,
    "deepfm": DeepFM,
}


def build_backbone(
    config: MlpConfig | DcnConfig | WideDeepConfig | DeepFMConfig,
    *,
    inputs: FeatureEmbedding,
    towers: Towers = "shared",
    n_domains: int | None = None,
) -> AbstractBackbone:
    """The backbone that a config describes, for rows that ``inputs`` embeds."""
    options = config.model_dump(exclude={"name"})
    if isinstance(config, WideDeepConfig | DeepFMConfig):
        options["fields"] = inputs.fields
    return BACKBONES[config.name](
        in_width=inputs.width, towers=towers, n_domains=n_domains, **options
    )


__all__ = [
    "BACKBONES",
    "DCN",
    "MLP",
    "AbstractBackbone",
    "Adapt",
    "BackboneConfig",
    "DcnConfig",
    "DeepConfig",
    "DeepFM",
    "DeepFMConfig",
    "MlpConfig",
    "WideDeep",
    "WideDeepConfig",
    "build_backbone",
    "leave_alone",
]
