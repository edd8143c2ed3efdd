"""The gate neural unit of PEPNet, and the two ways in which a network uses it.

Source: Chang et al., PEPNet: Parameter and Embedding Personalized Network for Infusing with
Personalized Prior Information, KDD 2023, arXiv:2302.01115: Gate NU, EPNet and PPNet.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.backbones.backbone import Adapt
from isthmus.layers.bank import DomainEmbedding
from isthmus.layers.blocks import DeepBlock, Norm, Towers
from isthmus.layers.routing import Routing, needed

GAMMA = 2.0  # the paper's scale of the sigmoid: a gate lies in 0 to 2, and 1 leaves a value alone


class GateUnit(nn.Module):
    """``2 sigmoid(relu(c W + b) W' + b')``; (rows, in_width) -> gates (rows, out_width) in 0 to 2."""

    def __init__(self, *, in_width: int, out_width: int, hidden_width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_width, hidden_width)
        self.last = nn.Linear(hidden_width, out_width)

    def forward(self, condition: Float[Tensor, "rows in_width"]) -> Float[Tensor, "rows out_width"]:
        """A gate for each unit of each row."""
        return GAMMA * torch.sigmoid(self.last(self.hidden(condition).relu()))


class EmbeddingGate(nn.Module):
    """EPNet's gate: ``x * GateUnit([e_d, stop(x)])``; (rows, width) -> the same.

    The gate reads the row without sending a gradient back into the row, so the gate alone learns
    what a domain makes of an embedding.
    """

    def __init__(self, *, width: int, n_domains: int, domain_dim: int, gate_width: int) -> None:
        super().__init__()
        self.domain = DomainEmbedding(n_domains=n_domains, dim=domain_dim)
        self.gate = GateUnit(in_width=domain_dim + width, out_width=width, hidden_width=gate_width)

    def forward(
        self, x: Float[Tensor, "rows width"], routing: Routing
    ) -> Float[Tensor, "rows width"]:
        """Gate every value of every row. The gradient reaches ``x`` through the product only."""
        return x * self.gate(torch.cat([self.domain(routing.domain), x.detach()], dim=1))


class GatedBlocks(nn.Module):
    """PPNet's blocks: each block's output times a gate; (rows, in_width) -> (rows, widths[-1]).

    The gates read what is known of the row beforehand: the columns ``prior`` of the embedded row x
    (None: all of x), the domain's embedding, and what the blocks read, without a gradient. Where the
    prior is all of x and the blocks read x itself (``reads_input``), the row is not read twice.
    """

    def __init__(
        self,
        *,
        in_width: int,
        widths: Sequence[int],
        dropout: float,
        norm: Norm,
        towers: Towers,
        n_domains: int,
        prior: Sequence[slice] | None,
        reads_input: bool,
        domain_dim: int,
        gate_width: int,
    ) -> None:
        if not widths or min(widths) < 1:
            raise ValueError(f"widths must hold at least one positive number, got {widths}")
        super().__init__()
        self._prior = None if prior is None else tuple(prior)
        self._reads_input = reads_input
        prior_width = (
            in_width if prior is None else sum(columns.stop - columns.start for columns in prior)
        )
        general = 0 if prior is None and reads_input else in_width
        self.domain = DomainEmbedding(n_domains=n_domains, dim=domain_dim)
        self.blocks = nn.ModuleList(
            DeepBlock(
                in_width=width_in,
                out_width=width_out,
                norm=norm,
                dropout=dropout,
                towers=towers,
                n_domains=n_domains,
            )
            for width_in, width_out in zip((in_width, *widths), widths, strict=False)
        )
        self.gates = nn.ModuleList(
            GateUnit(
                in_width=prior_width + domain_dim + general,
                out_width=width,
                hidden_width=gate_width,
            )
            for width in widths
        )

    def condition(
        self, x: Float[Tensor, "rows in_width"], h: Float[Tensor, "rows in_width"], routing: Routing
    ) -> Float[Tensor, "rows condition_width"]:
        """What the gates read: the prior part of ``x``, the domain, and ``h`` without a gradient."""
        parts = [x] if self._prior is None else [x[:, columns] for columns in self._prior]
        parts.append(self.domain(routing.domain))
        if self._prior is not None or not self._reads_input:
            parts.append(h.detach())
        return torch.cat(parts, dim=1)

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        h: Float[Tensor, "rows in_width"],
        routing: Routing | None,
        adapt: Adapt,
    ) -> Float[Tensor, "rows out_width"]:
        """Apply the blocks to ``h``, a gate and ``adapt`` after each; the gates read ``x``."""
        routing = needed(routing)
        condition = self.condition(x, h, routing)
        for site, (block, gate) in enumerate(zip(self.blocks, self.gates, strict=True)):
            h = adapt(site, gate(condition) * block(h, routing))
        return h
