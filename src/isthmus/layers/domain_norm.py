"""Batch normalisation whose statistics, gain and bias belong to the row's domain.

Source: HAMUR (Li et al., CIKM 2023, arXiv:2309.06217) draws a norm per domain, since rows are
alike only within a domain. Its released code normalises over all rows of the batch, in eval too.

Departures, so that domains of any size train and a row never sees another one in eval:

- A domain with n rows in the batch is normalised as a sample of its n rows and ``shrinkage`` = k
  rows' worth of the whole batch: first and second moment are (n own + k pooled) / (n + k).
- In eval running statistics take the place of all rows but the row itself: it is normalised as in
  a training batch, where it is one of its n + k rows and so moves its own mean and variance. n / (n
  + k) and 1 / (n + k) are the averages that the domain's rows saw. Without this a domain of few
  rows would get larger outputs in eval than the next layer was trained on, by 9 % at one row.
- A domain that was never seen is normalised with the pooled statistics.

Where several processes train on parts of one batch, every sum over rows is the sum over all of them:
two of a line a domain on the way forward, one on the way back.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from isthmus.layers.routing import Routing, in_graph, pick_sets, shapes_are_fixed
from isthmus.ranks import ALONE, Ranks

# More domains than this, and a batch over several processes is counted to leave absent ones out.
MANY_DOMAINS = 1024


class DomainNorm(nn.Module):
    """``gain_d (h - mean_d) / sqrt(var_d + eps) + bias_d`` for a row of domain d.

    ``shrinkage``: the k above, in rows; 0 trusts every domain's own rows alone. ``momentum``: how
    much of its past a domain forgets each time it appears: a batch with n of its rows counts n,
    against (1 - momentum) times the rows before it; a domain that is absent stays as it is.
    ``zero_gain``: start with gain 0, so that the norm's output is 0 and leaves it smoothly.

    >>> norm = DomainNorm(width=2, n_domains=3)
    >>> norm(torch.randn(6, 2), Routing(torch.tensor([1, 1, 2, 3, 0, 1]), 3)).shape
    torch.Size([6, 2])
    """

    per_domain = ("gain", "bias", "own_mean", "own_var", "own_rows", "own_share", "own_pull")
    ranks: Ranks = ALONE  # whose rows are one batch

    own_mean: Tensor  # (n_domains + 1, width)
    own_var: Tensor  # (n_domains + 1, width), around own_mean
    own_rows: Tensor  # (n_domains + 1, 1): rows behind them, older ones counting less
    own_share: Tensor  # (n_domains + 1, 1): n / (n + k) as the rows of each domain saw it
    own_pull: Tensor  # (n_domains + 1, 1): 1 / (n + k), likewise
    pooled_mean: Tensor  # (1, width)
    pooled_var: Tensor  # (1, width)
    pooled_rows: Tensor  # (1, 1)

    def __init__(
        self,
        *,
        width: int,
        n_domains: int,
        shrinkage: float = 32.0,
        momentum: float = 0.1,
        zero_gain: bool = False,
        eps: float = 1e-5,
    ) -> None:
        if min(width, n_domains) < 1:
            raise ValueError(f"sizes must be at least 1, got {width=}, {n_domains=}")
        if shrinkage < 0 or not 0 < momentum <= 1:
            raise ValueError(
                f"shrinkage must be at least 0 and momentum in (0, 1], got {shrinkage}, {momentum}"
            )
        super().__init__()
        self.width = width
        self.n_domains = n_domains
        self.shrinkage = shrinkage
        self.momentum = momentum
        self.eps = eps
        sets = n_domains + 1
        self.gain = nn.Parameter(torch.full((sets, width), 0.0 if zero_gain else 1.0))
        self.bias = nn.Parameter(torch.zeros(sets, width))
        self.register_buffer("own_mean", torch.zeros(sets, width))
        self.register_buffer("own_var", torch.ones(sets, width))
        self.register_buffer("own_rows", torch.zeros(sets, 1))
        self.register_buffer("own_share", torch.zeros(sets, 1))
        self.register_buffer("own_pull", torch.zeros(sets, 1))
        self.register_buffer("pooled_mean", torch.zeros(1, width))
        self.register_buffer("pooled_var", torch.ones(1, width))
        self.register_buffer("pooled_rows", torch.zeros(1, 1))

    def forward(
        self, h: Float[Tensor, "rows width"], routing: Routing
    ) -> Float[Tensor, "rows width"]:
        """Normalise each row as one of its domain; statistics move in training only."""
        h = h.to(self.gain.dtype)  # also where products are in half the bits, which count no rows
        if self.training and (routing.rows or self.ranks.many):
            return self._by_batch(h, routing)
        return self._by_past(h, routing)

    def _by_batch(self, h: Tensor, routing: Routing) -> Tensor:
        gain, bias, own, sets = self.gain, self.bias, self._own(), None
        if self.ranks.many:
            sets, routing, count = self._over_ranks(routing)
        elif not shapes_are_fixed(h) and routing.rows < self.n_domains:
            # One line for each domain in the batch: most domains are absent from it.
            sets, routing = routing.present
            count = routing.counts()
        else:
            count = routing.counts()
        if sets is not None:
            gain, bias = pick_sets(gain, sets), pick_sets(bias, sets)
            own = [pick_sets(table, sets) for table in own]
        count = count.unsqueeze(1).to(h.dtype)
        y, *moments = _NormByBatch.apply(  # pyright: ignore[reportGeneralTypeIssues]
            h, gain, bias, routing, count, self.shrinkage, self.eps, self.ranks
        )
        self._remember(own, count, *moments)
        if sets is not None:
            for table, lines in zip(self._own(), own, strict=True):
                table.index_copy_(0, sets, lines)
        return y

    def _over_ranks(self, routing: Routing) -> tuple[Tensor | None, Routing, Tensor]:
        """The domains that any rank's rows are of (None: all), this rank's routing, counts over ranks."""
        count = self.ranks.sum(routing.counts())
        if self.n_domains <= MANY_DOMAINS or int(count.sum()) >= self.n_domains:
            return None, routing, count
        there = count > 0
        sets = there.nonzero().squeeze(1)
        place = (there.cumsum(0) - 1).index_select(0, routing.domain)
        return sets, Routing(place, len(sets) - 1), count.index_select(0, sets)

    def _own(self) -> list[Tensor]:
        return [self.own_mean, self.own_var, self.own_rows, self.own_share, self.own_pull]

    def _by_past(self, h: Tensor, routing: Routing) -> Tensor:
        # Work on one line per domain or per row, whichever are fewer.
        # In a graph by row: the number of rows is free there.
        by_row = in_graph() or routing.rows < self.n_domains
        tables = (self.own_mean, self.own_var, self.own_share, self.own_pull, self.gain, self.bias)
        mean, var, share, pull, gain, bias = (
            routing.take(table) if by_row else table for table in tables
        )
        # Weights: pull for the row itself, rest for its domain's other rows, 1 - share for all rows;
        # moments around the pooled mean, as in training.
        rest = share - pull
        apart = mean - self.pooled_mean
        first = rest * apart
        second = rest * (var + apart.square()) + (1 - share) * self.pooled_var
        if not by_row:
            pull, first, second, gain, bias = (
                routing.take(table) for table in (pull, first, second, gain, bias)
            )
        centred = h - self.pooled_mean
        shift = torch.addcmul(first, centred, pull)
        var = torch.addcmul(second, centred.square(), pull).addcmul(shift, shift, value=-1)
        inverse = (var.clamp(min=0) + self.eps).rsqrt()
        return torch.addcmul(bias, (centred - shift) * inverse, gain)

    @torch.no_grad()
    def _remember(
        self,
        own: list[Tensor],
        count: Tensor,
        first: Tensor,
        second: Tensor,
        pooled_mean: Tensor,
        pooled_var: Tensor,
    ) -> None:
        own_mean, own_var, own_rows, own_share, own_pull = own
        seen = count.clamp(min=1)
        apart = first / seen
        new_var = (second / seen - apart.square()).clamp(min=0)
        kept = torch.where(count > 0, 1 - self.momentum, 1.0)
        own_rows.mul_(kept).add_(count)
        step = count / own_rows.clamp(min=1)  # 0 where a domain is absent
        _mix(own_mean, own_var, pooled_mean + apart, new_var, step)
        pull = 1 / (count + self.shrinkage).clamp(min=1e-12)
        own_pull.add_(step * (pull - own_pull))
        own_share.add_(step * (count * pull - own_share))

        rows = count.sum()
        self.pooled_rows.mul_(1 - self.momentum).add_(rows)
        _mix(self.pooled_mean, self.pooled_var, pooled_mean, pooled_var, rows / self.pooled_rows)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{self.width}, n_domains={self.n_domains}, shrinkage={self.shrinkage}"


class _NormByBatch(torch.autograd.Function):
    """The norm with the batch's statistics; also gives sums of the rows and their squares.

    Written by hand because rows are read and written half as often as by what autograd derives.
    Moments are taken around the pooled mean: numbers stay small wherever the domains lie.
    """

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        gain: Tensor,
        bias: Tensor,
        routing: Routing,
        count: Tensor,
        shrinkage: float,
        eps: float,
        ranks: Ranks,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        weight = (count + shrinkage).clamp(min=1e-12)
        rows = count.sum() if ranks.many else routing.rows
        if ranks.many:
            pooled_mean = ranks.sum(h.sum(dim=0, keepdim=True)) / rows
        else:
            pooled_mean = h.mean(dim=0, keepdim=True)
        centred = h - pooled_mean
        first = routing.sums(centred)
        second = routing.sums(centred.square())
        if ranks.many:
            first, second = ranks.sum(torch.stack((first, second))).unbind(0)
        pooled_var = second.sum(dim=0, keepdim=True) / rows
        shift = first / weight
        var = torch.addcmul(second + shrinkage * pooled_var, shift, first, value=-1) / weight
        inverse = (var.clamp(min=0) + eps).rsqrt()
        scale = gain * inverse
        y = routing.take(bias - shift * scale).addcmul_(centred, routing.take(scale))
        ctx.save_for_backward(centred, gain, count, weight, first, shift, inverse)
        ctx.routing, ctx.shrinkage, ctx.rows, ctx.ranks = routing, shrinkage, rows, ranks
        ctx.mark_non_differentiable(first, second, pooled_mean, pooled_var)
        return y, first, second, pooled_mean, pooled_var

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor, *_: Tensor
    ) -> tuple[Tensor | None, ...]:
        centred, gain, count, weight, first, shift, inverse = ctx.saved_tensors
        routing: Routing = ctx.routing
        rows, ranks = ctx.rows, ctx.ranks
        scale = gain * inverse
        # In y = bias + (centred - shift) scale, with a line of shift and scale for each domain:
        to_bias = own_to_bias = routing.sums(grad)
        product = routing.sums(grad * centred)
        to_gain = own_to_gain = (product - shift * to_bias) * inverse
        if ranks.many:  # the rows' gradients follow all rows, gain's and bias's are summed later
            to_bias, product = ranks.sum(torch.stack((to_bias, product))).unbind(0)
            to_gain = (product - shift * to_bias) * inverse
        # var = (second + k pooled_var) / weight - shift^2, pooled_var = sum of second / rows.
        to_var = -0.5 * to_gain * scale * inverse
        to_shift = -scale * to_bias - 2 * shift * to_var
        to_second = to_var / weight
        to_second = to_second + (ctx.shrinkage / rows) * to_second.sum(0, keepdim=True)
        to_first = to_shift / weight
        # What every row takes from centring on the pooled mean, from sums over domains alone.
        total = scale * to_bias + count * to_first + 2 * first * to_second
        to_first = to_first - total.sum(dim=0, keepdim=True) / rows
        to_h = routing.take(to_first)
        to_h.addcmul_(centred, routing.take(2 * to_second))
        to_h.addcmul_(grad, routing.take(scale))
        return to_h, own_to_gain, own_to_bias, None, None, None, None, None


def _mix(mean: Tensor, var: Tensor, new_mean: Tensor, new_var: Tensor, step: Tensor) -> None:
    """Move (mean, var) to those of a sample of which a share ``step`` is new, the rest old."""
    apart = new_mean - mean
    # The spread between the two parts is variance too: single rows would have none otherwise.
    var.add_(step * apart.square()).mul_(1 - step).add_(step * new_var)
    mean.add_(step * apart)
