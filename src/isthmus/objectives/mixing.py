"""Mixtures of two rows: which rows meet, in what shares, and what the network says of a mixture.

Source: Zhang et al., mixup, ICLR 2018, arXiv:1710.09412, eq. 2: ``share x_i + (1 - share) x_j`` with a
share drawn from Beta(alpha, alpha). With alpha = 0.2, half of the mixtures hold less than 2 % of one row.

Departure: each pair draws a share of its own, where the authors' code draws one for a batch.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Beta

from isthmus.data.batch import Batch
from isthmus.layers.sites import INPUT
from isthmus.models import AbstractModel, Output


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of rows of a batch. ``share``: how much of a mixture is of the first row, in [0, 1]."""

    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    share: Float[Tensor, " pairs"]

    @classmethod
    def within(cls, groups: Int[Tensor, " rows"], alpha: float) -> "Pairs":
        """Each row once as the first and once as the second, with a row of its own group.

        The only row of a group meets itself.
        """
        order = _shuffled(groups)
        counts = torch.bincount(groups)
        sorted_groups = groups.index_select(0, order)
        size = counts.index_select(0, sorted_groups)
        start = (counts.cumsum(0) - counts).index_select(0, sorted_groups)
        place = torch.arange(len(order), device=order.device) - start
        second = order.index_select(0, start + (place + 1) % size.clamp(min=1))
        return cls(order, second, _shares(len(order), alpha, groups.device))

    @classmethod
    def across(cls, groups: Int[Tensor, " rows"], alpha: float) -> "Pairs":
        """Each row once as the first and once as the second, with a row of another group.

        Where more than half of the rows are of one group, its last ones meet their own.
        """
        counts = torch.bincount(groups)
        names = torch.randperm(len(counts), device=groups.device)  # neighbours by chance
        order = _shuffled(names.index_select(0, groups))
        second = order.roll(-int(counts.max())) if len(order) else order
        return cls(order, second, _shares(len(order), alpha, groups.device))

    def at(self, rows: Int[Tensor, " rows"]) -> "Pairs":
        """The same pairs of other rows: row i is now row ``rows[i]``."""
        return Pairs(
            rows.index_select(0, self.first), rows.index_select(0, self.second), self.share
        )

    def mixed(self, values: Float[Tensor, "rows *shape"]) -> Float[Tensor, "pairs *shape"]:
        """The mixtures of the rows of a tensor."""
        share = self.share.view(-1, *(1 for _ in values.shape[1:]))
        first, second = (values.index_select(0, each) for each in (self.first, self.second))
        return share * first + (1 - share) * second


@dataclass(frozen=True, slots=True)
class Answers:
    """What the network says of the rows of a batch, and of mixtures of them."""

    model: AbstractModel
    output: Output
    batch: Batch

    @property
    def logits(self) -> Float[Tensor, " rows"]:
        """Of the rows, with their graph."""
        return self.output.logits

    def mixed(self, pairs: Pairs) -> Float[Tensor, " pairs"]:
        """Of the mixtures: the rows are mixed at site ``input`` and pass on as rows of the first's domain.

        What goes by the head, such as a forest's score, is mixed as a number.
        """
        x = pairs.mixed(self.output.hidden[INPUT])
        logits = self.model.from_input(x, self.batch.domain.index_select(0, pairs.first))
        beside = self.output.beside
        return logits if beside is None else logits + pairs.mixed(beside)


def _shuffled(groups: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """Rows group after group, those of a group in a random order."""
    chance = torch.randperm(len(groups), device=groups.device)
    return chance.index_select(0, groups.index_select(0, chance).argsort(stable=True))


def _shares(pairs: int, alpha: float, device: torch.device) -> Float[Tensor, " pairs"]:
    both = torch.full((pairs,), alpha, device=device)
    return Beta(both, both, validate_args=False).sample()
