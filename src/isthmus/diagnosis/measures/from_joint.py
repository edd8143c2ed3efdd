"""What the joint model alone tells: domain vectors, their distances, early gradients."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.diagnosis.measures.domain2vec import learnt_vectors
from isthmus.diagnosis.measures.gradients import early_cosines
from isthmus.diagnosis.measures.likeness import agreement, distances, domain_vectors, flat_map
from isthmus.diagnosis.measures.matrices import Cells
from isthmus.diagnosis.study import Study
from isthmus.disk import write_whole
from isthmus.experiments.outcome import build


def likeness(study: Study, pairwise: Cells | None) -> dict[str, Any]:
    """Measure distances between domains, draw a map of them, and see how well they foretell A."""
    outcome = study.joint[0]
    training = outcome.training
    model, subset = outcome.model(), training.subset(study.arms.dataset(0))
    vectors = domain_vectors(model, subset)
    of = [vectors.names.index(name) for name in study.measured.names]
    between = distances(vectors)[np.ix_(of, of)]
    learnt = distances(learnt_vectors(model, subset))[np.ix_(of, of)]
    places = flat_map(between)
    names = study.measured.names
    return {
        "distance": _named(between, names),
        "map": {name: [_plain(x) for x in places[i]] for i, name in enumerate(names)},
        "spearman_pairwise": _foretold(study, between, pairwise),
        "parts": list(vectors.parts),
        "domain2vec": {
            "distance": _named(learnt, names),
            "spearman_pairwise": _foretold(study, learnt, pairwise),
        },
    }


def _named(between: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    return {
        left: {right: _plain(between[i, j]) for j, right in enumerate(names)}
        for i, left in enumerate(names)
    }


def _foretold(study: Study, between: np.ndarray, pairwise: Cells | None) -> float | None:
    if pairwise is None:
        return None
    names, paired = study.measured.names, study.measured.paired
    of = [names.index(name) for name in paired]
    affinity = np.full((len(paired), len(paired)), np.nan)
    for i, target in enumerate(paired):
        for j, source in enumerate(paired):
            estimate = pairwise.get(target, {}).get(source, {}).get("estimate")
            affinity[i, j] = np.nan if estimate is None else estimate
    return agreement(between[np.ix_(of, of)], affinity)


def gradients(study: Study) -> Cells:
    """Give the mean cosines of early gradients. They are exploratory and have no intervals.

    The result is kept beside the trainings.
    """
    training = study.phases.joint(0)
    names = study.measured.names
    path = study.engine.path(training)
    path = path.with_name(f"{path.name}.gradients.json")
    if (kept := _read(path, names)) is not None:
        return kept
    study.tell("comparing early gradients", None)
    dataset = study.arms.dataset(0)
    agreed = early_cosines(
        build(training, dataset), training.subset(dataset), training.train, domains=names
    )
    cells: Cells = {
        target: {
            source: {"estimate": _plain(agreed.cosine[i, j]), "ci": None}
            for j, source in enumerate(names)
        }
        for i, target in enumerate(names)
    }
    write_whole(path, json.dumps(cells))
    return cells


def _read(path: Path, names: Sequence[str]) -> Cells | None:
    """Read what an earlier diagnosis of the same domains found. None where there is nothing."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return cells if list(cells) == list(names) else None


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
