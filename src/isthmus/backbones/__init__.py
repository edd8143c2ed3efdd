"""Backbones: (rows, in_width) -> (rows, out_width), each with sites.

A new backbone is one file here, and its config class in the union below.
"""

from typing import Annotated

from isthmus.backbones.backbone import (
    AbstractBackbone,
    AbstractBackboneConfig,
    AbstractDeepConfig,
    Adapt,
    BackboneSpec,
    leave_alone,
)
from isthmus.backbones.dcn import DCN, DcnConfig
from isthmus.backbones.deepfm import DeepFM, DeepFMConfig
from isthmus.backbones.mlp import MLP, MlpConfig
from isthmus.backbones.wide_deep import WideDeep, WideDeepConfig
from isthmus.family import Family

BackboneConfig = Annotated[
    MlpConfig
    | DcnConfig
    | WideDeepConfig
    | DeepFMConfig,
    Family("isthmus.backbones"),
]  # fmt: skip

__all__ = [
    "DCN",
    "MLP",
    "AbstractBackbone",
    "AbstractBackboneConfig",
    "AbstractDeepConfig",
    "Adapt",
    "BackboneConfig",
    "BackboneSpec",
    "DcnConfig",
    "DeepFM",
    "DeepFMConfig",
    "MlpConfig",
    "WideDeep",
    "WideDeepConfig",
    "leave_alone",
]
