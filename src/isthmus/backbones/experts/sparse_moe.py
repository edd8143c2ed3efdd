"""Sparse experts: a router sends each row to a few experts of many, and only those are computed.

Sources: Shazeer et al., Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts
Layer, ICLR 2017, arXiv:1701.06538, eq. 1, 3 and 5; Fedus et al., Switch Transformers, JMLR 2022,
arXiv:2101.03961, eq. 1 to 6. As a question to many domains: Chirkova et al., Investigating the
potential of Sparse Mixtures-of-Experts for multi-domain neural machine translation, 2024,
arXiv:2407.01126. A block with E experts, top-k and row h:

    u = dropout(relu(norm(h W)));    r = scale(u) R + c;    T = the k largest of r
    k > 1:  g_e = softmax over T of r        k = 1:  g_e = p_e,  p = softmax of r over all experts
    y = u + dropout(sum over e in T of g_e E_e(u)),      E_e(u) = relu(u A_e + a_e) B_e + b_e

In training an expert takes ``capacity * rows * k / E`` rows of a batch, rounded up; first choices come
before second ones, and rows in the batch's order. What comes later is dropped: such a row keeps its
other experts, or passes by u alone. In eval nothing is dropped, so no row depends on its batch.

The balance loss is ``balance * E * sum_e f_e P_e``, summed over the blocks: f_e the share of choices
that fall on e, before any is dropped, P_e the mean of p_e. It is 1 a block, before ``balance``, where the
experts are used alike. No gradient passes f.

Departures:
- Shazeer et al. add trained noise to r; here there is none. Experts start apart, and the balance loss
  keeps them in use.
- The router reads u with each column scaled to mean 0 and variance 1, by running statistics in eval, and
  has an offset c. What u has in common for all rows is large behind a ReLU: read as it is, it left
  one or two of four experts of a fresh network without a gradient (rank 3 and 2 on 96 rows).
- One expert alone would have the weight 1 in a softmax over the chosen, and the router no gradient. So
  k = 1 takes Switch's weight.
- A row that is dropped is multiplied, with the weight 0: shapes then hang on no value. A capacity saves
  no work here, where tiles follow any load.
- Experts are as wide inside as the block. A Linear with norm changes the width before them.
- f_e counts all k choices, so the loss has the same scale for every k.
"""

from collections.abc import Sequence
from math import ceil
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from isthmus.backbones.backbone import (
    AbstractBackbone,
    AbstractDeepConfig,
    Adapt,
    BackboneSpec,
    add_loss,
    leave_alone,
    meeting,
    tell,
)
from isthmus.backbones.experts.domain_tower import Widths
from isthmus.layers.bank import BankLinear
from isthmus.layers.blocks import DeepBlock, Meet, Norm, Towers
from isthmus.layers.dropout import Dropout
from isthmus.layers.gates import AbstractGate
from isthmus.layers.per_domain import undeclare
from isthmus.layers.routing import Routing

BALANCE = "balance"
DROPPED = "dropped"


class SparseMoeConfig(AbstractDeepConfig):
    """Blocks with a bank of experts in each; a router sends a row to k of them."""

    name: Literal["sparse_moe"] = "sparse_moe"
    paper_head: ClassVar[Towers | None] = "shared"

    widths: Widths = Field(
        default=(128, 64),
        min_length=1,
        description="output widths of the blocks, and of the experts in each; each block is a site",
    )
    experts: int = Field(default=4, ge=2, description="number of experts in each block")
    k: int = Field(default=1, ge=1, description="experts that a row is sent to, at most `experts`")
    capacity: float | None = Field(
        default=None,
        gt=0,
        description="rows that an expert takes of a training batch, over those of equal shares; what"
        " comes later is dropped; by default nothing is",
    )
    balance: float = Field(
        default=0.01, ge=0, description="weight of the loss that keeps all experts in use"
    )

    @model_validator(mode="after")
    def _enough_experts(self) -> "SparseMoeConfig":
        if self.k > self.experts:
            raise ValueError(f"k must be at most experts, got k {self.k}, experts {self.experts}")
        return self

    def build(self, spec: BackboneSpec) -> "SparseMoE":
        """The backbone in a network of this shape."""
        self.check_towers(spec.towers)
        return SparseMoE(
            in_width=spec.inputs.width,
            n_domains=spec.n_domains,
            widths=self.widths,
            experts=self.experts,
            k=self.k,
            capacity=self.capacity,
            balance=self.balance,
            dropout=self.dropout,
            norm=self.norm,
        )


