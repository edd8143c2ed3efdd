"""A finished diagnosis, and how its report is put together and written."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isthmus.diagnosis.abstract_study import AbstractStudy, DiagnosisPlan, named
from isthmus.diagnosis.measures.confirmation import Grouped, grouped
from isthmus.diagnosis.measures.curves import capacity, weightings
from isthmus.diagnosis.measures.matrices import (
    agreements,
    cross_scores,
    leave_one_out,
    pairwise,
)
from isthmus.diagnosis.verdicts.judging import verdicts
from isthmus.diagnosis.verdicts.verdict import DomainVerdict
from isthmus.disk import reason, write_whole
from isthmus.errors import RunError
from isthmus.printable import shown
from isthmus.report.diagnosis import (
    page,
    to_markdown,
    to_terminal,
    verdict_table,
    write_figures,
)

AnyStudy = AbstractStudy[Any, Any]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A finished diagnosis. ``path``: its folder; ``report``: what ``report.json`` holds."""

    path: Path
    report: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> "Diagnosis":
        """Read the folder of a finished diagnosis. Raises RunError where there is none."""
        file = Path(path) / "report.json"
        try:
            return cls(Path(path), json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise RunError(f"a diagnosis must be finished, got no {file}") from None
        except ValueError as fault:
            raise RunError(f"{file} is damaged: {fault}") from fault

    def to_dict(self) -> dict[str, Any]:
        """Give what ``report.json`` holds."""
        return self.report

    def __str__(self) -> str:
        return to_terminal(shown(self.report))

    def _repr_html_(self) -> str:
        return verdict_table(shown(self.report), sure=True)._repr_html_()


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured of any learner. What the level does not measure is None."""

    effects: dict[str, dict[str, dict[str, Any]]]
    matrix: dict[str, Any]
    groups: Grouped | None
    capacity: list[dict[str, Any]] | None
    weighting: list[dict[str, Any]] | None
    advice: dict[str, DomainVerdict]


def measured(study: AnyStudy, *, crossed: bool = True, groups: bool = True) -> Found:
    """Train and measure what the level has.

    ``crossed``: whether a solo scores rows of other domains. ``groups``: whether they can be chosen.
    """
    level = study.level
    study.choose()
    study.train_arms()
    effects = study.effects()
    matrix: dict[str, Any] = dict.fromkeys(
        ("cross_score", "pairwise", "pairwise_matched", "leave_one_out", "gradients")
    )
    if crossed:
        matrix["cross_score"] = cross_scores(study)
    chosen = curve = weighting = None
    if level.dear:
        matrix["pairwise"], affinity = pairwise(study)
        matrix["leave_one_out"] = leave_one_out(study)
        chosen = grouped(study, affinity) if groups else None
    if level.dear and level.network:
        curve = capacity(study) or None
        weighting = weightings(study) or None
    return Found(effects, matrix, chosen, curve, weighting, verdicts(study, effects, chosen))


def told(
    study: AnyStudy,
    plan: DiagnosisPlan,
    found: Found,
    *,
    advised: Mapping[str, tuple[str | None, str | None]],
    likeness: dict[str, Any] | None = None,
    newcomers: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Give the report. ``advised``: by domain, the config and the command of its verdict."""
    domains = {}
    for name in study.measured.names:
        config, command = advised[name]
        domains[name] = {
            **asdict(study.measured.support[name]),
            **{metric.key: named(found.effects[name][metric.key]) for metric in study.metrics},
            **found.advice[name].to_dict(),
            "config": config,
            "command": command,
            "flags": study.flags(name),
        }
    for name, why in study.measured.left_out.items():
        domains[name] = _left_out(study, name, why)
    return {
        "plan": study.told_plan(plan),
        **study.told_margins(),
        "seeds": study.level.seeds,
        "split": "test",
        "domains": domains,
        "matrix": found.matrix | {"spearman": agreements(found.matrix)},
        "capacity": found.capacity,
        "groups": None if found.groups is None else found.groups.told,
        "likeness": likeness,
        "weighting": found.weighting,
        "new_domain": newcomers,
    }


def _left_out(study: AnyStudy, name: str, why: str) -> dict[str, Any]:
    """Give the report of a domain that nothing was trained for, with the reason."""
    nothing = "not enough data"
    return {
        **asdict(study.measured.support[name]),
        **{metric.key: None for metric in study.metrics},
        "verdict": nothing,
        "finding": None,
        "certainty": "cannot tell",
        "why": f"Left out: {why}.",
        "with": [],
        **{f"verdict_{metric.key}": nothing for metric in study.metrics},
        "agree": True,
        "config": None,
        "command": None,
        "flags": [],
    }


def write_report(
    report: dict[str, Any], folder: Path, tell: Callable[[str, float | None], None]
) -> None:
    """Write the page, the figures and the texts. ``report.json`` comes last.

    Raises RunError, which names the folder, where the disk does not take them.
    """
    with writable(folder):
        try:
            write_figures(report, folder / "figures")
        except ModuleNotFoundError as missing:
            tell(f"no figures are written: {missing}", None)
        write_whole(folder / "report.md", to_markdown(report))
        write_whole(folder / "report.html", page(report))
        # The last of them: where it stands, the diagnosis is finished.
        text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False)
        write_whole(folder / "report.json", text + "\n")


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Raise RunError, which names the folder, where the disk does not take what is written."""
    try:
        yield
    except OSError as fault:
        raise RunError(
            f"the folder of a diagnosis must be writable at {folder}, got: {reason(fault)}"
        ) from fault
