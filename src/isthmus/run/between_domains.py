"""What an objective found between domains, kept with a run: ``between_domains.json``.

Only training knows it: the objective's parameters are not shipped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from isthmus.disk import write_whole
from isthmus.errors import RunError
from isthmus.metrics import TextTable
from isthmus.metrics.text_table import number

FILE = "between_domains.json"


@dataclass(frozen=True, slots=True, eq=False)
class BetweenDomains:
    """A number for every two domains. ``objective``: who found it; ``domains``: names, in order.

    ``values``: (domains, domains) float64, lines first, as the objective defines them.
    """

    objective: str
    domains: tuple[str, ...]
    values: Float64[np.ndarray, "domains domains"]

    def table(self) -> TextTable:
        """A line and a column for each domain."""
        return TextTable(
            title=f"what {self.objective} found between domains",
            header=("domain", *self.domains),
            rows=tuple(
                (name, *(number(value) for value in line))
                for name, line in zip(self.domains, self.values.tolist(), strict=True)
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return {
            "objective": self.objective,
            "domains": list(self.domains),
            "values": self.values.tolist(),
        }

    def __str__(self) -> str:
        return str(self.table())


def found_between(found: Mapping[str, Any], domains: Sequence[str]) -> tuple[BetweenDomains, ...]:
    """Name the matrices at a training's end. ``domains``: the trained ones, in the order of ids."""
    return tuple(
        BetweenDomains(name, tuple(domains), np.asarray(matrix, dtype=np.float64))
        for name, matrix in found.items()
    )


def write_between(folder: Path, found: Sequence[BetweenDomains]) -> None:
    """Write what a run's objectives found, whole or not at all; nothing where they found nothing."""
    if found:
        content = [one.to_dict() for one in found]
        write_whole(folder / FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_between(folder: Path) -> tuple[BetweenDomains, ...]:
    """Read what `write_between` wrote; none where there is nothing.

    Raises RunError where the file is damaged.
    """
    path = folder / FILE
    try:
        return tuple(
            BetweenDomains(
                one["objective"], tuple(one["domains"]), np.array(one["values"], dtype=np.float64)
            )
            for one in json.loads(path.read_text(encoding="utf-8"))
        )
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as fault:
        raise RunError(f"{path} is damaged: {fault!r}") from fault
