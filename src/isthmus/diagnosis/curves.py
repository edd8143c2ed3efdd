"""What else moves a domain: the network's width, the domain as an input, the weights of losses."""

from typing import Any

from isthmus.diagnosis.study import Study
from isthmus.diagnosis.trained import WEIGHTINGS
from isthmus.metrics.effects import macro_effect
from isthmus.trainings.outcome import build


def capacity(study: Study) -> list[dict[str, Any]]:
    """N at every width, with and without the domain as an input."""
    phases, few = study.phases, study.level.few
    study.engine.run(phases.capacity(), "capacity")
    points = []
    for width in phases.widths():
        joint = [study.engine.outcome(phases.at_width(k, width, None)) for k in phases.few]
        domains = {}
        for name in study.measured.names:
            solo = [study.engine.outcome(phases.at_width(k, width, name)) for k in phases.few]
            reading = study.reading(name, few)
            left, right = (reading.measure("auc", arm) for arm in (joint, solo))
            effect = reading.readers["auc"].effect(left - right, study.margins.auc)
            domains[name] = {
                "auc": effect.to_dict(),
                "joint": reading.mean(left),
                "solo": reading.mean(right),
            }
        first = phases.at_width(0, width, None)
        model = build(first, study.arms.dataset(0))
        points.append(
            {
                "widths": list(width.widths),
                "parameters": model.parameter_report().dense,
                "domain_input": width.domain_input,
                "domains": domains,
            }
        )
    return points


def weightings(study: Study) -> list[dict[str, Any]]:
    """Each weighting of the domains' losses against the plain mean over rows."""
    phases, few = study.phases, study.level.few
    study.engine.run(phases.weightings(), "weighting of losses")
    told = []
    for name in WEIGHTINGS:
        outcomes = [study.engine.outcome(phases.weighted(k, name)) for k in phases.few]
        parts, domains = [], {}
        for domain in study.measured.names:
            reading = study.reading(domain, few)
            reader = reading.readers["auc"]
            left, right = (reading.measure("auc", arm) for arm in (outcomes, study.joint))
            domains[domain] = reader.effect(left - right, study.margins.auc).to_dict()
            parts.append((reader, left - right))
        macro = macro_effect(parts, study.margins.auc)
        told.append({"name": name, "domains": domains, "macro": macro.to_dict()})
    return told
