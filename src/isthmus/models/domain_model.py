"""The model: embedded inputs, a backbone, an adapter at its sites, a head. Batch -> logits.

It knows no optimiser, device, file or metric, and returns logits, never probabilities.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.adapters import AbstractAdapter
from isthmus.backbones import AbstractBackbone, leave_alone
from isthmus.data.batch import Batch
from isthmus.layers.blocks import needed
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.routing import Routing
from isthmus.layers.tables import FusedTable


class Head(nn.Module):
    """The output layer: (rows, width) -> logits (rows,).

    ``n_domains``: give every domain, and the unknown one, weights of its own; ``None`` shares one
    set. Every set starts equal, so that domains differ only by what their rows teach them.
    """

    def __init__(self, *, width: int, n_domains: int | None = None) -> None:
        super().__init__()
        sets = 1 if n_domains is None else n_domains + 1
        self.per_domain = n_domains is not None
        self.weight = nn.Parameter((torch.randn(1, width) * width**-0.5).repeat(sets, 1))
        self.bias = nn.Parameter(torch.zeros(sets, 1))

    def forward(
        self, h: Float[Tensor, "rows width"], domain: Int[Tensor, " rows"]
    ) -> Float[Tensor, " rows"]:
        """One logit a row, by its domain's weights."""
        if not self.per_domain:
            return F.linear(h, self.weight, self.bias.view(-1)).squeeze(1)
        # embedding, not weight[domain]: the latter's backward is not repeatable on two threads.
        own = (h * F.embedding(domain, self.weight)).sum(dim=1)
        return own + F.embedding(domain, self.bias).squeeze(1)


@dataclass(frozen=True, slots=True)
class ParameterReport:
    """How many numbers a model learns, and where they are."""

    embedding: int  # tables of the inputs and of a wide part
    backbone: int
    adapter: int
    head: int

    @property
    def dense(self) -> int:
        """All that are not in tables."""
        return self.backbone + self.adapter + self.head

    @property
    def total(self) -> int:
        """All."""
        return self.embedding + self.dense


class DomainModel(nn.Module):
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
        routed: bool = True,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.backbone = backbone
        self.adapter = adapter
        self.head = head
        self.n_domains = n_domains
        self.routed = routed
        self._condition = (
            None if condition is None else tuple(inputs.columns[name] for name in condition)
        )

    def forward(self, batch: Batch) -> Float[Tensor, " rows"]:
        """The logit of every row. Its sigmoid is the chance of a positive label."""
        x = self.inputs(batch)
        # Sorting rows by domain pays only where something is kept per domain.
        routing = Routing(batch.domain, self.n_domains) if self.routed else None
        adapt = leave_alone
        if self.adapter is not None:
            adapter = self.adapter
            state = adapter.prepare(self.condition(x), needed(routing))

            def adapt(site: int, h: Tensor) -> Tensor:
                return adapter(site, h, state)

        logits = self.head(self.backbone(x, routing, adapt), batch.domain)
        beside = self.backbone.shortcut(batch, self.inputs, x)
        return logits if beside is None else logits + beside

    def condition(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows condition"]:
        """What the hyper-network reads of the embedded rows."""
        if self._condition is None:
            return x
        return torch.cat([x[:, columns] for columns in self._condition], dim=1)

    def tables(self) -> tuple[FusedTable, ...]:
        """Storage of every embedding table, the wide part's weights included."""
        return tuple(module for module in self.modules() if isinstance(module, FusedTable))

    @property
    def domain_columns(self) -> tuple[int, ...]:
        """Positions in ``Batch.categorical`` that hold the domain: for ``Batch.hide_domain``."""
        categorical = [field for field in self.inputs.fields if field.kind == "categorical"]
        return tuple(i for i, field in enumerate(categorical) if field.is_domain)

    def parameter_report(self) -> ParameterReport:
        """Count the parameters of each part."""
        tables = sum(table.weight.numel() for table in self.tables())
        beside = sum(
            module.weight.numel()
            for module in self.backbone.modules()
            if isinstance(module, FusedTable)
        )
        return ParameterReport(
            embedding=tables,
            backbone=_count(self.backbone) - beside,
            adapter=0 if self.adapter is None else _count(self.adapter),
            head=_count(self.head),
        )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
