"""M2M: what the domain says is turned into weights, which mix experts and drive a tower.

Source: Zhang et al., Leaving No One Behind: A Multi-Scenario Multi-Task Meta Learning Approach for
Advertiser Modeling, WSDM 2022, arXiv:2201.06814: the transformer layer, the expert view, the meta
unit, the meta attention module and the meta tower module. For a row of domain d with an embedding e_d:

    f = the row's fields, after attention among them       E_i = block_i(f), i = 1..m
    Meta_d(h) = h W_d + b_d,  W_d and b_d linear in e_d, reshaped
    a_i = v . act(Meta_d(E_i)),   h_0 = sum_i softmax(a)_i E_i
    h_{l+1} = act(Meta_d(h_l) + h_l),   logit = head(h_L),   act a leaky ReLU

Departures:
- Attention runs among the fields of one row. In the code of a benchmark the batch takes the place of
  the sequence: rows attend to each other, and a score depends on the batch.
- The transformer of the paper reads sequences of an advertiser's days. Here each embedded feature is
  a token (a list is one, pooled), and all plain numbers together are one.
- The paper's scenario knowledge is the scenario's features and the advertiser's, through a layer of
  its own. Here it is e_d, which is learnt freely: so all rows of a domain share one generated weight.
- There is one task, so its embedding beside E_i would be one more bias, and is left out. In the code
  of that benchmark, task and scenario are one tensor.
- The paper predicts counts, with a Poisson loss. Here is one logit.
- W_d starts as one shared map, drawn as in `nn.Linear`, plus a third as much from e_d.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.backbones.backbone import (
    AbstractBackbone,
    AbstractBackboneConfig,
    Adapt,
    BackboneSpec,
    leave_alone,
)
from isthmus.layers.bank import DomainEmbedding
from isthmus.layers.blocks import Norm, Towers
from isthmus.layers.gates import AbstractGate, Experts, mixed
from isthmus.layers.routing import Routing, Tiles, in_graph, needed
from isthmus.schema import FittedField


class M2mConfig(AbstractBackboneConfig):
    """M2M: attention among a row's fields, and experts and a tower with weights made by the domain."""

    paper_head: ClassVar[Towers | None] = "shared"

    name: Literal["m2m"] = "m2m"
    width: int = Field(
        default=64,
        ge=1,
        description="width of each expert, of their mixture, which is site `0`, and of each layer of"
        " the tower behind it, each a site",
    )
    experts: int = Field(default=4, ge=1, description="number of experts")
    tower_layers: int = Field(default=2, ge=1, description="layers of the tower")
    token_dim: int = Field(default=16, ge=1, description="width of a field in the attention")
    heads: int = Field(
        default=2, ge=1, description="heads of the attention; a divisor of `token_dim`"
    )
    domain_dim: int = Field(default=8, ge=1, description="width of the domain's embedding")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="after each expert's block")
    norm: Norm = Field(
        default="batch",
        description="in each expert: `batch`, `domain` (statistics of the row's own domain) or `none`",
    )

    def build(self, spec: BackboneSpec) -> "M2M":
        """The backbone in a network of this shape. Raises ``ValueError`` for towers per domain."""
        self.check_towers(spec.towers)
        return M2M(
            fields=spec.inputs.fields,
            n_domains=spec.n_domains,
            width=self.width,
            experts=self.experts,
            tower_layers=self.tower_layers,
            token_dim=self.token_dim,
            heads=self.heads,
            domain_dim=self.domain_dim,
            dropout=self.dropout,
            norm=self.norm,
        )

    def scaled(self, factor: float) -> "M2mConfig":
        """The same with ``factor`` times the width of experts and tower, 2 at least."""
        return self.model_copy(update={"width": max(2, round(self.width * factor))})

    @property
    def sizes(self) -> tuple[int, ...]:
        """Width of experts and tower."""
        return (self.width,)


