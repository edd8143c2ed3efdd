"""Networks that know nothing of domains, and adapters for them that are away from their start."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isthmus.adapters import AbstractAdapter, AdapterState, Hamur, LowRank
from isthmus.attaching import Attachment, attach

N_DOMAINS = 3
AT = {"first.1": 0, "second.1": 1}


class Small(nn.Module):
    """Two blocks and an output. ``mode``: checkpoint the blocks; True is the reentrant way."""

    def __init__(self, mode: bool | None = None) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(8, 6), nn.ReLU())
        self.out = nn.Linear(6, 1)
        self.mode = mode

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        h = x
        for block in (self.first, self.second):
            h = block(h) if self.mode is None else checkpoint(block, h, use_reentrant=self.mode)
        return self.out(h).squeeze(1) * scale


def small(mode: bool | None = None) -> Small:
    torch.manual_seed(0)
    return Small(mode)


def wake(adapter: AbstractAdapter) -> None:
    """Let every cell of a fresh HAMUR change what passes it."""
    for site in adapter.sites:
        nn.init.ones_(adapter.cell(site).norm.gain)


def awake(**options: Any) -> Hamur:
    torch.manual_seed(1)
    given: dict[str, Any] = {"site_widths": (8, 6), "condition_width": 4, "n_domains": N_DOMAINS}
    given |= {"rank": 2, "sites": (0, 1), **options}
    adapter = Hamur(**given)
    wake(adapter)
    return adapter


def adapted(mode: bool | None = None, **options: Any) -> Attachment:
    """A small network with an adapter behind both blocks."""
    return attach(small(mode), at=AT, adapter=awake(), **options)


def rows(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(count, 4) floats and (count,) domains, unknown ones among them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 4, generator=generator)
    return x, torch.randint(0, N_DOMAINS + 1, (count,), generator=generator)


class StillCell(nn.Module):
    """``h + h A_d B_d + b_d``, or with ``bend`` its square instead of h A_d B_d."""

    per_domain = ("offset",)

    def __init__(self, width: int, n_domains: int, bend: bool) -> None:
        super().__init__()
        self.map = LowRank(in_width=width, out_width=width, rank=2, n_domains=n_domains)
        self.offset = nn.Parameter(torch.randn(n_domains + 1, width))
        self.bend = bend

    def forward(self, h: Tensor, routing: Any, shared: None) -> Tensor:
        moved = self.map(h, routing)
        return h + (moved.square() if self.bend else moved) + routing.take(self.offset)


class Still(AbstractAdapter):
    """Reads no condition: one map for all rows of a domain."""

    def __init__(self, *, bend: bool = False, **places: Any) -> None:
        super().__init__(**places)
        n_domains = self.spec.n_domains
        self.cells = self.at_each_site(lambda width: StillCell(width, n_domains, bend))

    def prepare(self, condition: Tensor, routing: Any) -> AdapterState:
        return AdapterState(routing)


def still(*, site_widths: tuple[int, ...] = (8, 6), bend: bool = False) -> Still:
    torch.manual_seed(2)
    sites = tuple(range(len(site_widths)))
    return Still(site_widths=site_widths, n_domains=N_DOMAINS, sites=sites, bend=bend)
