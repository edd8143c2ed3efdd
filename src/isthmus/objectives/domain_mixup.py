"""Domain mixup: hide from a classifier how much of each of two domains a mixed hidden state holds.

Source: Wu, Inkpen and El-Roby, MRAN, ICASSP 2021, arXiv:2102.00467, and the authors' code,
``code/train.py``. With hidden states h_i, h_j of rows of domains a, b:

    h = share h_i + (1 - share) h_j,    share ~ Beta(alpha, alpha)
    loss = - share log q(h)[a] - (1 - share) log q(h)[b],    q = softmax(classifier)

That is the cross-entropy of a soft label of the domain. ``reverse`` turns the sign of the gradient
between the classifier and the network, as in `isthmus.objectives.domain_classifier`.

Departures:
- The authors' code mixes rows of one domain only, whose soft label is the plain one: no state between two
  domains is ever seen. Here the two rows are of two domains.
- The hidden state is mixed; the code mixes the inputs.
- The classifier is the objective's own. The paper's discriminator reads plain and mixed states, so add
  `domain_classifier` for the plain ones. Mixtures near one row are nearly plain: this objective alone is
  an adversary, too.
- The classifier's pace and the constant weight: see `isthmus.objectives.domain_classifier`.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from isthmus.data.batch import Batch
from isthmus.layers.sites import Site, SiteSpec
from isthmus.objectives.domain_classifier import quick_classifier, turned_back
from isthmus.objectives.mixing import Answers, Pairs
from isthmus.objectives.objective import AbstractObjective, AbstractObjectiveConfig


class DomainMixupConfig(AbstractObjectiveConfig):
    """Tell how much of two domains a mixed hidden state holds; or, reversed, hide it there."""

    compares_domains: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    name: Literal["domain_mixup"] = "domain_mixup"
    site: Site = Field(
        default=-1,
        description="the hidden state that is mixed: a deep block's number, negative ones count from"
        " the end, or `input`, the embedded row",
    )
    reverse: bool = Field(
        default=True,
        description="turn the gradient's sign: the network hides the domains from the classifier",
    )
    hidden_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(64,), description="the classifier's hidden layers of Linear and ReLU"
    )
    alpha: float = Field(
        default=0.2, gt=0, description="shares are drawn from Beta(alpha, alpha); 1 is uniform"
    )

    def build(self, spec: SiteSpec) -> "DomainMixup":
        """The objective for a network of this shape."""
        return DomainMixup(
            spec=spec,
            site=self.site,
            reverse=self.reverse,
            hidden_widths=self.hidden_widths,
            alpha=self.alpha,
        )


class DomainMixup(AbstractObjective):
    """Cross-entropy of the soft label of two domains, told from their mixed states; in nats."""

    def __init__(
        self,
        *,
        spec: SiteSpec,
        site: Site = -1,
        reverse: bool = True,
        hidden_widths: tuple[int, ...] = (64,),
        alpha: float = 0.2,
    ) -> None:
        super().__init__()
        self.sites = spec.resolve((site,), "objectives.site")
        self.reverse, self.alpha = reverse, alpha
        self.classifier = quick_classifier(spec.width(self.sites[0]), hidden_widths, spec.n_domains)

    def forward(
        self,
        hidden: Mapping[Site, Tensor],
        batch: Batch,
        domain: Int[Tensor, " rows"],
        answers: Answers | None = None,  # noqa: ARG002
    ) -> Float[Tensor, ""]:
        """Mean over the rows that have a domain, by weight; 0 where no row has one."""
        rows = (domain > 0).nonzero().squeeze(1)
        if not len(rows):
            return batch.label.new_zeros(())
        pairs = Pairs.across(domain.index_select(0, rows), self.alpha).at(rows)
        h = pairs.mixed(hidden[self.sites[0]])
        told = self.classifier(turned_back(h) if self.reverse else h)
        first, second = (
            F.cross_entropy(told, domain.index_select(0, each) - 1, reduction="none")
            for each in (pairs.first, pairs.second)
        )
        weight = torch.ones_like(batch.label) if batch.weight is None else batch.weight
        one = pairs.share * weight.index_select(0, pairs.first)
        other = (1 - pairs.share) * weight.index_select(0, pairs.second)
        return (one * first + other * second).sum() / (one + other).sum()
