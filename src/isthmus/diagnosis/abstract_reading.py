"""From outcomes to effects: the arms of a domain on its test rows, whatever was trained."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

from isthmus.metrics.effects import Effect, MeasuredArm, Reader

O = TypeVar("O")  # noqa: E741  what a training came to

Arm = Literal["solo", "joint", "solo_plus", "joint_plus", "tuned", "adapted"]
LEVELS: tuple[Arm, ...] = ("solo", "joint", "solo_plus", "joint_plus")  # whose means are told
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


class AbstractReading(ABC, Generic[O]):
    """All arms of one domain on its test rows, for the first replicates.

    ``readers``: one for each metric, in the order of the metrics.
    """

    @property
    @abstractmethod
    def readers(self) -> Mapping[str, Reader]:
        """One reader a metric. The first one leads."""

    @abstractmethod
    def measure(self, metric: str, outcomes: Sequence[O]) -> MeasuredArm:
        """Measure one arm, from its outcome in each replicate."""

    @abstractmethod
    def margin_of(self, metric: str, solo: float | None) -> float:
        """Give the margin in the metric's own unit. ``solo``: the solo's mean."""

    def effects(self, arms: Mapping[str, Sequence[O]]) -> dict[str, dict[str, Any]]:
        """Means of arms, and every effect whose two arms are there; None for others."""
        return {metric: self._effects(metric, arms) for metric in self.readers}

    def _effects(self, metric: str, arms: Mapping[str, Sequence[O]]) -> dict[str, Any]:
        measured = {name: self.measure(metric, outcomes) for name, outcomes in arms.items()}
        margin = self.margin_of(metric, measured["solo"].mean)
        told: dict[str, Any] = {
            name: measured[name].mean if name in measured else None for name in LEVELS
        }
        for name, (plus, minus) in EFFECTS.items():
            told[name] = None
            if plus in measured and minus in measured:
                difference = measured[plus] - measured[minus]
                told[name] = self.readers[metric].effect(difference, margin)
        return told | {"margin": margin}

    def difference(
        self, plus: Sequence[O], minus: Sequence[O], metric: str | None = None
    ) -> Effect:
        """Effect of one arm against another. ``metric``: by default the one that leads."""
        metric = next(iter(self.readers)) if metric is None else metric
        left, right = self.measure(metric, plus), self.measure(metric, minus)
        return self.readers[metric].effect(left - right, self.margin_of(metric, right.mean))
