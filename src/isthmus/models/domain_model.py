"""The model: embedded inputs, a backbone, an adapter at its sites, a head. Batch -> logits.

The embedded row is site ``input``. Whatever passes a site goes through the adapter first; then an
objective may read the hidden state. Where the fields hold a forest's score, the logit is the score
plus what the network says: the network learns what the forest leaves over.
"""

from collections.abc import Collection
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.adapters import AbstractAdapter, AdapterState
from isthmus.backbones import AbstractBackbone, AbstractPassing
from isthmus.backbones.backbone import OfLosses
from isthmus.data.batch import Batch
from isthmus.layers.blocks import Meet
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.routing import Routing
from isthmus.layers.sites import INPUT, LATENT, Site, SiteSpec
from isthmus.layers.tables import tables_of
from isthmus.models.abstract_model import AbstractModel, Output, ParameterReport


class Head(nn.Module):
    """The output layer: (rows, width) -> logits (rows,).

    ``n_domains``: give every domain, and the unknown one, weights of its own; ``None`` shares one
    set. Every set starts equal, so that domains differ only by what their rows teach them.
    """

    def __init__(self, *, width: int, n_domains: int | None = None) -> None:
        super().__init__()
        sets = 1 if n_domains is None else n_domains + 1
        self.per_domain = () if n_domains is None else ("weight", "bias")
        self.weight = nn.Parameter((torch.randn(1, width) * width**-0.5).repeat(sets, 1))
        self.bias = nn.Parameter(torch.zeros(sets, 1))

    def forward(self, h: Float[Tensor, "rows width"], routing: Routing) -> Float[Tensor, " rows"]:
        """One logit a row, by its domain's weights."""
        if not self.per_domain:
            return F.linear(h, self.weight, self.bias.view(-1)).squeeze(1)
        return (h * routing.take(self.weight)).sum(dim=1) + routing.take(self.bias).squeeze(1)


class DomainModel(AbstractModel):
    """One network for many domains: a batch in, one logit a row out.

    ``condition``: names of the features that the adapter's hyper-network reads, or ``None`` for
    the whole embedded row. ``n_domains`` counts the trained domains; rows of domain 0 (unknown)
    have parameters of their own wherever domains have.
    """

    def __init__(
        self,
        *,
        inputs: FeatureEmbedding,
        backbone: AbstractBackbone,
        head: Head,
        adapter: AbstractAdapter | None,
        n_domains: int,
        condition: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        self.fields = inputs.fields
        self.spec = SiteSpec(
            backbone.site_widths,
            n_domains,
            inputs.width,
            dict(backbone.linears),
            None if adapter is None else adapter.latent_width,
        )
        self._score = self.domain_places.score
        self.inputs = inputs
        self.backbone = backbone
        self.adapter = adapter
        self.head = head
        self._condition = (
            None if condition is None else tuple(inputs.columns[name] for name in condition)
        )

    def score(self, batch: Batch, sites: Collection[Site] = ()) -> Output:
        """Logits, and the hidden states at ``sites``, as the adapter left them."""
        x = self.inputs(batch)
        routing = Routing(batch.domain, self.spec.n_domains)
        state = self._state(x, routing)
        passing = _Passing(self.adapter, state, sites)
        if LATENT in sites:
            assert state is not None
            assert state.shared is not None
            passing.kept[LATENT] = state.shared
        x = passing(INPUT, x)
        logits = self.head(self.backbone(x, routing, passing), routing)
        beside = self.backbone.shortcut(batch, self.inputs, x)
        if beside is not None:
            logits = logits + beside
        if self._score is not None:
            score = batch.numeric[:, self._score]
            logits = logits + score
            beside = score if beside is None else beside + score
        passing.judge(logits, batch)
        return Output(logits, passing.kept, passing.losses, passing.told, beside)

    def from_input(
        self, x: Float[Tensor, "rows width"], domain: Int[Tensor, " rows"]
    ) -> Float[Tensor, " rows"]:
        """Backbone, adapter and head, from the embedded rows on. The losses of the parts are let go.

        A hyper-network reads its condition of ``x``.
        """
        routing = Routing(domain, self.spec.n_domains)
        passing = _Passing(self.adapter, self._state(x, routing), ())
        return self.head(self.backbone(x, routing, passing), routing)

    def start_at(self, logit: float) -> None:
        """Set the head's offsets, one for all domains or one each. A forest's score comes on top."""
        nn.init.constant_(self.head.bias, logit)

    def _state(self, x: Tensor, routing: Routing) -> AdapterState | None:
        if self.adapter is None:
            return None
        return self.adapter.prepare(self.condition(x), routing)

    def condition(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows condition"]:
        """What the hyper-network reads of the embedded rows."""
        if self._condition is None:
            return x
        return torch.cat([x[:, columns] for columns in self._condition], dim=1)

    def parameter_report(self) -> ParameterReport:
        """Count the parameters of each part."""
        every = (self, self.backbone, self.inputs)
        in_tables = [sum(t.weight.numel() for t in tables_of(part)) for part in every]
        return ParameterReport(
            embedding=sum(table.rows * table.dim for table in tables_of(self)),
            backbone=_count(self.backbone) - in_tables[1],
            adapter=0 if self.adapter is None else _count(self.adapter),
            head=_count(self.head),
            inputs=_count(self.inputs) - in_tables[2],
        )


class _Passing(AbstractPassing):
    """What happens at each site of one batch: the adapter works, then the state is kept if wanted."""

    def __init__(
        self,
        adapter: AbstractAdapter | None,
        state: AdapterState | None,
        wanted: Collection[Site],
    ) -> None:
        self.adapter, self.state, self.wanted = adapter, state, wanted
        self.kept: dict[Site, Tensor] = {}
        self.losses: dict[str, Tensor] = {}
        self.told: dict[str, Tensor] = {}
        self.waiting: dict[str, OfLosses] = {}

    def __call__(self, site: Site, h: Tensor) -> Tensor:
        if self.adapter is not None:
            assert self.state is not None
            h = self.adapter(site, h, self.state)
        if site in self.wanted:
            self.kept[site] = h
        return h

    def meet(self, linear: int) -> Meet | None:
        if self.adapter is None or linear not in self.adapter.linears:
            return None
        assert self.state is not None
        return partial(self.adapter.meet, linear, state=self.state)

    def add_loss(self, name: str, loss: Tensor) -> None:
        self.losses[name] = loss

    def await_losses(self, name: str, of: OfLosses) -> None:
        self.waiting[name] = of

    def tell(self, name: str, value: Tensor) -> None:
        self.told[name] = value

    def judge(self, logits: Tensor, batch: Batch) -> None:
        """Make the losses that wait for those of the rows."""
        if not self.waiting:
            return
        known = ~batch.label.isnan()
        label = torch.where(known, batch.label, 0)
        loss = F.binary_cross_entropy_with_logits(logits.detach(), label, reduction="none")
        weight = known.to(loss.dtype)
        if batch.weight is not None:
            weight = weight * batch.weight
        share = weight / weight.sum().clamp(min=1e-12)
        for name, of in self.waiting.items():
            self.losses[name] = of(loss, share)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
