"""Adapters: what is put behind a backbone's blocks so that one network serves many domains."""

from isthmus.adapters._base import AbstractAdapter, AdapterConfig, AdapterState
from isthmus.adapters.attach import Attachment, attach, detach
from isthmus.adapters.build import ADAPTERS, build_adapter
from isthmus.adapters.hamur import Hamur, HamurCell
from isthmus.adapters.hamur_released import HamurReleased
from isthmus.adapters.low_rank import LowRank

__all__ = [
    "ADAPTERS",
    "AbstractAdapter",
    "AdapterConfig",
    "AdapterState",
    "Attachment",
    "Hamur",
    "HamurCell",
    "HamurReleased",
    "LowRank",
    "attach",
    "build_adapter",
    "detach",
]
