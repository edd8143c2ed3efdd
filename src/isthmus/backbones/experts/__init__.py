"""Networks of experts: several networks side by side, and gates that say what a row takes of each."""

from isthmus.backbones.experts.adl import ADL, AdlConfig
from isthmus.backbones.experts.hinet import HiNet, HinetConfig
from isthmus.backbones.experts.m3oe import M3oE, M3oeConfig
from isthmus.backbones.experts.mmoe import MMoE, MmoeConfig
from isthmus.backbones.experts.multi_path import MultiPath, MultiPathConfig
from isthmus.backbones.experts.ple import PLE, PleConfig
from isthmus.backbones.experts.shared_bottom import SharedBottom, SharedBottomConfig
from isthmus.backbones.experts.shared_private import SharedPrivate, SharedPrivateConfig
from isthmus.backbones.experts.sparse_moe import SparseMoE, SparseMoeConfig

__all__ = [
    "ADL",
    "PLE",
    "AdlConfig",
    "HiNet",
    "HinetConfig",
    "M3oE",
    "M3oeConfig",
    "MMoE",
    "MmoeConfig",
    "MultiPath",
    "MultiPathConfig",
    "PleConfig",
    "SharedBottom",
    "SharedBottomConfig",
    "SharedPrivate",
    "SharedPrivateConfig",
    "SparseMoE",
    "SparseMoeConfig",
]
