"""Pseudo-domains: rows of the largest domain also train the small domain that they look like.

Source: Liu et al., Soft-partitioned Semi-supervised Collaborative Transfer Learning (SSCTL), CIKM 2025,
arXiv:2511.01404, of which we could read reviews but no equation. In words: a classifier C of the small
domains, trained on their rows, looks at each row of the dominant domain,

    p = C(row),    k = argmax p,    c = max p

and the row joins the training of domain k with a weight that follows the confidence c. The form of the
weight is that of SoftMatch (Chen et al., ICLR 2023, arXiv:2301.10921), which the reviews name:

    weight = exp(-(c - m)^2 / (2 v)) where c < m, else 1        m, v: running mean and variance of c

So about half of the rows count in full, whatever C knows: the weight compares rows with each other.

A step takes a batch of all domains, as the joint method does. Each of its rows of the dominant domain
stands in it a second time, as a row of domain k with that weight.

Departures:
- The paper's generated parameters of a row (its SDDN) are not here: its equations could not be read.
- A second copy moves all that a row of domain k moves, what domains share included. Whether the paper
  keeps the copies from the shared part is not known to us.
- C is a small network of its own (`DomainTeller`), which is trained before the first step and then
  stands still. It reads all features but the domain, and no label.
- m and v are plain means over the batches so far, until a batch counts for a thousandth: from then on
  a moving average, as SoftMatch has it from the start (from 1 / domains and 1, where the first thousand
  steps would see almost only full weights). v is not corrected for its degrees of freedom.
- In a copy, statistics within the domain become those of all domains, as where a domain is hidden.
- Rows without a domain take no part: they are nobody's pseudo-domain, and have none.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor, nn

from isthmus.data.batch import Batch, DomainPlaces
from isthmus.data.store.by_domain import RowsByDomain
from isthmus.data.store.rows import Rows
from isthmus.errors import ConfigError
from isthmus.models import AbstractModel
from isthmus.models.domain_teller import DomainTeller
from isthmus.train.generators import seeded
from isthmus.train.methods.joint import MixedBatches
from isthmus.train.methods.method import AbstractMethod, AbstractMethodConfig, Lesson, Phase
from isthmus.train.methods.telling import LEAST_ROWS, learn_to_tell
from isthmus.train.methods.trained_parts import TrainedParts

if TYPE_CHECKING:
    from isthmus.train.train_config import TrainConfig

LEAST_SHARE = 1e-3  # of a batch in the running mean: SoftMatch's 1 - 0.999
TELLER = "teller."  # before the names of the classifier's weights, in the state


class PseudoDomainsConfig(AbstractMethodConfig):
    """Rows of the largest domain also train the small domain that they look like."""

    name: Literal["pseudo_domains"] = "pseudo_domains"

    def check(self, model: nn.Module, train: "TrainConfig") -> None:
        """Raise ConfigError for a network in which domains own nothing, and for nothing to tell by."""
        if not isinstance(model, AbstractModel):
            raise ConfigError(
                "train.method 'pseudo_domains' needs a model that names its features, an AbstractModel,"
                f" got {type(model).__name__}"
            )
        if not TrainedParts(model).own:
            raise ConfigError(
                "train.method 'pseudo_domains' needs parameters that domains own, such as those of the"
                " backbone 'ple' or of the adapter 'mlora', got a model with none"
            )
        if all(field.is_domain for field in model.fields):
            raise ConfigError(
                "train.method 'pseudo_domains' tells domains by other features, got none beside the"
                " domain"
            )
        for objective in train.objectives:
            if objective.compares_domains:
                raise ConfigError(
                    "train.method 'pseudo_domains' gives rows a second domain, by which an objective"
                    " that compares domains would be misled, got train.objectives"
                    f" {objective.name!r}"
                )

    def build(
        self,
        model: nn.Module,
        rows: Rows,
        train: "TrainConfig",
        *,
        n_domains: int,
        places: DomainPlaces,
    ) -> "PseudoDomains":
        """The method for one training.

        Raises ConfigError for fewer than 3 domains with train rows, and for fewer than 20 rows of all
        domains but the largest.
        """
        self.check(model, train)
        assert isinstance(model, AbstractModel)
        by_domain = RowsByDomain(rows, n_domains)
        counts = by_domain.counts.copy()
        counts[0] = 0
        dominant = int(counts.argmax())  # the first of several
        counts[dominant] = 0
        small = np.flatnonzero(counts)
        if len(small) < 2:
            raise ConfigError(
                "train.method 'pseudo_domains' needs a large domain and at least 2 small ones with"
                f" train rows, got {len(small) + int(dominant > 0)} domains"
            )
        if counts.sum() < LEAST_ROWS:
            raise ConfigError(
                f"train.method 'pseudo_domains' needs {LEAST_ROWS} train rows of small domains, got"
                f" {counts.sum()}"
            )
        with seeded(train.seed + 2**43):
            teller = DomainTeller(fields=model.fields, classes=len(small))
        return PseudoDomains(
            MixedBatches(rows, train),
            Phase("all", train.epochs, train.lr),
            Partition(teller, by_domain, dominant, small, places, train.seed),
        )


class Partition:
    """What rows of the dominant domain look like, and what their copies count.

    ``dominant``: the domain whose rows are copied. ``small``: the domains that the classifier tells
    apart, rising. ``accuracy``: of the classifier, on rows of small domains that it did not learn from;
    nan before `learn`.
    """

    def __init__(
        self,
        teller: DomainTeller,
        rows: RowsByDomain,
        dominant: int,
        small: Int64[np.ndarray, " small"],
        places: DomainPlaces,
        seed: int,
    ) -> None:
        self.teller, self.rows, self.places, self.seed = teller, rows, places, seed
        self.dominant, self.small = dominant, torch.from_numpy(small)
        self.ids = _ids_of(rows, places)
        self.accuracy = torch.full((), torch.nan, dtype=torch.float64)
        # Of the confidences of the batches so far: mean, mean square, how many batches.
        self.seen = torch.zeros(3, dtype=torch.float64)

    def learn(self) -> None:
        """Train the classifier, where it has not been trained."""
        if self.accuracy.isnan():
            random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, 4])))
            found = learn_to_tell(self.teller, self.rows, self.small.numpy(), random)
            self.accuracy.fill_(found)

    @torch.no_grad()
    def judge(self, batch: Batch) -> tuple[Int64[Tensor, " rows"], Float[Tensor, " rows"]]:
        """The pseudo-domain of each row, a number of a domain, and the confidence in it."""
        confidence, which = self.teller(batch).softmax(dim=1).max(dim=1)
        return self.small[which], confidence

    def weigh(self, confidence: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """The weight in 0..1 of each row, after the rows have been counted in mean and variance."""
        now = confidence.double()
        share = max(LEAST_SHARE, 1 / (float(self.seen[2]) + 1))
        self.seen[:2] += share * (torch.stack([now.mean(), now.square().mean()]) - self.seen[:2])
        self.seen[2] += 1
        mean, square = self.seen[0], self.seen[1]
        variance = (square - mean**2).clamp(min=1e-12)
        return torch.exp(-(now - mean).clamp(max=0).square() / (2 * variance)).float()

    def lesson(self, batch: Batch) -> Lesson:
        """The batch with the rows of the dominant domain in it a second time, behind all others."""
        here = (batch.domain == self.dominant).nonzero().squeeze(1)
        if not len(here):
            return Lesson(batch, batch.domain, told=self._told(torch.zeros(1)))
        pseudo, confidence = self.judge(batch.take(here))
        weight = self.weigh(confidence)
        both = batch.take(torch.cat([torch.arange(batch.rows), here]))
        copies = torch.arange(both.rows) >= batch.rows
        both = both.hide_domain(copies, self.places)
        categorical = both.categorical
        if self.places.categorical:
            categorical = categorical.clone()
            columns = torch.tensor(self.places.categorical)
            categorical[batch.rows :, columns] = self.ids.index_select(0, pseudo)
        own = torch.ones(both.rows) if both.weight is None else both.weight
        joined = replace(
            both,
            categorical=categorical,
            domain=torch.cat([batch.domain, pseudo]),
            weight=torch.cat([own[: batch.rows], own[batch.rows :] * weight]),
        )
        return Lesson(joined, joined.domain, told=self._told(weight))

    def _told(self, weight: Tensor) -> Mapping[str, Tensor]:
        return {"pseudo_weight": weight.mean(), "pseudo_accuracy": self.accuracy}

    def state_dict(self) -> dict[str, Tensor]:
        """Classifier, its accuracy, and what is known of the confidences."""
        weights = {TELLER + name: weight for name, weight in self.teller.state_dict().items()}
        return {**weights, "seen": self.seen, "accuracy": self.accuracy}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave; the tensors are copied."""
        self.teller.load_state_dict(
            {
                name.removeprefix(TELLER): weight
                for name, weight in state.items()
                if name.startswith(TELLER)
            }
        )
        self.seen.copy_(state["seen"])
        self.accuracy.copy_(state["accuracy"])


