"""Reading the report's dict: values by their path, domains in order, and the cells of a matrix."""

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.report.diagnosis.words import ADVICE, METRICS, UNDECIDED, MetricWords

Report = Mapping[str, Any]
Path = tuple[str | int, ...]
SHOWN = 20  # domains shown at once; the others fold away
FEW = 4  # domains that are not worth a fold
FALSE_SHARE = 0.10  # cells are marked at this false discovery rate


def parted(names: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The names that are shown, and the names that fold away.

    >>> [len(part) for part in parted(["x"] * 24)], [len(part) for part in parted(["x"] * 25)]
    ([24, 0], [20, 5])
    """
    many = len(names) > SHOWN + FEW
    return (names[:SHOWN], names[SHOWN:]) if many else (names, ())


def dig(report: Any, *path: str | int) -> Any:
    """The value at a path; None where any step is missing or null."""
    for step in path:
        if isinstance(report, Mapping):
            report = report.get(step)
        elif isinstance(report, list) and isinstance(step, int) and step < len(report):
            report = report[step]
        else:
            return None
    return report


def by_size(report: Report) -> list[str]:
    """Names of the domains; the domain with the most test rows comes first."""
    domains = report["domains"]
    return sorted(domains, key=lambda name: (-(domains[name].get("rows") or 0), name))


def by_advice(report: Report) -> list[tuple[str, list[str]]]:
    """Verdicts in the order of the page, each with its domains by size."""
    held: dict[str, list[str]] = {verdict: [] for verdict in ADVICE}
    for name in by_size(report):
        verdict = report["domains"][name].get("verdict")
        held[verdict if verdict in held else UNDECIDED].append(name)
    return [(verdict, names) for verdict, names in held.items() if names]


def metrics_of(report: Report) -> list[MetricWords]:
    """The metrics of a report. The first one leads; without a list they are AUC and log loss."""
    told = report.get("metrics")
    if told is None:
        return list(METRICS.values())
    names = ("key", "title", "name", "unit", "larger_is_better")
    return [MetricWords(**{name: one[name] for name in names}) for one in told]


def lead_of(report: Report) -> MetricWords:
    """The metric that leads."""
    return metrics_of(report)[0]


def margins_of(report: Report) -> list[tuple[MetricWords, float]]:
    """The metrics with their margins; where smaller is better, a share of the solo's value."""
    held = {"auc": report.get("margin"), "logloss": report.get("margin_logloss")}
    held |= {one["key"]: one["margin"] for one in report.get("metrics") or []}
    return [(one, float(held[one.key] or 0.0)) for one in metrics_of(report)]


def margin_of(report: Report, name: str, metric: str) -> float:
    """The margin of one domain in the metric's own unit."""
    one, margin = next(held for held in margins_of(report) if held[0].key == metric)
    if one.larger_is_better:
        return margin
    return margin * abs(float(dig(report, "domains", name, metric, "solo") or 0.0))


def macro_margin(report: Report) -> float:
    """The margin of a mean over domains, in the leading metric."""
    lead = lead_of(report).key
    margins = [margin_of(report, name, lead) for name in report["domains"]]
    held = [margin for margin in margins if margin]
    return sum(held) / len(held) if held else 0.0


def matrix_names(report: Report, matrix: Mapping[str, Any]) -> list[str]:
    """The domains of a matrix by size; names that the report does not know come last."""
    found = set(matrix) | {source for row in matrix.values() for source in row}
    known = [name for name in by_size(report) if name in found]
    return known + sorted(found - set(known))


def matrix_of(report: Report, key: str) -> tuple[Path, Mapping[str, Any]]:
    """A matrix with its place in the report; {} where the matrix was not measured."""
    path: Path = ("likeness", "distance") if key == "distance" else ("matrix", key)
    return path, dig(report, *path) or {}


def cell(matrix: Mapping[str, Any], target: str, source: str) -> dict[str, Any]:
    """One cell of a matrix with its ``estimate``. A plain number is taken too; no cell gives {}."""
    found = dig(matrix, target, source)
    if isinstance(found, dict):
        return found
    return {} if found is None else {"estimate": found}
