"""What ``report.json`` holds of a run: figures, diagrams, curves, importances, gates, cost.

The page is drawn from this and nothing else. What a run has not is None, and ``missing`` says why.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.config import Config
from isthmus.metrics import Evaluation, ScoredRows, TextTable
from isthmus.metrics.formulas.reliability import BINS, ReliabilityBins, reliability
from isthmus.run.folder import RunState
from isthmus.run.gate_shares import GateShares
from isthmus.run.reporting.distributions import distributions

FORMAT = 1
SHOWN = 100  # domains that are told one by one: those with the most rows
LOOKS = 200
KEPT = ("step", "epoch", "loss", "better", "phase", "start")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContent:
    """What a run knows at its end, of which a report is made.

    ``evaluation``: of ``scored``, the test rows or, where there are none, the validation rows; both None
    where no row was scored. ``looks``: lines of ``metrics.jsonl``. ``importance``, ``gates``, ``guard``:
    None or empty where the run has none, and ``missing`` says why, by these names and ``curves``.
    ``cost``: numbers by name. ``model``: in a few words.
    """

    name: str
    config: Config
    state: RunState
    model: str
    scored: ScoredRows | None
    evaluation: Evaluation | None
    looks: Sequence[Mapping[str, Any]]
    cost: Mapping[str, Any]
    importance: Mapping[str, Any] | None = None
    gates: GateShares | None = None
    guard: TextTable | None = None
    missing: Mapping[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        shown = [] if self.scored is None else shown_domains(self.scored)
        return {
            "format": FORMAT,
            "isthmus": self.state.isthmus,
            "torch": self.state.torch,
            "run": self.name,
            "table": self.state.table,
            "domain_column": self.config.data.domain,
            "label": self.config.data.label.column,
            "split_by": self.config.data.split.by,
            "monitor": self.config.train.monitor,
            "calibration": self.config.model.calibration,
            "seed": self.config.train.seed,
            "recipe": self.state.recipe,
            "model": self.model,
            "shown": shown,
            "evaluation": None if self.evaluation is None else self.evaluation.to_dict(),
            "reliability": None if self.scored is None else _reliability(self.scored, shown),
            "scores": None if self.scored is None else _scores(self.scored, shown),
            "curves": list(self.looks) or None,
            "importance": self.importance,
            "gates": None if self.gates is None else self.gates.to_dict(),
            "guard": None if self.guard is None else asdict(self.guard),
            "cost": dict(self.cost),
            "missing": dict(self.missing or {}),
        }


def shown_domains(scored: ScoredRows) -> list[str]:
    """Names of the domains that are told one by one, in the order of the evaluation."""
    counts = np.bincount(scored.domain, minlength=len(scored.names) + 1)[1:]
    kept = np.sort(np.argsort(-counts, kind="stable")[:SHOWN])
    return [scored.names[at] for at in kept.tolist()]


def _reliability(scored: ScoredRows, shown: Sequence[str]) -> dict[str, Any]:
    whole, domains = reliability(scored)
    place = {name: at for at, name in enumerate(scored.names, start=1)}
    return {
        "bins": BINS,
        "pooled": _points(whole, 0),
        "domains": {name: _points(domains, place[name]) for name in shown},
    }


def _points(bins: ReliabilityBins, segment: int) -> list[dict[str, Any]]:
    points = [asdict(point) for point in bins.diagram(segment)]
    return [point | {"noise": list(point["noise"])} for point in points]


def _scores(scored: ScoredRows, shown: Sequence[str]) -> dict[str, Any] | None:
    if not len(scored):
        return None
    found = distributions(scored)
    place = {name: at for at, name in enumerate(scored.names, start=1)}
    return {
        "edges": found.edges.tolist(),
        "pooled": found.of(None),
        "domains": {name: found.of(place[name]) for name in shown},
    }


def read_looks(path: Path) -> list[dict[str, Any]]:
    """What the page reads of each look in a ``metrics.jsonl``; none where there is no such file.

    Of more than `LOOKS`, evenly many are left out, but never the best ones nor the last.
    """
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    step = -(-len(lines) // LOOKS) or 1
    bests = {line["phase"]: place for place, line in enumerate(lines) if line["better"]}
    kept = {*range(0, len(lines), step), *bests.values(), len(lines) - 1}
    return [_look(line) for place, line in enumerate(lines) if place in kept]


def _look(line: Mapping[str, Any]) -> dict[str, Any]:
    metrics = [name for name in line if name.startswith(("auc_", "logloss_"))]
    return {name: line[name] for name in (*KEPT, *metrics) if name in line}
