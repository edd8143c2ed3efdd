"""Groups of domains. They are chosen on validation rows, trained, and confirmed on test rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.diagnosis.abstract_study import AbstractStudy
from isthmus.diagnosis.level import RANDOM_GROUPINGS
from isthmus.diagnosis.measures.grouping import Grouping, group_domains, random_groupings
from isthmus.metrics.effects import Effect, macro_effect

AnyStudy = AbstractStudy[Any, Any]
DRAW_SEED = 0


@dataclass(frozen=True, slots=True)
class Grouped:
    """A chosen grouping, and what its training came to.

    ``told``: what the report says. ``solo``, ``joint``: group minus solo and group minus joint, by
    domain and metric. ``members``: by domain, the other members of its group.
    """

    told: dict[str, Any]
    solo: dict[str, dict[str, Effect]]
    joint: dict[str, dict[str, Effect]]
    members: dict[str, tuple[str, ...]]


def grouped(study: AnyStudy, affinity: np.ndarray) -> Grouped:
    """Choose groups by A on validation rows, train the groups in every replicate, and confirm.

    ``affinity``: A, float64 (paired domains, paired domains), targets in rows.
    """
    names = study.measured.paired
    chosen = group_domains(affinity, study.macro_margin)
    groups = chosen.named(names)
    controls = _controls(study, chosen)
    phases = study.phases
    study.engine.run(phases.groupings([groups], phases.seeds), "groups")
    study.engine.run(phases.groupings(controls, phases.few), "random groupings")
    found: dict[str, dict[str, dict[str, Effect]]] = {"solo": {}, "joint": {}}
    parts: dict[str, list[Any]] = {"solo": [], "joint": []}
    for group in groups:
        for name in group:
            outcomes = _outcomes(study, group, phases.seeds)
            reading = study.reading(name)
            for against in found:
                other = study.arm_outcomes[name][against]
                found[against][name] = {
                    metric: reading.difference(outcomes, other, metric)
                    for metric in reading.readers
                }
                left, right = (reading.measure(study.lead, arm) for arm in (outcomes, other))
                parts[against].append((reading.readers[study.lead], left - right))
    told = {
        "groups": groups,
        "lambda": chosen.penalty,
        "method": chosen.method,
        "confirmed": {
            "against_all": macro_effect(parts["joint"], study.macro_margin).to_dict(),
            "against_none": macro_effect(parts["solo"], study.macro_margin).to_dict(),
            "random": [_macro(study, control, phases.few) for control in controls],
            "score": _macro(study, groups, phases.few),
            "score_all": _macro_of(study, dict.fromkeys(names, study.joint), phases.few),
            "score_none": _macro(study, [[name] for name in names], phases.few),
            "replicates_of_scores": len(phases.few),
            "domains": {
                name: {
                    "solo": found["solo"][name][study.lead].to_dict(),
                    "joint": found["joint"][name][study.lead].to_dict(),
                }
                for name in names
            },
        },
    }
    members = {
        name: tuple(other for other in group if other != name) for group in groups for name in group
    }
    return Grouped(told, found["solo"], found["joint"], members)


def _controls(study: AnyStudy, chosen: Grouping) -> list[list[list[str]]]:
    """Draw random groupings of the same sizes. There are none where the sizes leave no choice."""
    names = study.measured.paired
    sizes = [len(group) for group in chosen.groups]
    drawn = random_groupings(len(names), sizes, RANDOM_GROUPINGS, DRAW_SEED, unlike=chosen.groups)
    return [[[names[place] for place in group] for group in groups] for groups in drawn]


def _outcomes(study: AnyStudy, group: Sequence[str], replicates: range) -> list[Any]:
    return [study.engine.outcome(study.phases.together(k, group)) for k in replicates]


def _macro(study: AnyStudy, groups: Sequence[Sequence[str]], replicates: range) -> float | None:
    """Average the leading metric over domains, each by its own group's model. None where no domain has one."""
    held = {}
    for group in groups:
        outcomes = _outcomes(study, group, replicates)
        held |= dict.fromkeys(group, outcomes)
    return _macro_of(study, held, replicates)


def _macro_of(study: AnyStudy, held: dict[str, list[Any]], replicates: range) -> float | None:
    values = []
    for name, outcomes in held.items():
        reading = study.reading(name, len(replicates))
        mean = reading.measure(study.lead, outcomes).mean
        if mean is not None:
            values.append(mean)
    return float(np.mean(values)) if values else None
