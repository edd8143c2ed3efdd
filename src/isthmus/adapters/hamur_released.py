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
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.adapters.adapter import AbstractAdapter, AbstractConditionedConfig, AdapterState
from isthmus.adapters.low_rank import LowRank
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Site, SiteSpec


class ReleasedCell(nn.Module):
    """The cell of the released code; (rows, width) -> (rows, width)."""

    reads_batch = "its norm has no running statistics and reads the whole batch"

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


class HamurReleasedConfig(AbstractConditionedConfig):
    """HAMUR as its authors' code computes it: to reproduce that code, not to be served."""

    unsound: ClassVar[str | None] = (
        "it scores a row by its neighbours and answers nan to a row that comes alone"
    )

    name: Literal["hamur_released"] = "hamur_released"
    bottleneck: int = Field(default=32, ge=1, description="width of the cell's hidden layer")
    rank: int = Field(
        default=8, ge=1, description="size k of the k x k core that is written for every row"
    )
    hyper_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(64,), description="hidden layers of the hyper-network"
    )

    def build(self, spec: SiteSpec, condition_width: int) -> "HamurReleased":
        """The adapter for a network of this shape."""
        return HamurReleased(
            site_widths=spec.site_widths,
            input_width=spec.input_width,
            condition_width=condition_width,
            n_domains=spec.n_domains,
            sites=self.sites,
            bottleneck=self.bottleneck,
            rank=self.rank,
            hyper_widths=self.hyper_widths,
        )


class HamurReleased(AbstractAdapter):
    """A :class:`ReleasedCell` at each of ``sites``. Takes what :class:`Hamur` takes."""

    def __init__(
        self,
        *,
        site_widths: Sequence[int],
        condition_width: int,
        n_domains: int,  # the released code has nothing per domain
        sites: Sequence[Site] = (-1,),
        input_width: int | None = None,
        bottleneck: int = 32,
        rank: int = 8,
        hyper_widths: Sequence[int] = (64,),
    ) -> None:
        super().__init__(
            site_widths=site_widths, n_domains=n_domains, sites=sites, input_width=input_width
        )
        self.rank = rank
        self.hyper = nn.Sequential()
        width = condition_width
        for next_width in (*hyper_widths, rank * rank):
            self.hyper.append(nn.Linear(width, next_width))
            self.hyper.append(nn.BatchNorm1d(next_width))
            self.hyper.append(nn.ReLU())
            width = next_width
        self.cells = self.at_each_site(
            lambda width: ReleasedCell(width=width, bottleneck=bottleneck, rank=rank)
        )

    def prepare(
        self, condition: Float[Tensor, "rows condition_width"], routing: Routing
    ) -> AdapterState:
        """Write every row's core, once for all sites."""
        core = self.hyper(condition).unflatten(1, (self.rank, self.rank))
        return AdapterState(routing, core)
