"""One network for each domain: each learns from the domain's own rows, with one recipe for all.

A trial trains all of them, and is scored by all validation rows together, each by its own domain's
network. So one recipe is chosen by as many trials as every other model has.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from isthmus.config import Config
from isthmus.data import Dataset
from isthmus.experiments import Outcome, Training
from isthmus.experiments.arms import of_few
from isthmus.experiments.outcome import build_to_train
from isthmus.train import End, Look, score_rows, train, watch_metrics
from isthmus.tuning.attempt import Attempt, SeenLook, moment_of

LEAST_ROWS = 2  # of a domain, to train on and to stop by


@dataclass(frozen=True, slots=True)
class OwnNetworks:
    """The domains that have a network of their own, which are all of a dataset's."""

    dataset: Dataset

    def refusal(self) -> str | None:
        """Say why there cannot be a network for each domain, or None."""
        counts = self.dataset.summary()
        for name in self.dataset.domain_names:
            for split in ("train", "validation"):
                if (rows := counts[split][name].rows) < LEAST_ROWS:
                    return (
                        f"domain {name!r} must have at least {LEAST_ROWS} {split} rows for a network"
                        f" of its own, got {rows}"
                    )
        if any(
            (np.asarray(self.dataset.rows(s).domain) == 0).any() for s in ("validation", "test")
        ):
            return "each row must have a domain, whose network answers it, got rows without one"
        return None

    def trainings(self, config: Config) -> list[Training]:
        """Give the training of each domain, with one recipe."""
        watched = self.dataset.summary()["validation"]
        return [
            of_few(
                Training(model=config.model, train=config.train, domains=(name,), scored=(name,)),
                watched,
            )
            for name in self.dataset.domain_names
        ]

    def joined(
        self, split: str, of: Callable[[str], Float64[np.ndarray, " rows"]]
    ) -> Float64[np.ndarray, " rows"]:
        """Give the logits of a split's rows from those of each domain's rows."""
        domain = np.asarray(self.dataset.rows(split).domain)  # pyright: ignore[reportArgumentType]
        logits = np.full(len(domain), np.nan)
        for number, name in enumerate(self.dataset.domain_names, start=1):
            logits[domain == number] = of(name)
        return logits

    def logits(self, split: str, outcomes: list[Outcome]) -> Float64[np.ndarray, " rows"]:
        """Give the logits of a split's rows from the outcomes of `trainings`."""
        by_name = dict(zip(self.dataset.domain_names, outcomes, strict=True))
        return self.joined(split, lambda name: by_name[name].logits(split, name))


def attempt_own(
    config: Config, dataset: Dataset, go_on: Callable[[SeenLook], bool]
) -> Attempt | None:
    """Train a network for each domain, as `isthmus.tuning.attempt.attempt` trains one for all.

    ``go_on`` hears of the only look, after the last training: such a trial is never pruned.
    """
    networks = OwnNetworks(dataset)
    found: dict[str, np.ndarray] = {}
    ends: list[End] = []
    for training in networks.trainings(config):
        assert training.domains is not None
        rows = training.subset(dataset)
        model = build_to_train(training, dataset, rows.rows("train"))
        with closing(train(model, rows, training.train)) as events:
            ends += [event for event in events if isinstance(event, End)]
        (name,) = training.domains
        found[name] = score_rows(model, rows.scored("validation", training.domains))
    logits = networks.joined("validation", found.__getitem__)
    look = Look(
        step=sum(end.best.step for end in ends),
        epoch=float(np.mean([end.best.epoch for end in ends])),
        loss=float(np.mean([end.best.loss for end in ends])),
        metrics=watch_metrics(logits, dataset.rows("validation"), len(dataset.domain_names)),
        better=True,
    )
    score = look.metrics[config.train.monitor]
    assert score is not None  # defined by the labels alone, which were checked
    seconds = sum(end.seconds for end in ends)
    go_on(SeenLook(moment_of(look, config.train), score, look.epoch, seconds))
    return Attempt(look, sum(len(end.history) for end in ends), "all domains", logits)
