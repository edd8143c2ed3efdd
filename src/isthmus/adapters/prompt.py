"""Prompts: every domain fills learnt slots that stand beside the features, in front of the backbone.

Source: Abed Azad and Beigy, Leveraging Adapters for Low-Resource Multi-Domain Adaptation, WNUT 2025,
arXiv:2404.02335, which gives every domain prefixes of its own, as Li and Liang, Prefix-Tuning, ACL
2021, arXiv:2101.00190, give every task. A prefix is what a Transformer reads beside its tokens; here a
slot is what the backbone reads beside its features. For a row of domain d with embedded features x:

    x' = [x, p_d1, ..., p_ds],   each slot p_di a learnt vector of `dim` numbers

Departures:
- The slots stand in front of the first layer only; a Transformer's prefixes stand in front of each.
- The slots start at 0: a fresh adapter changes nothing, and the first layer's drawn weights give every
  slot a gradient of its own.
- The backbone is trained with the slots. The papers freeze a trained one.
- Domain 0, the unknown, has slots of its own, which domain dropout trains.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.adapters.adapter import AbstractAdapter, AdapterState
from isthmus.family import Member
from isthmus.layers.routing import Routing
from isthmus.layers.sites import INPUT, SiteSpec


class PromptConfig(Member):
    """Every domain fills learnt slots that the backbone reads beside the features."""

    name: Literal["prompt"] = "prompt"
    slots: int = Field(default=4, ge=1, description="number of slots")
    dim: int = Field(default=8, ge=1, description="width of a slot")

    @property
    def spare(self) -> int:
        """Columns of the embedded row that the slots fill, behind the features."""
        return self.slots * self.dim

    def build(self, spec: SiteSpec, condition_width: int) -> "Prompt":  # noqa: ARG002
        """The adapter for a network whose embedded row has ``spare`` columns of zeros at its end.

        Raises ``ValueError`` for a network without an embedded row, or one too narrow.
        """
        if spec.input_width is None:
            raise ValueError("adapter prompt needs site 'input', got a network without")
        return Prompt(
            input_width=spec.input_width,
            n_domains=spec.n_domains,
            slots=self.slots,
            dim=self.dim,
        )


class PromptCell(nn.Module):
    """``x + [0, p_d]``: fills the last columns; (rows, width) -> (rows, width)."""

    per_domain = ("slots",)

    def __init__(self, *, width: int, slots: int, dim: int, n_domains: int) -> None:
        super().__init__()
        self.features = width - slots * dim
        self.slots = nn.Parameter(torch.zeros(n_domains + 1, slots, dim))

    def forward(
        self,
        x: Float[Tensor, "rows width"],
        routing: Routing,
        shared: None,  # noqa: ARG002
    ) -> Float[Tensor, "rows width"]:
        """Fill the slots of each row with what its domain has learnt."""
        return x + F.pad(routing.take(self.slots.flatten(1)), (self.features, 0))


class Prompt(AbstractAdapter):
    """A :class:`PromptCell` at site ``input``, whose last ``slots * dim`` columns are zeros.

    `isthmus.layers.FeatureEmbedding` makes such columns, by ``spare``. Raises ``ValueError`` where
    the slots do not leave a column for the features.

    >>> adapter = Prompt(input_width=20, n_domains=3, slots=2, dim=4)
    >>> state = adapter.prepare(torch.randn(2, 12), Routing(torch.tensor([1, 0]), 3))
    >>> adapter("input", torch.zeros(2, 20), state).shape
    torch.Size([2, 20])
    """

    def __init__(self, *, input_width: int, n_domains: int, slots: int = 4, dim: int = 8) -> None:
        if min(slots, dim) < 1 or slots * dim >= input_width:
            raise ValueError(
                "slots * dim must be at least 1 and below the input's width,"
                f" got {slots=}, {dim=}, {input_width=}"
            )
        super().__init__(n_domains=n_domains, sites=(INPUT,), input_width=input_width)
        self.cells = self.at_each_site(
            lambda width: PromptCell(width=width, slots=slots, dim=dim, n_domains=n_domains)
        )

    def prepare(
        self,
        condition: Float[Tensor, "rows condition_width"],  # noqa: ARG002
        routing: Routing,
    ) -> AdapterState:
        """Nothing is shared but the routing."""
        return AdapterState(routing)