class FieldTokens(nn.Module):
    """The embedded row as tokens of one width; (rows, in_width) -> (rows, tokens, dim).

    Each feature with an embedding is a token, all plain numbers together are one more. Every token
    has a map of its own; tokens of one width are mapped by one product.
    """

    def __init__(self, *, fields: tuple[FittedField, ...], dim: int) -> None:
        super().__init__()
        by_width: dict[int, list[list[int]]] = {}
        numbers: list[int] = []
        start = 0
        for field in fields:
            columns = range(start, start + field.width)
            start += field.width
            if field.table or field.embedding != "none":
                by_width.setdefault(field.width, []).append([*columns])
            else:
                numbers += columns
        if numbers:
            by_width.setdefault(len(numbers), []).append(numbers)
        self.in_width = start
        self.tokens = sum(map(len, by_width.values()))
        self.maps = nn.ParameterList(
            torch.empty(len(group), width, dim).uniform_(-(width**-0.5), width**-0.5)
            for width, group in by_width.items()
        )
        self.bias = nn.Parameter(torch.randn(self.tokens, dim) * dim**-0.5)
        for place, group in enumerate(by_width.values()):
            self.register_buffer(f"_columns_{place}", torch.tensor(group), persistent=False)

    def forward(self, x: Float[Tensor, "rows in_width"]) -> Float[Tensor, "rows tokens dim"]:
        """Map each token's columns."""
        parts = []
        for place, weight in enumerate(self.maps):
            columns = self.get_buffer(f"_columns_{place}")
            group = x.index_select(1, columns.flatten()).unflatten(1, columns.shape)
            parts.append(torch.bmm(group.transpose(0, 1), weight).transpose(0, 1))
        return torch.cat(parts, dim=1) + self.bias


