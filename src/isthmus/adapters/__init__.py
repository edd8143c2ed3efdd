"""Adapters: what changes a hidden state at a site, or what a Linear gives, domain by domain.

A new adapter is one file here, and its config class in the union below.
"""

from typing import Annotated

from isthmus.adapters.adapter import (
    AbstractAdapter,
    AbstractAdapterConfig,
    AbstractConditionedConfig,
    AbstractLinearConfig,
    AdapterState,
)
from isthmus.adapters.bottleneck import Bottleneck, BottleneckCell, BottleneckConfig
from isthmus.adapters.film import Film, FilmCell, FilmConfig
from isthmus.adapters.hamur import Hamur, HamurCell, HamurConfig
from isthmus.adapters.hamur_released import HamurReleased, HamurReleasedConfig
from isthmus.adapters.instance_modulation import (
    InstanceModulation,
    InstanceModulationCell,
    InstanceModulationConfig,
)
from isthmus.adapters.linears import (
    MLora,
    MLoraCell,
    MLoraConfig,
    Modulation,
    ModulationCell,
    ModulationConfig,
    MoeMLora,
    MoeMLoraCell,
    MoeMLoraConfig,
)
from isthmus.adapters.low_rank import LowRank
from isthmus.adapters.no_adapter import NoAdapterConfig
from isthmus.adapters.normalised import Normalised, NormalisedCell, NormalisedConfig
from isthmus.adapters.prompt import Prompt, PromptCell, PromptConfig
from isthmus.adapters.tal import Tal, TalCell, TalConfig
from isthmus.family import Family

AdapterConfig = Annotated[
    NoAdapterConfig
    | HamurConfig
    | HamurReleasedConfig
    | FilmConfig
    | BottleneckConfig
    | MLoraConfig
    | MoeMLoraConfig
    | ModulationConfig
    | InstanceModulationConfig
    | NormalisedConfig
    | PromptConfig
    | TalConfig,
    Family("isthmus.adapters"),
]  # fmt: skip
"""The config of any adapter, told apart by its ``name``."""

__all__ = [
    "AbstractAdapter",
    "AbstractAdapterConfig",
    "AbstractConditionedConfig",
    "AbstractLinearConfig",
    "AdapterConfig",
    "AdapterState",
    "Bottleneck",
    "BottleneckCell",
    "BottleneckConfig",
    "Film",
    "FilmCell",
    "FilmConfig",
    "Hamur",
    "HamurCell",
    "HamurConfig",
    "HamurReleased",
    "HamurReleasedConfig",
    "InstanceModulation",
    "InstanceModulationCell",
    "InstanceModulationConfig",
    "LowRank",
    "MLora",
    "MLoraCell",
    "MLoraConfig",
    "Modulation",
    "ModulationCell",
    "ModulationConfig",
    "MoeMLora",
    "MoeMLoraCell",
    "MoeMLoraConfig",
    "NoAdapterConfig",
    "Normalised",
    "NormalisedCell",
    "NormalisedConfig",
    "Prompt",
    "PromptCell",
    "PromptConfig",
    "Tal",
    "TalCell",
    "TalConfig",
]
