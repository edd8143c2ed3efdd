"""The parent of the family: a linear map of low rank, ``h A_d G B_d``, applied left to right.

A member of the family is a choice of the factors A and B (one bank per domain, shared, or
generated) and of the core G (the identity, a gate, or one matrix a row from a hyper-network):

- HAMUR as drawn (Li et al., CIKM 2023, arXiv:2309.06217): banks, a core a row.
- HAMUR as released: shared factors, a core a row.
- a bottleneck per domain (arXiv:1902.00751): banks, a ReLU in the core's place.
- MLoRA (arXiv:2408.08913), on a Linear: banks, identity.
- MoE-MLoRA (arXiv:2506.07563), on a Linear: shared factors, a gate over groups of ranks.
- DynaGAN's modulation (arXiv:2211.14554), on a Linear: factors of rank 1 generated per domain.

Multiplying from the left never builds a (rows, in_width, out_width) weight: 2 GB at the released
code's batch of 40,960 rows, against in_width * rank + rank^2 + rank * out_width products a row.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from isthmus.layers.hyper_network import Core
from isthmus.layers.routing import Routing


class LowRank(nn.Module):
    """``h A_d G B_d``; (rows, in_width) -> (rows, out_width).

    ``n_domains``: factors per domain, shaped (n_domains + 1, in_width, rank) and
    (n_domains + 1, rank, out_width); ``None`` shares one pair, without the first axis. They start
    normal with variance 1 / fan-in, apart for every domain, so that the map keeps the scale of
    its input; with ``zero`` the right factor starts at 0, and the map with it. ``core`` at a call: one
    (rank, rank) matrix a row; left out, it is the identity.
    """

    def __init__(
        self,
        *,
        in_width: int,
        out_width: int,
        rank: int,
        n_domains: int | None = None,
        zero: bool = False,
    ) -> None:
        if min(in_width, out_width, rank) < 1 or (n_domains is not None and n_domains < 1):
            raise ValueError(
                f"sizes must be at least 1, got {in_width=}, {out_width=}, {rank=}, {n_domains=}"
            )
        super().__init__()
        sets = () if n_domains is None else (n_domains + 1,)
        self.n_domains = n_domains
        self.per_domain = () if n_domains is None else ("left", "right")
        self.left = nn.Parameter(torch.randn(*sets, in_width, rank) * in_width**-0.5)
        right = (*sets, rank, out_width)
        self.right = nn.Parameter(torch.zeros(right) if zero else torch.randn(right) * rank**-0.5)

    def forward(
        self,
        h: Float[Tensor, "rows in_width"],
        routing: Routing,
        core: Float[Tensor, "rows rank rank"] | Core | None = None,
    ) -> Float[Tensor, "rows out_width"]:
        """Apply the factors of each row's own domain, and its core between them."""
        if core is not None:
            return self.up(row_product(self.down(h, routing), core), routing)
        if self.n_domains is None:
            return h @ self.left @ self.right
        tiles = routing.tiles
        tiled = torch.bmm(tiles.split(h), tiles.pick(self.left))
        return tiles.join(torch.bmm(tiled, tiles.pick(self.right)))

    def down(
        self, h: Float[Tensor, "rows in_width"], routing: Routing
    ) -> Float[Tensor, "rows rank"]:
        """``h A_d``: the left factor alone, where a member does more between than a core does."""
        return h @ self.left if self.n_domains is None else routing.apply(h, self.left)

    def up(
        self, z: Float[Tensor, "rows rank"], routing: Routing
    ) -> Float[Tensor, "rows out_width"]:
        """``z B_d``: the right factor alone."""
        return z @ self.right if self.n_domains is None else routing.apply(z, self.right)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        *_, in_width, rank = self.left.shape
        return f"{in_width} -> {rank} -> {self.right.shape[-1]}, n_domains={self.n_domains}"


def row_product(
    x: Float[Tensor, "rows rank"], core: Float[Tensor, "rows rank rank"] | Core
) -> Float[Tensor, "rows rank"]:
    """Every row times its own matrix: ``y_r = x_r core_r``."""
    values, carrier = core.take() if isinstance(core, Core) else (core, None)
    if torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, values, carrier)
    ):
        return _RowProduct.apply(x, values, carrier)  # pyright: ignore[reportReturnType]
    return torch.bmm(x.unsqueeze(1), values).squeeze(1)


class _RowProduct(torch.autograd.Function):
    """The product above with a backward that reads each core in the order it lies.

    A core a row is most of HAMUR's memory traffic (20 MB at 4096 rows and rank 35), and products
    of one row with one matrix are as fast as memory only when written as below: what autograd
    derives takes 5.2 ms and 1.1 ms where this takes 1.6 and 0.9 (one core).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, carrier: Tensor | None) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(x, values)
        return torch.bmm(x.unsqueeze(1), values).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, values = ctx.saved_tensors
        to_x, to_values, carries = ctx.needs_input_grad
        row = grad.unsqueeze(1)
        return (
            torch.bmm(row, values.transpose(1, 2)).squeeze(1) if to_x else None,
            x.unsqueeze(2) * row if to_values else None,
            torch.stack((x.to(grad.dtype), grad), dim=1) if carries else None,
        )
