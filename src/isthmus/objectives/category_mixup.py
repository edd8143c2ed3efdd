"""Category mixup: between two rows of a domain, the network answers between their labels.

Source: Wu, Inkpen and El-Roby, MRAN, ICASSP 2021, arXiv:2102.00467, and the authors' code,
``code/train.py``. For a pair of rows i, j of one domain with labels y_i, y_j:

    x = share x_i + (1 - share) x_j,    share ~ Beta(alpha, alpha)
    loss = share l(f(x), y_i) + (1 - share) l(f(x), y_j)

where l is the binary cross-entropy. That is the cross-entropy of a soft label.

Departures:
- The embedded row, site ``input``, is mixed. The authors' code mixes counts of words. Where words are
  pooled by their mean, that is the same but for the lengths of the texts.
- The network passes on a mixture a second time: a step costs about twice the products of the backbone.
  A batch norm of the network sees the mixtures, too.
- Each pair has a share of its own. Weights of rows count.
- A domain that domain dropout hides is the unknown one here, and mixes with its like.
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
from isthmus.objectives.row_loss import binary_cross_entropy


class CategoryMixupConfig(AbstractObjectiveConfig):
    """Between two rows of a domain, answer between their labels."""

    draws: ClassVar[bool] = True

    name: Literal["category_mixup"] = "category_mixup"
    alpha: float = Field(
        default=0.2, gt=0, description="shares are drawn from Beta(alpha, alpha); 1 is uniform"
    )

    def build(self, spec: SiteSpec) -> "CategoryMixup":
        """The objective for a network of this shape."""
        return CategoryMixup(spec=spec, alpha=self.alpha)


class CategoryMixup(AbstractObjective):
    """Cross-entropy of mixed rows with mixed labels; in nats."""

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
        """Mean over the rows with a label, by weight; 0 where no row has one."""
        assert answers is not None
        labelled = (~batch.label.isnan()).nonzero().squeeze(1)
        if not len(labelled):
            return batch.label.new_zeros(())
        pairs = Pairs.within(batch.domain.index_select(0, labelled), self.alpha).at(labelled)
        weight = torch.ones_like(batch.label) if batch.weight is None else batch.weight
        mass = pairs.mixed(weight)
        soft = pairs.mixed(weight * batch.label.nan_to_num()) / mass
        return binary_cross_entropy(answers.mixed(pairs), soft, mass)
