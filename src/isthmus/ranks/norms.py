"""Batch norms whose batch lies on several ranks.

``torch.nn.SyncBatchNorm`` does the same on GPUs and refuses the CPU. Here a training lends the ranks to
the norms of a network, and takes them back at its end: state, exports and bundles know nothing of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from isthmus.errors import ConfigError
from isthmus.ranks.ranks import ALONE, Ranks

BORROWED = "ranks"  # the attribute by which a part of a network knows the ranks


class RankedBatchNorm(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` over the rows of all ranks; (rows, width) or (rows, width, length)."""

    ranks: Ranks = ALONE

    def forward(self, input: Float[Tensor, "rows width *length"]) -> Tensor:
        """Normalise; a rank may have no row."""
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        self._check_input_dim(input)
        if self.weight is not None:
            input = input.to(self.weight.dtype)  # a half of the bits cannot count rows
        flat = input if input.ndim == 2 else input.movedim(1, -1).flatten(0, -2)
        y, mean, var, rows = _OverRanks.apply(flat, self.weight, self.bias, self.eps, self.ranks)  # pyright: ignore[reportGeneralTypeIssues]
        if self.training and self.running_mean is not None:
            self._remember(mean, var, rows)
        if input.ndim == 2:
            return y
        return y.unflatten(0, (len(input), input.shape[2])).movedim(-1, 1)

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, rows: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            share = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(var * rows / (rows - 1).clamp(min=1), share)


class _OverRanks(torch.autograd.Function):
    """``(h - mean) / sqrt(var + eps) * weight + bias`` with the moments of all ranks' rows."""

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        ranks: Ranks,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count = h.new_full((1,), len(h))
        total = ranks.sum(torch.cat((h.sum(dim=0), count)))
        rows = total[-1]
        mean = total[:-1] / rows
        centred = h - mean
        var = ranks.sum(centred.square().sum(dim=0)) / rows
        inverse = (var + eps).rsqrt()
        y = centred * inverse
        if weight is not None:
            y = y * weight
        if bias is not None:
            y = y + bias
        ctx.save_for_backward(centred, inverse, rows, weight)
        ctx.has_bias, ctx.ranks = bias is not None, ranks
        ctx.mark_non_differentiable(mean, var, rows)
        return y, mean, var, rows

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor, *_: Tensor
    ) -> tuple[Tensor | None, ...]:
        centred, inverse, rows, weight = ctx.saved_tensors
        ranks: Ranks = ctx.ranks
        own = torch.stack((grad.sum(dim=0), (grad * centred).sum(dim=0)))
        to_weight = None if weight is None else own[1] * inverse
        to_bias = own[0].clone() if ctx.has_bias else None  # summed later, with all other gradients
        plain, along = ranks.sum(own.clone()).unbind(0)
        scale = inverse if weight is None else inverse * weight
        to_h = (grad - plain / rows - centred * (along * inverse.square() / rows)) * scale
        return to_h, to_weight, to_bias, None, None


@contextmanager
def over_ranks(module: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Let the norms of ``module``, and all parts that sum over rows, sum over the rows of all ranks.

    A part of the package's own has an attribute ``ranks``. Raises ConfigError for a batch norm of a
    class that is not torch's ``BatchNorm1d``.
    """
    if not ranks.many:
        yield
        return
    parts = list(module.modules())
    plain = [part for part in parts if type(part) is nn.BatchNorm1d]
    strange = {type(part).__name__ for part in parts if isinstance(part, _BatchNorm)} - {
        nn.BatchNorm1d.__name__
    }
    if strange:
        raise ConfigError(
            "a model that several processes train must have no batch norm but BatchNorm1d, got"
            f" {', '.join(sorted(strange))}"
        )
    borrowers = [part for part in parts if hasattr(type(part), BORROWED)] + plain
    try:
        for part in plain:
            part.__class__ = RankedBatchNorm
        for part in borrowers:
            setattr(part, BORROWED, ranks)
        yield
    finally:
        for part in borrowers:
            part.__dict__.pop(BORROWED, None)
        for part in plain:
            part.__class__ = nn.BatchNorm1d
