"""Networks in which the domain changes what a shared network does: weights, inputs, hidden units."""

from isthmus.backbones.modulated.adaptdhm import AdaptDHM, AdaptDhmConfig
from isthmus.backbones.modulated.adasparse import AdaSparse, AdaSparseConfig
from isthmus.backbones.modulated.epnet import EPNet, EpnetConfig
from isthmus.backbones.modulated.m2m import M2M, M2mConfig
from isthmus.backbones.modulated.pepnet import PEPNet, PepnetConfig
from isthmus.backbones.modulated.ppnet import PPNet, PpnetConfig
from isthmus.backbones.modulated.sar_net import SarNet, SarNetConfig
from isthmus.backbones.modulated.star import Star, StarConfig

__all__ = [
    "M2M",
    "AdaSparse",
    "AdaSparseConfig",
    "AdaptDHM",
    "AdaptDhmConfig",
    "EPNet",
    "EpnetConfig",
    "M2mConfig",
    "PEPNet",
    "PPNet",
    "PepnetConfig",
    "PpnetConfig",
    "SarNet",
    "SarNetConfig",
    "Star",
    "StarConfig",
]
