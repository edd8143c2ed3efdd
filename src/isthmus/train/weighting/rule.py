"""What every weighting sees of a batch, and what it must do with it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.data.batch import Batch
from isthmus.objectives.row_loss import known_rows
from isthmus.ranks import ALONE, Ranks


@dataclass(frozen=True, slots=True)
class DomainLosses:
    """The losses of one batch by domain; a group per domain, 0 for rows without one."""

    row: Float[Tensor, " rows"]  # with its graph
    weight: Float[Tensor, " rows"]
    domain: Int[Tensor, " rows"]
    mass: Float64[Tensor, " groups"]  # sum of the weights; 0 where the batch has no such row
    mean: Float64[Tensor, " groups"]  # without graph; 0 where the batch has no such row

    @classmethod
    def of(
        cls,
        logits: Float[Tensor, " rows"],
        batch: Batch,
        domain: Int[Tensor, " rows"],
        n_groups: int,
        ranks: Ranks = ALONE,
    ) -> "DomainLosses":
        """Binary cross-entropy, as in `isthmus.objectives`, row by row and by domain.

        A row without a label has weight 0. ``ranks``: ``mass`` and ``mean`` are those of all their rows.
        """
        label, weight = known_rows(batch.label, batch.weight)
        row = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
        empty = torch.zeros(n_groups, dtype=torch.float64, device=row.device)
        mass = empty.index_add(0, domain, weight.double())
        total = empty.index_add(0, domain, (weight * row.detach()).double())
        if ranks.many:
            mass, total = ranks.sum(torch.stack((mass, total))).unbind(0)
        return cls(row, weight, domain, mass, total / mass.where(mass > 0, torch.ones_like(mass)))

    @property
    def present(self) -> Bool[Tensor, " groups"]:
        """Which groups have rows of some weight in the batch."""
        return self.mass > 0

    def joined(self, shares: Float64[Tensor, " groups"]) -> Float[Tensor, ""]:
        """``sum_d shares_d L_d``; shares of groups that are not in the batch do not count."""
        each = torch.where(self.present, shares / self.mass, 0.0).to(self.row.dtype)
        return (each.index_select(0, self.domain) * self.weight * self.row).sum()


class AbstractRule(ABC):
    """One weighting's way from the losses of a batch to gradients.

    ``kept``: the tensors that one step leaves to the next; ``draw``: all its random numbers.
    """

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}
        self.draw = torch.Generator()

    @abstractmethod
    def backward(self, losses: DomainLosses) -> None:
        """Fill the gradients of the model, from a batch of two domains or more."""

    def note(self, losses: DomainLosses) -> None:  # noqa: B027
        """See every batch, also one that holds a single domain and so needs no weighting."""

    def end_epoch(self) -> None:  # noqa: B027
        """Do what is due between two epochs."""


def softmax(scores: Float64[Tensor, " groups"], losses: DomainLosses) -> Float64[Tensor, " groups"]:
    """Softmax over the groups in the batch, 0 for the others."""
    return scores.masked_fill(~losses.present, -torch.inf).softmax(0)


def gradients_of(
    losses: DomainLosses, groups: Int[Tensor, " present"], parameters: Sequence[nn.Parameter]
) -> Float[Tensor, "present numbers"]:
    """The gradient of each group's loss, all parameters in a row; the graph stays."""
    found = []
    for group in groups:
        shares = torch.zeros_like(losses.mass)
        shares[group] = 1.0
        parts = torch.autograd.grad(
            losses.joined(shares), parameters, retain_graph=True, materialize_grads=True
        )
        found.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(found)
