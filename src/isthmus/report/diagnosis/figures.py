"""The charts of a diagnosis as PNG and SVG files, for papers. Needs matplotlib."""

import importlib
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.report.diagnosis.charts import Interval
from isthmus.report.diagnosis.matrices import colours, judged
from isthmus.report.diagnosis.sections import capacity_series, common_ends, effect_lines, interval
from isthmus.report.diagnosis.values import Report, dig, matrix_names, orders
from isthmus.report.diagnosis.words import EFFECTS, MATRICES, METRICS

UP, DOWN, FLAT, BAND = "#1a5f97", "#a9401a", "#57554f", "#ebe7da"
SCALES = {
    "cross_score": "AUC minus that of the target's own model",
    "gradients": "cosine",
    "distance": "distance",
}
# Where a name may stand beside its dot: (right, up), in the order of preference.
SIDES = ((1, 1), (1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (-1, 1), (-1, -1))
Maker = Callable[..., Any]
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "svg.fonttype": "none",
    "svg.hashsalt": "isthmus",
}


def write_figures(report: Report, folder: str | Path) -> list[Path]:
    """Write what was measured as NAME.png (200 dpi) and NAME.svg; returns the paths written.

    effects-auc, effects-logloss, one for each matrix, capacity, map and weighting. Intervals are
    95 %, unadjusted, and say so. The same report gives the same SVG bytes. Raises
    ModuleNotFoundError where matplotlib is not installed, naming the extra that brings it.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
        figure = importlib.import_module("matplotlib.figure").Figure
    except ModuleNotFoundError as fault:
        raise ModuleNotFoundError(
            "figures need matplotlib, which is not installed: pip install 'isthmus[plots]'"
        ) from fault
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, Any] = {}
    with matplotlib.rc_context(STYLE):
        for metric in METRICS:
            drawn[f"effects-{metric}"] = _effects(figure, report, metric)
        for key in MATRICES:
            drawn[f"matrix-{key.replace('_', '-')}"] = _matrix(figure, report, key)
        drawn["capacity"] = _capacity(figure, report)
        drawn["map"] = _map(figure, report)
        drawn["weighting"] = _weighting(figure, report)
        written = []
        for name, of in drawn.items():
            if of is None:
                continue
            for kind in ("png", "svg"):
                path = folder / f"{name}.{kind}"
                metadata = {"Date": None} if kind == "svg" else None
                of.savefig(path, dpi=200, metadata=metadata)
                written.append(path)
    return written


def _plain(name: str, limit: int = 24) -> str:
    """A name as matplotlib may draw it: short, and with no sign that would start a formula."""
    name = name if len(name) <= limit else f"{name[: limit - 1]}…"
    return name.replace("$", r"\$")


def _effects(figure: Maker, report: Report, metric: str) -> Any:
    panels = effect_lines(report, metric)
    if not panels:
        return None
    ends = common_ends([of for lines in panels.values() for of in lines])
    count = len(report["domains"])
    of = figure(figsize=(3.1 * len(panels) + 0.8, 0.24 * count + 1.4), layout="constrained")
    axes = of.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (key, lines) in zip(axes, panels.items(), strict=True):
        _forest(axis, lines, ends)
        axis.set_title(EFFECTS[key][0])
        unit = "AUC" if metric == "auc" else "log loss reduction, nats"
        axis.set_xlabel(f"{unit}; 95 %, unadjusted")
    return of


def _forest(axis: Any, lines: Sequence[Interval], ends: tuple[float, float]) -> None:
    low, high = ends
    for place, line in enumerate(lines):
        axis.fill_betweenx([place - 0.5, place + 0.5], -line.margin, line.margin, color=BAND, lw=0)
        if line.estimate is None:
            continue
        colour = {"up": UP, "down": DOWN}.get(line.tone, FLAT)
        if line.ci is not None:
            axis.plot(line.ci, [place, place], color=colour, lw=1.3, solid_capstyle="butt")
            cut = ((line.ci[0] < low, low, "<"), (line.ci[1] > high, high, ">"))
            for beyond, side, sign in cut:
                if beyond:
                    axis.plot(side, place, sign, color=colour, ms=4, clip_on=False)
        mark = {"up": "^", "down": "v"}.get(line.tone, "o")
        fill = "white" if line.tone == "flat" else colour
        axis.plot(line.estimate, place, mark, color=colour, mfc=fill, ms=5)
    axis.axvline(0, color=FLAT, lw=0.8)
    axis.set_xlim(low, high)
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.set_yticks(range(len(lines)), [_plain(line.name) for line in lines])
    axis.tick_params(axis="y", length=0)


def _matrix(figure: Maker, report: Report, key: str) -> Any:
    path = ("likeness", "distance") if key == "distance" else ("matrix", key)
    matrix = dig(report, *path)
    if not matrix:
        return None
    names, told = matrix_names(report, matrix), MATRICES[key]
    places = orders(report, matrix, names, distance=key == "distance")["alike"]
    names = [names[place] for place in places]
    values = np.array(
        [
            [
                np.nan if (v := judged(matrix, target, source, told)) is None else v
                for source in names
            ]
            for target in names
        ],
        dtype=float,
    )
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    side = 0.34 * len(names) + 1.6
    of = figure(figsize=(side + 0.8, side), layout="constrained")
    axis = of.subplots()
    low, high = colours(matrix, told)
    limits = (-high, high) if told.signed else (low, high)
    shown = axis.imshow(
        np.ma.masked_invalid(values),
        cmap="RdBu" if told.signed else "YlGn",
        vmin=limits[0],
        vmax=limits[1],
    )
    axis.set_xticks(range(len(names)), [_plain(name) for name in names], rotation=90)
    axis.set_yticks(range(len(names)), [_plain(name) for name in names])
    axis.set_xlabel("source")
    axis.set_ylabel("target")
    axis.set_title(told.title)
    ends = known.min() < limits[0], known.max() > limits[1]
    extend = {(1, 1): "both", (1, 0): "min", (0, 1): "max"}.get(ends, "neither")
    bar = of.colorbar(shown, ax=axis, shrink=0.7, extend=extend)
    bar.set_label(SCALES.get(key, "AUC"))
    return of


def _capacity(figure: Maker, report: Report) -> Any:
    series, labels = capacity_series(report)
    if not series:
        return None
    lines = [of for curves in series.values() for c in curves for _, of in c.points]
    ends = common_ends(lines, 1.25)
    columns = min(4, len(series))
    rows = -(-len(series) // columns)
    of = figure(figsize=(2.5 * columns, 1.9 * rows + 0.3), layout="constrained")
    axes = of.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    margin = float(report.get("margin") or 0.0)
    for axis, (name, curves) in zip(axes, series.items(), strict=False):
        axis.axhspan(-margin, margin, color=BAND, lw=0)
        axis.axhline(0, color=FLAT, lw=0.8)
        for curve in curves:
            held = [(s, of, of.estimate) for s, of in curve.points if of.estimate is not None]
            shift = -0.06 if curve.known else 0.06
            steps = [step + shift for step, _, _ in held]
            colour = UP if curve.known else DOWN
            axis.plot(
                steps,
                [value for _, _, value in held],
                "o-" if curve.known else "s--",
                color=colour,
                lw=1.1,
                ms=3.5,
                label="sees the domain" if curve.known else "does not",
            )
            for step, (_, line, _) in zip(steps, held, strict=True):
                if line.ci is not None:
                    axis.plot([step, step], line.ci, color=colour, lw=1)
        axis.set_title(_plain(name))
        axis.set_ylim(*ends)
        axis.set_xticks(range(len(labels)), labels)
    for axis in axes[len(series) :]:
        axis.set_axis_off()
    axes[0].legend(frameon=False, fontsize=7)
    of.supylabel("net effect in AUC; 95 %, unadjusted", fontsize=9)
    return of


def _map(figure: Maker, report: Report) -> Any:
    spots = dig(report, "likeness", "map")
    if not spots:
        return None
    rows = {name: dig(report, "domains", name, "rows") or 0 for name in spots}
    names = sorted(spots, key=lambda name: -rows[name])
    of = figure(figsize=(5.2, 4.2), layout="constrained")
    of.get_layout_engine().set(rect=(0, 0.1, 1, 0.9))  # below it, the names that have no room
    axis = of.subplots()
    largest = max(*rows.values(), 1)
    sizes = [30 + 220 * rows[name] / largest for name in names]
    points = np.array([spots[name] for name in names])
    axis.scatter(
        points[:, 0], points[:, 1], s=sizes, color=BAND, edgecolors=FLAT, lw=1, clip_on=False
    )
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.set_title("Likeness of domains: only distances mean something")
    missing = _name_dots(of, axis, names, points, np.sqrt(sizes) / 2)
    if missing:
        note = f"no room for {len(missing)}: {', '.join(map(_plain, missing))}"
        note = textwrap.fill(note, 95, max_lines=3, placeholder=" …")
        of.text(0.01, 0.01, note, va="bottom", fontsize=7, color=FLAT)
    return of


def _name_dots(
    of: Any, axis: Any, names: Sequence[str], points: np.ndarray, radii: np.ndarray
) -> list[str]:
    """Write each name beside its dot where it covers nothing; returns the names without room.

    ``radii``: of the dots, in points of 1/72 inch.
    """
    of.draw_without_rendering()  # fixes where things stand
    at = axis.transData.transform(points)
    pixels = radii[:, None] * of.dpi / 72
    taken = [np.concatenate(box) for box in zip(at - pixels, at + pixels, strict=True)]
    missing = []
    for name, point, radius in zip(names, points, radii, strict=True):
        text = axis.annotate(_plain(name), point, (0, 0), textcoords="offset points", fontsize=8)
        text.set_in_layout(False)
        for right, up in SIDES:
            far = radius + 2 if 0 in (right, up) else 0.7 * radius + 2
            text.set_position((right * far, up * far))
            text.set_ha(("right", "center", "left")[right + 1])
            text.set_va(("top", "center", "bottom")[up + 1])
            left, low, end, high = box = text.get_window_extent().extents
            free = all(
                end <= other[0] or left >= other[2] or high <= other[1] or low >= other[3]
                for other in taken
            )
            inside = left >= 0 and end <= of.bbox.x1
            inside = inside and low >= axis.bbox.y0 and high <= axis.bbox.y1
            if free and inside:
                taken.append(box)
                break
        else:
            text.remove()
            missing.append(name)
    return missing


def _weighting(figure: Maker, report: Report) -> Any:
    held = report.get("weighting") or []
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
    of = figure(figsize=(4.2, 0.26 * len(lines) + 1.2), layout="constrained")
    axis = of.subplots()
    _forest(axis, lines, common_ends(lines))
    axis.set_title("Weighting against proportional")
    axis.set_xlabel("mean AUC over domains; 95 %, unadjusted")
    return of
