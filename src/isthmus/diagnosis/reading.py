"""From outcomes to effects: the arms of a domain on its test rows, replicate by replicate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from isthmus.data.dataset import Dataset
from isthmus.data.split import SplitName
from isthmus.errors import ConfigError
from isthmus.metrics.crossed import Replicate
from isthmus.metrics.effects import Effect, EffectMetric, Measured, Reader
from isthmus.trainings import Outcome

METRICS: tuple[EffectMetric, ...] = ("auc", "logloss")
Arm = Literal["solo", "joint", "solo_plus", "joint_plus", "tuned", "adapted"]
# Effect: the arm that is measured, minus this one.
EFFECTS: dict[str, tuple[Arm, Arm]] = {
    "net": ("joint", "solo"),
    "net_plus": ("joint_plus", "solo_plus"),
    "transfer": ("tuned", "solo_plus"),
    "interference": ("tuned", "joint_plus"),
    "polish_joint": ("joint_plus", "joint"),
    "polish_solo": ("solo_plus", "solo"),
    "tuned": ("tuned", "joint"),
    "tuned_solo": ("tuned", "solo"),
    "adapted": ("adapted", "joint"),
    "adapted_solo": ("adapted", "solo"),
    "adapted_plus": ("adapted", "joint_plus"),
}


@dataclass(frozen=True, slots=True)
class Margins:
    """Differences that do not matter: in AUC, and as a share of the solo's logloss."""

    auc: float = 0.005
    logloss: float = 0.005

    def of(self, metric: EffectMetric, solo: float | None) -> float:
        """The margin in the metric's own unit; ``solo``: the solo's mean."""
        return self.auc if metric == "auc" else self.logloss * (solo or 1.0)


class Rows:
    """The rows of every domain in every replicate, cut out once.

    ``item``: a categorical feature whose values are the second way of clustering, or None.
    Raises ConfigError where there is no such feature.
    """

    def __init__(self, datasets: Sequence[Dataset], item: str | None) -> None:
        self.datasets = tuple(datasets)
        self.item_column = None if item is None else _column(datasets[0], item)
        self._cut: dict[tuple[str, SplitName, int], Replicate] = {}

    def positions(self, domain: str, k: int, split: SplitName = "test") -> np.ndarray:
        """Positions of a domain's rows in a split of replicate ``k``."""
        dataset = self.datasets[k]
        number = dataset.domain_names.index(domain) + 1
        return np.flatnonzero(np.asarray(dataset.rows(split).domain) == number)

    def replicate(self, domain: str, k: int, split: SplitName = "test") -> Replicate:
        """A domain's rows in replicate ``k``."""
        key = (domain, split, k)
        if key not in self._cut:
            rows, at = self.datasets[k].rows(split), self.positions(domain, k, split)
            item = None
            if self.item_column is not None:
                item = rows.arrays.categorical[at, self.item_column].astype(np.int64)
                item[item == 0] = -1  # unknown values are not one item
            self._cut[key] = Replicate(
                row=rows.row[at],
                label=rows.label[at] > 0,
                cluster=None if rows.group is None else np.asarray(rows.group[at]),
                item=item,
                weight=None if rows.weight is None else rows.weight[at].astype(np.float64),
            )
        return self._cut[key]

    def seen(self, domain: str, k: int, solo: Outcome) -> np.ndarray:
        """Which test rows hold only values that the domain's own solo knew, the domain aside."""
        dataset = self.datasets[k]
        known = solo.training.subset(dataset).known
        assert known is not None
        at = self.positions(domain, k)
        ids = dataset.rows("test").arrays.categorical[at]
        fields = [field for field in dataset.encoder.fields if field.kind == "categorical"]
        kept = np.ones(len(at), dtype=bool)
        for column, field in enumerate(fields):
            if not field.is_domain:
                kept &= known.categorical[column][ids[:, column]] & (ids[:, column] > 0)
        return kept


def _column(dataset: Dataset, item: str) -> int:
    fields = [field.name for field in dataset.encoder.fields if field.kind == "categorical"]
    if item not in fields:
        raise ConfigError(f"item must be a categorical feature of {fields}, got {item!r}")
    return fields.index(item)


class DomainReading:
    """All arms of one domain on its rows in ``split``, for the first ``replicates`` of them."""

    def __init__(
        self,
        rows: Rows,
        domain: str,
        replicates: int,
        margins: Margins,
        *,
        keep: Sequence[np.ndarray] | None = None,
    ) -> None:
        self.domain = domain
        self.margins = margins
        self.many = replicates
        self.keep = keep
        held = [rows.replicate(domain, k) for k in range(replicates)]
        if keep is not None:
            held = [one.take(mask) for one, mask in zip(held, keep, strict=True)]
        self.held = held

    @cached_property
    def readers(self) -> dict[EffectMetric, Reader]:
        """One reader a metric."""
        return {metric: Reader(self.held, metric) for metric in METRICS}

    def measure(self, metric: EffectMetric, outcomes: Sequence[Outcome]) -> Measured:
        """One arm, from its outcome in each replicate."""
        logits = [outcome.logits("test", self.domain) for outcome in outcomes[: self.many]]
        if self.keep is not None:
            logits = [one[mask] for one, mask in zip(logits, self.keep, strict=True)]
        return self.readers[metric].measure(logits)

    def mean(self, measured: Measured) -> float | None:
        """Mean of an arm over replicates, None where undefined."""
        held = measured.values[~np.isnan(measured.values)]
        return float(held.mean()) if len(held) else None

    def effects(
        self, arms: Mapping[str, Sequence[Outcome]]
    ) -> dict[EffectMetric, dict[str, object]]:
        """Levels of solo and joint, and every effect whose two arms are there; None for others."""
        return {metric: self._effects(metric, arms) for metric in METRICS}

    def _effects(
        self, metric: EffectMetric, arms: Mapping[str, Sequence[Outcome]]
    ) -> dict[str, object]:
        measured = {name: self.measure(metric, outcomes) for name, outcomes in arms.items()}
        solo = self.mean(measured["solo"])
        margin = self.margins.of(metric, solo)
        told: dict[str, object] = {name: self.mean(one) for name, one in measured.items()}
        for name, (plus, minus) in EFFECTS.items():
            there = plus in measured and minus in measured
            told[name] = (
                self.readers[metric].effect(measured[plus] - measured[minus], margin)
                if there
                else None
            )
        return told | {"margin": margin}

    def difference(
        self, plus: Sequence[Outcome], minus: Sequence[Outcome], metric: EffectMetric = "auc"
    ) -> Effect:
        """Effect of one arm against another."""
        left, right = self.measure(metric, plus), self.measure(metric, minus)
        margin = self.margins.of(metric, self.mean(right))
        return self.readers[metric].effect(left - right, margin)
