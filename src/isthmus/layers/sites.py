"""Sites: the places in a network where a hidden state can be met.

Site ``input`` is the embedded row. Site 0 is the hidden state after the backbone's first deep block,
site 1 the one after its second; -1 counts from the end. An adapter changes what passes a site, an
objective reads it. Site ``latent`` is what the adapter itself makes of a row's features, where it has
such a state; an objective may read it, and no adapter sits there.

A Linear can be met too, before the norm and the activation that follow: Linear 0 is the one in the
block before site 0. Only an adapter meets Linears, and only those whose weights all domains share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Passed = int | Literal["input"]  # where an adapter may sit
Site = Passed | Literal["latent"]
"""Where a hidden state is met: a block's number, ``input`` or ``latent``."""
Linears = Literal["all"] | tuple[int, ...]
Widths = tuple[int, int]
INPUT: Literal["input"] = "input"
"""The site of the embedded row."""
LATENT: Literal["latent"] = "latent"


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """What a part at sites must know of the network around it.

    ``site_widths``: widths of the hidden states after the deep blocks. ``input_width``: width of the
    embedded row; None where there is no such site. ``n_domains``: trained domains, the unknown one
    not counted. ``linears``: (in_width, out_width) of each Linear that can be met, by its number.
    ``latent_width``: width of the adapter's latent; None where there is no such site.

    >>> spec = SiteSpec(site_widths=(8, 4), input_width=20, n_domains=3)
    >>> spec.resolve((-1, "input")), spec.width(1), spec.width("input")
    (('input', 1), 4, 20)
    """

    site_widths: tuple[int, ...]
    n_domains: int
    input_width: int | None = None
    linears: Mapping[int, Widths] = field(default_factory=dict)
    latent_width: int | None = None

    def width(self, site: Site) -> int:
        """Width of the hidden state at a resolved site."""
        if isinstance(site, int):
            return self.site_widths[site]
        width = self.input_width if site == INPUT else self.latent_width
        assert width is not None
        return width

    def resolve(self, sites: Sequence[Site], key: str = "sites") -> tuple[Site, ...]:
        """The sites in the order in which a row meets them, blocks counted from 0.

        ``key``: how an error calls them. Raises ``ValueError`` for a site that the network does not have, and for one named twice.
        """
        count = len(self.site_widths)
        for site in sites:
            if site == INPUT:
                if self.input_width is None:
                    raise ValueError(f"{key} must be numbers here, got 'input'")
            elif site == LATENT:
                if self.latent_width is None:
                    raise ValueError(
                        f"{key} may be 'latent' where an objective reads a network whose adapter has"
                        " a latent of the row, got 'latent'"
                    )
            elif not -count <= site < count:
                raise ValueError(
                    f"{key} must lie in {-count}..{count - 1} for a backbone with"
                    f" {count} deep blocks, got {site}"
                )
        blocks = sorted(site % count for site in sites if isinstance(site, int))
        resolved: tuple[Site, ...] = (
            *(INPUT for site in sites if site == INPUT),
            *blocks,
            *(LATENT for site in sites if site == LATENT),
        )
        if not resolved or len(set(resolved)) < len(resolved):
            raise ValueError(f"{key} must name each site once, got {tuple(sites)}")
        return resolved

    def resolve_linears(self, linears: Linears, key: str = "linears") -> tuple[int, ...]:
        """The numbers of the Linears in the order in which a row meets them, counted from 0.

        Raises ``ValueError`` for a network without a Linear that domains share, for a Linear that is
        not there, and for one named twice.

        >>> spec = SiteSpec((8, 4), n_domains=3, linears={0: (20, 8), 1: (8, 4)})
        >>> spec.resolve_linears("all"), spec.resolve_linears((-1,))
        ((0, 1), (1,))
        """
        known = sorted(self.linears)
        if not known:
            raise ValueError(
                f"{key} must lie in a network with deep blocks that domains share, got one without"
            )
        if linears == "all":
            return tuple(known)
        count = len(known)
        for number in linears:
            if not -count <= number < count:
                raise ValueError(
                    f"{key} must be 'all' or lie in {-count}..{count - 1} for a network with {count}"
                    f" Linears that domains share, got {number}"
                )
        chosen = sorted(known[number] for number in linears)
        if not chosen or len(set(chosen)) < len(chosen):
            raise ValueError(f"{key} must name each Linear once, got {tuple(linears)}")
        return tuple(chosen)
