"""The ``model`` section of a config."""

from typing import Literal

from pydantic import Field

from isthmus.adapters import AdapterConfig
from isthmus.backbones import BackboneConfig, MlpConfig
from isthmus.layers.blocks import Towers
from isthmus.schema import Section


class ModelConfig(Section):
    """Which network, what it shares between domains, and what adapts it.

    ``head``: one output layer for all domains or one each; left out, it follows ``towers``.
    ``calibration``: ``per_domain`` fits slope and offset of the logits on validation rows, after
    training; the network itself does not change.
    """

    backbone: BackboneConfig = Field(default_factory=MlpConfig)
    towers: Towers = "shared"
    head: Towers | None = None
    adapter: AdapterConfig = Field(default_factory=AdapterConfig)
    calibration: Literal["none", "per_domain"] = "none"
