"""What every adapter is: a cell at each of its sites, and what the cells of one batch share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.family import Member
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Site, SiteSpec

Condition = Literal["all"] | tuple[str, ...]


class AbstractAdapterConfig(Member, ABC):
    """The config of one adapter."""

    sites: tuple[Site, ...] = Field(
        default=(-1,),
        min_length=1,
        description="where a cell sits: behind which deep blocks, negative numbers count from the"
        " end; `input` is the embedded row",
    )

    @abstractmethod
    def build(self, spec: SiteSpec, condition_width: int) -> "AbstractAdapter":
        """The adapter for a network of this shape; its rows of condition have that width.

        Raises ``ValueError`` for sites that the network does not have.
        """


class AbstractConditionedConfig(AbstractAdapterConfig, ABC):
    """The config of an adapter that reads features of the row."""

    condition: Condition = Field(
        default="all", description="the features that the adapter reads: all, or the named ones"
    )


@dataclass(frozen=True, slots=True)
class AdapterState:
    """What all cells of an adapter share for one batch.

    ``shared``: what `AbstractAdapter.prepare` computed from the condition, rows first; None where an
    adapter reads no condition.
    """

    routing: Routing
    shared: Tensor | None = None


class AbstractAdapter(nn.Module, ABC):
    """Changes hidden rows at the sites that it was built for: ``h = adapter(site, h, state)``.

    ``prepare`` runs once per batch and makes the state; the adapter itself runs once per site and
    hands ``h`` to the cell of that site. A member writes ``prepare``, and in its ``__init__`` fills
    ``cells`` by `at_each_site`. A cell is a module ``(h, routing, shared) -> h`` that keeps the width.

    ``site_widths``: widths of the hidden states after the network's deep blocks, adapted or not.
    ``sites``: which of them are adapted; negative numbers count from the end, ``input`` is the
    embedded row of ``input_width``. Raises ``ValueError`` for a site that is not there.
    """

    cells: nn.ModuleDict

    def __init__(
        self,
        *,
        site_widths: Sequence[int],
        n_domains: int,
        sites: Sequence[Site] = (-1,),
        input_width: int | None = None,
    ) -> None:
        super().__init__()
        self.spec = SiteSpec(tuple(site_widths), n_domains, input_width)
        self.sites = self.spec.resolve(sites, "adapter.sites")

    def at_each_site(self, cell: Callable[[int], nn.Module]) -> nn.ModuleDict:
        """A cell for each site, in the order of the sites; ``cell(width)`` builds one."""
        return nn.ModuleDict({str(site): cell(self.spec.width(site)) for site in self.sites})

    @abstractmethod
    def prepare(
        self, condition: Float[Tensor, "rows condition_width"], routing: Routing
    ) -> AdapterState:
        """Do the work that all sites share: ``condition`` is what a hyper-network reads."""

    def cell(self, site: Site) -> Any:
        """The cell at one of ``sites``."""
        return self.cells[str(site)]

    def forward(
        self, site: Site, h: Float[Tensor, "rows width"], state: AdapterState
    ) -> Float[Tensor, "rows width"]:
        """Adapt ``h``, the hidden state at ``site``; return ``h`` as it is at a site without a cell."""
        if site not in self.sites:
            return h
        return self.cells[str(site)](h, state.routing, state.shared)
