"""Self-checks 7 and 8: scores drawn so that the truth is exact; nothing is trained."""

from collections.abc import Mapping

import numpy as np
from scipy.special import ndtri

from bench.truth.repeat import Result
from isthmus.metrics.crossed import Replicate
from isthmus.metrics.effects import Reader
from isthmus.metrics.equivalence import not_worse, same
from isthmus.run.guard.choosing import Judged, choose

MARGIN = 0.005
USERS = 0.5  # how much a user's rows have in common, in standard deviations of the noise


def apart(auc: float) -> float:
    """Distance of two unit normals whose AUC it is."""
    return float(ndtri(auc)) * 2**0.5


def drawn(rng, label: np.ndarray, auc: float, shared: np.ndarray, own: float) -> np.ndarray:
    """Scores with exactly that true AUC: unit noise, most of it ``shared`` with other arms."""
    noise = (1 - own**2) ** 0.5 * shared + own * rng.standard_normal(len(label))
    return apart(auc) * label + noise


def rows_of(rng, rows: int, users: int) -> tuple[Replicate, np.ndarray]:
    """Rows of users, and noise that every arm shares; a user's rows have some of it in common."""
    user = rng.integers(users, size=rows)
    label = rng.random(rows) < 0.4
    replicate = Replicate(row=np.arange(rows), label=label, cluster=user)
    common = rng.standard_normal(users)[user]
    shared = USERS * common + (1 - USERS**2) ** 0.5 * rng.standard_normal(rows)
    return replicate, shared


def equivalence(seed: int, repetitions: int, rows: int, seeds: int) -> Result:
    """The same predictor plus tiny noise, and a true loss of exactly the margin."""
    told_same = told_not_worse = 0
    for repetition in range(repetitions):
        rng = np.random.default_rng([7, seed, repetition])
        replicate, shared = rows_of(rng, rows, rows // 10)
        reader = Reader([replicate] * seeds, "auc")

        def arm(auc: float, own: float) -> list[np.ndarray]:
            return [drawn(rng, replicate.label, auc, shared, own) for _ in range(seeds)]  # noqa: B023

        a = reader.measure(arm(0.75, 0.1))
        again = reader.measure(arm(0.75, 0.1))
        worse = reader.measure(arm(0.75 - MARGIN, 0.1))
        told_same += same(reader.effect(again - a, MARGIN), MARGIN)
        told_not_worse += not_worse(reader.effect(worse - a, MARGIN), MARGIN)
    return {"same": told_same, "not_worse": told_not_worse, "of": repetitions}


def guard(seed: int, repetitions: int, rows: int, domains: int) -> Result:
    """Every candidate of every domain planted at exactly -m: how often is one chosen?"""
    wrong = 0
    for repetition in range(repetitions):
        rng = np.random.default_rng([8, seed, repetition])
        arms = {name: [-MARGIN] * domains for name in ("joint", "adapted", "tuned")}
        choices = choose(_judged(rng, rows, arms))
        wrong += any(choice.arm != "solo" for choice in choices)
    return {"chosen": wrong, "of": repetitions}


def kept(seed: int, repetitions: int, rows: int) -> Result:
    """Four domains in planted groups, two that gain by company and two that lose."""
    lifts = {
        "joint": [0.03, 0.02, -0.03, -0.02],
        "adapted": [0.03, 0.04, -0.01, -0.02],
        "tuned": [0.03, 0.04, 0.0, 0.03],
    }
    best = np.maximum(np.max(list(lifts.values()), axis=0), 0).sum()
    gain, harmed = 0.0, 0
    for repetition in range(repetitions):
        rng = np.random.default_rng([9, seed, repetition])
        choices = choose(_judged(rng, rows, lifts))
        true = [0.0 if c.arm == "solo" else lifts[c.arm][d] for d, c in enumerate(choices)]
        gain += sum(true)
        harmed += min(true) < -MARGIN
    return {"kept": gain / (repetitions * best), "harmed": harmed, "of": repetitions}


def _judged(rng, rows: int, lifts: Mapping[str, list[float]]) -> Judged:
    """Scores of solo and candidates on the deciding rows of several domains."""
    domains = len(next(iter(lifts.values())))
    parts = [rows_of(rng, rows, rows // 5) for _ in range(domains)]
    label = np.concatenate([replicate.label for replicate, _ in parts])
    logits = {
        arm: np.concatenate(
            [
                drawn(rng, replicate.label, 0.72 + lift[d], shared, 0.3)
                for d, (replicate, shared) in enumerate(parts)
            ]
        )
        for arm, lift in {**lifts, "solo": [0.0] * domains}.items()
    }
    return Judged(
        label=label,
        domain=np.repeat(np.arange(1, domains + 1), rows),
        names=tuple(f"d{number}" for number in range(domains)),
        logits=logits,
        cluster=np.concatenate(
            [np.asarray(replicate.cluster) + d * rows for d, (replicate, _) in enumerate(parts)]
        ),
    )
