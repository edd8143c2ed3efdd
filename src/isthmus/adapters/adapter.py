"""What every adapter is: a cell at each of its places, and what the cells of one batch share.

A place is a site, where a hidden state passes, or a Linear, whose output is changed before the norm
and the activation that follow.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.family import Member
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Linears, Passed, Site, SiteSpec, Widths

Condition = Literal["all", "without_domain"] | tuple[str, ...]


class AbstractAdapterConfig(Member, ABC):
    """The config of one adapter."""

    sites: tuple[Passed, ...] = Field(
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


class AbstractLinearConfig(Member, ABC):
    """The config of one adapter that changes what Linears give."""

    linears: Linears = Field(
        default="all",
        description="which Linears are changed: `all` that domains share, or those of the named deep"
        " blocks, negative numbers count from the end",
    )

    @abstractmethod
    def build(self, spec: SiteSpec, condition_width: int) -> "AbstractAdapter":
        """The adapter for a network of this shape; its rows of condition have that width.

        Raises ``ValueError`` for a network without a Linear that domains share, and for Linears that
        the network does not have.
        """


class AbstractConditionedConfig(AbstractAdapterConfig, ABC):
    """The config of an adapter that reads features of the row."""

    condition: Condition = Field(
        default="all",
        description="the features that the adapter reads: all, `without_domain`, all but the domain's"
        " own column, or the named ones",
    )


@dataclass(frozen=True, slots=True)
class AdapterState:
    """What all cells of an adapter share for one batch.

    ``shared``: what `AbstractAdapter.prepare` computed for this batch, rows or tiles first; None where
    its cells share nothing.
    """

    routing: Routing
    shared: Tensor | None = None


class AbstractAdapter(nn.Module, ABC):
    """Changes hidden rows at sites, ``h = adapter(site, h, state)``, or what Linears give.

    ``prepare`` runs once per batch and makes the state; the adapter itself runs once per place and
    hands ``h`` to the cell there. A member writes ``prepare``, and in its ``__init__`` fills ``cells``
    by `at_each_site` or `at_each_linear`. A cell at a site is a module ``(h, routing, shared) -> h``
    that keeps the width. A cell at a Linear is a module ``(x, y, routing, shared) -> y``, x what the
    Linear reads and y what it gives.

    ``site_widths``: widths of the hidden states after the network's deep blocks, adapted or not.
    ``sites``: which of them are adapted; negative numbers count from the end, ``input`` is the
    embedded row of ``input_width``. ``linear_widths``: (in_width, out_width) of the network's Linears
    by number, adapted or not. ``linears``: which of them are adapted. Raises ``ValueError`` for a
    place that is not there.

    ``strength``: how far the adapter is turned on, 1 as trained, 0 the network without it exactly;
    None for an adapter that cannot be turned down. ``tiled``: whether ``shared`` has a line for each
    tile of the routing, which the domain alone decides, and not one for each row. ``latent_width``:
    width of ``shared`` where that is a hidden state of each row, which objectives read as the site
    ``latent``; None where it is not.
    """

    cells: nn.ModuleDict
    strength: float | None = None
    tiled: bool = False
    latent_width: int | None = None

    def __init__(
        self,
        *,
        site_widths: Sequence[int] = (),
        n_domains: int,
        sites: Sequence[Site] = (-1,),
        input_width: int | None = None,
        linear_widths: Mapping[int, Widths] | None = None,
        linears: Linears | None = None,
    ) -> None:
        super().__init__()
        self.spec = SiteSpec(tuple(site_widths), n_domains, input_width, dict(linear_widths or {}))
        self.linears: tuple[int, ...] = ()
        if linears is not None:
            self.linears = self.spec.resolve_linears(linears, "adapter.linears")
        self.sites: tuple[Site, ...] = ()
        if sites or linears is None:
            self.sites = self.spec.resolve(sites, "adapter.sites")

    def at_each_site(self, cell: Callable[[int], nn.Module]) -> nn.ModuleDict:
        """A cell for each site, in the order of the sites; ``cell(width)`` builds one."""
        return nn.ModuleDict({str(site): cell(self.spec.width(site)) for site in self.sites})

    def at_each_linear(self, cell: Callable[[int, int], nn.Module]) -> nn.ModuleDict:
        """A cell for each Linear, in their order; ``cell(in_width, out_width)`` builds one."""
        return nn.ModuleDict(
            {f"linear_{number}": cell(*self.spec.linears[number]) for number in self.linears}
        )

    @abstractmethod
    def prepare(
        self, condition: Float[Tensor, "rows condition_width"], routing: Routing
    ) -> AdapterState:
        """Do the work that all sites share: ``condition`` is what a hyper-network reads."""

    def cell(self, site: Site) -> Any:
        """The cell at one of ``sites``."""
        return self.cells[str(site)]

    def linear_cell(self, linear: int) -> Any:
        """The cell at one of ``linears``."""
        return self.cells[f"linear_{linear}"]

    def forward(
        self, site: Site, h: Float[Tensor, "rows width"], state: AdapterState
    ) -> Float[Tensor, "rows width"]:
        """Adapt ``h``, the hidden state at ``site``; return ``h`` as it is at a site without a cell."""
        if site not in self.sites:
            return h
        return self.cells[str(site)](h, state.routing, state.shared)

    def meet(
        self,
        linear: int,
        x: Float[Tensor, "rows in_width"],
        y: Float[Tensor, "rows out_width"],
        state: AdapterState,
    ) -> Float[Tensor, "rows out_width"]:
        """Change ``y``, what a Linear gives for ``x``; return ``y`` as it is where no cell sits."""
        if linear not in self.linears:
            return y
        return self.cells[f"linear_{linear}"](x, y, state.routing, state.shared)
