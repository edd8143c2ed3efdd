"""No adapter: the network as it is."""

from typing import Any, Literal

from pydantic import model_validator

from isthmus.family import Member
from isthmus.layers.sites import SiteSpec

# The first release wrote the keys of every adapter into each config, also where there was none.
OF_0_1 = frozenset({"bottleneck", "rank", "hyper_widths", "sites", "condition"})


class NoAdapterConfig(Member):
    """No adapter. A config of release 0.1 holds five keys beside this name: they are passed over."""

    name: Literal["none"] = "none"

    @model_validator(mode="before")
    @classmethod
    def _without_old_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not data.keys() >= OF_0_1:
            return data
        return {key: value for key, value in data.items() if key not in OF_0_1}

    def build(self, spec: SiteSpec, condition_width: int) -> None:  # noqa: ARG002
        """Nothing to build."""
        return