class FieldAttention(nn.Module):
    """One transformer layer over the tokens of each row; (rows, tokens, dim) -> the same.

    Attention with ``heads`` heads, then two maps with a ReLU between; after each the input is added
    and every token normalised by itself. Raises ``ValueError`` where ``heads`` does not divide dim.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        if heads < 1 or dim % heads:
            raise ValueError(f"heads must divide the width of a token, got {heads=}, {dim=}")
        super().__init__()
        self.heads = heads
        self.read = nn.Linear(dim, 3 * dim)
        self.write = nn.Linear(dim, dim)
        self.first_norm = nn.LayerNorm(dim)
        self.forth = nn.Linear(dim, 2 * dim)
        self.back = nn.Linear(2 * dim, dim)
        self.last_norm = nn.LayerNorm(dim)

    def forward(self, tokens: Float[Tensor, "rows tokens dim"]) -> Float[Tensor, "rows tokens dim"]:
        """Let the tokens of a row read each other."""
        # NOTE[DIFF]: the fields of a row are the sequence. No row sees another.
        query, key, value = self.read(tokens).unflatten(2, (3, self.heads, -1)).unbind(2)
        seen = F.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        )
        tokens = self.first_norm(tokens + self.write(seen.transpose(1, 2).flatten(2)))
        return self.last_norm(tokens + self.back(self.forth(tokens).relu()))


class MetaUnit(nn.Module):
    """A linear map whose weights the domain's embedding makes: ``h W_d + b_d``, on tiled rows.

    (tiles, slots, in_width) -> (tiles, slots, out_width): one weight is made for each tile or each
    domain, whichever are fewer, and never one for a row.
    """

    def __init__(self, *, domain_dim: int, in_width: int, out_width: int) -> None:
        super().__init__()
        self.shape = (in_width + 1, out_width)  # the last line is the bias
        bound = in_width**-0.5
        base = torch.empty(self.shape).uniform_(-bound, bound)
        base[-1] = 0.0
        self.base = nn.Parameter(base)
        # NOTE[DIFF]: a third of the shared map's spread, bound / sqrt(3), by way of an e_d of length 1.
        self.made = nn.Parameter(torch.randn(domain_dim, *self.shape) * (bound / 3 / 3**0.5))

    def forward(
        self,
        h: Float[Tensor, "tiles slots in_width"],
        domain: Float[Tensor, "sets domain_dim"],
        tiles: Tiles,
    ) -> Float[Tensor, "tiles slots out_width"]:
        """Map the rows of each tile; ``domain``: the embeddings of all domains."""
        # In a graph the number of tiles is free, and what all domains make is a constant.
        fewer_tiles = not in_graph() and len(tiles.domain) < len(domain)
        if fewer_tiles:
            domain = tiles.pick(domain)
        made = torch.addmm(self.base.flatten(), domain, self.made.flatten(1))
        made = made.unflatten(1, self.shape)
        if not fewer_tiles:
            made = tiles.pick(made)
        return torch.baddbmm(made[:, -1:], h, made[:, :-1])


class MetaAttention(AbstractGate):
    """``softmax_i(v . act(Meta_d(E_i)))``: how much of each expert a row takes, as its domain says.

    (rows, experts * width), the experts side by side -> (rows, experts).
    """

    def __init__(self, *, n_experts: int, width: int, domain: DomainEmbedding) -> None:
        super().__init__()
        self.experts = tuple(f"shared {number}" for number in range(1, n_experts + 1))
        self.width = width
        self.domain = domain
        self.unit = MetaUnit(domain_dim=domain.dim, in_width=width, out_width=width)
        self.read = nn.Parameter(torch.randn(width) * width**-0.5)

    def forward(
        self, x: Float[Tensor, "rows in_width"], routing: Routing | None = None
    ) -> Float[Tensor, "rows experts"]:
        """Weights of the experts."""
        tiles = needed(routing).tiles
        # In a tile, each row's experts are so many rows below each other.
        states = tiles.split(x).unflatten(2, (len(self.experts), self.width)).flatten(1, 2)
        found = F.leaky_relu(self.unit(states, self.domain.weight, tiles)) @ self.read
        return tiles.join(found.unflatten(1, (-1, len(self.experts)))).softmax(dim=1)


class M2M(AbstractBackbone):
    """(rows, in_width) -> (rows, width): attention among fields, experts, a meta tower.

    ``fields``: what the embedded row is made of; ``in_width`` is the sum of their widths. Site 0 is
    the mixture of the experts, the others follow the layers of the tower. Raises ``ValueError`` for
    ``heads`` that do not divide ``token_dim``.
    """

    def __init__(
        self,
        *,
        fields: tuple[FittedField, ...],
        n_domains: int,
        width: int = 64,
        experts: int = 4,
        tower_layers: int = 2,
        token_dim: int = 16,
        heads: int = 2,
        domain_dim: int = 8,
        dropout: float = 0.2,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.tokens = FieldTokens(fields=fields, dim=token_dim)
        self.attention = FieldAttention(dim=token_dim, heads=heads)
        self.experts = Experts(
            n_experts=experts,
            in_width=self.tokens.tokens * token_dim,
            widths=(width,),
            norm=norm,
            dropout=dropout,
            n_domains=n_domains,
        )
        # The gate holds the embedding of the domain, which the tower reads there: one home, one name.
        domain = DomainEmbedding(n_domains=n_domains, dim=domain_dim)
        self.gate = MetaAttention(n_experts=experts, width=width, domain=domain)
        self.tower = nn.ModuleList(
            MetaUnit(domain_dim=domain_dim, in_width=width, out_width=width)
            for _ in range(tower_layers)
        )
        self.in_width = self.tokens.in_width
        self.out_width = width
        self.site_widths = (width,) * (1 + tower_layers)

    def forward(
        self,
        x: Float[Tensor, "rows in_width"],
        routing: Routing | None = None,
        adapt: Adapt = leave_alone,
    ) -> Float[Tensor, "rows out_width"]:
        """Attend, mix the experts, climb the tower; ``adapt`` after the mixture and each layer."""
        routing = needed(routing)
        states = self.experts(self.attention(self.tokens(x)).flatten(1), routing)
        h = adapt(0, mixed(self.gate(states.flatten(1), routing), states))
        tiles, domain = routing.tiles, self.gate.domain.weight
        for site, unit in enumerate(self.tower, start=1):
            h = adapt(site, F.leaky_relu(tiles.join(unit(tiles.split(h), domain, tiles)) + h))
        return h
