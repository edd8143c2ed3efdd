"""Experts side by side, and the gate that says how much of each a row takes.

Source: Jacobs et al., Adaptive Mixtures of Local Experts, Neural Computation 1991; as layers of a
deep network, Ma et al., KDD 2018 (MMoE), eq. 5 and 6: ``f(x) = sum_i g(x)_i f_i(x)``, with ``g`` a
softmax. All experts of a set run as one batched product; those of domains run in tiles.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.layers.bank import BankLinear
from isthmus.layers.blocks import Norm
from isthmus.layers.domain_norm import DomainNorm
from isthmus.layers.dropout import Dropout
from isthmus.layers.routing import Routing, needed
from isthmus.ranks import ALONE, Ranks

ExpertNorm = Norm | Literal["layer"]
TEMPERATURE = 0.1  # of cosines: two centres at 60 degrees from each other are told apart by e^5


class AbstractGate(nn.Module, ABC):
    """Says of every row how much of each expert it takes: weights of 0 or more that sum to 1.

    ``experts``: their names, in the order of the weights. Whoever wants to see what experts are used
    hooks the forward of every gate in a network: ``evaluate --gates`` does.
    """

    experts: tuple[str, ...]

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "rows in_width"], routing: Routing | None = None
    ) -> Float[Tensor, "rows experts"]:
        """Weights of the experts."""


class Gate(AbstractGate):
    """``softmax(x W + b)``; (rows, in_width) -> (rows, experts).

    ``n_domains``: a gate of its own for every domain, and for the unknown one; a routing is then
    needed at each call. W starts uniform in +-in_width**-0.5, apart for every expert and domain, and
    b at 0. Raises ``ValueError`` for names that are missing or repeated.

    >>> Gate(4, ("shared 1", "shared 2"))(torch.randn(5, 4)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self, in_width: int, experts: Sequence[str], *, n_domains: int | None = None
    ) -> None:
        if not experts or len(set(experts)) < len(experts):
            raise ValueError(f"experts must be named, each by a name of its own, got {experts}")
        super().__init__()
        self.experts = tuple(experts)
        self.linear = (
            nn.Linear(in_width, len(experts))
            if n_domains is None
            else BankLinear(n_domains=n_domains, in_width=in_width, out_width=len(experts))
        )
        if isinstance(self.linear, nn.Linear):
            nn.init.zeros_(self.linear.bias)

    def forward(
        self, x: Float[Tensor, "rows in_width"], routing: Routing | None = None
    ) -> Float[Tensor, "rows experts"]:
        """Weights of the experts. Raises ``ValueError`` where a routing is needed and missing."""
        banked = isinstance(self.linear, BankLinear)
        return (self.linear(x, needed(routing)) if banked else self.linear(x)).softmax(dim=1)

    def extra_repr(self) -> str:
        """The experts, for printing."""
        return ", ".join(self.experts)


class ClusterGate(AbstractGate):
    """Sends each row to one cluster; (rows, in_width) -> (rows, clusters), a single 1 in each row.

    Centres move in training, without gradients; the formulas, and what departs from the paper, stand in
    `isthmus.backbones.experts.adl`. ``rounds``: of routing a batch. ``momentum``: how far a batch moves the
    centres, 1 the whole way.

    >>> gate = ClusterGate(in_width=4, clusters=3)
    >>> gate(torch.randn(5, 4)).sum(dim=1)
    tensor([1., 1., 1., 1., 1.])
    """

    centres: Tensor  # (clusters, in_width), each of unit length
    ranks: Ranks = ALONE  # whose rows are one batch

    def __init__(
        self, *, in_width: int, clusters: int, rounds: int = 3, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.experts = tuple(f"cluster {k}" for k in range(1, clusters + 1))
        self.rounds, self.momentum = rounds, momentum
        # NOTE[DIFF] scaled columns, by running statistics in eval.
        self.scale = nn.BatchNorm1d(in_width, affine=False)
        # NOTE[DIFF] a buffer; random, so that no two clusters start alike.
        self.register_buffer("centres", F.normalize(torch.randn(clusters, in_width), dim=1))

    @torch.no_grad()
    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "rows clusters"]:
        """Send the rows; in training, let the centres follow them."""
        at = F.normalize(self.scale(x.to(self.centres.dtype)), dim=1)
        if self.training:
            self.centres.copy_(self._followed(at))
        return F.one_hot((at @ self.centres.t()).argmax(dim=1), len(self.experts)).to(x.dtype)

    def _followed(self, at: Tensor) -> Tensor:
        centres = self.centres
        for _ in range(self.rounds):  # NOTE[DIFF] each from the centres of the one before
            share = (at @ centres.t() / TEMPERATURE).softmax(dim=1)
            sums = (share.t() @ at).to(at.dtype)
            centres = F.normalize(self.ranks.sum(sums), dim=1)
        return F.normalize(self.centres.lerp(centres, self.momentum), dim=1)


