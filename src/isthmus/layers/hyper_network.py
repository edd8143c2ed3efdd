"""The hyper-network: writes a core, a small matrix, for every row from that row's condition.

Source: HAMUR (Li et al., CIKM 2023, arXiv:2309.06217): g: R^E -> R^{k k}, shared by all domains
and sites; I(e) = reshape(g(e)).
Departures: the released code puts batch norm and ReLU on the last layer too, which makes every
core non-negative and of mean 0.4 an entry, whatever its size k, and saturates what follows. Here
the last layer is linear and starts as identity plus noise: a product with the core keeps the
scale of what it multiplies, and a hyper-network with nothing to say leaves a static adapter.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from isthmus.layers.routing import in_graph

LINE = 16  # float32 values in a line of cache
# Values of cores that are made at a time: 0.8 MB stay in a core's cache, 20 MB for 4096 rows of rank 35
# do not. Measured on CPU for rank 35, from 64 to 4096 rows at a time: 128 are quickest.
BLOCK_VALUES = 3 << 16


class Core:
    """The cores of a batch, for one product of rows with them and no other.

    ``values``: (rows, rank, rank). ``carrier``: (rows, 2, rank), what takes the product's gradient back
    to the hyper-network: not the gradient of the cores, ``x_r^T g_r`` for each row, but ``x_r`` and
    ``g_r`` themselves. None where the gradient of ``values`` is the way, or none is wanted.
    """

    def __init__(
        self,
        values: Float[Tensor, "rows rank rank"],
        carrier: Float[Tensor, "rows 2 rank"] | None = None,
    ) -> None:
        self._values = values
        self._carrier = carrier
        self._spent = False

    def take(self) -> tuple[Tensor, Tensor | None]:
        """Values and carrier, once where there is a carrier.

        Raises ``RuntimeError`` at a second call: factors of two products would add up to neither.
        """
        if self._spent:
            raise RuntimeError("a core must be used for one product, got a second one")
        self._spent = self._carrier is not None
        return self._values, self._carrier


class HyperNetwork(nn.Module):
    """(rows, condition_width) -> cores (rows, rank, rank).

    Hidden layers are Linear, batch norm (running statistics in eval), ReLU. `read` and `write` are the
    two halves of a call; a cell that meets the cores in products alone asks for them by `write_for`.

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
        return self.write(self.read(condition))

    def read(
        self, condition: Float[Tensor, "rows condition_width"]
    ) -> Float[Tensor, "rows last_width"]:
        """What the last layer makes the cores of: a twentieth of their size, and all they hold."""
        return self.hidden(condition)

    def write(self, read: Float[Tensor, "rows last_width"]) -> Float[Tensor, "rows rank rank"]:
        """The cores, for any use."""
        return self._write(read, 0)[0]

    def write_for(self, read: Float[Tensor, "rows last_width"], products: int) -> tuple[Core, ...]:
        """The cores, written once, for so many products of rows with them."""
        values, *carriers = self._write(read, products)
        if not carriers:
            return (Core(values),) * products
        return tuple(Core(values.detach(), carrier) for carrier in carriers)

    def _write(self, read: Tensor, products: int) -> tuple[Tensor, ...]:
        weight, bias = self.last.weight, self.last.bias
        learns = torch.is_grad_enabled() and (read.requires_grad or weight.requires_grad)
        if learns and not in_graph():
            return _Write.apply(read, weight, bias, self.rank, products)  # pyright: ignore[reportReturnType]
        return (_aligned_linear(read, weight, bias).unflatten(1, (self.rank, self.rank)),)


def _aligned_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x weight^T + bias``, each row of it at the start of a line of cache.

    A product is written a third slower where rows end within a line, as those of 35 x 35 = 1225
    values do. The zeros that fill the last line are cut off again: the result is a view.
    """
    width = weight.shape[0]
    lacking = -width % LINE
    if lacking:
        weight, bias = F.pad(weight, (0, 0, 0, lacking)), F.pad(bias, (0, lacking))
    if in_graph() or torch.is_autocast_enabled(x.device.type) or torch.is_grad_enabled():
        return F.linear(x, weight, bias)[:, :width]
    # In blocks, because the bias comes first: all of it would be written, read and written again.
    y = x.new_empty(len(x), width + lacking)
    for rows in _blocks(len(x), width):
        torch.addmm(bias, x[rows], weight.t(), out=y[rows])
    return y[:, :width]


class _Write(torch.autograd.Function):
    """Cores from what was read; then a carrier for each product.

    The gradient of a core is a sum of ``x_r^T g_r``, one for each product. The backward makes it for a
    block of rows, takes what the last layer's input and weight need of it, and makes the next in its
    place. So no gradient of 20 MB is ever written, added up and read again three times.
    """

    @staticmethod
    def forward(
        ctx: Any, read: Tensor, weight: Tensor, bias: Tensor, rank: int, products: int
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(read, weight)
        ctx.set_materialize_grads(False)
        values = _aligned_linear(read, weight, bias).unflatten(1, (rank, rank))
        ctx.rank, ctx.dtype = rank, values.dtype
        carriers = (values.new_zeros(()).expand(len(read), 2, rank) for _ in range(products))
        return values, *carriers

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, to_values: Tensor | None, *carried: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        pairs = [pair for pair in carried if pair is not None]
        if to_values is None and not pairs:
            return None, None, None, None, None
        # Under autocast cores have fewer bits than what they are made of.
        read, weight = (tensor.to(ctx.dtype) for tensor in ctx.saved_tensors)
        to_read, to_weight = torch.empty_like(read), torch.zeros_like(weight)
        to_bias = weight.new_zeros(weight.shape[0])
        if to_values is not None:
            to_bias += to_values.sum(dim=0).flatten()
        for pair in pairs:
            to_bias += (pair[:, 0].t() @ pair[:, 1]).flatten()
        x = torch.stack([pair[:, 0] for pair in pairs], dim=2) if pairs else None
        grad = torch.stack([pair[:, 1] for pair in pairs], dim=1) if pairs else None
        for rows in _blocks(len(read), weight.shape[0]):
            to_cores = None if to_values is None else to_values[rows]
            if x is not None and grad is not None:
                products = torch.bmm(x[rows], grad[rows])
                to_cores = products if to_cores is None else products + to_cores
            assert to_cores is not None
            to_cores = to_cores.flatten(1)
            torch.mm(to_cores, weight, out=to_read[rows])
            to_weight.addmm_(to_cores.t(), read[rows])
        return to_read, to_weight, to_bias, None, None


def _blocks(rows: int, width: int) -> Iterator[slice]:
    """Rows of so many values each, in pieces of at most BLOCK_VALUES."""
    step = max(1, BLOCK_VALUES // width)
    return (slice(start, start + step) for start in range(0, rows, step))
