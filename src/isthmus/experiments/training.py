"""One training as a value: all that decides its result, and the key of its outcome."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from isthmus.config import validate
from isthmus.data.store.dataset import Dataset
from isthmus.data.store.subset import Subset
from isthmus.models import ModelConfig
from isthmus.train import Budget, TrainConfig
from isthmus.train.methods import JointConfig

VERSION = 5  # raised when the same description would give other numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What is trained, on which rows, and whose rows are scored afterwards.

    ``replicate``: number of the dataset in the engine. Each fold is a dataset of its own.
    ``domains``: whose train rows there are. None: all domains.
    ``watch``: whose validation rows choose the best look. None: those of ``domains``.
    ``scored``: whose validation and test rows are scored. None: all domains.
    ``rows_per_domain``, ``watch_per_domain``, ``hide_domain``, ``half``, ``blind``: see
    `isthmus.data.Subset`.
    ``start``: begin with that training's best weights and a fresh optimiser. What a start on all
    rows has seen stays known.
    ``extends``: ``domains`` are new to the start's network, which stands still. The network may get
    an adapter on top. What belongs to the domains begins as what the unknown domain has.
    ``budget``: exactly so many steps and looks, in place of epochs and patience.

    The order of names means nothing. Raises ValueError for numbers out of range, for a start of
    another replicate, and for an extension without a start or without domains.
    """

    model: ModelConfig
    train: TrainConfig
    replicate: int = 0
    domains: tuple[str, ...] | None = None
    watch: tuple[str, ...] | None = None
    scored: tuple[str, ...] | None = None
    rows_per_domain: int | None = None
    hide_domain: bool = False
    half: bool = False
    start: "Training | None" = None
    budget: Budget | None = None
    blind: bool = False
    extends: bool = False
    watch_per_domain: int | None = None

    def __post_init__(self) -> None:
        if self.replicate < 0:
            raise ValueError(f"replicate must be 0 or more, got {self.replicate}")
        if self.start is not None and self.start.replicate != self.replicate:
            raise ValueError(
                f"a training must start from one of its own replicate, {self.replicate},"
                f" got {self.start.replicate}"
            )
        if self.extends and (self.start is None or self.domains is None):
            raise ValueError("an extension must have a start and domains, got none")

    def check(self, dataset: Dataset) -> None:
        """Raise ValueError where names or numbers do not fit the dataset."""
        self.subset(dataset)
        unknown = [name for name in self.scored or () if name not in dataset.domain_names]
        if unknown:
            raise ValueError(
                "scored must name domains of the dataset,"
                f" {', '.join(dataset.domain_names)}, got {unknown}"
            )

    def subset(self, dataset: Dataset) -> Subset:
        """Give the rows that the model is trained on, and those that are watched."""
        return Subset(
            dataset,
            domains=self.domains,
            watch=self.watch,
            rows_per_domain=self.rows_per_domain,
            hide_domain=self.hide_domain,
            half=self.half,
            # A second stage knows all that the first one has seen.
            all_known=self._knows_all,
            blind=self.blind,
            after=self.start.subset(dataset) if self.extends and self.start is not None else None,
            watch_per_domain=self.watch_per_domain,
        )

    @property
    def _knows_all(self) -> bool:
        """Whether nothing is hidden: the training, or one it starts from, has all train rows."""
        if self.domains is None and self.rows_per_domain is None:
            return True
        return self.start is not None and self.start._knows_all

    def describe(self) -> dict[str, Any]:
        """Give plain values of all that decides the result, except the dataset."""
        start = None if self.start is None else self.start.describe()
        budget = None if self.budget is None else [self.budget.steps, self.budget.looks]
        train = self.train.model_dump(mode="json", exclude={"checkpoint_minutes", "tables"})
        if isinstance(self.train.method, JointConfig):
            del train[
                "method"
            ]  # so that a description made before there were methods stays the same
        if self.train.precision == "float32":
            del train["precision"]  # likewise
        left_out = {"calibration"} | ({"sizes"} if self.model.sizes is None else set())
        return {
            "model": self.model.model_dump(mode="json", exclude=left_out),
            "train": train,
            "domains": _ordered(self.domains),
            "watch": _ordered(self.domains if self.watch is None else self.watch),
            "scored": _ordered(self.scored),
            "rows_per_domain": self.rows_per_domain,
            "hide_domain": self.hide_domain,
            "half": self.half,
            "start": start,
            "budget": budget,
            # Not told of others: a description that was made before there were any stays the same.
            **({"blind": True} if self.blind else {}),
            **({"extends": True} if self.extends else {}),
            **({"watch_per_domain": cap} if (cap := self.watch_per_domain) is not None else {}),
        }

    def key(self, dataset: Dataset) -> str:
        """Give the key of the result. Equal description, dataset and torch have the same key."""
        content = {
            "version": VERSION,
            "torch": torch.__version__.partition("+")[0],
            "dataset": dataset.key,
            "training": self.describe(),
        }
        text = json.dumps(content, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def with_recipe(self, **changes: Any) -> "Training":
        """Change values of the ``train`` section. Raises ConfigError, as a config does."""
        return replace(self, train=validate(TrainConfig, self.train.model_dump() | changes))

    def trained_with(self, **changes: Any) -> "Training":
        """Change values of the ``train`` section to others that are known to be valid."""
        return replace(self, train=self.train.model_copy(update=changes))


def _ordered(names: Iterable[str] | None) -> list[str] | None:
    return None if names is None else sorted(set(names))