def mixed(
    weights: Float[Tensor, "rows experts"], states: Float[Tensor, "rows experts width"]
) -> Float[Tensor, "rows width"]:
    """Every row's sum of its experts' states, each times its weight."""
    return (weights.unsqueeze(2) * states).sum(dim=1)


class ExpertLinear(nn.Module):
    """Every expert's own linear map; (rows, experts, in_width) -> (rows, experts, out_width).

    ``one_input``: all experts read the same rows (rows, in_width), in one product. ``n_domains``:
    experts of its own for every domain, and for the unknown one. Weights are drawn uniform in
    +-in_width**-0.5, apart for every expert and domain.
    """

    def __init__(
        self,
        *,
        n_experts: int,
        in_width: int,
        out_width: int,
        one_input: bool,
        bias: bool = True,
        n_domains: int | None = None,
    ) -> None:
        if min(n_experts, in_width, out_width) < 1:
            raise ValueError(
                f"sizes must be at least 1, got {n_experts=}, {in_width=}, {out_width=}"
            )
        super().__init__()
        self.n_experts, self.one_input, self.n_domains = n_experts, one_input, n_domains
        self.in_width, self.out_width = in_width, out_width
        self.per_domain = () if n_domains is None else ("weight", "bias")
        sets = () if n_domains is None else (n_domains + 1,)
        # As the product reads it: nothing is laid out anew at each step.
        one = (in_width, n_experts * out_width) if one_input else (n_experts, in_width, out_width)
        bound = in_width**-0.5
        self.weight = nn.Parameter(torch.empty(*sets, *one).uniform_(-bound, bound))
        self.bias: nn.Parameter | None = (
            nn.Parameter(torch.zeros(*sets, n_experts * out_width)) if bias else None
        )

    def forward(
        self, h: Float[Tensor, "rows *inputs"], routing: Routing | None = None
    ) -> Float[Tensor, "rows experts out_width"]:
        """Apply the maps, those of each row's own domain where domains have their own."""
        if self.n_domains is None:
            if self.one_input:
                y = h @ self.weight
            else:
                y = torch.bmm(h.transpose(0, 1), self.weight).transpose(0, 1).flatten(1)
            if self.bias is not None:
                y = y + self.bias
        else:
            routing = needed(routing)
            y = routing.apply(h, self.weight) if self.one_input else self._in_tiles(h, routing)
            if self.bias is not None:
                y = y + routing.take(self.bias)
        return y.unflatten(1, (self.n_experts, self.out_width))

    def _in_tiles(self, h: Tensor, routing: Routing) -> Tensor:
        tiles = routing.tiles
        tiled = tiles.split(h.flatten(1)).unflatten(2, (self.n_experts, self.in_width))
        y = torch.matmul(tiled.transpose(1, 2), tiles.pick(self.weight))
        return tiles.join(y.transpose(1, 2).flatten(2))

    def per_expert(self, weight: Tensor) -> Float[Tensor, "experts numbers"]:
        """Numbers of each expert in a weight or its gradient, of one domain where there are sets."""
        if self.one_input:
            weight = weight.unflatten(1, (self.n_experts, self.out_width)).transpose(0, 1)
        return weight.flatten(1)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        sizes = f"{self.n_experts} x ({self.in_width} -> {self.out_width})"
        return f"{sizes}, n_domains={self.n_domains}"


