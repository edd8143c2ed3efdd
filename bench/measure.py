"""Measuring fairly: the contestants take turns in one process, and medians are compared."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

RUNS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the bench: what was compared, the ratio, its bound, the absolute values."""

    name: str
    ratio: float | None
    bound: str
    met: bool | None
    values: dict[str, str]

    def to_dict(self) -> dict[str, object]:
        return {
            "name": self.name,
            "ratio": self.ratio,
            "bound": self.bound,
            "met": self.met,
            "values": self.values,
        }


def at_most(name: str, ratio: float, bound: float, **values: str) -> Row:
    """A row whose ratio must not exceed ``bound``."""
    return Row(name, ratio, f"<= {bound:g}", ratio <= bound, values)


def at_least(name: str, ratio: float, bound: float, **values: str) -> Row:
    """A row whose ratio must reach ``bound``."""
    return Row(name, ratio, f">= {bound:g}", ratio >= bound, values)


def informative(name: str, ratio: float | None, **values: str) -> Row:
    """A row without a bound."""
    return Row(name, ratio, "", None, values)


def alternate(
    contestants: dict[str, Callable[[], object]], runs: int = RUNS, warm_up: int = 1
) -> dict[str, float]:
    """Median seconds of each contestant over ``runs`` turns, after ``warm_up`` turns not counted.

    Taking turns (A B C A B C ...) lets a drift of the machine's speed fall on all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(warm_up + runs):
        for name, contestant in contestants.items():
            start = time.perf_counter()
            contestant()
            taken = time.perf_counter() - start
            if turn >= warm_up:
                seconds[name].append(taken)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def load_now() -> float:
    """Processes that wanted a core over the last minute; ask before the bench starts."""
    return os.getloadavg()[0]
