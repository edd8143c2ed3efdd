"""A new domain, before it exists: every domain is left out in turn, and then met.

A network is trained on all other domains. The test rows of the domain that was left out are scored in
these ways, as on the day that the domain opens:

- ``unknown``: as rows of the unknown domain, which is what is served for a domain without a name.
- ``nearest``: as rows of the domain that is most like it. Likeness needs no label: it is the distance of
  `isthmus.diagnosis.measures.likeness` in hidden states and inputs, of the validation rows of all
  domains, all read as rows of the unknown one.
- ``mixture``: by the adapted network, where its adapter mixes the domains' norms for a row of none.
- ``trees``: by a boosted forest of the other domains' rows.

Then the domain brings rows of its own, 100, 500, 2,000 and all that it has. The network stands still,
and only what belongs to the domain learns from them (``extended``): `isthmus.experiments.arms` says
what that is. A solo on the same rows is the comparison. All
differences are paired on the domain's test rows, against the joint model, which has met all its rows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from isthmus.data.store.dataset import Dataset
from isthmus.data.store.subset import Subset
from isthmus.diagnosis.measures.likeness import distances, domain_vectors
from isthmus.diagnosis.reading import DomainReading
from isthmus.diagnosis.study import Study
from isthmus.disk import write_whole
from isthmus.experiments import Outcome
from isthmus.metrics.effects import Effect, MeasuredArm
from isthmus.metrics.equivalence import with_holm
from isthmus.models import AbstractModel
from isthmus.train import score_rows

SUFFIX = ".new-domain.safetensors"
DayOne = Literal["unknown", "nearest", "mixture", "trees"]
BESIDE: tuple[DayOne, ...] = ("nearest", "mixture", "trees")  # what is compared with ``unknown``


def new_domain(study: Study) -> dict[str, Any]:
    """Train without each domain, score its rows, and measure what its own rows add.

    Holm's p is filled in for two families: what the unknown domain's answer lacks, over all domains;
    and what the other answers of day one add, over all answers and domains.
    """
    phases = study.phases
    study.engine.run(phases.newcomers(), "a new domain")
    domains = {}
    for place, name in enumerate(study.measured.names):
        study.tell(f"scoring {name} as a new domain", place / len(study.measured.names))
        domains[name] = _newcomer(study, name)
    _adjust({name: told["day_one"] for name, told in domains.items()})
    return {
        "replicates": study.level.newcomers,
        "trees": study.no_forests,
        "domains": domains,
    }


def _newcomer(study: Study, name: str) -> dict[str, Any]:
    """Measure one domain. Effects are still without Holm's p."""
    phases, engine, many = study.phases, study.engine, study.level.newcomers
    reading = study.reading(name, many)
    joint = reading.measure(study.lead, study.joint)
    day_one, near = _day_one(study, name, reading)
    unknown = day_one["unknown"]
    curve = []
    for rows in phases.own_rows(name):
        arms = {
            "extended": [engine.outcome(phases.extended(k, name, rows)) for k in range(many)],
            "solo": [engine.outcome(phases.few_rows(k, name, rows)) for k in range(many)],
        }
        held = {arm: reading.measure(study.lead, outcomes) for arm, outcomes in arms.items()}
        curve.append(
            {
                "rows": arms["solo"][0].told.rows,
                "all": rows is None,
                **{arm: _told(study, reading, of, joint) for arm, of in held.items()},
                "extended_minus_solo": _effect(study, reading, held["extended"], held["solo"]),
            }
        )
    return {
        "joint": joint.mean,
        "nearest": near,
        "day_one": {
            arm: _told(study, reading, of, joint)
            | {"minus_unknown": None if of is unknown else _effect(study, reading, of, unknown)}
            for arm, of in day_one.items()
        },
        "curve": curve,
    }


def _day_one(
    study: Study, name: str, reading: DomainReading
) -> tuple[dict[DayOne, MeasuredArm], list[str]]:
    """Measure the answers of day one, and name the nearest domain of each replicate."""
    phases, engine, many = study.phases, study.engine, range(study.level.newcomers)
    names = study.arms.dataset(0).domain_names
    scored = [_scored(study, engine.outcome(phases.without(k, name)), name) for k in many]
    logits: dict[DayOne, list[np.ndarray]] = {
        arm: [one[arm] for one in scored] for arm in ("unknown", "nearest")
    }
    if phases.mixes:
        held = [engine.outcome(phases.without_adapted(k, name)) for k in many]
        logits["mixture"] = [_scored(study, one, name)["unknown"] for one in held]
    if study.arms.has_forests:
        held = [engine.outcome(phases.without_by_trees(k, name)) for k in many]
        logits["trees"] = [one.logits("test", name) for one in held]
    found: dict[DayOne, MeasuredArm] = {
        arm: reading.measure_logits(study.lead, of) for arm, of in logits.items()
    }
    return found, [names[int(one["near"])] for one in scored]


def _scored(study: Study, outcome: Outcome, name: str) -> dict[str, np.ndarray]:
    """The logits of a domain's test rows by a network that never met it, kept beside the training.

    ``near``: the place of the nearest domain's name.
    """
    path = study.engine.path(outcome.training)
    path = path.with_name(f"{path.name}{SUFFIX}")
    if (kept := _read(path)) is not None:
        return kept
    dataset = outcome.dataset
    subset, model = outcome.training.subset(dataset), outcome.model()
    near = nearest(model, subset, dataset, name)
    as_unknown = subset.scored("test", (name,))
    as_nearest = subset.scored("test", (name,), as_of=dataset.domain_names[near])
    found = {
        "unknown": score_rows(model, as_unknown),
        "nearest": score_rows(model, as_nearest),
        "near": np.array(near),
    }
    write_whole(path, save(found))
    return found


def nearest(model: AbstractModel, subset: Subset, dataset: Dataset, name: str) -> int:
    """Give the place, among the dataset's domains, of the one that is most like ``name``.

    ``subset``: what the model has learnt from. No label is read.
    """
    vectors = domain_vectors(model, dataset, unlabelled=subset.scored("validation", None, as_of=0))
    names = dataset.domain_names
    between = distances(vectors)[names.index(name)]
    met = np.isin(np.asarray(names), subset.learnt_from)
    return int(np.where(met & np.isfinite(between), between, np.inf).argmin())


def _read(path: Path) -> dict[str, np.ndarray] | None:
    try:
        return load_file(path)
    except (FileNotFoundError, SafetensorError):
        return None


def _told(
    study: Study, reading: DomainReading, arm: MeasuredArm, joint: MeasuredArm
) -> dict[str, Any]:
    return {"score": arm.mean, "minus_joint": _effect(study, reading, arm, joint)}


def _effect(
    study: Study, reading: DomainReading, plus: MeasuredArm, minus: MeasuredArm
) -> dict[str, Any]:
    margin = reading.margin_of(study.lead, minus.mean)
    return reading.readers[study.lead].effect(plus - minus, margin).to_dict()


def _adjust(day_one: Mapping[str, dict[str, dict[str, Any]]]) -> None:
    """Fill in Holm's p, in place, for the two families of effects."""
    lacks = [arms["unknown"]["minus_joint"] for arms in day_one.values()]
    adds = [
        arms[arm]["minus_unknown"] for arms in day_one.values() for arm in BESIDE if arm in arms
    ]
    for family in (lacks, adds):
        _holm(family)


def _holm(family: Sequence[dict[str, Any]]) -> None:
    held = with_holm({place: Effect(**told) for place, told in enumerate(family)})
    for place, effect in held.items():
        family[place].update(effect.to_dict())
