"""MAMDR: domains in turn on what they share, and steps on other domains' rows for what each one owns.

Source: Luo et al., MAMDR, ICDE 2023, arXiv:2202.12524, algorithms 1 to 3, and the authors' code.

Domain Negotiation, once an epoch, on the shared parameters Theta. Theta~ starts at Theta and takes
steps on the batches of one domain after the other, the domains in a random order. Then

    Theta <- Theta + beta (Theta~ - Theta)

Domain Regularisation, after it, on the parameters theta_i that domain i owns. For each of k helper
domains j, drawn anew: theta~_i starts at theta_i, takes a step on a batch of j that is scored with the
parameters of i, and a step on a batch of i. Then

    theta_i <- theta_i + gamma (theta~_i - theta_i)

Departures:
- theta_i is what the network declares as its domains' own, such as an adapter's banks. The paper adds a
  whole copy of the network for each domain. A network without such parameters has the first part alone.
- A helper gives one batch. The authors' code reads all batches of j, then all of i, and helps domain i
  with itself as well.
- The first part scores rows with the parameters of their domain, which stand still. The authors' code
  trains the shared weights as if there were none.
- The unknown domain is regularised too, on rows of all domains whose domain is hidden, where domain
  dropout is on. Otherwise nothing would train its answer.
- In the second part norms run as in eval, so that rows of j leave no trace in the statistics of i.
- Inner steps are Adam's, as in the authors' code. Moments of the shared parameters go on from domain to
  domain and from epoch to epoch, and an outer step leaves them. Each domain has moments and a step count
  of its own for theta_i, which go on likewise. The paper's tables use Adam or SGD.

Defaults: beta = gamma = 0.1 and k = 3 are those of the authors' config for Amazon-6 (k = 5 for Taobao-10).
At most 256 domains is ours: an epoch has a step for every domain at least, and 2 k more for each.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from isthmus.data.batch import Batch, DomainPlaces
from isthmus.data.store.by_domain import RowsByDomain
from isthmus.data.store.rows import Rows
from isthmus.errors import ConfigError
from isthmus.optimisers import ModelOptimiser
from isthmus.train.methods.inner_steps import InnerStep, schedule, steps_of, stream
from isthmus.train.methods.method import AbstractMethod, AbstractMethodConfig, Lesson, Phase
from isthmus.train.methods.set_adam import SetAdam
from isthmus.train.methods.trained_parts import TrainedParts

if TYPE_CHECKING:
    from isthmus.train.train_config import TrainConfig

MAX_DOMAINS = 256
THETA = "theta."  # before the names of weights at the start of an inner loop, in the state


class MamdrConfig(AbstractMethodConfig):
    """Domains in turn negotiate what they share; other domains' rows regularise what each one owns."""

    name: Literal["mamdr"] = "mamdr"
    beta: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="how far the shared parameters follow an epoch's steps on all domains in turn",
    )
    gamma: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="how far a domain's own parameters follow the two steps with a helper",
    )
    helpers: int = Field(
        default=3, ge=1, description="other domains that help each domain in an epoch, at most"
    )

    def check(self, model: nn.Module, train: "TrainConfig") -> None:
        """Raise ConfigError for what needs several domains in a batch, and for nothing to share."""
        for key in ("weighting", "domain_sampling"):
            if (value := getattr(train, key)) != "proportional":
                raise ConfigError(
                    f"train.method 'mamdr' takes batches of one domain and all rows of each, so"
                    f" train.{key} must be 'proportional', got {value!r}"
                )
        for objective in train.objectives:
            if objective.compares_domains:
                raise ConfigError(
                    "train.method 'mamdr' takes batches of one domain, in which an objective that"
                    f" compares domains means nothing, got train.objectives {objective.name!r}"
                )
            if objective.reads_unlabelled and objective.weight:
                raise ConfigError(
                    "train.method 'mamdr' takes batches of one domain, beside which no unlabelled rows"
                    f" stand, got train.objectives {objective.name!r}, which reads such rows"
                )
        parts = TrainedParts(model)
        if parts.own == parts.named.keys():
            raise ConfigError(
                "train.method 'mamdr' needs parameters that domains share, got a model with none"
            )

    def epoch_steps(self, rows: Sequence[int], batch_rows: int) -> int:
        """Steps on every domain, and two with each helper of each."""
        one_by_one = sum(-(-count // batch_rows) for count in rows)
        return max(1, one_by_one + 2 * min(self.helpers, len(rows) - 1) * len(rows))

    def build(
        self,
        model: nn.Module,
        rows: Rows,
        train: "TrainConfig",
        *,
        n_domains: int,
        places: DomainPlaces,
    ) -> "Mamdr":
        """The method for one training. Raises ConfigError for fewer than 2 domains, or above 256."""
        self.check(model, train)
        by_domain = RowsByDomain(rows, n_domains)
        found = int(np.count_nonzero(steps_of(by_domain.counts, train.batch_rows)))
        if not 2 <= found <= MAX_DOMAINS:
            raise ConfigError(
                f"train.method 'mamdr' takes each domain in turn, of 2 to {MAX_DOMAINS} domains with"
                f" at least 2 train rows, got {found}"
            )
        return Mamdr(self, TrainedParts(model), by_domain, train, places)


class Mamdr(AbstractMethod):
    """MAMDR at work.

    ``theta``: weights at the start of the inner loop under way, by parameter; empty between loops.
    """

    def __init__(
        self,
        config: MamdrConfig,
        parts: TrainedParts,
        rows: RowsByDomain,
        train: "TrainConfig",
        places: DomainPlaces,
    ) -> None:
        self.config, self.parts, self.rows = config, parts, rows
        self.train, self.places = train, places
        shared = {name: p for name, p in parts.named.items() if name not in parts.own}
        own = {name: parts.named[name] for name in sorted(parts.own)}
        self.shared, self.own = shared, own
        self.phases = (Phase("all, domain by domain", train.epochs, train.lr),)
        self.steps_by_domain = steps_of(rows.counts, train.batch_rows)
        self.adam = SetAdam(own, sets=len(rows.counts), lr=train.lr)
        self.theta: dict[str, Tensor] = {}
        self.at: InnerStep | None = None
        self.order: tuple[tuple[int, int], np.ndarray] | None = None  # of one domain's rows

    @property
    def steps_per_epoch(self) -> int:
        """Steps of both parts."""
        return len(self._schedule(0))

    def begin(self, phase: int) -> None:  # noqa: ARG002
        """Train what domains share, which comes first."""
        self.parts.only(self.shared)

    def lessons(self, epoch: int, start: int) -> Iterator[Lesson]:
        """A batch of one domain each."""
        for step in self._schedule(epoch)[start:]:
            if self.at is None or step.negotiates != self.at.negotiates:
                # The statistics of a norm stand still while a domain reads another one's rows.
                self.parts.only(
                    self.shared if step.negotiates else self.own, moving=step.negotiates
                )
            self.at = step
            if step.opens:
                self.theta = {name: w.detach().clone() for name, w in self._moved(step).items()}
            yield self._lesson(epoch, step)

    def update(self, optimiser: ModelOptimiser) -> None:
        """Take the inner step, and the outer one where the inner loop is over."""
        assert self.at is not None
        if self.at.negotiates:
            optimiser.step()
        else:
            self.adam.step(self.at.scored_as)
        if self.at.closes:
            self._follow(self.at)
            self.theta = {}

    def settled(self) -> AbstractContextManager[None]:
        """In an inner loop: where the outer step would lead if it came now."""
        return self._as_if_closed(self.at) if self.at is not None and self.theta else nullcontext()

    def release(self) -> None:
        """Nothing is frozen any longer."""
        self.parts.release()

    def state_dict(self) -> dict[str, Tensor]:
        """The domains' moments, and the start of the inner loop under way."""
        return {**self.adam.state_dict(), **{THETA + n: w for n, w in self.theta.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        self.adam.load_state_dict(state)
        device = next(iter(self.shared.values())).device
        self.theta = {
            name.removeprefix(THETA): weight.to(device, copy=True)
            for name, weight in state.items()
            if name.startswith(THETA)
        }

    def _schedule(self, epoch: int) -> list[InnerStep]:
        return schedule(
            self.steps_by_domain,
            helpers=self.config.helpers if self.own else 0,
            unknown=self.train.domain_dropout > 0,
            seed=self.train.seed,
            epoch=epoch,
        )

    def _lesson(self, epoch: int, step: InnerStep) -> Lesson:
        batch = self._batch(epoch, step)
        if step.negotiates:
            return Lesson(batch, batch.domain)
        if step.scored_as:
            as_own = replace(batch, domain=torch.full_like(batch.domain, step.scored_as))
        else:
            everyone = torch.ones(batch.rows, dtype=torch.bool)
            as_own = batch.hide_domain(everyone, self.places)
        return Lesson(as_own, batch.domain, dropout=False)

    def _batch(self, epoch: int, step: InnerStep) -> Batch:
        """The rows of a step. A domain's order in an epoch is drawn once, with all its rows."""
        size = self.train.batch_rows
        of = step.rows_of
        rows = len(self.rows) if of is None else int(self.rows.counts[of])
        if not step.negotiates:
            draw = stream(self.train.seed, epoch, step.scored_as, step.number)
            return self.rows.batch(of, draw.choice(rows, min(size, rows), replace=False))
        assert of is not None
        if self.order is None or self.order[0] != (epoch, of):
            self.order = (epoch, of), stream(self.train.seed, epoch, of).permutation(rows)
        at = self.order[1][step.number * size : (step.number + 1) * size]
        return self.rows.batch(of, at)

    def _moved(self, step: InnerStep) -> Mapping[str, Tensor]:
        """What the inner loop of a step moves: the shared parameters, or one domain's sets."""
        if step.negotiates:
            return self.shared
        return {name: parameter.detach()[step.scored_as] for name, parameter in self.own.items()}

    @torch.no_grad()
    def _follow(self, step: InnerStep) -> None:
        rate = self.config.beta if step.negotiates else self.config.gamma
        for name, weight in self._moved(step).items():
            before = self.theta[name]
            weight.sub_(before).mul_(rate).add_(before)  # a weight that did not move keeps its bits

    @contextmanager
    def _as_if_closed(self, step: InnerStep) -> Iterator[None]:
        inner = {name: weight.detach().clone() for name, weight in self._moved(step).items()}
        self._follow(step)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self._moved(step).items():
                    weight.copy_(inner[name])
