"""Words of a benchmark: what tables and page say of it, from ``report.json`` alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isthmus.metrics.text_table import NOTHING, count_text, number

Report = Mapping[str, Any]
Model = Mapping[str, Any]
METRIC = {"auc": "AUC", "logloss": "logloss"}
SCOPE = {"pooled": "pooled", "macro": "macro"}
MARK = {"better": "better", "worse": "worse", "tie": "tie", None: NOTHING}


def lead(report: Report) -> str:
    """The metric that verdicts are told in: AUC, or logloss where no AUC has an interval."""
    told = any(model["auc"]["pooled"].get("verdict") for model in report["models"])
    return "auc" if told else "logloss"


def rival(report: Report) -> list[Model]:
    """The models beside the control."""
    return [model for model in report["models"] if model["name"] != report["control"]]


def split_text(report: Report) -> str:
    """Say which rows were tested, with the split's name and the seeds."""
    split = report["split"]
    return (
        f"{split['name']} rows of the {split['by']} split, {count_text(report['rows']['test'], 'row')},"
        f" {count_text(len(report['seeds']), 'seed')}"
    )


def worst_text(report: Report) -> str:
    """Name the scope *worst*."""
    return "worst" if report["worst"] is None else f"worst ({report['worst']})"


def title_of(report: Report) -> str:
    """Say what was compared, on which rows."""
    return f"{count_text(len(report['models']), 'model')} on equal terms: {split_text(report)}"


def headline(report: Report) -> str:
    """Say in one sentence who is better than the control, who is worse, and who ties."""
    metric = lead(report)
    by: dict[str | None, list[str]] = {}
    for model in rival(report):
        by.setdefault(model[metric]["pooled"]["verdict"], []).append(model["name"])
    parts = [
        f"{count_text(len(by[verdict]), 'model')} {verb if len(by[verdict]) == 1 else many}"
        f" ({', '.join(by[verdict])})"
        for verdict, verb, many in (
            ("better", "is better", "are better"),
            ("worse", "is worse", "are worse"),
            ("tie", "ties", "tie"),
            (None, "cannot be told", "cannot be told"),
        )
        if verdict in by
    ]
    told = "; ".join(parts) or "there is no other model"
    return f"Against the control {report['control']}, pooled {METRIC[metric]}: {told}."


def notes(report: Report) -> Iterator[str]:
    """What a reader of a table must know."""
    clusters = report["clusters"]
    drawn = "rows" if clusters is None else f"rows in clusters of {clusters}"
    seeds = len(report["seeds"])
    yield headline(report)
    yield (
        f"gain: minus {report['control']} on the same {drawn}, seed by seed; above 0 is better, of a"
        " logloss too. Its interval and p are corrected by Holm over the models. A tie is no proof"
        " that two models are equal."
    )
    if seeds == 1:
        yield "1 seed: intervals cover the draw of test rows, not another training."
    elif seeds == 2:
        yield "2 seeds tell little of retraining: intervals are rough."
    yield (
        f"Terms: one encoded table and split; a trunk of at most {report['trunk']:,} parameters;"
        f" {count_text(report['trials'], 'trial')} for each model on validation rows, by"
        f" {report['monitor']}; then {count_text(seeds, 'seed')} with its best setting."
        + "".join(_of_trees(model) for model in report["models"] if model["parameters"] is None)
    )
    by: dict[str, list[str]] = {}
    for model in report["models"]:
        if (method := model.get("method")) is not None:
            by.setdefault(method, []).append(model["name"])
    if by.keys() - {"joint"}:
        told = (f"{method}: {', '.join(names)}" for method, names in by.items())
        yield f"Trained by {'; by '.join(told)}."
    for name, why in report["left_out"].items():
        yield f"left out: {name}: {why}"


def _of_trees(model: Model) -> str:
    """What else holds for trees. A report of an earlier version has trees that are not tuned."""
    untuned = "" if model["tuned"] else "are not tuned, and "
    return f" Trees {untuned}stay the same with every seed."


def tuned_text(model: Model) -> str:
    """Say by how many trials a model was tuned. None: trees, in a report of an earlier version."""
    return "not tuned" if model["tuned"] is None else count_text(model["tuned"]["trials"], "trial")


def gain_text(of: Mapping[str, Any]) -> str:
    """A gain with its corrected interval; ``control`` where there is nothing to compare."""
    if "gain" not in of:
        return "control"
    if of["gain"] is None:
        return NOTHING
    ends: Sequence[float] | None = of["ci"]
    told = NOTHING if ends is None else ", ".join(number(end, signed=True) for end in ends)
    return f"{number(of['gain'], signed=True)} [{told}]"


def verdict_text(of: Mapping[str, Any]) -> str:
    """What may be said of a gain."""
    return MARK[of["verdict"]] if "verdict" in of else ""


def size_text(model: Model, key: str) -> str:
    """A number of parameters."""
    sizes = model["parameters"]
    return NOTHING if sizes is None else f"{sizes[key]:,}"


def rate_text(value: float) -> str:
    """Rows a second, to three digits."""
    return f"{float(f'{value:.3g}'):,.0f}"


def seconds_text(value: float | None) -> str:
    """Seconds of one training."""
    if value is None:
        return NOTHING
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
