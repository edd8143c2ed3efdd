"""The hyper-network: writes a core, a small matrix, for every row from that row's condition.

Source: HAMUR (Li et al., CIKM 2023, arXiv:2309.06217): g: R^E -> R^{k k}, shared by all domains
and sites; I(e) = reshape(g(e)).
Departures: the released code puts batch norm and ReLU on the last layer too, which makes every
core non-negative and of mean 0.4 an entry, whatever its size k, and saturates what follows. Here
the last layer is linear and starts as identity plus noise: a product with the core keeps the
scale of what it multiplies, and a hyper-network with nothing to say leaves a static adapter.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LINE = 16  # float32 values in a line of cache


class HyperNetwork(nn.Module):
    """(rows, condition_width) -> cores (rows, rank, rank).

    Hidden layers are Linear, batch norm (running statistics in eval), ReLU.

    >>> HyperNetwork(condition_width=6, widths=(8,), rank=3)(torch.randn(5, 6)).shape
    torch.Size([5, 3, 3])
    """

    def __init__(self, *, condition_width: int, widths: Sequence[int] = (64,), rank: int) -> None:
        if min(condition_width, rank, *widths) < 1:
            raise ValueError(
                f"sizes must be at least 1, got {condition_width=}, widths={tuple(widths)}, {rank=}"
            )
        super().__init__()
        self.rank = rank
        self.hidden = nn.Sequential()
        width = condition_width
        for next_width in widths:
            self.hidden.append(nn.Linear(width, next_width, bias=False))
            self.hidden.append(nn.BatchNorm1d(next_width))
            self.hidden.append(nn.ReLU())
            width = next_width
        self.last = nn.Linear(width, rank * rank)
        # Hidden units have mean square 1/2, so a core is I plus entries of variance 1 / (2 rank).
        nn.init.normal_(self.last.weight, std=(width * rank) ** -0.5)
        with torch.no_grad():
            self.last.bias.copy_(torch.eye(rank).flatten())

    def forward(
        self, condition: Float[Tensor, "rows condition_width"]
    ) -> Float[Tensor, "rows rank rank"]:
        """One core a row."""
        learns = torch.is_grad_enabled() and self.last.weight.requires_grad
        product = _AlignedLinear.apply if learns else _aligned_linear
        flat: Tensor = product(self.hidden(condition), self.last.weight, self.last.bias)  # pyright: ignore[reportAssignmentType]
        return flat.unflatten(1, (self.rank, self.rank))


def _aligned_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x weight^T + bias``, each row of it at the start of a line of cache.

    A product is written a third slower where rows end within a line, as those of 35 x 35 = 1225
    values do. The zeros that fill the last line are cut off again: the result is a view.
    """
    width = weight.shape[0]
    lacking = -width % LINE
    if not lacking:
        return F.linear(x, weight, bias)
    return F.linear(x, F.pad(weight, (0, 0, 0, lacking)), F.pad(bias, (0, lacking)))[:, :width]


class _AlignedLinear(torch.autograd.Function):
    """The product above; its backward has no zeros to cut off, and makes none to fill up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _aligned_linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        # Under autocast the product has fewer bits than what it was made of.
        x, weight = (tensor.to(grad.dtype) for tensor in ctx.saved_tensors)
        return (grad @ weight if ctx.needs_input_grad[0] else None), grad.t() @ x, grad.sum(dim=0)
