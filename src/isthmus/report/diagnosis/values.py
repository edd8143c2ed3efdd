"""Reading the report's dict: values by path, domains in order, orders of a matrix."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from isthmus.report.diagnosis.words import ADVICE, advice

Report = Mapping[str, Any]
Path = tuple[str | int, ...]
SHOWN = 20  # domains shown at once; the others fold away
FEW = 4  # that are not worth a fold
FALSE_SHARE = 0.10  # cells are marked at this false discovery rate


def parted(names: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The names that are shown, and those that fold away.

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


def pointer(path: Path) -> str:
    """A path as a JSON pointer (RFC 6901)."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)


def by_size(report: Report) -> list[str]:
    """Names of the domains, those with the most test rows first."""
    domains = report["domains"]
    return sorted(domains, key=lambda name: (-(domains[name].get("rows") or 0), name))


def by_advice(report: Report) -> list[tuple[str, list[str]]]:
    """Verdicts in the order of the page, each with its domains by size; empty ones left out."""
    order = {verdict: place for place, verdict in enumerate(ADVICE)}
    held: dict[str, list[str]] = {}
    for name in by_size(report):
        verdict = report["domains"][name].get("verdict")
        known = verdict if verdict in order else "no verdict of harm at this level"
        held.setdefault(known, []).append(name)
    return sorted(held.items(), key=lambda item: order[item[0]])


def tone_of(report: Report, name: str) -> str:
    """The tone of a domain's advice."""
    return advice(dig(report, "domains", name, "verdict")).tone


def margin_of(report: Report, name: str, metric: str) -> float:
    """The margin of one domain: in AUC, or in nats as a share of the solo's log loss."""
    if metric == "auc":
        return float(report.get("margin") or 0.0)
    solo = dig(report, "domains", name, "logloss", "solo")
    return float(report.get("margin_logloss") or 0.0) * float(solo or 0.0)


def matrix_names(report: Report, matrix: Mapping[str, Any]) -> list[str]:
    """Domains that occur in a matrix, by size; names unknown to the report come last."""
    found = set(matrix) | {source for row in matrix.values() for source in row}
    known = [name for name in by_size(report) if name in found]
    return known + sorted(found - set(known))


def as_cell(found: Any) -> dict[str, Any]:
    """A cell as a dict with ``estimate``; a plain number is taken too, a missing cell is {}."""
    if isinstance(found, dict):
        return found
    return {} if found is None else {"estimate": found}


def cell(matrix: Mapping[str, Any], target: str, source: str) -> dict[str, Any]:
    """One cell of a matrix as a dict."""
    return as_cell(dig(matrix, target, source))


def orders(
    report: Report, matrix: Mapping[str, Any], names: Sequence[str], *, distance: bool = False
) -> dict[str, list[int]]:
    """Places of ``names`` by test rows, by name, by what a row receives, and by likeness."""
    values = np.array(
        [[_number(cell(matrix, a, b).get("estimate")) for b in names] for a in names], dtype=float
    )
    rows = [-(dig(report, "domains", name, "rows") or 0) for name in names]
    off = values.copy()
    np.fill_diagonal(off, np.nan)
    known = np.isfinite(off)
    counts = known.sum(1)
    means = np.where(known, off, 0.0).sum(1) / np.maximum(counts, 1)
    means = np.where(counts > 0, means, np.inf if distance else -np.inf)
    sign = 1 if distance else -1
    return {
        "rows": sorted(range(len(names)), key=lambda i: (rows[i], names[i])),
        "name": sorted(range(len(names)), key=lambda i: names[i].casefold()),
        "mean": sorted(range(len(names)), key=lambda i: (sign * float(means[i]), names[i])),
        "alike": _alike(off, distance=distance),
    }


def _alike(off: np.ndarray, *, distance: bool) -> list[int]:
    """Leaves of an average linkage of the symmetrised cells; missing cells take the mean."""
    size = len(off)
    if size < 3:
        return list(range(size))
    both = np.stack([off, off.T])
    known = np.isfinite(both)
    values = np.where(known, both, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    seen = known.any(0)
    if not seen.any():
        return list(range(size))
    values = np.where(seen, values, values[seen].mean())
    apart = values if distance else values[seen].max() - values
    np.fill_diagonal(apart, 0.0)
    tree = linkage(
        squareform(np.maximum(apart, 0.0), checks=False), "average", optimal_ordering=True
    )
    return [int(leaf) for leaf in leaves_list(tree)]


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def remarks(report: Report, effects: Sequence[tuple[str, Path]]) -> list[tuple[str, list[str]]]:
    """The notes of named effects, each once, with the names it holds for."""
    held: dict[str, list[str]] = {}
    for name, path in effects:
        note = dig(report, *path, "note")
        if note and name not in held.setdefault(note, []):
            held[note].append(name)
    return list(held.items())


def reach(
    lines: Sequence[tuple[float | None, Sequence[float] | None, float]], stretch: float = 2.5
) -> float:
    """Half width of a common axis around 0 for (estimate, interval, margin).

    It holds every estimate, twice the margin and most intervals; the widest intervals of small
    domains would flatten all others and are cut at ``stretch`` times the median, which the charts
    mark by an arrow.
    """
    estimates = [abs(estimate) for estimate, _, _ in lines if estimate is not None]
    ends = [
        max(abs(ci[0]), abs(ci[1]))
        for estimate, ci, _ in lines
        if ci is not None and estimate is not None
    ]
    margin = max((margin for _, _, margin in lines), default=0.0)
    need = max([2 * margin, *(1.2 * value for value in estimates)], default=0.0)
    if ends:
        need = max(need, min(max(ends), stretch * float(np.median(ends))))
    return 1.04 * need if need > 0 else 1.0
