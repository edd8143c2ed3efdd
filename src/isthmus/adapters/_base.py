"""What every adapter is: something put behind a backbone's block that changes its output."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.layers.routing import Routing
from isthmus.schema import Section


class AdapterConfig(Section):
    """The ``model.adapter`` section of a config.

    ``bottleneck``: width of the cell's hidden layer. ``rank``: size of the core that the
    hyper-network writes for each row; the paper's code uses 25 to 65, which is above the
    bottleneck. ``hyper_widths``: the hyper-network's hidden layers. ``sites``: after which of the
    backbone's deep blocks a cell sits; negative ones count from the end. ``condition``: which
    features the hyper-network reads.
    """

    name: Literal["none", "hamur", "hamur_released"] = "none"
    bottleneck: int = Field(default=32, ge=1)
    rank: int = Field(default=8, ge=1)
    hyper_widths: tuple[Annotated[int, Field(ge=1)], ...] = (64,)
    sites: tuple[int, ...] = Field(default=(-1,), min_length=1)
    condition: Literal["all"] | tuple[str, ...] = "all"


@dataclass(frozen=True, slots=True)
class AdapterState:
    """What all sites of an adapter share for one batch."""

    routing: Routing
    core: Float[Tensor, "rows rank rank"] | None = None


class AbstractAdapter(nn.Module, ABC):
    """Changes a backbone's hidden rows at the sites it was built for.

    ``prepare`` runs once per batch, ``forward`` once per site: ``h = adapter(site, h, state)``.
    ``site_widths`` are those of the whole backbone; ``sites`` those that are adapted, counted from
    0. ``unsound`` is a reason not to ship what this adapter was trained in, or ``None``.
    """

    sites: tuple[int, ...]
    site_widths: tuple[int, ...]
    unsound: str | None = None

    @abstractmethod
    def prepare(
        self, condition: Float[Tensor, "rows condition_width"], routing: Routing
    ) -> AdapterState:
        """Do the work that all sites share: ``condition`` is what a hyper-network reads."""

    @abstractmethod
    def forward(
        self, site: int, h: Float[Tensor, "rows width"], state: AdapterState
    ) -> Float[Tensor, "rows width"]:
        """Adapt ``h``, the output of block ``site``; at a site without a cell return ``h``."""


def resolve_sites(sites: Sequence[int], n_sites: int) -> tuple[int, ...]:
    """Sites counted from 0, ascending. Raises ``ValueError`` for one out of range or named twice.

    >>> resolve_sites((-1, 0), 3)
    (0, 2)
    """
    for site in sites:
        if not -n_sites <= site < n_sites:
            raise ValueError(
                f"adapter.sites must lie in {-n_sites}..{n_sites - 1} for a backbone with"
                f" {n_sites} deep blocks, got {site}"
            )
    resolved = sorted(site % n_sites for site in sites)
    if not resolved or len(set(resolved)) < len(resolved):
        raise ValueError(f"adapter.sites must name each site once, got {tuple(sites)}")
    return tuple(resolved)
