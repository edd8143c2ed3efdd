"""Multi-path networks: each domain has a path of its own through banks of blocks that all domains share.

Source: Wang et al., Multi-path Neural Networks for On-device Multi-domain Visual Classification, WACV
2021, arXiv:2010.04904. One controller for each domain picks a block of a super-network in each layer.
Domains that pick the same block share its weights; a block that one domain picks is private. A row h of
domain d meets in layer l, with logits a_dl over the B blocks of the layer:

    c ~ softmax(a_dl) in training, c = argmax a_dl in eval;      u = norm(h)
    h <- h + w_c dropout(relu(u A_c + s_c) B_c + t_c),           w_c = 1
    an identity block adds nothing

Blocks differ in width, so paths differ in products. ``cost`` prices them: Q(path) is the products of a
path over those of the widest path, 0 for a path of identities. Two estimators move a_dl:

    gumbel      c = argmax(a + e), e Gumbel noise;  y = softmax((a + e) / T);  w_c = y_c / const(y_c);
                the loss of the rows + cost * mean of sum over c of softmax(a)_c Q_c
    reinforce   - mean of (R - b) log softmax(a)_c over the rows,   R = - loss of the row - cost * Q(path),
                b = mean R of the other rows of the domain in the batch

The temperature T falls from ``temperature`` to ``last_temperature`` within ``anneal_steps`` training steps.
The steps are counted in a buffer, so a training that goes on has the temperature of before.

Departures. The abstract alone could be read: the paper's reward and its controller are not known to us.
- Each row draws a path of its own in training, so one batch compares blocks for a domain.
- No block is computed that a row has not drawn. So y weighs the drawn block alone, where the
  straight-through formula 1 + y_c - const(y_c) has a term for every block. The term is divided by y_c:
  undivided, the block that is drawn most often gains, however useful the others are.
- What reaches a_dl is taken relative to the mean of the domain's rows in the batch. An offset that all
  blocks have in common is no reason to choose one.
- Logits move `PACE` times as fast as other parameters. Adam's steps do not follow the size of a gradient.
- Domain 0, the unknown, has a path of its own, which domain dropout trains.
- Blocks are two Linears beside a skip connection, where the paper has convolutions.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.backbones.backbone import (
    AbstractBackbone,
    AbstractBackboneConfig,
    Adapt,
    BackboneSpec,
    add_loss,
    await_losses,
    leave_alone,
    meeting,
    tell,
)
from isthmus.backbones.experts.block_bank import BlockBank
from isthmus.layers.blocks import DeepBlock, Norm, Towers
from isthmus.layers.domain_norm import DomainNorm
from isthmus.layers.dropout import Dropout
from isthmus.layers.gates import AbstractGate
from isthmus.layers.routing import Routing, needed

Estimator = Literal["gumbel", "reinforce"]
PACE = 10.0
SPREAD = 0.01  # of fresh logits: no two domains start on one path for no reason
COST = "cost"
PATH = "path"
PRODUCTS = "products"


class MultiPathConfig(AbstractBackboneConfig):
    """A path of each domain through banks of blocks that all domains share."""

    paper_head: ClassVar[Towers | None] = "shared"

    name: Literal["multi_path"] = "multi_path"
    width: int = Field(
        default=64,
        ge=1,
        description="width of the first block, which all domains share and which is site `0`, and of"
        " each layer behind it, each a site",
    )
    layers: int = Field(default=2, ge=1, description="layers with a bank of blocks in each")
    blocks: tuple[float, ...] = Field(
        default=(1.0, 1.0, 0.5, 0.0),
        min_length=2,
        description="the blocks of each layer: hidden units of each over `width`; 0 is the identity",
    )
    estimator: Estimator = Field(
        default="gumbel", description="how the paths learn: `gumbel` or `reinforce`"
    )
    cost: float = Field(
        default=0.0,
        ge=0,
        description="price of the widest path's products, in nats of a row's loss",
    )
    temperature: float = Field(default=1.0, gt=0, description="of `gumbel`, at the first step")
    last_temperature: float = Field(
        default=0.3, gt=0, description="of `gumbel`, from step `anneal_steps` on"
    )
    anneal_steps: int = Field(
        default=1000, ge=1, description="training steps within which the temperature falls"
    )
    dropout: float = Field(default=0.2, ge=0, lt=1, description="after each block")
    norm: Norm = Field(
        default="batch",
        description="before the blocks of a layer: `batch`, `domain` (statistics of the row's own"
        " domain) or `none`",
    )

    @field_validator("blocks")
    @classmethod
    def _blocks_of_a_size(cls, blocks: tuple[float, ...]) -> tuple[float, ...]:
        if min(blocks) < 0 or max(blocks) == 0:
            raise ValueError(f"blocks must be 0 or more, and one of them above 0, got {blocks}")
        return blocks

    def build(self, spec: BackboneSpec) -> "MultiPath":
        """The backbone in a network of this shape."""
        self.check_towers(spec.towers)
        return MultiPath(
            in_width=spec.inputs.width,
            n_domains=spec.n_domains,
            **{key: getattr(self, key) for key in type(self).model_fields if key != "name"},
        )

    def scaled(self, factor: float) -> "MultiPathConfig":
        """The same with ``factor`` times the width, 2 at least; the blocks keep their shares of it."""
        return self.model_copy(update={"width": max(2, round(self.width * factor))})

    @property
    def sizes(self) -> tuple[int, ...]:
        """The width of each layer."""
        return (self.width,) * (self.layers + 1)


class PathGate(AbstractGate):
    """The block of each row in one layer; (rows, any) -> (rows, blocks), a single 1 in each row.

    In training a block is drawn for every row, in eval it is the domain's best. The gradient of the 1
    is that of log y; with ``estimator="reinforce"`` it has none. The steps of training are counted in
    ``drawn``.

    >>> gate = PathGate(("block 1", "identity"), n_domains=2).eval()
    >>> gate(torch.randn(3, 5), Routing(torch.tensor([1, 0, 2]), 2)).sum(dim=1)
    tensor([1., 1., 1.], grad_fn=<SumBackward1>)
    """

    per_domain = ("choice",)
    drawn: Tensor  # (), int64

    def __init__(
        self,
        experts: Sequence[str],
        *,
        n_domains: int,
        estimator: Estimator = "gumbel",
        temperature: float = 1.0,
        last_temperature: float = 0.3,
        anneal_steps: int = 1000,
    ) -> None:
        super().__init__()
        self.experts = tuple(experts)
        self.estimator = estimator
        self.temperatures, self.anneal_steps = (temperature, last_temperature), anneal_steps
        # NOTE[DIFF] the logits over PACE, so that an optimiser moves the logits PACE times as far.
        start = torch.randn(n_domains + 1, len(experts)) * (SPREAD / PACE)
        self.choice = nn.Parameter(start)
        self.register_buffer("drawn", torch.zeros((), dtype=torch.int64))

    @property
    def temperature(self) -> Float[Tensor, ""]:
        """T at the coming step of training."""
        first, last = self.temperatures
        part = (self.drawn / self.anneal_steps).clamp(max=1.0)
        return first * (last / first) ** part

    def logits(self, routing: Routing) -> Float[Tensor, "rows blocks"]:
        """The logits of each row's domain."""
        return PACE * routing.take(self.choice)

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],  # noqa: ARG002
        routing: Routing | None = None,
    ) -> Float[Tensor, "rows blocks"]:
        """Draw or choose. Raises ``ValueError`` without a routing."""
        scores = self.logits(needed(routing))
        if self.training:
            noise = torch.empty_like(scores).exponential_().log().neg()
            scores = (scores + noise) / self.temperature
            self.drawn += 1
        if self.estimator == "reinforce":
            scores = scores.detach()
        hard = F.one_hot(scores.argmax(dim=1), len(self.experts)).to(scores.dtype)
        soft = scores.log_softmax(dim=1)
        return hard * (1 + (soft - soft.detach()))

    def log_chance(
        self, weights: Float[Tensor, "rows blocks"], routing: Routing
    ) -> Float[Tensor, " rows"]:
        """The logarithm of the chance of what `forward` drew."""
        return (weights.detach() * self.logits(routing).log_softmax(dim=1)).sum(dim=1)


