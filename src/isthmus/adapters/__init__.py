"""Adapters: what changes a hidden state at a site, so that one network serves many domains.

A new adapter is one file here, and its config class in the union below.
"""

from typing import Annotated

from isthmus.adapters.adapter import (
    AbstractAdapter,
    AbstractAdapterConfig,
    AbstractConditionedConfig,
    AdapterState,
)
from isthmus.adapters.film import Film, FilmCell, FilmConfig
from isthmus.adapters.hamur import Hamur, HamurCell, HamurConfig
from isthmus.adapters.hamur_released import HamurReleased, HamurReleasedConfig
from isthmus.adapters.low_rank import LowRank
from isthmus.adapters.no_adapter import NoAdapterConfig
from isthmus.family import Family

AdapterConfig = Annotated[
    NoAdapterConfig
    | HamurConfig
    | HamurReleasedConfig
    | FilmConfig,
    Family("isthmus.adapters"),
]  # fmt: skip

__all__ = [
    "AbstractAdapter",
    "AbstractAdapterConfig",
    "AbstractConditionedConfig",
    "AdapterConfig",
    "AdapterState",
    "Film",
    "FilmCell",
    "FilmConfig",
    "Hamur",
    "HamurCell",
    "HamurConfig",
    "HamurReleased",
    "HamurReleasedConfig",
    "LowRank",
    "NoAdapterConfig",
]
