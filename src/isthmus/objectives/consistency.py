"""Consistency: between two rows without a label, the network answers between its own answers.

Source: Wu, Inkpen and El-Roby, MRAN, ICASSP 2021, arXiv:2102.00467, and the authors' code,
``code/train.py``. For a pair of unlabelled rows i, j of one domain and p = sigmoid(f):

    x = share x_i + (1 - share) x_j,    share ~ Beta(alpha, alpha)
    loss = | p(x) - (share p(x_i) + (1 - share) p(x_j)) |

Departures:
- The authors' code has ``share p(x_i) + (1 - share) p(x_i)`` for the second term: the answer to row i
  alone, although the mixture holds row j too. Here both rows count.
- The second term is a target without a gradient. In the code the gradient flows through both.
- The embedded row is mixed, each pair has a share of its own, and a step costs more products: see
  `isthmus.objectives.category_mixup`.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.layers.sites import INPUT, Site, SiteSpec
from isthmus.objectives.mixing import Answers, Pairs
from isthmus.objectives.objective import AbstractObjective, AbstractObjectiveConfig


class ConsistencyConfig(AbstractObjectiveConfig):
    """Between two rows of a domain without labels, answer between the answers to both."""

    reads_unlabelled: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    name: Literal["consistency"] = "consistency"
    alpha: float = Field(
        default=0.2, gt=0, description="shares are drawn from Beta(alpha, alpha); 1 is uniform"
    )

    def build(self, spec: SiteSpec) -> "Consistency":
        """The objective for a network of this shape."""
        return Consistency(spec=spec, alpha=self.alpha)


class Consistency(AbstractObjective):
    """Distance of the chance of a mixture from the mixture of the chances; from 0 to 1."""

    asks: ClassVar[bool] = True

    def __init__(self, *, spec: SiteSpec, alpha: float = 0.2) -> None:
        super().__init__()
        self.sites = spec.resolve((INPUT,), "objectives.site")
        self.alpha = alpha

    def forward(
        self,
        hidden: Mapping[Site, Tensor],  # noqa: ARG002
        batch: Batch,
        domain: Int[Tensor, " rows"],  # noqa: ARG002
        answers: Answers | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over the rows without a label, by weight; 0 where every row has one."""
        assert answers is not None
        unlabelled = batch.label.isnan().nonzero().squeeze(1)
        if not len(unlabelled):
            return batch.label.new_zeros(())
        pairs = Pairs.within(batch.domain.index_select(0, unlabelled), self.alpha).at(unlabelled)
        target = pairs.mixed(answers.logits.detach().sigmoid())
        away = (answers.mixed(pairs).sigmoid() - target).abs()
        mass = torch.ones_like(away) if batch.weight is None else pairs.mixed(batch.weight)
        return (mass * away).sum() / mass.sum()
