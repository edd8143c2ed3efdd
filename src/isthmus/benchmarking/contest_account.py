"""What a benchmark has found, as the plain dict of ``report.json``. Tables and page read it alone.

Times and memory stand under ``cost`` and nowhere else: all other figures are the same in every run of
one benchmark with one thread count, also of one that was killed in between.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.benchmarking.contenders import CONTROL
from isthmus.benchmarking.contest import Trained
from isthmus.benchmarking.standing import SCOPES, Contestants, Judgement
from isthmus.config import Config
from isthmus.data import Dataset
from isthmus.experiments import Training
from isthmus.experiments.outcome import build
from isthmus.metrics import EffectMetric, Figures
from isthmus.metrics.formulas import PAIRED
from isthmus.version import VERSION

FORMAT = 1
METRICS: tuple[EffectMetric, ...] = tuple(PAIRED)
InScopes = Mapping[EffectMetric, Mapping[str, Mapping[str, Judgement]]]
InDomains = Mapping[EffectMetric, Mapping[tuple[str, str], Judgement]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds for all contenders."""

    config: Config
    trunk: int
    trials: int
    seeds: int


def contest_account(
    rules: Rules,
    dataset: Dataset,
    trained: Sequence[Trained],
    standing: Contestants,
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """Give all that is told of a benchmark."""
    config, summary = rules.config, dataset.summary()
    scopes: InScopes = {metric: standing.scopes(metric) for metric in METRICS}
    domains: InDomains = {metric: standing.domains(metric) for metric in METRICS}
    split = config.data.split
    return {
        "format": FORMAT,
        "isthmus": VERSION,
        "table": config.data.table,
        "split": {"name": "test", **split.model_dump(mode="json")},
        "rows": {name: sum(count.rows for count in of.values()) for name, of in summary.items()},
        "domains": {name: summary["test"][name].rows for name in dataset.domain_names},
        "clusters": config.data.group,
        "monitor": config.train.monitor,
        "trunk": rules.trunk,
        "trials": rules.trials,
        "seeds": [config.train.seed + 1 + number for number in range(rules.seeds)],
        "batch_rows": config.train.batch_rows,
        "control": CONTROL,
        "worst": standing.worst,
        "models": [
            {
                "name": one.terms.name,
                "told": one.terms.contender.told,
                "method": None if one.terms.sizes is None else one.config.train.method.name,
                "tuned": _tuned(one, rules.trials),
                "parameters": _parameters(one, dataset),
                "epochs": _mean([each.told.epochs for of in one.outcomes for each in of]),
                "restarts": sum(each.told.restarts for of in one.outcomes for each in of),
                **{
                    metric: _figures(one.terms.name, metric, standing, scopes, domains)
                    for metric in METRICS
                },
                "cost": _cost(one),
            }
            for one in trained
        ],
        "left_out": dict(left_out),
    }


def _tuned(trained: Trained, trials: int) -> dict[str, Any]:
    """How the recipe was chosen."""
    best, report = trained.study.best, trained.study.report
    assert best is not None
    return {
        "trials": trials,
        "score": best["score"],
        "as_it_stands": report["trials"][0]["score"],
        "trial": best["number"],
        "from": best["recipe"] or "TPE",
        "changes": best["changes"],
        "study": f"studies/{trained.study.path.name}",
    }


def _parameters(trained: Trained, dataset: Dataset) -> dict[str, Any] | None:
    """How large a contender is with its best recipe; None for trees."""
    config = trained.config
    if config.model.is_trees:
        return None
    training = Training(model=config.model, train=config.train)
    report = build(training, dataset).parameter_report()
    networks = len(dataset.domain_names) if trained.terms.contender.kind == "solo" else 1
    return {
        "budget": trained.terms.trunk,
        "networks": networks,
        "trunk": networks * report.trunk,
        "tables": networks * report.embedding,
        "total": networks * report.total,
    }


def _figures(
    name: str,
    metric: EffectMetric,
    standing: Contestants,
    scopes: InScopes,
    domains: InDomains,
) -> dict[str, Any]:
    """Mean and interval of a contender, and its gain over the control, in every scope and domain."""
    evaluation = standing.evaluations[name]
    held = {"pooled": evaluation.pooled, "macro": evaluation.macro}
    if standing.worst is not None:
        held["worst"] = evaluation.domains[standing.worst]
    found: dict[str, Any] = {
        scope: _one(held.get(scope), metric, scopes[metric][scope].get(name)) for scope in SCOPES
    }
    found["domains"] = {
        domain: _one(of, metric, domains[metric].get((name, domain)))
        for domain, of in evaluation.domains.items()
    }
    return found


def _one(
    figures: Figures | None, metric: EffectMetric, judgement: Judgement | None
) -> dict[str, Any]:
    mean = None if figures is None else getattr(figures, metric)
    ci = None if figures is None else getattr(figures, f"{metric}_ci")
    told: dict[str, Any] = {"mean": mean, "mean_ci": None if ci is None else list(ci)}
    return told | ({} if judgement is None else judgement.to_dict())


def _cost(trained: Trained) -> dict[str, Any]:
    """Rates and memory, and the time of one training, which follows from what the training read."""
    rate = trained.cost.train_rows_per_second
    read = [
        sum(_rows_read(each.training, each.told.steps, each.told.rows) for each in of)
        for of in trained.outcomes
    ]
    seconds = _mean(read) / rate if rate else None
    return {**trained.cost.to_dict(), "training_seconds": seconds}


def _rows_read(training: Training, steps: int, rows: int) -> int:
    """Rows that a training stepped over; a forest reads its rows once."""
    return rows if training.model.is_trees else steps * min(training.train.batch_rows, rows)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