class PseudoDomains(AbstractMethod):
    """Training with pseudo-domains at work."""

    def __init__(self, batches: MixedBatches, phase: Phase, partition: Partition) -> None:
        self.batches, self.phases, self.partition = batches, (phase,), partition

    @property
    def steps_per_epoch(self) -> int:
        """Batches of all rows, whatever stands in them a second time."""
        return self.batches.steps

    def begin(self, phase: int) -> None:
        """Nothing is frozen."""

    def lessons(self, epoch: int, start: int) -> Iterator[Lesson]:
        """The mixed batches, each with its copies."""
        self.partition.learn()
        for lesson in self.batches.lessons(epoch, start):
            yield self.partition.lesson(lesson.batch)

    def state_dict(self) -> dict[str, Tensor]:
        """The classifier, and what is known of its confidence."""
        return self.partition.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        self.partition.load_state_dict(state)


def _ids_of(rows: RowsByDomain, places: DomainPlaces) -> Int32[Tensor, "domains places"]:
    """The ids by which features tell each domain; 0 for the unknown one and one without rows."""
    ids = torch.zeros(len(rows.counts), len(places.categorical), dtype=torch.int32)
    there = np.flatnonzero(rows.counts)
    first = (np.cumsum(rows.counts) - rows.counts)[there]
    some = rows.batch(None, first)
    ids[some.domain] = some.categorical[:, list(places.categorical)]
    ids[0] = 0
    return ids
