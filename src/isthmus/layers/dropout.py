"""Dropout whose random bits do not cost more than the network around it.

Source: Srivastava et al., JMLR 2014, in the inverted form (kept values are scaled up in training).
Departure: on CPU torch draws one float per value on one thread, which takes a quarter of an MLP's
training step; here one 64-bit draw serves four values, a third of the cost. The probability is
thereby rounded to 1/65536, and kept values are scaled by the rounded one, so nothing is biased.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

_LEVELS = 1 << 16


class Dropout(nn.Module):
    """Zero each value with probability ``p`` in training, scale the rest by 1 / (1 - p).

    Draws from torch's global generator. In eval it returns its input.
    """

    def __init__(self, p: float) -> None:
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {p}")
        super().__init__()
        self.p = p

    def forward(self, h: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Drop values."""
        if not self.training or self.p == 0.0:
            return h
        if h.device.type != "cpu":  # elsewhere drawing is fast as it is
            return F.dropout(h, self.p, training=True)
        mask = _mask_in_graph if torch.compiler.is_compiling() else _mask
        return h * mask(h.detach(), self.p)

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"p={self.p}"


def _mask(h: Tensor, p: float) -> Tensor:
    """What to multiply ``h`` by: 0 where a value is dropped, 1 / (1 - p) elsewhere."""
    count = h.numel()
    dropped = min(round(p * _LEVELS), _LEVELS - 1)
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    level = draws.view(torch.int16)[:count].view(h.shape)  # uniform on -32768..32767
    return (level >= dropped - _LEVELS // 2) * (_LEVELS / (_LEVELS - dropped))


# One opaque step inside a compiled graph, where torch's own dropout is twice as slow as outside.
_mask_in_graph = torch.library.custom_op(
    "isthmus::dropout_mask",
    _mask,
    mutates_args=(),
    tags=(torch.Tag.nondeterministic_seeded,),
)
_mask_in_graph.register_fake(lambda h, p: torch.empty_like(h))  # noqa: ARG005
