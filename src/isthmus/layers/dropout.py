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
        # Off the CPU, and inside a compiled graph, drawing is fast as it is.
        if h.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(h, self.p, training=True)
        count = h.numel()
        dropped = min(round(self.p * _LEVELS), _LEVELS - 1)
        draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        level = draws.view(torch.int16)[:count].view(h.shape)  # uniform on -32768..32767
        kept = level >= dropped - _LEVELS // 2
        return h * (kept * (_LEVELS / (_LEVELS - dropped)))

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"p={self.p}"
