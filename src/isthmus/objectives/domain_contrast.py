"""Bring rows of one domain together in a hidden state, and rows of other domains apart: InfoNCE.

Source: van den Oord et al., arXiv:1807.03748, eq. 4, as DynaGAN adapts a generator to many domains, Kim et
al., SIGGRAPH Asia 2022, arXiv:2211.14554: an image is to be near the target image of its own domain, and
far from images of the other domains. With unit states h and cosines s_ij = h_i . h_j / temperature:

    loss = mean over rows i of  - log ( e^{s_ip} / (e^{s_ip} + sum over n of e^{s_in}) )

p is another row of i's domain, n are the rows of other domains. ``labels``: ``matched`` compares rows of one
label alone, p and n alike, so that nothing is gained by telling the label; ``ignored`` compares all.

Departures:
- The paper compares images in the space of CLIP. Here the state at a site is compared.
- The paper's positive is a target image. Here it is the next row of the batch with i's domain, and label
  where labels are matched; a batch is shuffled, so it is a random one.
- At most `MOST_ROWS` rows of a batch are compared, its first ones: the cosines of all pairs are held.
- Rows without a domain do not count, nor do rows that lack a positive or a negative; where labels are
  matched, nor do rows without a label.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from isthmus.data.batch import Batch
from isthmus.layers.sites import Site, SiteSpec
from isthmus.objectives.mixing import Answers
from isthmus.objectives.objective import AbstractObjective, AbstractObjectiveConfig

MOST_ROWS = 512

Labels = Literal["matched", "ignored"]


class DomainContrastConfig(AbstractObjectiveConfig):
    """Bring rows of one domain together in a hidden state, and rows of other domains apart."""

    compares_domains: ClassVar[bool] = True

    name: Literal["domain_contrast"] = "domain_contrast"
    site: Site = Field(
        default=-1,
        description="the hidden state that is compared: a deep block's number, negative ones count"
        " from the end, or `input`, the embedded row",
    )
    temperature: float = Field(default=0.5, gt=0, description="what cosines are divided by")
    labels: Labels = Field(
        default="matched",
        description="`matched` compares rows of one label with each other alone, `ignored` all rows",
    )

    def build(self, spec: SiteSpec) -> "DomainContrast":
        """The objective for a network of this shape."""
        return DomainContrast(
            spec=spec, site=self.site, temperature=self.temperature, labels=self.labels
        )


class DomainContrast(AbstractObjective):
    """InfoNCE of the hidden state at ``site``, in nats; it has no parameters."""

    def __init__(
        self,
        *,
        spec: SiteSpec,
        site: Site = -1,
        temperature: float = 0.5,
        labels: Labels = "matched",
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        super().__init__()
        self.sites = spec.resolve((site,), "objectives.site")
        self.temperature, self.labels = temperature, labels

    def forward(
        self,
        hidden: Mapping[Site, Tensor],
        batch: Batch,
        domain: Int[Tensor, " rows"],
        answers: Answers | None = None,  # noqa: ARG002
    ) -> Float[Tensor, ""]:
        """Mean over the rows that have a positive and a negative, by weight; 0 where none has."""
        h = F.normalize(hidden[self.sites[0]][:MOST_ROWS], dim=1)
        domain = domain[:MOST_ROWS]
        label = (batch.label[:MOST_ROWS] > 0).long()
        if self.labels == "matched":
            domain = torch.where(batch.label[:MOST_ROWS].isnan(), 0, domain)
        else:
            label = torch.zeros_like(label)
        positive, paired = next_alike(2 * domain + label)
        others = domain.unsqueeze(1) != domain
        others = others & (label.unsqueeze(1) == label) & (domain > 0)
        counts = (paired & others.any(dim=1) & (domain > 0)).to(h.dtype)
        if batch.weight is not None:
            counts = counts * batch.weight[:MOST_ROWS]
        near = (h * h.index_select(0, positive)).sum(dim=1) / self.temperature
        far = ((h @ h.t()) / self.temperature).masked_fill(~others, -torch.inf)
        loss = torch.cat([near.unsqueeze(1), far], dim=1).logsumexp(dim=1) - near
        return (counts * loss).sum() / counts.sum().clamp(min=1e-12)


def next_alike(kind: Int[Tensor, " rows"]) -> tuple[Int[Tensor, " rows"], Bool[Tensor, " rows"]]:
    """The next row of the same kind, the first one after the last; and whether it is another row.

    >>> next_alike(torch.tensor([7, 5, 7, 7]))
    (tensor([2, 1, 3, 0]), tensor([ True, False,  True,  True]))
    """
    ordered, order = torch.sort(kind, stable=True)
    place = torch.arange(len(kind), device=kind.device)
    first = torch.searchsorted(ordered, ordered)
    end = torch.searchsorted(ordered, ordered, right=True)
    after = torch.where(place + 1 < end, place + 1, first)
    found = torch.empty_like(order).scatter(0, order, order.index_select(0, after))
    return found, found != place
