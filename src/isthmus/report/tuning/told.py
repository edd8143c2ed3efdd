"""Words of a study: what the table and the page say of it, from ``trials.json`` alone."""

from collections.abc import Mapping
from typing import Any

from isthmus.metrics.text_table import count_text, number

Report = Mapping[str, Any]
OPTIMISM = (
    "The best of many trials on validation rows looks better than it is: part of its lead is luck."
    " No test row was read. fit with best.yaml reports the test rows once."
)
SHORT = {  # keys in a table of trials
    "train.lr": "lr",
    "train.batch_rows": "batch",
    "train.embedding_l2": "l2",
    "model.backbone.name": "backbone",
    "model.backbone.widths": "widths",
    "model.backbone.dropout": "dropout",
    "model.backbone.norm": "norm",
    "model.adapter.name": "adapter",
    "model.towers": "towers",
    "data.trees.leaves": "leaves",
    "data.trees.rate": "rate",
    "data.trees.least_rows": "least rows",
    "data.trees.columns": "columns",
    "data.trees.l2": "l2",
}


def best_of(report: Report) -> Mapping[str, Any] | None:
    """Give the best feasible trial, or None."""
    return None if report["best"] is None else report["trials"][report["best"]]


def reference_of(report: Report) -> Mapping[str, Any] | None:
    """Give the trial that all are compared with, or None."""
    return None if report["reference"] is None else report["trials"][report["reference"]]


def title_of(report: Report) -> str:
    """Say how many trials there were, on which rows."""
    counts = {
        state: sum(trial["state"] == state for trial in report["trials"])
        for state in ("complete", "pruned", "failed")
    }
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return (
        f"{count_text(len(report['trials']), 'trial')} ({told or 'none'}),"
        f" {report['monitor']} on {count_text(report['rows']['validation'], 'validation row')}"
    )


def headline(report: Report) -> str:
    """Say in one sentence which trial is the best, and by how much."""
    best, reference = best_of(report), reference_of(report)
    if best is None or reference is None:
        return "No trial was completed that leaves every domain where it was."
    name = f"trial {best['number']} ({best['recipe'] or 'TPE'})"
    score = f"{report['monitor']} {number(best['score'])}"
    if best["number"] == reference["number"]:
        return f"Best is {name}, {score}: nothing that was tried is better."
    gain = best["score"] - reference["score"]
    return f"Best is {name}, {score}: {number(gain, signed=True)} against {told_reference(report)}."


def told_reference(report: Report) -> str:
    """Name the trial that all are compared with."""
    reference = reference_of(report)
    assert reference is not None
    if reference["recipe"] == report["portfolio"][0]:
        return "the config as it stands"
    return f"trial {reference['number']} ({reference['recipe'] or 'TPE'})"


def changed_text(trial: Mapping[str, Any]) -> str:
    """Say what a trial changed in the config: ``norm none, lr 0.0031``."""
    changes = trial["changes"]
    return ", ".join(f"{SHORT.get(key, key)} {value_text(of)}" for key, of in changes.items())


def value_text(value: Any) -> str:
    """A value of the search space, short."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def state_text(trial: Mapping[str, Any]) -> str:
    """Say how a trial ended, where it is not simply complete."""
    if trial["state"] == "failed":
        return f"failed: {trial['reason']}"
    if trial["state"] == "pruned":
        return "pruned"
    return f"worse in {trial['worst']}" if trial["feasible"] is False else ""