class PathLayer(nn.Module):
    """A norm, then each row's block beside a skip connection; (rows, width) -> (rows, width)."""

    reads_batch = "the gradient of its paths compares the rows of the whole batch"

    def __init__(
        self, *, width: int, units: Sequence[int], norm: Norm, dropout: float, n_domains: int
    ) -> None:
        super().__init__()
        self.norm: nn.Module | None = None
        if norm == "batch":
            self.norm = nn.BatchNorm1d(width)
        elif norm == "domain":
            self.norm = DomainNorm(width=width, n_domains=n_domains)
        self.bank = BlockBank(width=width, units=units)
        self.dropout = Dropout(dropout) if dropout else None

    def forward(
        self,
        h: Float[Tensor, "rows width"],
        weights: Float[Tensor, "rows blocks"],
        routing: Routing,
    ) -> Float[Tensor, "rows width"]:
        """Apply the blocks that ``weights``, a single 1 in each row, say."""
        u = h
        if isinstance(self.norm, DomainNorm):
            u = self.norm(h, routing)
        elif self.norm is not None:
            u = self.norm(h)
        chosen = weights.detach().argmax(dim=1)
        weight = weights.gather(1, chosen.unsqueeze(1))
        y = self.bank(u, chosen)
        y = y if self.dropout is None else self.dropout(y)
        if self.training:
            weight = 1 + over_others(weight - 1, routing)
        return h + y * weight


