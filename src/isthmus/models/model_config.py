"""The ``model`` section of a config."""

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from isthmus.adapters import AdapterConfig, NoAdapterConfig
from isthmus.backbones import BackboneConfig, MlpConfig
from isthmus.layers.blocks import Towers
from isthmus.models.sizing import SizesConfig
from isthmus.schema import Section


class ModelConfig(Section):
    """Which network, what it shares between domains, and what adapts it.

    ``head``: one output layer for all domains or one each; left out, ``head`` is the one that the
    backbone's paper draws, or follows ``towers``. ``sizes``: a budget in place of the backbone's
    widths, which keep their proportions; see `isthmus.models.sized`.
    ``calibration``: ``per_domain`` fits slope and offset of the logits on validation rows, after
    training; the network itself does not change.
    """

    model_config = ConfigDict(defer_build=True)  # members of other packages are found at first use

    backbone: BackboneConfig = Field(default_factory=MlpConfig)
    sizes: SizesConfig | None = None
    towers: Towers = "shared"
    head: Towers | None = None
    adapter: AdapterConfig = Field(default_factory=NoAdapterConfig)
    calibration: Literal["none", "per_domain"] = "none"

    @model_validator(mode="after")
    def _towers_fit(self) -> "ModelConfig":
        self.backbone.check_towers(self.towers)
        return self

    @property
    def unsound(self) -> str | None:
        """Why what is trained with this config must not be served; None where it may be."""
        for member in (self.backbone, self.adapter):
            if member.unsound is not None:
                return f"{member.name} is for reproduction only: {member.unsound}"
        return None

    def scaled(self, factor: float) -> "ModelConfig":
        """The same model with about ``factor`` times as many hidden units in the backbone."""
        return self.model_copy(update={"backbone": self.backbone.scaled(factor)})
