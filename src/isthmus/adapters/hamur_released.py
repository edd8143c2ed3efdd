"""The hyper-adapter as its authors' code computes it: to reproduce and to measure, not to ship.

Source: github.com/Applied-Machine-Learning-Lab/HAMUR, HAMUR/models/multi_domain/adapter.py, for
HAMUR, Li et al., CIKM 2023, arXiv:2309.06217. Kept as there: factors, biases, gain and bias shared
by all domains; factors all ones; the hyper-network's last layer Linear, batch norm, ReLU like the
others; a norm with the current batch's mean and unbiased variance, in eval too.

What follows from that, by construction:
- In eval a row's output depends on the other rows of its batch, and a single row gives NaN.
- A fresh adapter is not the identity: its output has unit variance from the first step.
- The sigmoid sits at 1.0 exactly, so the down-projection has gradient 0 until weight decay has
  shrunk it (1,200 steps and more), and the bottleneck's units stay equal to each other for ever.

Departures: the maps are applied factor by factor instead of building each row's weights, the same
numbers but for rounding; the hyper-network runs once a step, not once per domain, so its running
statistics move once where they moved n_domains times, and eval may differ by that lag.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.adapters._base import AbstractAdapter, AdapterState, resolve_sites
from isthmus.adapters.low_rank import LowRank
from isthmus.layers.routing import Routing


class ReleasedCell(nn.Module):
    """The cell of the released code; (rows, width) -> (rows, width)."""

    def __init__(self, *, width: int, bottleneck: int, rank: int) -> None:
        super().__init__()
        self.down = LowRank(in_width=width, out_width=bottleneck, rank=rank)
        self.down_bias = nn.Parameter(torch.zeros(bottleneck))
        self.up = LowRank(in_width=bottleneck, out_width=width, rank=rank)
        self.up_bias = nn.Parameter(torch.zeros(width))
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = 1e-5
        for linear in (self.down, self.up):
            nn.init.ones_(linear.left)
            nn.init.ones_(linear.right)

    def forward(
        self,
        h: Float[Tensor, "rows width"],
        routing: Routing,
        core: Float[Tensor, "rows rank rank"],
    ) -> Float[Tensor, "rows width"]:
        """Adapt the rows; the norm sees all rows of the batch, whatever their domain."""
        z = self.down(h, routing, core) + self.down_bias
        o = self.up(z.sigmoid(), routing, core) + self.up_bias
        mean = o.mean(dim=0)
        # Unbiased as there; over one row it is 0 / 0, which the released code answers with NaN.
        var = (o - mean).square().sum(dim=0) / (h.shape[0] - 1 or float("nan"))
        return h + self.gain * (o - mean) / torch.sqrt(var + self.eps) + self.bias


class HamurReleased(AbstractAdapter):
    """A :class:`ReleasedCell` at each of ``sites``. Takes what :class:`Hamur` takes."""

    unsound = (
        "hamur_released scores a row by the statistics of its batch: a row's score changes with"
        " its neighbours, and a single row gets NaN. Use it to reproduce the published code only."
    )

    def __init__(
        self,
        *,
        site_widths: Sequence[int],
        condition_width: int,
        n_domains: int,  # noqa: ARG002  (the released code has nothing per domain)
        sites: Sequence[int] = (-1,),
        bottleneck: int = 32,
        rank: int = 8,
        hyper_widths: Sequence[int] = (64,),
    ) -> None:
        super().__init__()
        self.site_widths = tuple(site_widths)
        self.sites = resolve_sites(sites, len(self.site_widths))
        self.rank = rank
        self.hyper = nn.Sequential()
        width = condition_width
        for next_width in (*hyper_widths, rank * rank):
            self.hyper.append(nn.Linear(width, next_width))
            self.hyper.append(nn.BatchNorm1d(next_width))
            self.hyper.append(nn.ReLU())
            width = next_width
        self.cells = nn.ModuleDict(
            {
                str(site): ReleasedCell(
                    width=self.site_widths[site], bottleneck=bottleneck, rank=rank
                )
                for site in self.sites
            }
        )

    def prepare(
        self, condition: Float[Tensor, "rows condition_width"], routing: Routing
    ) -> AdapterState:
        """Write every row's core, once for all sites."""
        core = self.hyper(condition).unflatten(1, (self.rank, self.rank))
        return AdapterState(routing=routing, core=core)

    def forward(
        self, site: int, h: Float[Tensor, "rows width"], state: AdapterState
    ) -> Float[Tensor, "rows width"]:
        """Adapt ``h`` at ``site``; return it as it is at a site without a cell."""
        if site not in self.sites:
            return h
        if state.core is None:
            raise ValueError("state must hold a core for each row, got None: use prepare()")
        return self.cell(site)(h, state.routing, state.core)

    def cell(self, site: int) -> ReleasedCell:
        """The cell at one of ``sites``."""
        cell = self.cells[str(site)]
        assert isinstance(cell, ReleasedCell)
        return cell
