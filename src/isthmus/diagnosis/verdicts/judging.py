"""The verdict of every domain, from its effects."""

from collections.abc import Mapping
from typing import Any

from isthmus.diagnosis.abstract_study import AbstractStudy
from isthmus.diagnosis.measures.confirmation import Grouped
from isthmus.diagnosis.verdicts.verdict import (
    DomainVerdict,
    Evidence,
    join_verdicts,
    judge_domain,
)
from isthmus.metrics.effects import Effect
from isthmus.report.diagnosis.words import MetricWords

Effects = Mapping[str, Mapping[str, Mapping[str, Any]]]


def verdicts(
    study: AbstractStudy[Any, Any], found: Effects, grouped: Grouped | None
) -> dict[str, DomainVerdict]:
    """Judge every measured domain."""
    told = {}
    for name in study.measured.names:
        each = [
            (metric, judge_domain(_evidence(study, name, metric, found, grouped)))
            for metric in study.metrics
        ]
        told[name] = join_verdicts(each)
    return told


def _evidence(
    study: AbstractStudy[Any, Any],
    name: str,
    metric: MetricWords,
    found: Effects,
    grouped: Grouped | None,
) -> Evidence:
    of = found[name][metric.key]
    group = () if grouped is None else grouped.members.get(name, ())
    return Evidence(
        metric=metric,
        margin=of["margin"],
        solo=of["solo"],
        joint=of["joint"],
        net=of["net"],
        transfer=of["transfer"],
        tuned_solo=of["tuned_solo"],
        tuned=of["tuned"],
        tuned_plus=of["interference"],
        adapted_solo=of["adapted_solo"],
        adapted=of["adapted"],
        adapted_plus=of["adapted_plus"],
        group_solo=_of_group(grouped, "solo", name, metric.key),
        group_joint=_of_group(grouped, "joint", name, metric.key),
        group=group,
        level=study.level.name,
        replicates=study.level.seeds,
        kind=study.replicates,
        rows=study.measured.support[name].rows,
    )


def _of_group(grouped: Grouped | None, against: str, name: str, metric: str) -> Effect | None:
    if grouped is None or not grouped.members.get(name):
        return None
    return getattr(grouped, against)[name][metric]