class MultiPath(AbstractBackbone):
    """(rows, in_width) -> (rows, width); site 0 is the shared block, then a site after each layer.

    ``blocks``: hidden units of each block over ``width``; 0 is the identity. Blocks are numbered widest
    first. What a domain owns is its logits in every layer.

    >>> MultiPath(in_width=6, n_domains=2, width=8, layers=2, blocks=(0.0, 1.0, 0.5)).units
    (8, 4, 0)
    """

    def __init__(
        self,
        *,
        in_width: int,
        n_domains: int,
        width: int = 64,
        layers: int = 2,
        blocks: Sequence[float] = (1.0, 1.0, 0.5, 0.0),
        estimator: Estimator = "gumbel",
        cost: float = 0.0,
        temperature: float = 1.0,
        last_temperature: float = 0.3,
        anneal_steps: int = 1000,
        dropout: float = 0.2,
        norm: Norm = "batch",
    ) -> None:
        if len(blocks) < 2 or min(blocks) < 0 or max(blocks) == 0 or layers < 1:
            raise ValueError(
                "blocks must be 2 or more, of 0 or more and one above 0, and layers 1 or more, got"
                f" {blocks=}, {layers=}"
            )
        super().__init__()
        self.units = tuple(
            sorted((max(1, round(share * width)) if share else 0 for share in blocks), reverse=True)
        )
        self.cost, self.estimator = cost, estimator
        self.in_width, self.out_width = in_width, width
        self.site_widths = (width,) * (layers + 1)
        self.linears = {0: (in_width, width)}
        self.stem = DeepBlock(
            in_width=in_width, out_width=width, norm=norm, dropout=dropout, n_domains=n_domains
        )
        self.paths = nn.ModuleList(
            PathGate(
                [f"block {number}: {size}" if size else f"block {number}: identity"
                 for number, size in enumerate(self.units, start=1)],
                n_domains=n_domains,
                estimator=estimator,
                temperature=temperature,
                last_temperature=last_temperature,
                anneal_steps=anneal_steps,
            )
            for _ in range(layers)
        )  # fmt: skip
        self.layers = nn.ModuleList(
            PathLayer(
                width=width, units=self.units, norm=norm, dropout=dropout, n_domains=n_domains
            )
            for _ in range(layers)
        )

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Run each row's path; in training, say what the paths cost."""
        routing = needed(routing)
        h = adapt(0, self.stem(x, routing, meeting(adapt, 0)))
        drawn = []
        for site, (gate, layer) in enumerate(zip(self.paths, self.layers, strict=True), start=1):
            drawn.append(gate(h, routing))
            h = adapt(site, layer(h, drawn[-1], routing))
        if self.training:
            self._learn(drawn, routing, adapt)
        return h

    def _learn(self, drawn: Sequence[Tensor], routing: Routing, adapt: Adapt) -> None:
        """Hand over what moves the logits beside the loss of the rows."""
        price = torch.tensor(self.units, dtype=drawn[0].dtype, device=drawn[0].device)
        price = price / (self.units[0] * len(drawn))
        products = sum(
            (weights.detach() @ price for weights in drawn[1:]), drawn[0].detach() @ price
        )
        tell(adapt, PRODUCTS, products.mean())
        gates = [gate for gate in self.paths if isinstance(gate, PathGate)]
        if self.estimator == "gumbel":
            if self.cost:
                each = [gate.logits(routing).softmax(dim=1) @ price for gate in gates]
                add_loss(adapt, COST, self.cost * torch.stack(each).sum(dim=0).mean())
            return
        chance = sum(gate.log_chance(w, routing) for gate, w in zip(gates, drawn, strict=True))

        def path_loss(loss: Tensor, share: Tensor) -> Tensor:
            reward = -loss - self.cost * products
            ahead = over_others(reward.unsqueeze(1), routing).squeeze(1)
            return -(share * ahead * chance).sum()

        await_losses(adapt, PATH, path_loss)


def over_others(value: Float[Tensor, "rows 1"], routing: Routing) -> Float[Tensor, "rows 1"]:
    """``value`` minus the mean of the other rows of its domain; 0 where a row has no other.

    >>> routing = Routing(torch.tensor([1, 1, 2, 1]), 2)
    >>> over_others(torch.tensor([[1.0], [2.0], [5.0], [6.0]]), routing).flatten()
    tensor([-3.0000, -1.5000,  0.0000,  4.5000])
    """
    rows = routing.take(routing.sums(torch.ones_like(value)))
    others = routing.take(routing.sums(value)) - value
    return torch.where(rows > 1, value - others / (rows - 1).clamp(min=1), 0.0)
