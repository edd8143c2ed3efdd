"""Adapters at Linears: what changes the product of a Linear, before the norm and the activation."""

from isthmus.adapters.linears.mlora import MLora, MLoraCell, MLoraConfig
from isthmus.adapters.linears.modulation import Modulation, ModulationCell, ModulationConfig
from isthmus.adapters.linears.moe_mlora import MoeMLora, MoeMLoraCell, MoeMLoraConfig

__all__ = [
    "MLora",
    "MLoraCell",
    "MLoraConfig",
    "Modulation",
    "ModulationCell",
    "ModulationConfig",
    "MoeMLora",
    "MoeMLoraCell",
    "MoeMLoraConfig",
]
