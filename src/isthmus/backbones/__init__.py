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
    add_loss,
    await_losses,
    leave_alone,
    meeting,
    tell,
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
    MultiPath,
    MultiPathConfig,
    PleConfig,
    SharedBottom,
    SharedBottomConfig,
    SharedPrivate,
    SharedPrivateConfig,
    SparseMoE,
    SparseMoeConfig,
)
from isthmus.backbones.mlp import MLP, MlpConfig
from isthmus.backbones.modulated import (
    M2M,
    AdaptDHM,
    AdaptDhmConfig,
    AdaSparse,
    AdaSparseConfig,
    EPNet,
    EpnetConfig,
    M2mConfig,
    PEPNet,
    PepnetConfig,
    PPNet,
    PpnetConfig,
    SarNet,
    SarNetConfig,
    Star,
    StarConfig,
)
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
    | M3oeConfig
    | SparseMoeConfig
    | MultiPathConfig
    | SharedPrivateConfig
    | StarConfig
    | SarNetConfig
    | M2mConfig
    | AdaSparseConfig
    | AdaptDhmConfig
    | EpnetConfig
    | PpnetConfig
    | PepnetConfig,
    Family("isthmus.backbones"),
]  # fmt: skip
"""The config of any backbone, told apart by its ``name``."""

__all__ = [
    "ADL",
    "DCN",
    "M2M",
    "MLP",
    "PLE",
    "AbstractBackbone",
    "AbstractBackboneConfig",
    "AbstractDeepConfig",
    "AbstractPassing",
    "AdaSparse",
    "AdaSparseConfig",
    "Adapt",
    "AdaptDHM",
    "AdaptDhmConfig",
    "AdlConfig",
    "BackboneConfig",
    "BackboneSpec",
    "DcnConfig",
    "DeepFM",
    "DeepFMConfig",
    "EPNet",
    "EpnetConfig",
    "HiNet",
    "HinetConfig",
    "M2mConfig",
    "M3oE",
    "M3oeConfig",
    "MMoE",
    "MlpConfig",
    "MmoeConfig",
    "MultiPath",
    "MultiPathConfig",
    "PEPNet",
    "PPNet",
    "PepnetConfig",
    "PleConfig",
    "PpnetConfig",
    "SarNet",
    "SarNetConfig",
    "SharedBottom",
    "SharedBottomConfig",
    "SharedPrivate",
    "SharedPrivateConfig",
    "SparseMoE",
    "SparseMoeConfig",
    "Star",
    "StarConfig",
    "WideDeep",
    "WideDeepConfig",
    "add_loss",
    "await_losses",
    "leave_alone",
    "meeting",
    "tell",
]