class ExpertBlock(nn.Module):
    """``dropout(relu(norm(h W + b)))`` of every expert; -> (rows, experts, out_width).

    ``norm``: as in `DeepBlock`, every unit of every expert by itself, and ``batch`` means ``domain``
    for experts of domains; ``layer`` takes the mean and variance of a row over an expert's units.
    """

    def __init__(
        self,
        *,
        n_experts: int,
        in_width: int,
        out_width: int,
        one_input: bool,
        norm: ExpertNorm = "batch",
        dropout: float = 0.0,
        n_domains: int | None = None,
        own: bool = False,
    ) -> None:
        if norm == "batch" and own:
            norm = "domain"
        if n_domains is None and (own or norm == "domain"):
            raise ValueError(f"n_domains must be given for {own=}, {norm=}, got None")
        super().__init__()
        width = n_experts * out_width
        self.linear = ExpertLinear(
            n_experts=n_experts,
            in_width=in_width,
            out_width=out_width,
            one_input=one_input,
            bias=norm in ("none", "layer"),  # another norm takes any constant away
            n_domains=n_domains if own else None,
        )
        self.norm: nn.Module | None = None
        if norm == "batch":
            self.norm = nn.BatchNorm1d(width)
        elif norm == "domain":
            self.norm = DomainNorm(width=width, n_domains=n_domains or 0)
        elif norm == "layer":
            self.norm = ExpertLayerNorm(
                n_experts=n_experts, width=out_width, n_domains=n_domains if own else None
            )
        self.dropout = Dropout(dropout) if dropout else None

    def forward(
        self, h: Float[Tensor, "rows *inputs"], routing: Routing | None = None
    ) -> Float[Tensor, "rows experts out_width"]:
        """Apply the block."""
        h = self.linear(h, routing)
        if isinstance(self.norm, ExpertLayerNorm):
            h = self.norm(h, routing)
        elif isinstance(self.norm, DomainNorm):
            h = self.norm(h.flatten(1), needed(routing)).view_as(h)
        elif self.norm is not None:
            h = self.norm(h.flatten(1)).view_as(h)
        h = h.relu()
        return h if self.dropout is None else self.dropout(h)


class ExpertLayerNorm(nn.Module):
    """Layer norm of every expert by itself, with gain and bias; (rows, experts, width) -> the same.

    ``n_domains``: gain and bias for every domain, and for the unknown one.
    """

    def __init__(self, *, n_experts: int, width: int, n_domains: int | None = None) -> None:
        super().__init__()
        self.per_domain = () if n_domains is None else ("gain", "bias")
        self.shape = (n_experts, width)
        sets = 1 if n_domains is None else n_domains + 1
        self.gain = nn.Parameter(torch.ones(sets, n_experts * width))
        self.bias = nn.Parameter(torch.zeros(sets, n_experts * width))

    def forward(
        self, h: Float[Tensor, "rows experts width"], routing: Routing | None = None
    ) -> Float[Tensor, "rows experts width"]:
        """Normalise every row over the units of each expert."""
        gain, bias = self.gain, self.bias
        if self.per_domain:
            gain, bias = needed(routing).take(gain), needed(routing).take(bias)
        h = F.layer_norm(h, self.shape[1:])
        return torch.addcmul(bias.unflatten(1, self.shape), h, gain.unflatten(1, self.shape))


class Experts(nn.Module):
    """Networks of one shape side by side; (rows, in_width) -> (rows, experts, widths[-1]).

    ``widths``: output widths of the blocks of each expert. ``own``: experts of its own for every
    domain, and for the unknown one; a row then meets those of its domain alone. ``n_domains`` is
    needed for that and for ``norm="domain"``.

    >>> Experts(n_experts=3, in_width=4, widths=(8, 2))(torch.randn(5, 4)).shape
    torch.Size([5, 3, 2])
    """

    def __init__(
        self,
        *,
        n_experts: int,
        in_width: int,
        widths: Sequence[int],
        norm: ExpertNorm = "batch",
        dropout: float = 0.0,
        n_domains: int | None = None,
        own: bool = False,
    ) -> None:
        if not widths or min(widths) < 1:
            raise ValueError(f"widths must hold at least one positive number, got {widths}")
        super().__init__()
        self.out_width = widths[-1]
        self.blocks = nn.ModuleList(
            ExpertBlock(
                n_experts=n_experts,
                in_width=width_in,
                out_width=width_out,
                one_input=place == 0,
                norm=norm,
                dropout=dropout,
                n_domains=n_domains,
                own=own,
            )
            for place, (width_in, width_out) in enumerate(
                zip((in_width, *widths), widths, strict=False)
            )
        )

    def forward(
        self, x: Float[Tensor, "rows in_width"], routing: Routing | None = None
    ) -> Float[Tensor, "rows experts out_width"]:
        """What every expert says of every row."""
        for block in self.blocks:
            x = block(x, routing)
        return x
