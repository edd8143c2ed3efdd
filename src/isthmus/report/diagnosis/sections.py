"""What each part of the page shows, taken from the report: charts and the cells of matrices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from isthmus.report.diagnosis.charts import Curve, Interval, capacity, forest, single
from isthmus.report.diagnosis.places import domain_map, strip
from isthmus.report.diagnosis.svg import short
from isthmus.report.diagnosis.values import (
    FALSE_SHARE,
    Path,
    Report,
    as_cell,
    by_size,
    cell,
    dig,
    margin_of,
    matrix_names,
    orders,
    pointer,
    reach,
)
from isthmus.report.diagnosis.words import EFFECTS, MATRICES, METRICS, MatrixWords

PANELS = {
    "net": (1, ("worse together", "better together")),
    "transfer": (1, ("others' rows harm", "others' rows help")),
    "interference": (-1, ("recovers nothing", "recovers more")),
}
NUMBERS_UP_TO = 12  # larger matrices show their numbers on hover and focus only


def interval(report: Report, path: Path, name: str, margin: float, good: int = 1) -> Interval:
    """The effect at a path as one line of a chart."""
    return Interval(
        name=name,
        estimate=dig(report, *path, "estimate"),
        ci=dig(report, *path, "ci"),
        margin=margin,
        path=pointer((*path, "estimate")),
        reason=dig(report, *path, "reason"),
        good=good,
    )


def common_reach(lines: Sequence[Interval]) -> float:
    """One axis for several charts."""
    return reach([(of.estimate, of.ci, of.margin) for of in lines])


def common_ends(lines: Sequence[Interval]) -> tuple[float, float]:
    """An axis for several charts that need not be even about 0; it holds 0 and the margin."""
    widest = common_reach(lines)
    held = [of for of in lines if of.estimate is not None]
    values = [end for of in held for end in (of.ci or (of.estimate or 0.0,))]
    margin = max((of.margin for of in lines), default=0.0)
    low = min([-1.4 * margin, *values], default=-widest)
    high = max([1.4 * margin, *values], default=widest)
    if low == high:
        return -widest, widest
    pad = 0.04 * (high - low)
    return max(low - pad, -widest), min(high + pad, widest)


def net_chart(report: Report, name: str) -> Markup:
    """The net effect of one domain, on the axis that all of them share."""
    lines = [_effect(report, each, "auc", "net") for each in by_size(report)]
    return single(_effect(report, name, "auc", "net"), reach=common_reach(lines))


def effect_lines(report: Report, metric: str) -> dict[str, list[Interval]]:
    """N, T and I of all domains by size; what no domain has is left out."""
    measured = {
        key: [_effect(report, name, metric, key, good) for name in by_size(report)]
        for key, (good, _) in PANELS.items()
    }
    return {
        key: lines
        for key, lines in measured.items()
        if any(of.estimate is not None for of in lines)
    }


def effect_charts(report: Report, metric: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """N, T and I of some domains in one metric, on the axis that all domains share."""
    measured = effect_lines(report, metric)
    width = common_reach([of for lines in measured.values() for of in lines])
    charts = []
    for key, lines in measured.items():
        title, meaning = EFFECTS[key]
        held = [of for of in lines if of.name in names]
        told = f"{title} in {METRICS[metric]} for {len(held)} domains; the table has the numbers."
        charts.append(
            {
                "key": key,
                "title": title,
                "meaning": meaning,
                "svg": forest(held, reach=width, title=told, ends=PANELS[key][1]),
            }
        )
    return charts


def _effect(report: Report, name: str, metric: str, key: str, good: int = 1) -> Interval:
    margin = margin_of(report, name, metric)
    return interval(report, ("domains", name, metric, key), name, margin, good)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a matrix: ``share`` of full colour, ``told``: the sentence of hover and focus."""

    path: str
    text: str
    told: str
    tone: str
    share: float
    sure: bool


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix for the page, with its domains in the order of their rows."""

    key: str
    words: MatrixWords
    names: list[str]
    cells: list[list[Cell]]
    orders: dict[str, list[int]]
    numbers: bool
    marked: bool


def matrix_view(report: Report, key: str) -> Matrix | None:
    """One matrix with its colours, sentences and orders; None where it was not measured."""
    path: Path = ("likeness", "distance") if key == "distance" else ("matrix", key)
    matrix = dig(report, *path)
    if not matrix:
        return None
    names, told = matrix_names(report, matrix), MATRICES[key]
    values = [
        value
        for target in names
        for source in names
        if target != source and (value := cell(matrix, target, source).get("estimate")) is not None
    ]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    full = max(abs(low), abs(high)) if told.signed else high - low
    cells = [
        [
            _cell(dig(matrix, target, source), (*path, target, source), told, low, full)
            for source in names
        ]
        for target in names
    ]
    return Matrix(
        key=key,
        words=told,
        names=names,
        cells=cells,
        orders=orders(report, matrix, names, distance=key == "distance"),
        numbers=len(names) <= NUMBERS_UP_TO,
        marked=any(one.sure for row in cells for one in row),
    )


def _cell(found: Any, path: Path, told: MatrixWords, low: float, full: float) -> Cell:
    target, source = str(path[-2]), str(path[-1])
    held = as_cell(found)
    value = held.get("estimate")
    place = pointer(path if held is not found else (*path, "estimate"))
    if value is None:
        if target == source:
            return Cell(place, "", f"{target} itself", "self", 0.0, False)
        reason = held.get("reason") or "not measured"
        return Cell(place, "–", f"{source} on {target}: {reason}", "nil", 0.0, False)
    text = short(value, 3 if abs(value) < 1 else 2, signed=told.signed)
    said = told.verb.format(source=source, target=target, value=short(value, 4, signed=told.signed))
    ci, p = held.get("ci"), held.get("p_bh")
    if ci is not None:
        ends = [short(end, 4, signed=told.signed) for end in ci]
        said += f"; 95 % interval {ends[0]} to {ends[1]}, unadjusted"
    sure = p is not None and p <= FALSE_SHARE
    if p is not None:
        said += f"; adjusted p {'below .001' if p < 0.001 else short(p, 3, signed=False)}"
    if told.signed:
        tone, share = ("up" if value > 0 else "down"), abs(value) / full if full else 0.0
    else:
        tone, share = "level", (value - low) / full if full else 0.0
    if target == source and not told.signed:
        tone = "level own"
    return Cell(place, text, f"{said}.", tone, round(min(max(share, 0.0), 1.0), 3), sure)


def capacity_series(report: Report) -> tuple[dict[str, list[Curve]], list[str]]:
    """Curves of each domain, by size, and the labels of the widths; empty if not measured."""
    runs = report.get("capacity") or []
    widths = sorted({tuple(run["widths"]): run["parameters"] for run in runs}.items(), key=_second)
    steps = {width: step for step, (width, _) in enumerate(widths)}
    labels = ["·".join(map(str, width)) for width, _ in widths]
    margin = float(report.get("margin") or 0.0)
    held: dict[str, dict[bool, list[tuple[int, Interval]]]] = {}
    for place, run in enumerate(runs):
        for name in run["domains"]:
            path = ("capacity", place, "domains", name, "auc")
            known = bool(run["domain_input"])
            point = steps[tuple(run["widths"])], interval(report, path, name, margin)
            held.setdefault(name, {}).setdefault(known, []).append(point)
    series = {
        name: [
            Curve(known, tuple(sorted(points, key=_first)))
            for known, points in sorted(held[name].items(), reverse=True)
        ]
        for name in by_size(report)
        if name in held
    }
    return series, labels


def capacity_charts(report: Report) -> list[tuple[str, Markup]]:
    """One small chart for each domain, by size; empty where capacity was not measured."""
    series, labels = capacity_series(report)
    lines = [of for curves in series.values() for curve in curves for _, of in curve.points]
    margin = float(report.get("margin") or 0.0)
    ends = common_ends(lines)
    return [
        (name, capacity(name, curves, labels, ends=ends, margin=margin))
        for name, curves in series.items()
    ]


def _first(item: tuple[int, Any]) -> int:
    return item[0]


def _second(item: tuple[Any, float]) -> float:
    return item[1]


def group_letters(report: Report) -> dict[str, str]:
    """Domain to the letter of its group; domains that stand alone have none."""
    groups = dig(report, "groups", "groups") or []
    several = [group for group in groups if len(group) > 1]
    return {
        name: chr(ord("A") + place) if place < 26 else str(place + 1)
        for place, group in enumerate(several)
        for name in group
    }


def map_chart(report: Report) -> tuple[Markup, list[str]] | None:
    """The map of domains and the names it had no room for."""
    spots = dig(report, "likeness", "map")
    if not spots:
        return None
    sizes = {name: dig(report, "domains", name, "rows") or 0 for name in spots}
    paths = {name: pointer(("likeness", "map", name)) for name in spots}
    return domain_map(spots, sizes, group_letters(report), paths)


def strip_chart(report: Report) -> Markup | None:
    """The confirmed grouping against all in one, each alone, and random groupings."""
    confirmed = dig(report, "groups", "confirmed")
    score = dig(confirmed, "score")
    if score is None:
        return None
    marks = [("these groups", score, "chosen")]
    for key, name in (("score_all", "all in one"), ("score_none", "each alone")):
        value = dig(confirmed, key)
        if value is not None:
            marks.append((name, value, "other"))
    others = [value for value in dig(confirmed, "random") or [] if value is not None]
    return strip(marks, others, what="Mean AUC over domains")


def weighting_chart(report: Report) -> Markup | None:
    """Each weighting's macro effect against proportional."""
    held = report.get("weighting")
    if not held:
        return None
    margin = float(report.get("margin") or 0.0)
    lines = [
        interval(report, ("weighting", place, "macro"), one["name"], margin)
        for place, one in enumerate(held)
    ]
    title = "Mean AUC over domains of each weighting minus proportional; the table has the numbers."
    return forest(
        lines,
        reach=common_reach(lines),
        title=title,
        ends=("worse than proportional", "better"),
    )
