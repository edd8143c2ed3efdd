"""Curves: what the network's width, the domain as an input and the weights of losses change."""

from typing import Any

from isthmus.diagnosis.phases import WEIGHTINGS
from isthmus.diagnosis.study import Study
from isthmus.experiments import Outcome
from isthmus.experiments.outcome import build
from isthmus.metrics.effects import Effect, macro_effect

DWA_BEGINS = 2  # epochs after which its weights leave those of uniform
SHORT_DWA = (
    "dwa weighs as uniform does for two epochs, and each of its trainings had its best look by then"
)


def capacity(study: Study) -> list[dict[str, Any]]:
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
            left, right = (reading.measure("auc", arm) for arm in (joint, solo))
            effect = reading.readers["auc"].effect(left - right, study.margins.auc)
            domains[name] = {
                "auc": effect.to_dict(),
                "joint": left.mean,
                "solo": right.mean,
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
    """Compare each weighting of the domains' losses with the plain mean over rows.

    A weighting that the model cannot be trained under has a reason in place of numbers.
    """
    phases, few = study.phases, study.level.few
    study.engine.run(phases.weightings(), "weighting of losses")
    told = []
    for name in WEIGHTINGS:
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
            reader = reading.readers["auc"]
            left, right = (reading.measure("auc", arm) for arm in (outcomes, study.joint))
            domains[domain] = reader.effect(left - right, study.margins.auc).to_dict()
            parts.append((reader, left - right))
        macro = macro_effect(parts, study.margins.auc)
        told.append(
            {
                "name": name,
                "domains": domains,
                "macro": macro.to_dict(),
                "reason": None,
                "note": SHORT_DWA if name == "dwa" and all(map(_is_short, outcomes)) else None,
            }
        )
    return told


def _is_short(outcome: Outcome) -> bool:
    """Whether the kept weights come from the first two epochs."""
    told = outcome.told
    return told.best_step * told.epochs <= DWA_BEGINS * told.steps * (1 + 1e-9)
