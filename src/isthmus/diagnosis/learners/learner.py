'''The protocol of a learner: what a diagnosis asks of a model that somebody else wrote.

A learner that counts words by class, with one model for all of its domains::

    import numpy as np


    class WordRates:
        """Naive Bayes with binary labels. Rows are a pair: a list of word lists, and labels."""

        def fingerprint(self):
            return "word rates 1"  # another text for another model, setting or version

        def count(self, rows):
            return len(rows[1])

        def train(self, rows, *, watch, seed, start, steps):
            counts = np.ones((2, 1000))
            for words, labels in rows.values():
                for each, label in zip(words, labels):
                    np.add.at(counts[label], [sum(word.encode()) % 1000 for word in each], 1)
            return {"odds": np.log(counts[1] / counts[1].sum()) - np.log(counts[0] / counts[0].sum())}

        def score(self, state, domain, rows):
            ids = [[sum(word.encode()) % 1000 for word in each] for each in rows[0]]
            return np.array([state["odds"][each].sum() for each in ids])

`Learner` is all that a learner must have. What else it may have stands below, a protocol each; the
diagnosis names what it does not measure for want of one.
'''

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

State = Mapping[str, np.ndarray]
"""What a training came to: arrays of numbers by name. They are kept on disk, without pickle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRows:
    """The rows of one domain, split beforehand.

    ``train``, ``validation``, ``test``: whatever the learner understands. ``labels``: one number
    for each test row: 0 or 1 for AUC, the class from 0 for accuracy and logloss. ``clusters``: what
    each test row belongs to, such as a user; None takes rows as independent. A cluster that several
    domains name is one. ``validation_labels``: as ``labels``, for what is chosen on validation
    rows: groups, and one of the learner's choices.
    """

    train: Any
    validation: Any
    test: Any
    labels: Any
    clusters: Any = None
    validation_labels: Any = None


@runtime_checkable
class Learner(Protocol):
    """Trains on the rows of some domains and scores the rows of one."""

    def fingerprint(self) -> str:
        """Give a text that changes with everything that changes what is learned."""
        ...

    def count(self, rows: Any) -> int:
        """Give the number of rows in one part of a domain."""
        ...

    def train(
        self,
        rows: Mapping[str, Any],
        *,
        watch: Mapping[str, Any],
        seed: int,
        start: State | None,
        steps: int | None,
    ) -> State:
        """Learn from the train rows of the domains in ``rows``, in the order of all domains.

        ``watch``: validation rows by domain. They choose when to stop: stop on patience, and never
        at a cap, so that a domain alone is a serious opponent. ``seed``: the same seed gives the
        same state. ``start``: begin with that state, with a fresh optimiser; it may come from more
        domains. ``steps``: take exactly so many steps, and keep the best of about 8 looks at
        ``watch``. Step 0 is no look. None: until ``watch`` stops it.
        """
        ...

    def score(self, state: State, domain: str, rows: Any) -> np.ndarray:
        """Score rows of a domain that the state was trained on: (rows,) or (rows, classes).

        AUC reads (rows,), larger for label 1, or the last of two columns. Accuracy reads the
        largest column, or whether (rows,) is above .5. Logloss reads probabilities: of the classes,
        or (rows,) of label 1. Squared error reads (rows,).
        """
        ...


@runtime_checkable
class ContinuingLearner(Protocol):
    """A learner whose training can go on from a state. It makes T and I measurable."""

    def second_stage_steps(self, rows: Any) -> int:
        """Give the steps of a second stage, such as those of two passes over a domain's train rows.

        The three second stages of the domain take as many, whatever rows they read.
        """
        ...


@runtime_checkable
class CrossScoringLearner(Protocol):
    """A learner that can score rows of a domain that it has not seen. For cross-scores."""

    def score_unseen(self, state: State, rows: Any) -> np.ndarray:
        """Score rows of a domain that is new to the state, as `Learner.score` does."""
        ...


@runtime_checkable
class ChoosingLearner(Protocol):
    """A learner with several settings, of which each arm takes the best on validation rows."""

    def choices(self) -> Mapping[str, Learner]:
        """Give the settings by name, as learners."""
        ...


@runtime_checkable
class ScaledLearner(Protocol):
    """A learner of several sizes. For the capacity curve."""

    def at_widths(self) -> Mapping[int, Learner]:
        """Give the sizes, such as the width of a layer, as learners. The smallest comes first."""
        ...


@runtime_checkable
class WeighingLearner(Protocol):
    """A learner that can weigh the losses of domains in another way than its own."""

    def weightings(self) -> Mapping[str, Learner]:
        """Give the other weightings by name, as learners; ``random`` is taken for a control."""
        ...


@runtime_checkable
class IdentifyingLearner(Protocol):
    """A learner whose rows the diagnosis cannot read, so that it could not tell changed ones."""

    def identify(self, rows: Any) -> str:
        """Give a text that changes with the rows, such as a hash or the name of a fixed file."""
        ...
