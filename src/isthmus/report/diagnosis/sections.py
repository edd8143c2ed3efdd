"""The charts of the page, each drawn from the report."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from isthmus.report.diagnosis.charts import Curve, Interval, capacity, forest, single
from isthmus.report.diagnosis.places import domain_map, strip
from isthmus.report.diagnosis.values import (
    Path,
    Report,
    by_size,
    dig,
    margin_of,
    pointer,
    reach,
)
from isthmus.report.diagnosis.words import EFFECTS, METRICS, several

PANELS = {
    "net": (1, ("worse together", "better together")),
    "transfer": (1, ("others' rows harm", "others' rows help")),
    "interference": (-1, ("recovers nothing", "recovers more")),
}
SCORES = (
    ("score_all", "one model for all", "other"),
    ("score", "these groups", "chosen"),
    ("score_none", "each domain alone", "other"),
)


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
        note=dig(report, *path, "note"),
    )


def common_reach(lines: Sequence[Interval], stretch: float = 2.5) -> float:
    """One axis for several charts."""
    return reach([(of.estimate, of.ci, of.margin) for of in lines], stretch)


def common_ends(lines: Sequence[Interval], stretch: float = 2.5) -> tuple[float, float]:
    """An axis for several charts that need not be even about 0; it holds 0 and the margin."""
    widest = common_reach(lines, stretch)
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
    axis = common_ends([of for lines in measured.values() for of in lines])
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
                "svg": forest(held, axis=axis, title=told, ends=PANELS[key][1]),
            }
        )
    return charts


def _effect(report: Report, name: str, metric: str, key: str, good: int = 1) -> Interval:
    margin = margin_of(report, name, metric)
    return interval(report, ("domains", name, metric, key), name, margin, good)


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
    ends = common_ends(lines, 1.25)
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
    path = ("groups", "confirmed")
    if dig(report, *path, "score") is None:
        return None
    rows = []
    for key, name, kind in SCORES:
        value = dig(report, *path, key)
        if value is not None:
            rows.append((name, [(value, pointer((*path, key)))], kind))
    drawn = [
        (value, pointer((*path, "random", place)))
        for place, value in enumerate(dig(report, *path, "random") or [])
        if value is not None
    ]
    if drawn:
        rows.append((several(len(drawn), "random grouping"), drawn, "random"))
    return strip(rows, what="Mean AUC over domains")


def weighting_chart(report: Report) -> Markup | None:
    """Each weighting's macro effect against proportional."""
    held = report.get("weighting")
    if not held:
        return None
    margin = float(report.get("margin") or 0.0)
    lines = [
        interval(report, ("weighting", place, "macro"), one["name"], margin)
        for place, one in enumerate(held)
        if dig(one, "macro", "estimate") is not None
    ]
    if not lines:
        return None
    title = "Mean AUC over domains of each weighting minus proportional; the table has the numbers."
    return forest(
        lines,
        axis=common_ends(lines),
        title=title,
        ends=("worse than proportional", "better"),
    )
