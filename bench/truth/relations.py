"""Self-checks 4 and 5: planted groups and graded relations."""

import numpy as np
from sklearn.metrics import adjusted_rand_score

from bench.truth.repeat import Result, study_of
from isthmus.diagnosis.measures.grouping import Groups, group_domains
from isthmus.diagnosis.measures.matrices import cross_scores, pairwise
from isthmus.metrics.equivalence import spearman
from isthmus.metrics.formulas.auc import auc
from isthmus.sources.planted import angles, groups, planted

SEEDS = 3


def grouped(seed: int, sizes: list[int], rows: int | list[int], loners: int = 0) -> Result:
    """Groups at 90 degrees: are they found? The grouping is chosen on validation rows."""
    relation = groups(sizes, loners=loners)
    made = planted(rows=rows, relation=relation, seed=4000 + seed)
    with study_of(made, seed=seed, widths=[16], seeds=SEEDS, few=SEEDS) as study:
        study.choose()
        study.train_arms()
        cells, affinity = pairwise(study)
        crossed = cross_scores(study)
        names = study.measured.paired
    chosen = group_domains(affinity, 0.005)
    free = group_domains(affinity, 0.0)
    truth = _groups(relation, [int(name[1:]) for name in names])
    test = _matrix(cells, names)
    return {
        "rand": _rand(chosen.groups, truth),
        "rand_without_penalty": _rand(free.groups, truth),
        "groups": [list(group) for group in chosen.groups],
        "within": _within(test, truth),
        "within_cross_scores": _within(_matrix(crossed, names), truth),
    }


def graded(seed: int, rows: int) -> Result:
    """Six domains at 0 to 180 degrees of one plane: do X and A rank pairs as their cosines do?"""
    relation = angles(np.linspace(0, 180, 6).tolist())
    made = planted(rows=rows, relation=relation, seed=5000 + seed)
    with study_of(made, seed=seed, widths=[16], seeds=SEEDS, few=SEEDS) as study:
        study.choose()
        study.train_arms()
        cells, _ = pairwise(study)
        crossed = cross_scores(study)
        names = study.measured.paired
    of = [int(name[1:]) for name in names]
    truth = relation[np.ix_(of, of)]
    away = ~np.eye(len(of), dtype=bool)
    return {
        "cross_scores": spearman(_matrix(crossed, names)[away], truth[away]),
        "pairwise": spearman(_matrix(cells, names)[away], truth[away]),
    }


def _matrix(cells, names) -> np.ndarray:
    """Targets in rows, nan where there is no cell."""
    made = np.full((len(names), len(names)), np.nan)
    for i, target in enumerate(names):
        for j, source in enumerate(names):
            estimate = cells.get(target, {}).get(source, {}).get("estimate")
            made[i, j] = np.nan if estimate is None else estimate
    return made


def _groups(relation: np.ndarray, of: list[int]) -> list[list[int]]:
    """Places in ``of`` of the domains whose relation is 1."""
    groups_of: dict[int, list[int]] = {}
    for place, domain in enumerate(of):
        groups_of.setdefault(int(np.argmax(relation[domain] > 0.5)), []).append(place)
    return list(groups_of.values())


def _rand(found: Groups, truth: list[list[int]]) -> float:
    """Agreement of two partitions: 1 for equal ones, about 0 for what chance gives."""
    sides = [
        [
            label
            for _, label in sorted((place, label) for label, of in enumerate(part) for place in of)
        ]
        for part in (found, truth)
    ]
    return float(adjusted_rand_score(*sides))


def _within(matrix: np.ndarray, truth: list[list[int]]) -> float:
    """AUC of the cells of pairs within a group against those across."""
    member = {place: number for number, group in enumerate(truth) for place in group}
    n = len(matrix)
    cells = [(i, j) for i in range(n) for j in range(n) if i != j and not np.isnan(matrix[i, j])]
    score = np.array([matrix[cell] for cell in cells])
    return auc(score, np.array([member[i] == member[j] for i, j in cells]))
