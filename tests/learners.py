"""Small learners for the tests of the diagnosis, and domains that are planted for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from isthmus.diagnosis import DomainRows

FEATURES = 30
Rows = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Linear:
    """Logistic regression by gradient steps on all rows; one set of weights for all domains.

    ``width``: how many of the features it reads. ``log``: every call, in order.
    """

    width: int = FEATURES
    balanced: bool = False
    log: list[str] = field(default_factory=list, compare=False)

    def fingerprint(self) -> str:
        return f"linear {self.width} {self.balanced}"

    def count(self, rows: Rows) -> int:
        return len(rows[1])

    def train(
        self,
        rows: Mapping[str, Rows],
        *,
        watch: Mapping[str, Rows],
        seed: int,
        start: Mapping[str, np.ndarray] | None,
        steps: int | None,
    ) -> dict[str, np.ndarray]:
        self.log.append(f"train {'+'.join(rows)} seed {seed} steps {steps}")
        x = np.concatenate([part[0] for part in rows.values()])[:, : self.width]
        y = np.concatenate([part[1] for part in rows.values()])
        sizes = np.concatenate([np.full(len(part[1]), len(part[1])) for part in rows.values()])
        weight = 1 / sizes if self.balanced else np.ones(len(y))
        weight = weight / weight.sum()
        first = 0.3 * np.random.default_rng(seed).standard_normal(self.width)
        w = first if start is None else np.array(start["w"])
        best, kept = np.inf, w
        for _ in range(steps or 100):
            w = w - 1.0 * x.T @ (weight * (1 / (1 + np.exp(-x @ w)) - y))
            loss = sum(_loss(part, w) for part in watch.values())
            if loss < best:
                best, kept = loss, w
        return {"w": kept}

    def score(self, state: Mapping[str, np.ndarray], domain: str, rows: Rows) -> np.ndarray:
        self.log.append(f"score {domain}")
        return 1 / (1 + np.exp(-rows[0][:, : self.width] @ state["w"]))


class Able(Linear):
    """The linear learner with all that a learner may have."""

    def second_stage_steps(self, rows: Rows) -> int:
        return 20

    def score_unseen(self, state: Mapping[str, np.ndarray], rows: Rows) -> np.ndarray:
        return self.score(state, "unseen", rows)

    def at_widths(self) -> dict[int, "Able"]:
        return {width: replace(self, width=width) for width in (2, FEATURES)}

    def weightings(self) -> dict[str, "Able"]:
        return {"balanced": replace(self, balanced=True)}


def _loss(rows: Rows, w: np.ndarray) -> float:
    z = rows[0][:, : len(w)] @ w
    return float(np.logaddexp(0, np.where(rows[1] == 1, -z, z)).mean())


def planted(
    angles: Mapping[str, float], *, train: int = 100, test: int = 1500, seed: int = 0
) -> dict[str, DomainRows]:
    """Domains of a logistic model each, whose weights lie at an angle (degrees) in one plane."""
    rng = np.random.default_rng(seed)

    def part(angle: float, rows: int) -> Rows:
        w = np.zeros(FEATURES)
        w[:2] = 2 * np.cos(np.deg2rad(angle)), 2 * np.sin(np.deg2rad(angle))
        x = rng.standard_normal((rows, FEATURES))
        return x, (rng.random(rows) < 1 / (1 + np.exp(-x @ w))).astype(np.float64)

    found = {}
    for name, angle in angles.items():
        parts = [part(angle, rows) for rows in (train, 300, test)]
        found[name] = DomainRows(
            train=parts[0],
            validation=parts[1],
            test=parts[2],
            labels=parts[2][1],
            validation_labels=parts[1][1],
        )
    return found


def changed(domains: Mapping[str, DomainRows], name: str, **values: Any) -> dict[str, DomainRows]:
    """The same domains, one of them with other values."""
    return {**domains, name: replace(domains[name], **values)}
