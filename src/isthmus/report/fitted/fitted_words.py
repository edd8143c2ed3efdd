"""What the page of a run says in words, and in which order it shows domains."""

from collections.abc import Mapping
from typing import Any

from isthmus.metrics.text_table import count_text, number, with_interval

Report = Mapping[str, Any]


def worst_first(report: Report) -> list[str]:
    """Names of the domains by rising AUC; those without one last, the largest first."""
    domains = report["evaluation"]["domains"]

    def place(name: str) -> tuple[bool, float, int]:
        of = domains[name]
        return of["auc"] is None, of["auc"] or 0.0, -of["rows"]

    return sorted(domains, key=place)


def headline(report: Report) -> str:
    """Say in a sentence or two how well the rows are ranked, and where the worst."""
    evaluation = report["evaluation"]
    if evaluation is None:
        return f"Nothing was measured: {report['missing']['evaluation']}."
    pooled, worst = evaluation["pooled"], evaluation["worst"]
    rows = f"{evaluation['pooled']['rows']:,} {evaluation['split']} rows"
    if pooled["auc"] is None:
        said = f"On {rows} the AUC is undefined: {pooled['auc_reason']}."
    else:
        said = f"On {rows} the AUC is {with_interval(pooled['auc'], pooled['auc_ci'])}."
    if len(evaluation["domains"]) == 1 or worst["auc"] is None:
        return said
    count = count_text(evaluation["macro"]["domains"], "domain")
    return (
        f"{said} The lowest of {count} is {worst['domain']},"
        f" {with_interval(worst['auc'], worst['auc_ci'])}."
    )


def remark(of: Mapping[str, Any]) -> str:
    """What to keep in mind of a domain's AUC; nothing for most. ``rough`` stands for a note on few rows."""
    told = [
        of.get("auc_reason") or of.get("auc_ci_reason"),
        "rough" if of.get("auc_note") else None,
    ]
    return "; ".join(text for text in told if text)


def curve_text(look: Mapping[str, Any] | None, domain: str) -> str:
    """Say what the weights that were kept gave a domain on validation rows."""
    value = None if look is None else look.get("auc_by_domain", {}).get(domain)
    if value is None:
        return ""
    return f"{number(value)} at the line"


def reading_text(report: Report) -> str:
    """Say on how many rows it was measured what the model reads."""
    held = report["importance"]
    of = f" of {held['of']:,}" if held["of"] > held["rows"] else ""
    drawn = ", equally many of each domain as far as it has them" if of else ""
    return (
        f"{held['rows']:,}{of} {held['split']} rows{drawn}; {held['repeats']} repeats,"
        f" seed {held['seed']}"
    )


def cost_facts(report: Report) -> list[tuple[str, str]]:
    """What the run cost, as pairs of a name and a text."""
    cost = report["cost"]
    found = [("Parameters", f"{cost['parameters']:,}")]
    if cost["parts"] is not None:
        parts = {name: count for name, count in cost["parts"].items() if count}
        told = ", ".join(f"{name} {count:,}" for name, count in parts.items())
        found.append(("Parameters by part", told or "none"))
        found.append(("Parameters of each domain's own", f"{cost['of_each_domain']:,}"))
    found.append(("Training", _training(cost)))
    if cost["rows_per_second"] is not None:
        found.append(("Train rows a second", f"{cost['rows_per_second']:,.0f}"))
    memory = cost["peak_mebibytes"]
    found.append(
        (
            "Most memory of the process",
            "not known: this page was made after the fit"
            if memory is None
            else f"{memory:,.0f} MiB",
        )
    )
    if cost["gpu_peak_mebibytes"] is not None:
        found.append(("Most memory on the GPU", f"{cost['gpu_peak_mebibytes']:,.0f} MiB"))
    found.append(("Threads", f"{cost['threads']}"))
    if cost["processes"] > 1:
        found.append(("Processes", f"{cost['processes']}"))
    return found


def _training(cost: Mapping[str, Any]) -> str:
    text = f"{cost['seconds']:,.1f} s"
    if cost["steps"]:
        text += f", {count_text(cost['steps'], 'step')}"
    if cost["epochs"]:
        text += f", {cost['epochs']:.2f} epochs"
    return text
