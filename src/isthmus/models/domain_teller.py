"""Which domain a row looks like, from all that it holds beside its domain."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import nn

from isthmus.data.batch import Batch, DomainPlaces
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.schema import FittedField

DIM = 8  # width of an embedding: a network beside the one that scores has small tables
STD = 0.1
HIDDEN = 32


class DomainTeller(nn.Module):
    """A batch to one logit for each of ``classes`` domains, (rows, classes).

    Embedded features, one hidden layer with ReLU, one output a domain. ``fields``: the features of a
    batch; each is embedded afresh, with 8 numbers. The domain of a row, and what else in the row tells
    it (`DomainPlaces`), is hidden before the row is read. Labels are not read. Parameters are drawn from
    torch's global generator. Raises ``ValueError`` where there is no feature beside the domain.
    """

    def __init__(self, *, fields: Sequence[FittedField], classes: int) -> None:
        if all(field.is_domain for field in fields):
            raise ValueError("a domain is told from other features, got none beside the domain")
        super().__init__()
        self.places = DomainPlaces.of(fields)
        own = tuple(
            replace(field, width=DIM) if field.table or field.embedding != "none" else field
            for field in fields
        )
        self.inputs = FeatureEmbedding(fields=own, std=STD)
        self.hidden = nn.Linear(self.inputs.width, HIDDEN)
        self.out = nn.Linear(HIDDEN, classes)

    def forward(self, batch: Batch) -> Float[torch.Tensor, "rows classes"]:
        """The logits; softmax gives the chance of each domain."""
        hidden = batch.hide_domain(torch.ones_like(batch.domain, dtype=torch.bool), self.places)
        return self.out(torch.relu(self.hidden(self.inputs(hidden))))
