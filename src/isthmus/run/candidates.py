"""What a guard trains: one config's joint, adapted, solo and tuned models.

Joint and adapted learn from all rows, solo and tuned from each domain's own; all stop on one half
of the validation rows. Solo is a serious opponent: the best, on that half, of two batches by two
learning rates, stopped by patience. Tuned goes on from joint, with a fresh optimiser and patience.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from isthmus.adapters import HamurConfig, NoAdapterConfig
from isthmus.config import Config
from isthmus.data import Dataset, SplitName
from isthmus.experiments import Engine, Outcome, Training
from isthmus.experiments.grid import LOWER_LR, MAX_EPOCHS, MIN_LOOKS, choices
from isthmus.run.guard.choosing import Arm, halves
from isthmus.train import TrainConfig


@dataclass(frozen=True, slots=True)
class Arms:
    """Outcomes of all trainings. ``solo`` and ``tuned`` by domain; ``no_solo``: why one has none."""

    joint: Outcome
    adapted: Outcome
    solo: Mapping[str, Outcome]
    tuned: Mapping[str, Outcome]
    no_solo: Mapping[str, str]

    def outcome(self, arm: Arm, domain: str) -> Outcome:
        """The training that an arm has for a domain."""
        if arm in ("joint", "adapted"):
            return self.joint if arm == "joint" else self.adapted
        return (self.solo if arm == "solo" else self.tuned)[domain]

    def logits(self, split: SplitName, dataset: Dataset) -> dict[str, Float64[np.ndarray, " rows"]]:
        """Logits of a split by arm; nan on the rows of domains that an arm has no model for."""
        domain = np.asarray(dataset.rows(split).domain)
        order = np.argsort(domain, kind="stable")
        ends = np.searchsorted(domain[order], np.arange(len(dataset.domain_names) + 2))
        logits = {arm: getattr(self, arm).logits(split) for arm in ("joint", "adapted")}
        for arm in ("tuned", "solo"):
            values = np.full(len(domain), np.nan)
            for name, outcome in getattr(self, arm).items():
                number = dataset.domain_names.index(name) + 1
                values[order[ends[number] : ends[number + 1]]] = outcome.logits(split)
            logits[arm] = values
        return logits


class Candidates:
    """The trainings of one config on one dataset.

    ``joint``, ``adapted``: for all domains; where the config names an adapter, adapted wears it and
    joint goes without, otherwise adapted wears ``hamur`` with its defaults. ``grids``: by domain,
    what solo chooses from. ``no_solo``: the domains that can have no model of their own, and why.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        self.config, self.dataset = config, dataset
        wears = not isinstance(config.model.adapter, NoAdapterConfig)
        worn = config.model.adapter if wears else HamurConfig()
        plain = config.model.model_copy(update={"adapter": NoAdapterConfig()})
        self.joint = Training(model=plain, train=config.train, half=True)
        self.adapted = replace(self.joint, model=plain.model_copy(update={"adapter": worn}))
        rows = dataset.rows("validation")
        stopping = halves(rows)[0]
        domain, label = np.asarray(rows.domain)[stopping], np.asarray(rows.label)[stopping] > 0
        ids = len(dataset.domain_names) + 1
        self._stopping = np.bincount(domain, minlength=ids)
        self._positives = np.bincount(domain[label], minlength=ids)
        self.no_solo = self._without_solo()
        self.grids = {
            name: self._grid(name) for name in dataset.domain_names if name not in self.no_solo
        }

    def __len__(self) -> int:
        return 2 + sum(len(grid) + 1 for grid in self.grids.values())

    def train(self, engine: Engine) -> Arms:
        """Run them all: first joint, adapted and solo, then tuned."""
        solos = [choice for grid in self.grids.values() for choice in grid]
        joint, adapted, *done = engine.run(
            [self.joint, self.adapted, *solos], "joint, adapted and solo"
        )
        others = iter(done)
        solo = {name: _best([next(others) for _ in grid]) for name, grid in self.grids.items()}
        tuned = engine.run(
            [self._tuned(name, outcome.training) for name, outcome in solo.items()], "tuned"
        )
        return Arms(joint, adapted, solo, dict(zip(solo, tuned, strict=True)), self.no_solo)

    def _without_solo(self) -> dict[str, str]:
        """Why a domain can have no model of its own."""
        reasons = {}
        counts = self.dataset.summary()["train"]
        for number, name in enumerate(self.dataset.domain_names, start=1):
            count = counts[name]
            if min(count.positives, count.rows - count.positives) < 1:
                reasons[name] = (
                    f"its {count.rows} train rows hold {count.positives} positives, both classes"
                    " are needed"
                )
            elif self._stopping[number] < 2:
                reasons[name] = (
                    f"{self._stopping[number]} of its validation rows could stop a training, 2 are needed"
                )
        return reasons

    def _own(self, domain: str) -> TrainConfig:
        """The ``train`` section for one domain's rows."""
        changes: dict[str, Any] = {
            "epochs": MAX_EPOCHS,
            "looks_per_epoch": max(MIN_LOOKS, self.config.train.looks_per_epoch),
            "domain_sampling": "proportional",
            "weighting": "proportional",
        }
        number = self.dataset.domain_names.index(domain) + 1
        if not 0 < self._positives[number] < self._stopping[number]:
            changes["monitor"] = "logloss_pooled"  # no AUC of one class
        return self.config.train.model_copy(update=changes)

    def _grid(self, domain: str) -> list[Training]:
        """What solo may choose from."""
        alone = Training(
            model=self.joint.model,
            train=self._own(domain),
            domains=(domain,),
            scored=(domain,),
            half=True,
        )
        return choices(alone, self.dataset.summary()["train"][domain].rows)

    def _tuned(self, domain: str, solo: Training) -> Training:
        """Go on from joint on the domain's own rows, more slowly."""
        train = self._own(domain).model_copy(
            update={
                "batch_rows": solo.train.batch_rows,
                "lr": self.config.train.lr * LOWER_LR,
            }
        )
        return replace(solo, train=train, start=self.joint)


def _best(outcomes: Sequence[Outcome]) -> Outcome:
    """The best on the stopping rows by the monitor; the first of equals."""
    sign = -1 if outcomes[0].training.train.monitor.startswith("logloss") else 1
    return max(outcomes, key=lambda outcome: sign * outcome.told.best)
