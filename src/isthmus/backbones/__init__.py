"""Backbones: (rows, in_width) -> (rows, out_width), each with sites.

A new backbone is one file here, and its config class in the union below.
"""

from typing import Annotated

from isthmus.backbones.backbone import (
    AbstractBackbone,
    AbstractBackboneConfig,
    AbstractDeepConfig,
    AbstractPassing,
    Adapt,
    BackboneSpec,
    leave_alone,
    meeting,
)
from isthmus.backbones.dcn import DCN, DcnConfig
from isthmus.backbones.deepfm import DeepFM, DeepFMConfig
from isthmus.backbones.experts import (
    ADL,
    PLE,
    AdlConfig,
    HiNet,
    HinetConfig,
    M3oE,
    M3oeConfig,
    MMoE,
    MmoeConfig,
    PleConfig,
    SharedBottom,
    SharedBottomConfig,
)
from isthmus.backbones.mlp import MLP, MlpConfig
from isthmus.backbones.wide_deep import WideDeep, WideDeepConfig
from isthmus.family import Family

BackboneConfig = Annotated[
    MlpConfig
    | DcnConfig
    | WideDeepConfig
    | DeepFMConfig
    | SharedBottomConfig
    | MmoeConfig
    | PleConfig
    | HinetConfig
    | AdlConfig
    | M3oeConfig,
    Family("isthmus.backbones"),
]  # fmt: skip

__all__ = [
    "ADL",
    "DCN",
    "MLP",
    "PLE",
    "AbstractBackbone",
    "AbstractBackboneConfig",
    "AbstractDeepConfig",
    "AbstractPassing",
    "Adapt",
    "AdlConfig",
    "BackboneConfig",
    "BackboneSpec",
    "DcnConfig",
    "DeepFM",
    "DeepFMConfig",
    "HiNet",
    "HinetConfig",
    "M3oE",
    "M3oeConfig",
    "MMoE",
    "MlpConfig",
    "MmoeConfig",
    "PleConfig",
    "SharedBottom",
    "SharedBottomConfig",
    "WideDeep",
    "WideDeepConfig",
    "leave_alone",
    "meeting",
]
