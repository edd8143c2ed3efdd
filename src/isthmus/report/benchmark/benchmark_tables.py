"""A benchmark as tables: three that fit a terminal, and one that holds all, for Markdown."""

from collections.abc import Callable

from isthmus.metrics.text_table import TextTable, number, p_text, with_interval
from isthmus.report.benchmark.standing_words import (
    Model,
    Report,
    gain_text,
    lead,
    notes,
    rate_text,
    seconds_text,
    size_text,
    split_text,
    title_of,
    tuned_text,
    verdict_text,
    worst_text,
)

Columns = tuple[tuple[str, Callable[[Model], str]], ...]


def quality_table(report: Report) -> TextTable:
    """Each model's pooled figure on test rows, and its gain over the control."""
    return _table(report, _of_lead(report), title_of(report), tuple(notes(report)))


def spread_table(report: Report) -> TextTable:
    """The same model by model in the mean domain, in the worst, and in the other metric."""
    metric = lead(report)
    other = "logloss" if metric == "auc" else "auc"
    columns: list[tuple[str, Callable[[Model], str]]] = []
    for of, scope, name in (
        (metric, "macro", f"macro {_label(metric)}"),
        (metric, "worst", f"{worst_text(report)} {_label(metric)}"),
        (other, "pooled", f"{_label(other)}, pooled"),
    ):
        columns.append((name, lambda model, at=(of, scope): number(model[at[0]][at[1]]["mean"])))
        columns.append(("gain", lambda model, at=(of, scope): _short(model[at[0]][at[1]])))
    star = "*: the corrected interval leaves 0 out; report.md has all intervals."
    return _table(report, tuple(columns), split_text(report).capitalize(), (star,))


def cost_table(report: Report) -> TextTable:
    """What each model costs."""
    return _table(
        report,
        _of_cost(),
        f"Costs, one thread; batches of {report['batch_rows']:,} rows in training",
        (
            "training s: of one training with the best setting, from the rows that it read. Encoding is"
            " not counted. MiB: the most memory that the process held.",
        ),
    )


def whole_table(report: Report) -> TextTable:
    """Everything in one table."""
    metric = lead(report)
    other = "logloss" if metric == "auc" else "auc"
    wide: list[tuple[str, Callable[[Model], str]]] = []
    for scope, name in (("macro", "macro"), ("worst", worst_text(report))):
        wide.append(
            (
                f"{name} {_label(metric)}",
                lambda model, scope=scope: number(model[metric][scope]["mean"]),
            )
        )
        wide.append(("gain", lambda model, scope=scope: gain_text(model[metric][scope])))
        wide.append(("p", lambda model, scope=scope: _p(model[metric][scope])))
    columns: Columns = (
        *_of_lead(report),
        *wide,
        (f"{_label(other)} [95 %]", lambda model: _mean(model[other]["pooled"])),
        ("gain", lambda model: gain_text(model[other]["pooled"])),
        ("p", lambda model: _p(model[other]["pooled"])),
        ("tuned", tuned_text),
        *_of_cost(),
    )
    costs = cost_table(report)
    told = (
        *notes(report),
        f"{costs.title}.",
        *costs.notes,
        f"p: after Holm, over the models; {split_text(report)}.",
    )
    return _table(report, columns, title_of(report), told)


def _of_lead(report: Report) -> Columns:
    metric = lead(report)
    return (
        (f"{_label(metric)} [95 %]", lambda model: _mean(model[metric]["pooled"])),
        ("gain [corrected]", lambda model: gain_text(model[metric]["pooled"])),
        ("p", lambda model: _p(model[metric]["pooled"])),
        ("", lambda model: verdict_text(model[metric]["pooled"])),
    )


def _of_cost() -> Columns:
    return (
        ("trunk", lambda model: size_text(model, "trunk")),
        ("all parameters", lambda model: size_text(model, "total")),
        ("train rows/s", lambda model: rate_text(model["cost"]["train_rows_per_second"])),
        ("training s", lambda model: seconds_text(model["cost"]["training_seconds"])),
        ("predict rows/s", lambda model: rate_text(model["cost"]["predict_rows_per_second"])),
        ("MiB", lambda model: f"{model['cost']['peak_mebibytes']:,.0f}"),
    )


def _table(report: Report, columns: Columns, title: str, told: tuple[str, ...]) -> TextTable:
    words = tuple(place for place, (name, _) in enumerate(columns, start=1) if not name)
    return TextTable(
        title=title,
        header=("model", *(name for name, _ in columns)),
        rows=tuple(
            (model["name"], *(read(model) for _, read in columns)) for model in report["models"]
        ),
        notes=told,
        left=(0, *words),
    )


def _label(metric: str) -> str:
    return {"auc": "AUC"}.get(metric, metric)


def _mean(of: Model) -> str:
    return with_interval(of["mean"], of["mean_ci"])


def _p(of: Model) -> str:
    return p_text(of["p_holm"]) if "p_holm" in of else ""


def _short(of: Model) -> str:
    """A gain with a star where its corrected interval leaves 0 out."""
    if "gain" not in of:
        return ""
    return number(of["gain"], signed=True) + ("*" if of["verdict"] in ("better", "worse") else "")
