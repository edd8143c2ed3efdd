"""What a key of a search space may be: numbers between two bounds, or one of a few values."""

from dataclasses import dataclass

from isthmus.tuning.portfolio import Value


@dataclass(frozen=True, slots=True)
class Bounds:
    """The numbers from ``low`` to ``high``. ``log``: drawn on a log scale. ``whole``: integers."""

    low: float
    high: float
    log: bool
    whole: bool = False

    def holds(self, value: Value) -> bool:
        """Whether a value lies within the bounds."""
        return not isinstance(value, str) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Options:
    """A few values, of which a trial takes one."""

    values: tuple[Value, ...]

    def holds(self, value: Value) -> bool:
        """Whether a value is one of them."""
        return value in self.values

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


def around(
    value: Value, low: float, high: float, *, log: bool = False, whole: bool = False
) -> Bounds:
    """Give the bounds, widened to hold a value."""
    assert not isinstance(value, str)
    return Bounds(min(low, value), max(high, value), log, whole)
