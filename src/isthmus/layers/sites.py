"""Sites: the places in a network where a hidden state can be met.

Site ``input`` is the embedded row. Site 0 is the hidden state after the backbone's first deep block,
site 1 the one after its second; -1 counts from the end. An adapter changes what passes a site, an
objective reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Site = int | Literal["input"]
INPUT: Literal["input"] = "input"


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """What a part at sites must know of the network around it.

    ``site_widths``: widths of the hidden states after the deep blocks. ``input_width``: width of the
    embedded row; None where there is no such site. ``n_domains``: trained domains, the unknown one
    not counted.

    >>> spec = SiteSpec(site_widths=(8, 4), input_width=20, n_domains=3)
    >>> spec.resolve((-1, "input")), spec.width(1), spec.width("input")
    (('input', 1), 4, 20)
    """

    site_widths: tuple[int, ...]
    n_domains: int
    input_width: int | None = None

    def width(self, site: Site) -> int:
        """Width of the hidden state at a resolved site."""
        if site != INPUT:
            return self.site_widths[site]
        assert self.input_width is not None
        return self.input_width

    def resolve(self, sites: Sequence[Site], key: str = "sites") -> tuple[Site, ...]:
        """The sites in the order in which a row meets them, blocks counted from 0.

        ``key``: how an error calls them. Raises ``ValueError`` for a site that the network does not have, and for one named twice.
        """
        count = len(self.site_widths)
        for site in sites:
            if site == INPUT:
                if self.input_width is None:
                    raise ValueError(f"{key} must be numbers here, got 'input'")
            elif not -count <= site < count:
                raise ValueError(
                    f"{key} must lie in {-count}..{count - 1} for a backbone with"
                    f" {count} deep blocks, got {site}"
                )
        blocks = sorted(site % count for site in sites if site != INPUT)
        resolved: tuple[Site, ...] = (*(INPUT for site in sites if site == INPUT), *blocks)
        if not resolved or len(set(resolved)) < len(resolved):
            raise ValueError(f"{key} must name each site once, got {tuple(sites)}")
        return resolved
