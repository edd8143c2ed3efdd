"""Matrices over targets and sources: who helps whom, with intervals where trainings allow them.

- Cross-scores X[j -> i]: the score of j's solo on i's rows. They measure likeness, not benefit.
- Pairwise A[j -> i]: i's score when trained with j, minus i's score alone. The matched form cuts
the
  larger domain to the smaller one's rows, which separates likeness from volume.
- Leave-one-out L[j -> i]: i's score by the joint model, minus that by the joint model without j.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from isthmus.diagnosis.abstract_study import AbstractStudy
from isthmus.diagnosis.study import Study
from isthmus.metrics.effects import Effect
from isthmus.metrics.equivalence import benjamini_hochberg, spearman

AnyStudy = AbstractStudy[Any, Any]
Cells = dict[str, dict[str, dict[str, Any]]]


def cross_scores(study: AnyStudy) -> Cells:
    """Give the leading metric of each source's solo on each target's test rows."""
    cells: Cells = {}
    for target in study.measured.names:
        reading = study.reading(target)
        reader = reading.readers[study.lead]
        cells[target] = {}
        for source in study.measured.names:
            outcomes = study.arm_outcomes[source]["solo"]
            estimate, ci = reader.interval(reading.measure(study.lead, outcomes))
            cells[target][source] = {"estimate": estimate, "ci": None if ci is None else list(ci)}
    return cells


def pairwise(study: AnyStudy) -> tuple[Cells, np.ndarray]:
    """Train the pairs, and measure A[j -> i] on test rows and on validation rows.

    The first matrix is of the test rows. The second is of the validation rows, and chooses the
    groups: float64 (paired domains, paired domains), targets in rows, nan on the diagonal.
    """
    phases = study.phases
    study.engine.run(phases.pairwise(), "pairs")
    held = {}
    for pair in phases.pairs():
        outcomes = [study.engine.outcome(phases.together(k, pair)) for k in phases.few]
        held[pair] = held[pair[::-1]] = outcomes
    cells = _directed(study, held)
    names = study.measured.paired
    chosen = np.full((len(names), len(names)), np.nan)
    for (target, source), outcomes in held.items():
        solos = study.arm_outcomes[target]["solo"]
        gains = np.array(
            [
                study.on_validation(one, target, k) - study.on_validation(solo, target, k)
                for k, (one, solo) in enumerate(zip(outcomes, solos, strict=False))
            ]
        )
        there = gains[~np.isnan(gains)]  # nan: no AUC of rows of one class
        if len(there):
            chosen[names.index(target), names.index(source)] = there.mean()
    return cells, chosen


def pairwise_matched(study: Study) -> Cells:
    """Measure A[j -> i] with no more rows of j than of i. Where i is the larger, take A itself."""
    phases = study.phases
    study.engine.run(phases.pairwise_matched(), "pairs of equal rows")
    support = study.measured.support
    held = {}
    for pair in phases.pairs():
        smaller = min(pair, key=lambda name: support[name].train_rows)
        source = pair[0] if smaller == pair[1] else pair[1]
        held[smaller, source] = [study.engine.outcome(phases.matched(k, pair)) for k in phases.few]
        held[source, smaller] = [study.engine.outcome(phases.together(k, pair)) for k in phases.few]
    return _directed(study, held)


def leave_one_out(study: AnyStudy) -> Cells:
    """Measure L[j -> i]. Above 0, j helps i inside the joint model."""
    phases = study.phases
    study.engine.run(phases.leave_one_out(), "leave one out")
    names = study.measured.paired
    without = {
        name: [study.engine.outcome(phases.without(k, name)) for k in phases.few] for name in names
    }
    effects = {}
    for target in names:
        reading = study.reading(target, study.level.few)
        for source in names:
            if source != target:
                effects[target, source] = reading.difference(study.joint, without[source])
    return _cells(effects)


def _directed(study: AnyStudy, held: Mapping[tuple[str, str], list[Any]]) -> Cells:
    readings = {name: study.reading(name, study.level.few) for name in study.measured.paired}
    return _cells(
        {
            (target, source): readings[target].difference(
                outcomes, study.arm_outcomes[target]["solo"]
            )
            for (target, source), outcomes in held.items()
        }
    )


def _cells(effects: Mapping[tuple[str, str], Effect]) -> Cells:
    """Give the cells of a matrix. Their p is adjusted by Benjamini and Hochberg over all cells."""
    tested = [key for key, effect in effects.items() if effect.p is not None]
    adjusted = dict(
        zip(tested, benjamini_hochberg([effects[key].p or 0.0 for key in tested]), strict=True)
    )
    cells: Cells = {}
    for key in sorted(effects):
        target, source = key
        told = effects[key].to_dict()
        cells.setdefault(target, {})[source] = {
            "estimate": told["estimate"],
            "ci": told["ci"],
            "p": told["p"],
            "p_bh": adjusted.get(key),
            "reason": told["reason"],
        }
    return cells


def agreements(matrices: Mapping[str, Cells | None]) -> dict[str, float]:
    """Give Spearman's correlation of every two matrices, over the cells off both diagonals."""
    there = {name: cells for name, cells in matrices.items() if cells}
    names, found = list(there), {}
    for place, left in enumerate(names):
        for right in names[place + 1 :]:
            pairs = list(_shared(there[left], there[right]))
            if len(pairs) >= 3:
                a, b = np.array(pairs, dtype=np.float64).T
                value = spearman(a, b)
                if value is not None:
                    found[f"{left}~{right}"] = value
    return found


def _shared(left: Cells, right: Cells) -> Iterator[tuple[float, float]]:
    for target, row in left.items():
        for source, cell in row.items():
            other = right.get(target, {}).get(source)
            if source == target or other is None:
                continue
            if cell["estimate"] is not None and other["estimate"] is not None:
                yield cell["estimate"], other["estimate"]