class TopGate(AbstractGate):
    """Softmax over the k largest logits of a row, 0 elsewhere; (rows, experts) -> (rows, experts).

    >>> TopGate(experts=3, k=2)(torch.tensor([[0.0, 5.0, 5.0]]))
    tensor([[0.0000, 0.5000, 0.5000]])
    """

    def __init__(self, *, experts: int, k: int) -> None:
        super().__init__()
        self.experts = tuple(f"expert {number}" for number in range(1, experts + 1))
        self.k = k

    def forward(
        self,
        x: Float[Tensor, "rows experts"],
        routing: Routing | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "rows experts"]:
        """Weights of the experts, from their logits."""
        top, chosen = x.topk(self.k, dim=1)
        return torch.zeros_like(x).scatter(1, chosen, top.softmax(dim=1))


class ExpertBank(nn.Module):
    """``sum over chosen e of g_e (relu(u A_e + a_e) B_e + b_e)``; (rows, width) -> (rows, width).

    Each pair of a row and an expert that it is sent to is one row of a product over tiles.
    """

    def __init__(self, *, experts: int, width: int) -> None:
        super().__init__()
        # Routing, tiles and banks know sets of parameters and the set of each row: here experts.
        self.up = BankLinear(n_domains=experts - 1, in_width=width, out_width=width)
        self.down = BankLinear(n_domains=experts - 1, in_width=width, out_width=width)
        undeclare(self)

    def forward(
        self,
        u: Float[Tensor, "rows width"],
        chosen: Int[Tensor, "rows k"],
        weight: Float[Tensor, "rows k"],
    ) -> Float[Tensor, "rows width"]:
        """Run the chosen experts; ``weight``: of each of them."""
        k = chosen.shape[1]
        tiles = Routing(chosen.flatten(), self.up.n_domains).tiles
        tiled = u.index_select(0, tiles.source // k).unflatten(0, (-1, tiles.length))
        for place, bank in enumerate((self.up, self.down)):
            assert bank.bias is not None
            bias = tiles.pick(bank.bias).unsqueeze(1)
            tiled = torch.baddbmm(bias, tiled, tiles.pick(bank.weight))
            tiled = tiled if place else tiled.relu()
        y = tiles.join(tiled)
        if k == 1:
            return y * weight
        return (y.unflatten(0, (-1, k)) * weight.unsqueeze(2)).sum(dim=1)


class SparseBlock(nn.Module):
    """A deep block, then experts beside a skip connection; (rows, in_width) -> (rows, out_width)."""

    reads_batch = "its balance loss and its capacity follow the whole batch"

    def __init__(
        self,
        *,
        in_width: int,
        out_width: int,
        experts: int,
        k: int,
        capacity: float | None,
        norm: Norm,
        dropout: float,
        n_domains: int | None,
    ) -> None:
        super().__init__()
        self.experts, self.k, self.capacity = experts, k, capacity
        self.deep = DeepBlock(
            in_width=in_width,
            out_width=out_width,
            norm=norm,
            dropout=dropout,
            n_domains=n_domains,
        )
        # NOTE[DIFF] scaled columns, and an offset that starts at 0.
        self.scale = nn.BatchNorm1d(out_width, affine=False)
        self.router = nn.Linear(out_width, experts)
        nn.init.zeros_(self.router.bias)
        self.gate = TopGate(experts=experts, k=k)
        self.bank = ExpertBank(experts=experts, width=out_width)
        self.dropout = Dropout(dropout) if dropout else None

    def forward(
        self, h: Float[Tensor, "rows in_width"], routing: Routing | None, meet: Meet | None
    ) -> tuple[Float[Tensor, "rows out_width"], Float[Tensor, ""], Float[Tensor, ""]]:
        """The block's output, its balance loss before its weight, and the share of choices dropped."""
        u = self.deep(h, routing, meet)
        logits = self.router(self.scale(u))
        weight, chosen = self.gate(logits).topk(self.k, dim=1)
        everywhere = logits.softmax(dim=1)
        if self.k == 1:  # NOTE[DIFF] Switch's weight, which has a gradient
            weight = everywhere.gather(1, chosen)
        loss = dropped = logits.new_zeros(())
        if self.training:
            loss = balance_loss(everywhere, chosen)
            if self.capacity is not None:
                within = self.within(chosen, ceil(self.capacity * chosen.numel() / self.experts))
                weight = weight * within  # NOTE[DIFF] multiplied by 0, not left out
                dropped = 1 - within.to(weight.dtype).mean()
        y = self.bank(u, chosen, weight)
        return u + (y if self.dropout is None else self.dropout(y)), loss, dropped

    def within(self, chosen: Int[Tensor, "rows k"], most: int) -> Bool[Tensor, "rows k"]:
        """Which choices are among the first ``most`` of their expert; first choices come first."""
        in_order = chosen.t().flatten()
        taken = counted(in_order, self.experts).cumsum(0).gather(1, in_order.unsqueeze(1))
        return (taken <= most).view(self.k, -1).t()


class SparseMoE(AbstractBackbone):
    """(rows, in_width) -> (rows, widths[-1]); a site after each block, behind its experts.

    ``n_domains``: for ``norm="domain"``. Raises ``ValueError`` for fewer than 2 experts, and for more
    choices than experts.

    >>> SparseMoE(in_width=6, widths=(8, 4), experts=3, k=2).site_widths
    (8, 4)
    """

    def __init__(
        self,
        *,
        in_width: int,
        n_domains: int | None = None,
        widths: Sequence[int] = (128, 64),
        experts: int = 4,
        k: int = 1,
        capacity: float | None = None,
        balance: float = 0.01,
        dropout: float = 0.2,
        norm: Norm = "batch",
    ) -> None:
        if experts < 2 or not 1 <= k <= experts:
            raise ValueError(
                f"experts must be 2 or more, and k in 1..experts, got {experts=}, {k=}"
            )
        super().__init__()
        self.balance = balance
        self.in_width = in_width
        self.out_width = widths[-1]
        self.site_widths = tuple(widths)
        self.linears = dict(enumerate(zip((in_width, *widths), widths, strict=False)))
        self.blocks = nn.ModuleList(
            SparseBlock(
                in_width=width_in,
                out_width=width_out,
                experts=experts,
                k=k,
                capacity=capacity,
                norm=norm,
                dropout=dropout,
                n_domains=n_domains,
            )
            for width_in, width_out in self.linears.values()
        )

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Apply the blocks; in training, say the balance loss and what was dropped."""
        h, loss, dropped = x, x.new_zeros(()), x.new_zeros(())
        for site, block in enumerate(self.blocks):
            h, more, fewer = block(h, routing, meeting(adapt, site))
            h, loss, dropped = adapt(site, h), loss + more, dropped + fewer
        if self.training:
            add_loss(adapt, BALANCE, self.balance * loss)
            tell(adapt, DROPPED, dropped / len(self.blocks))
        return h


def counted(chosen: Int[Tensor, " choices"], experts: int) -> Int[Tensor, "choices experts"]:
    """A 1 at the expert of each choice, 0 elsewhere; int64."""
    return (chosen.unsqueeze(1) == torch.arange(experts, device=chosen.device)).long()


def balance_loss(
    everywhere: Float[Tensor, "rows experts"], chosen: Int[Tensor, "rows k"]
) -> Float[Tensor, ""]:
    """``E sum_e f_e P_e`` of one block, eq. 4 to 6 of Switch; 1 where all experts are used alike.

    >>> even = torch.full((2, 2), 0.5)
    >>> balance_loss(even, torch.tensor([[0], [1]]))
    tensor(1.)
    """
    experts = everywhere.shape[1]
    share = counted(chosen.flatten(), experts).to(everywhere.dtype).mean(dim=0)
    return experts * (share * everywhere.mean(dim=0)).sum()
