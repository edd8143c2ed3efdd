"""What every model is: a batch in, one logit a row out, and what training may ask for beside.

A model knows no optimiser, device, file or metric. A model returns logits, never probabilities.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from isthmus.data.batch import Batch, DomainPlaces
from isthmus.layers.per_domain import domain_parameters
from isthmus.layers.sites import Site, SiteSpec
from isthmus.layers.tables import AbstractTable, tables_of
from isthmus.schema import FittedField


class Output(NamedTuple):
    """What a model says of one batch.

    ``logits``: (rows,) float. ``hidden``: the hidden states at the sites that were asked for, each
    (rows, width), after the adapter. ``losses``: losses of the model's own, each a scalar (), which
    training adds to the loss of the rows; most models have none. ``told``: other numbers of the batch,
    each a scalar (), which training logs. ``beside``: (rows,) what the logits hold that no head gave,
    such as a forest's score; None for nothing.
    """

    logits: Tensor
    hidden: Mapping[Site, Tensor]
    losses: Mapping[str, Tensor]
    told: Mapping[str, Tensor] = MappingProxyType({})
    beside: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ParameterReport:
    """How many numbers a model learns, and where they are."""

    embedding: int  # tables of the inputs and of a wide part
    backbone: int
    adapter: int
    head: int
    inputs: int = 0  # of the inputs, beside their tables

    @property
    def trunk(self) -> int:
        """Backbone, adapter and head, beside tables: what a budget of the config's ``sizes`` bounds.

        Parameters of domains count once for every domain, and once for the unknown one.
        """
        return self.backbone + self.adapter + self.head

    @property
    def dense(self) -> int:
        """All that are not in tables."""
        return self.inputs + self.backbone + self.adapter + self.head

    @property
    def total(self) -> int:
        """All."""
        return self.embedding + self.dense


class AbstractModel(nn.Module, ABC):
    """A network over many domains. ``model(batch)`` is the one door for scoring, export and serving.

    ``fields``: the features that a batch holds. ``spec``: the sites that an objective may read.
    Rows of domain 0, the unknown, have an answer of their own. In eval no row sees another.
    """

    fields: tuple[FittedField, ...]
    spec: SiteSpec

    @abstractmethod
    def score(self, batch: Batch, sites: Collection[Site] = ()) -> Output:
        """Logits, and the hidden states at ``sites`` (resolved: see `SiteSpec.resolve`)."""

    def from_input(
        self, x: Float[Tensor, "rows width"], domain: Int[Tensor, " rows"]
    ) -> Float[Tensor, " rows"]:
        """Logits of hidden states at site ``input``, without what `Output.beside` holds.

        For objectives that mix rows. ``x``: as an adapter left them. ``domain``: int64, 0 for the
        unknown. A model without such a site leaves the method out, and those objectives refuse it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no way on from site 'input'")

    @abstractmethod
    def parameter_report(self) -> ParameterReport:
        """Count the parameters of each part."""

    def forward(self, batch: Batch) -> Float[Tensor, " rows"]:
        """The logit of every row. The logit's sigmoid is the chance of a positive label."""
        return self.score(batch).logits

    @abstractmethod
    def start_at(self, logit: float) -> None:
        """Let the first logits of a fresh model stand around ``logit``, for rows of any domain."""

    @property
    def n_domains(self) -> int:
        """Number of trained domains, the unknown one not counted."""
        return self.spec.n_domains

    @property
    def domain_places(self) -> DomainPlaces:
        """Where a batch tells the domain: for ``Batch.hide_domain``."""
        return DomainPlaces.of(self.fields)

    def domain_parameters(self) -> Mapping[str, nn.Parameter]:
        """The parameters with one set per domain, by name; their first axis is ``n_domains + 1``."""
        return domain_parameters(self)

    def tables(self) -> tuple[AbstractTable, ...]:
        """Every storage of embeddings, the weights of a wide part included."""
        return tables_of(self)

    def flops(self, batch: Batch) -> int:
        """Floating-point operations of the matrix products that score this batch.

        A product and a sum count as two. Look-ups and element-wise work do not count.
        """
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self(batch)
        return counter.get_total_flops()
