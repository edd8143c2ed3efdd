"""Curves: what the network's width, the domain as an input and the weights of losses change."""

from typing import Any

from isthmus.diagnosis.abstract_study import AbstractStudy
from isthmus.metrics.effects import Effect, macro_effect

AnyStudy = AbstractStudy[Any, Any]


def capacity(study: AnyStudy) -> list[dict[str, Any]]:
    """Measure the net effect at every width, with and without the domain as an input."""
    phases, few = study.phases, study.level.few
    study.engine.run(phases.capacity(), "capacity")
    points = []
    for width in phases.widths():
        joint = [study.engine.outcome(phases.at_width(k, width, None)) for k in phases.few]
        domains = {}
        for name in study.measured.names:
            solo = [study.engine.outcome(phases.at_width(k, width, name)) for k in phases.few]
            reading = study.reading(name, few)
            left, right = (reading.measure(study.lead, arm) for arm in (joint, solo))
            margin = reading.margin_of(study.lead, right.mean)
            effect = reading.readers[study.lead].effect(left - right, margin)
            domains[name] = {
                study.lead: effect.to_dict(),
                "joint": left.mean,
                "solo": right.mean,
            }
        points.append(
            {
                "widths": list(width.widths),
                "parameters": study.parameters(width),
                "domain_input": width.domain_input,
                "domains": domains,
            }
        )
    return points


def weightings(study: AnyStudy) -> list[dict[str, Any]]:
    """Compare each weighting of the domains' losses with the plain mean over rows.

    A weighting that the model cannot be trained under has a reason in place of numbers.
    """
    phases, few = study.phases, study.level.few
    study.engine.run(phases.weightings(), "weighting of losses")
    told = []
    for name in phases.weighting_names:
        if (why := phases.refused.get(name)) is not None:
            nothing = Effect(None, reason=why).to_dict()
            domains = dict.fromkeys(study.measured.names, nothing)
            told.append(
                {"name": name, "domains": domains, "macro": nothing, "reason": why, "note": None}
            )
            continue
        outcomes = [study.engine.outcome(phases.weighted(k, name)) for k in phases.few]
        parts, domains = [], {}
        for domain in study.measured.names:
            reading = study.reading(domain, few)
            reader = reading.readers[study.lead]
            left, right = (reading.measure(study.lead, arm) for arm in (outcomes, study.joint))
            margin = reading.margin_of(study.lead, right.mean)
            domains[domain] = reader.effect(left - right, margin).to_dict()
            parts.append((reader, left - right))
        macro = macro_effect(parts, study.macro_margin)
        told.append(
            {
                "name": name,
                "domains": domains,
                "macro": macro.to_dict(),
                "reason": None,
                "note": study.note(name, outcomes),
            }
        )
    return told
