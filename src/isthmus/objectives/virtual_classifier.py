"""The virtual classifier: teach a hidden state the domains, and the classes that pairs of them share.

Source: Guo et al., Virtual Classification: Modulating Domain-Specific Knowledge for Multidomain Crowd
Counting (MDKNet), TNNLS, arXiv:2402.03758; what follows is read from the authors' code. D domains make
D real classes and a virtual one for every pair, C = D + D (D - 1) / 2. With hidden state f of a row of
domain d, and P_d the mean of softmax(z) over the rows of d in a window of epochs:

    z      = W norm(f) + b
    loss   = mean of -sum_c Y_dc log softmax(z)_c
    Y_d    = onehot(d) at first; at the end of each later window softmax(M_d / temperature), with
    M_d    = a P'_d + (1 - a) onehot(d),   P'_d[pair d, j] = P_d[pair d, j] + P_d[j],  else P_d

So a row of d that looks like one of j is taught that it belongs to the pair of both. a grows from 0 to
``alpha``.

Departures:
- The targets are those of a domain, Y_d. The authors keep predictions and targets of every image, a
  matrix of rows times classes, which no large table has the memory for.
- The default temperature is 0.2, where the authors have 10. What is divided lies between 0 and 1. So
  with 10 classes the authors' own class has a target of .109 and any other of .099; with 14 domains,
  105 classes, .0105 and .0095: the targets hardly tell the domains any more.
- One norm and one linear map. The authors have two norms before one map (Cui et al., ReSLT,
  arXiv:2101.10633), the second of which is for one data set that they name a tail class.
- Their windows begin after 200 of 500 epochs and are 5 or 7 epochs long. Networks here are often done
  after ten epochs, so the windows begin after 2 and are 1 epoch long.
- Their code divides the growth of a by the epochs that are left, which early stop does not know here;
  a reaches ``alpha`` after ``growth`` epochs.
- Rows without a domain do not count.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Float64, Int, Int64
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.data.batch import Batch
from isthmus.layers.sites import LATENT, Site, SiteSpec
from isthmus.objectives.mixing import Answers
from isthmus.objectives.objective import AbstractObjective, AbstractObjectiveConfig

MOST_DOMAINS = 100  # 5,050 classes: a batch of 4,096 rows has 83 MB of logits


class VirtualClassifierConfig(AbstractObjectiveConfig):
    """Teach a hidden state the domains, and a virtual class for every pair of them."""

    compares_domains: ClassVar[bool] = True

    name: Literal["virtual_classifier"] = "virtual_classifier"
    site: Site | None = Field(
        default=None,
        description="the hidden state that is taught: a deep block's number, `input` or `latent`; by"
        " default the adapter's `latent` where it has one, and else the last block's",
    )
    start: int = Field(default=2, ge=0, description="epochs with one-hot targets")
    window: int = Field(
        default=1, ge=1, description="epochs whose predictions make the next targets"
    )
    alpha: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of the predictions in a target, once it has grown",
    )
    growth: int = Field(
        default=8, ge=1, description="epochs after `start` in which that share grows from 0"
    )
    temperature: float = Field(
        default=0.2, gt=0, description="what a target is divided by before its softmax"
    )

    def build(self, spec: SiteSpec) -> "VirtualClassifier":
        """The objective for a network of this shape."""
        return VirtualClassifier(
            spec=spec,
            site=self.site,
            start=self.start,
            window=self.window,
            alpha=self.alpha,
            growth=self.growth,
            temperature=self.temperature,
        )


def pair_classes(n_domains: int) -> Int64[Tensor, "domains domains"]:
    """The class of every two domains, counted from 0; on the diagonal that of the domain itself.

    The D real classes come first, then the pairs (0, 1), (0, 2), ... (1, 2), ...

    >>> pair_classes(3)
    tensor([[0, 3, 4],
            [3, 1, 5],
            [4, 5, 2]])
    """
    classes = torch.diag(torch.arange(n_domains))
    left, right = torch.triu_indices(n_domains, n_domains, 1)
    classes[left, right] = classes[right, left] = n_domains + torch.arange(len(left))
    return classes


class VirtualClassifier(AbstractObjective):
    """Cross-entropy with soft targets over domains and pairs of domains; in nats.

    The arguments are those of :class:`VirtualClassifierConfig`. Raises ``ValueError`` for fewer than 2
    domains and for more than 100, whose 5,151 classes and more a batch would have to score.

    >>> spec = SiteSpec(site_widths=(4,), n_domains=3, latent_width=6)
    >>> VirtualClassifier(spec=spec).scores(torch.ones(5, 6)).shape
    torch.Size([5, 6])
    """

    pairs: Tensor  # (domains, domains) int64: `pair_classes`
    sums: Tensor  # (domains, classes) float64: predictions of the window under way, by domain
    counts: Tensor  # (domains,) float64: how many rows or how much weight stands behind them
    mean: Tensor  # (domains, classes) float64: P of the last window; 0 before its end
    target: Tensor  # (domains, classes) float32: Y
    epochs: Tensor  # () int64: epochs that are over

    def __init__(
        self,
        *,
        spec: SiteSpec,
        site: Site | None = None,
        start: int = 2,
        window: int = 1,
        alpha: float = 0.5,
        growth: int = 8,
        temperature: float = 0.2,
    ) -> None:
        domains = spec.n_domains
        if not 2 <= domains <= MOST_DOMAINS:
            raise ValueError(
                f"objective virtual_classifier needs 2 to {MOST_DOMAINS} domains, since it has a class"
                f" for every pair of them, got {domains}"
            )
        super().__init__()
        if site is None:
            site = -1 if spec.latent_width is None else LATENT
        self.sites = spec.resolve((site,), "objectives.site")
        self.start, self.window = start, window
        self.alpha, self.growth, self.temperature = alpha, growth, temperature
        width, classes = spec.width(self.sites[0]), domains + domains * (domains - 1) // 2
        self.norm = nn.BatchNorm1d(width)
        self.linear = nn.Linear(width, classes)
        self.register_buffer("pairs", pair_classes(domains), persistent=False)
        self.register_buffer("sums", torch.zeros(domains, classes, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(domains, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(domains, classes, dtype=torch.float64))
        self.register_buffer("target", torch.eye(domains, classes))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))

    def scores(self, f: Float[Tensor, "rows width"]) -> Float[Tensor, "rows classes"]:
        """Logits of the classes, in the order of `pair_classes`."""
        return self.linear(self.norm(f))

    def forward(
        self,
        hidden: Mapping[Site, Tensor],
        batch: Batch,
        domain: Int[Tensor, " rows"],
        answers: Answers | None = None,  # noqa: ARG002
    ) -> Float[Tensor, ""]:
        """Mean over the rows that have a domain, each with its weight; 0 where no row has one."""
        told = self.scores(hidden[self.sites[0]]).log_softmax(dim=1)
        at = (domain - 1).clamp(min=0)
        loss = -(self.target.index_select(0, at) * told).sum(dim=1)
        weight = (domain > 0).to(loss.dtype)
        if batch.weight is not None:
            weight = weight * batch.weight
        with torch.no_grad():
            # A product, not index_add: one call for all rows, and the same bits every time.
            member = F.one_hot(at, len(self.target)).to(told.dtype) * weight.unsqueeze(1)
            self.sums += member.T @ told.exp()
            self.counts += member.sum(dim=0)
        return (weight * loss).sum() / weight.sum().clamp(min=1e-12)

    def end_epoch(self) -> None:
        """At the end of a window make the next targets, and begin the next window."""
        self.epochs += 1
        since = int(self.epochs) - self.start
        if since % self.window:
            return
        self.mean.copy_(self.sums / self.counts.clamp(min=1e-12).unsqueeze(1))
        self.sums.zero_()
        self.counts.zero_()
        if since > 0:
            self.target.copy_(self._targets(self.alpha * min(since / self.growth, 1.0)))

    def _targets(self, share: float) -> Float64[Tensor, "domains classes"]:
        """Y from the last window, of which P has this share."""
        n = len(self.pairs)
        real = self.mean[:, :n] * (1 - torch.eye(n, device=self.mean.device))
        raised = self.mean.scatter_add(
            1, self.pairs, real
        )  # what a pair gets from its other domain
        one_hot = torch.eye(*self.mean.shape, dtype=torch.float64, device=self.mean.device)
        return ((share * raised + (1 - share) * one_hot) / self.temperature).softmax(dim=1)

    def between_domains(self) -> Float64[Tensor, "domains domains"]:
        """Mean membership of the rows of a domain (lines) in its pairs, and in its own class.

        Entry (i, j) is the mean of softmax(z) for the pair of i and j over the train rows of i, and (i, i)
        that for class i, in the last whole window, or in the one under way where none is whole. So (j, i)
        is another number; a line sums to less than 1, since rows of i have mass on classes without i too.
        """
        whole = self.mean.any()
        now = self.sums / self.counts.clamp(min=1e-12).unsqueeze(1)
        return (self.mean if whole else now).gather(1, self.pairs)
