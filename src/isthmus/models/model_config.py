"""The ``model`` section of a config."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_serializer, model_validator

from isthmus.adapters import AdapterConfig, NoAdapterConfig
from isthmus.backbones import BackboneConfig, MlpConfig
from isthmus.layers.blocks import Towers
from isthmus.models.sizing import SizesConfig
from isthmus.schema import Section

# What a model of trees has none of.
OF_NETWORKS = ("backbone", "sizes", "towers", "head", "adapter")


class ModelConfig(Section):
    """Which network, what it shares between domains, and what adapts it; or trees in its place.

    ``name``: ``trees`` is a boosted forest alone (`isthmus.models.trees_model`), and the keys of a
    network are then refused. ``head``: one output layer for all domains or one each; left out, ``head``
    is the one that the backbone's paper draws, or follows ``towers``. ``sizes``: a budget in place of
    the backbone's widths, which keep their proportions; see `isthmus.models.sized`.
    ``calibration``: ``per_domain`` fits slope and offset of the logits on validation rows, after
    training; the network itself does not change. ``detector``: ship a classifier, trained after the
    model on the same rows, that can tell the domain of rows that name none.
    """

    model_config = ConfigDict(defer_build=True)  # members of other packages are found at first use

    name: Literal["network", "trees"] = "network"
    backbone: BackboneConfig = Field(default_factory=MlpConfig)
    sizes: SizesConfig | None = None
    towers: Towers = "shared"
    head: Towers | None = None
    adapter: AdapterConfig = Field(default_factory=NoAdapterConfig)
    calibration: Literal["none", "per_domain"] = "none"
    detector: bool = False

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        self.backbone.check_towers(self.towers)
        for key in OF_NETWORKS:
            if self.is_trees and key in self.model_fields_set:
                raise ValueError(
                    f"model.{key} must be left out where model.name is 'trees', which has none, got"
                    f" {_plain(getattr(self, key))!r}"
                )
        return self

    @model_serializer(mode="wrap")
    def _written(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Leave out what the model does not have.

        A network's name is not written, nor sizes or a detector that are not given: a description that was made
        before networks had them stays the same, and so does the key of what was trained by it.
        """
        left_out = OF_NETWORKS if self.is_trees else ("name",)
        if self.sizes is None:
            left_out = (*left_out, "sizes")
        if not self.detector:
            left_out = (*left_out, "detector")
        return {key: value for key, value in handler(self).items() if key not in left_out}

    @property
    def is_trees(self) -> bool:
        """Whether the model is a forest, which has no parameters to train."""
        return self.name == "trees"

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


def _plain(value: Any) -> Any:
    """A section by its name; any other value as the value stands."""
    return getattr(value, "name", value)
