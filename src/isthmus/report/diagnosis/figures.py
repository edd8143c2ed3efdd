"""The charts of a diagnosis as PNG and SVG files, for papers. Needs matplotlib.

Each figure is a sheet of the charts that the page shows. The SVG file holds the sheet with its
colours written out; matplotlib draws the PNG file from the same elements.
"""

import importlib
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, tostring

from isthmus.disk import whole_file, write_whole
from isthmus.metrics.text_table import shorten
from isthmus.printable import shown
from isthmus.report.diagnosis.capacity_charts import capacity_charts, curve_keys
from isthmus.report.diagnosis.charts import LONG_NAME, effect_charts, weighting_chart
from isthmus.report.diagnosis.day_one import newcomer_charts, newcomer_keys
from isthmus.report.diagnosis.domain_map import map_chart
from isthmus.report.diagnosis.heat_map import Matrix, matrix_view
from isthmus.report.diagnosis.lookup import Report, lead_of, metrics_of
from isthmus.report.diagnosis.words import EFFECTS, MATRICES, MetricWords
from isthmus.report.svg import box, element, label, picture

INCH = 96  # units of a picture
POINT = 72 / INCH
INK, SOFT, RULE, BAND, WHITE = "#1e1d1b", "#57554f", "#dcd8cc", "#ebe7da", "#ffffff"
UP, DOWN, LEVEL = "#1a5f97", "#a9401a", "#14654f"
# The colour of a mark, by a class of the mark or of what holds it.
MARKS = {"up": UP, "down": DOWN, "flat": SOFT, "known": UP, "unknown": DOWN, "grouped": UP}
PALE = {UP: "#8ebfe4", DOWN: "#efac88", LEVEL: "#a9cdb4"}  # full colour under a number
# Attributes of each class; "mark" is the colour of the mark.
LOOKS: dict[str, dict[str, str]] = {
    "sheet": {"font-family": "DejaVu Sans, Helvetica, Arial, sans-serif"},
    "paper": {"fill": WHITE},
    "band": {"fill": BAND},
    "grid": {"stroke": RULE, "stroke-width": "0.8"},
    "zero": {"stroke": SOFT, "stroke-width": "1"},
    "interval": {"stroke": "mark", "stroke-width": "1.7"},
    "arrow": {"fill": "none", "stroke": "mark", "stroke-width": "1.7"},
    "curve": {"fill": "none", "stroke": "mark", "stroke-width": "1.6"},
    "unknown curve": {"stroke-dasharray": "4 3"},
    "dot": {"fill": "mark"},
    "flat dot": {"fill": WHITE, "stroke": "mark", "stroke-width": "1.7"},
    "map dot": {"fill": BAND, "stroke": "mark", "stroke-width": "1.3"},
    "grouped dot": {"fill": PALE[UP]},
    "title": {"font-size": "13"},
    "value": {"font-size": "11"},
    "cell": {"stroke-width": "1"},
    **{name: {"fill": SOFT, "font-size": "11"} for name in ("tick", "end", "nil", "note")},
}
TEXT = {"fill": INK, "font-size": "12"}
SCALES = {
    "cross_score": "{}, coloured by the difference from the target's own model",
    "gradients": "cosine",
    "distance": "distance",
}
AXES = ("source →", "target ↓")
SIDES = {"start": "left", "middle": "center", "end": "right"}


def write_figures(report: Report, folder: str | Path) -> list[Path]:
    """Write what was measured as NAME.png (200 dpi) and NAME.svg; returns the paths written.

    effects-auc, effects-logloss, one for each matrix, capacity, map, weighting and new-domain. Intervals are
    95 %, unadjusted, and say so. The same report gives the same SVG bytes. Raises
    ModuleNotFoundError where matplotlib is not installed, naming the extra that brings it.
    """
    try:
        importlib.import_module("matplotlib")
    except ModuleNotFoundError as fault:
        raise ModuleNotFoundError(
            "figures need matplotlib, which is not installed: pip install 'isthmus[plots]'"
        ) from fault
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, drawn in _sheets(shown(report)):
        _styled(drawn)
        png, svg = folder / f"{name}.png", folder / f"{name}.svg"
        with whole_file(png) as temporary:
            _painted(drawn).savefig(temporary, format="png", dpi=200)
        write_whole(svg, f"{tostring(drawn, 'unicode')}\n")
        written += [png, svg]
    return written


def _sheets(report: Report) -> Iterator[tuple[str, Element]]:
    """Each figure with its name."""
    lead = lead_of(report)
    for metric in metrics_of(report):
        charts = effect_charts(report, metric.key, list(report["domains"]), wide=True)
        if charts:
            titled = [(EFFECTS[key][0], chart) for key, chart in charts]
            unit = f"{metric.gain},{metric.unit}" if metric.unit else metric.gain
            yield f"effects-{metric.key}", _sheet(titled, 3, f"{unit}; 95 %, unadjusted")
    for key in MATRICES:
        view = matrix_view(report, key)
        if view is not None and any(one.path for row in view.cells for one in row):
            heat = _heat(view, lead)
            yield f"matrix-{key.replace('_', '-')}", _sheet([(view.words.title, heat)], 1)
    capacity = capacity_charts(report)
    if capacity:
        titled = [(shorten(name, LONG_NAME), chart) for name, chart in capacity]
        note = f"net effect in {lead.gain}; 95 %, unadjusted"
        yield "capacity", _sheet(titled, 3, note, keys=curve_keys(report))
    drawn = map_chart(report, wide=True)
    if drawn is not None:
        chart, missing = drawn
        note = ", ".join(shorten(name, LONG_NAME) for name in missing)
        note = note and f"no room for {len(missing)}: {note}"
        yield (
            "map",
            _sheet([("Likeness of domains: only distances mean something", chart)], 1, note),
        )
    weighting = weighting_chart(report)
    if weighting is not None:
        note = f"mean {lead.gain} over domains; 95 %, unadjusted"
        yield "weighting", _sheet([("Weighting against proportional", weighting)], 1, note)
    newcomers = newcomer_charts(report)
    if newcomers:
        titled = [(shorten(name, LONG_NAME), chart) for name, chart in newcomers]
        note = f"a new domain: {lead.gain} against the joint model; 95 %, unadjusted"
        yield "new-domain", _sheet(titled, 3, note, keys=newcomer_keys())


def _sheet(
    titled: Sequence[tuple[str, Element]],
    columns: int,
    note: str = "",
    *,
    keys: Sequence[tuple[Element, str]] = (),
) -> Element:
    """Charts with their titles in rows of so many; below the charts, a legend and a note."""
    edge, gap, top, parts, widest, y = 8.0, 24.0, 26, [], 0.0, 8.0
    for start in range(0, len(titled), columns):
        x, tallest = edge, 0.0
        for title, chart in titled[start : start + columns]:
            parts += [label(x + 4, y + 14, title, "title"), chart]
            chart.attrib |= {"x": str(x), "y": str(y + top), "overflow": "visible"}
            width, height = _numbers(chart, "width", "height")
            x, tallest = x + width + gap, max(tallest, height)
        widest, y = max(widest, x - gap + edge), y + top + tallest + edge
    for place, (key, told) in enumerate(keys):
        x = edge + 4 + 240 * place
        parts += [element("svg", key, x=x, y=y, width=34, height=14, overflow="visible")]
        parts += [label(x + 42, y + 11, told, "note")]
    y += 24 if keys else 0
    for text in textwrap.wrap(note, int((widest - 2 * edge) / 6.4), max_lines=3, placeholder=" …"):
        parts.append(label(edge + 4, y + 11, text, "note"))
        y += 16
    told = "; ".join(title for title, _ in titled)
    return picture(widest, y + edge, told, [box(0, 0, widest, y + edge, "paper"), *parts], "sheet")


def _heat(view: Matrix, lead: MetricWords) -> Element:
    """A matrix, alike domains together, with the bar of its colours."""
    side, high = (46, 30) if view.numbers else (19, 19)
    order = view.orders["alike"]
    names = [shorten(view.names[place], LONG_NAME) for place in order]
    longest = max(map(len, names))
    margin = 26 + round(6.6 * max(longest, len(AXES[0])))
    top = 26 + round(6.6 * longest)
    right, low = margin + side * len(order), top + high * len(order)
    parts = [
        label(margin - 8, top - 22, AXES[0], "note", "end"),
        label(margin - 8, top - 6, AXES[1], "note", "end"),
    ]
    for place, name in enumerate(names):
        x, y = margin + side * (place + 0.5) + 4, top + high * (place + 0.5) + 4
        turned = {"class_": "name", "transform": f"rotate(-90 {x} {top - 8})"}
        parts.append(label(margin - 8, y, name, "name", "end"))
        parts.append(element("text", name, x=x, y=top - 8, **turned))
    for (row, target), (column, source) in product(enumerate(order), repeat=2):
        one, x, y = view.cells[target][source], margin + side * column, top + high * row
        fill = _shade(one.tone.split()[0], one.share, pale=view.numbers)
        frame = SOFT if one.tone.endswith(" own") else None
        parts.append(box(x, y, x + side - 1, y + high - 1, "cell", fill=fill, stroke=frame))
        if view.numbers or not one.path:
            parts.append(label(x + side / 2, y + high / 2 + 4, one.text or "·", "value", "middle"))
        if one.sure:
            parts.append(element("circle", cx=x + side - 6, cy=y + 5, r=1.8, fill=INK))
    y = low + 14
    for kind, told in view.legend:
        if kind == "none":
            continue
        single = view.words.own and kind == "up"
        for step in range(9):
            fill = _shade(kind, 1.0 if single else step / 8, pale=view.numbers)
            parts.append(box(12 + 8 * step, y, 20 + 8 * step, y + 11, "cell", fill=fill))
        none = dict(view.legend)["none"]
        parts.append(label(92, y + 10, told if single else f"{none} to {told}", "note"))
        y += 18
    unit = SCALES.get(view.key, lead.gain).format(lead.title)
    dots = "; a dot: stands out at a false discovery rate of 10 %" if view.marked else ""
    parts.append(label(12, y + 10, f"{unit}{dots}", "note"))
    return picture(max(right + 8, 480), y + 18, view.words.title, parts, "heat")


def _shade(tone: str, share: float, *, pale: bool) -> str:
    """A share of a tone's full colour on white; white for tones without a colour."""
    full = {"up": UP, "down": DOWN, "level": LEVEL}.get(tone, WHITE)
    full = PALE.get(full, full) if pale else full
    mixed = (round(255 - share * (255 - part)) for part in bytes.fromhex(full[1:]))
    return f"#{bytes(mixed).hex()}"


def _styled(of: Element, above: tuple[str, ...] = ()) -> None:
    """Write the colours into the elements, so that nothing needs a stylesheet.

    ``above``: the classes of what holds the element.
    """
    own = of.attrib.pop("class", "").split()
    inside = (*above, *own)
    mark = next((MARKS[name] for name in reversed(inside) if name in MARKS), SOFT)
    looks = dict(TEXT) if of.tag == "text" else {}
    for key, held in LOOKS.items():
        names = key.split()
        if names[-1] in own and set(names) <= set(inside):
            looks |= held
    for name in list(of.attrib):
        if name == "style" or name.startswith("data-"):
            del of.attrib[name]
    for name, value in looks.items():
        of.set(name, mark if value == "mark" else value)
    for child in of:
        _styled(child, inside)


def _painted(sheet: Element) -> Any:
    """A sheet as a figure of matplotlib: all shapes in their order, and every text over them."""
    width, height = _numbers(sheet, "width", "height")
    of = importlib.import_module("matplotlib.figure").Figure(figsize=(width / INCH, height / INCH))
    axes = of.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    placed = list(_placed(sheet, 0.0, 0.0))
    shapes = [(one, dx, dy) for one, dx, dy in placed if one.tag != "text"]
    drawn = importlib.import_module("matplotlib.collections").PolyCollection(
        [[(x + dx, y + dy) for x, y in _corners(one)] for one, dx, dy in shapes],
        closed=False,
        facecolors=[one.get("fill", "none") for one, _, _ in shapes],
        edgecolors=[one.get("stroke", "none") for one, _, _ in shapes],
        linewidths=[POINT * _numbers(one, "stroke-width")[0] for one, _, _ in shapes],
        linestyles=[(0, (3, 2)) if one.get("stroke-dasharray") else "-" for one, _, _ in shapes],
        capstyle="butt",
    )
    axes.add_collection(drawn, autolim=False)
    for one, dx, dy in placed:
        if one.tag == "text":
            x, y, size = _numbers(one, "x", "y", "font-size")
            side = SIDES[one.get("text-anchor", "start")]
            look = {
                "color": one.get("fill"),
                "fontsize": size * POINT,
                "ha": side,
                "va": "baseline",
            }
            turned = {"rotation": 90 if one.get("transform") else 0, "rotation_mode": "anchor"}
            axes.text(x + dx, y + dy, one.text, parse_math=False, **look, **turned)
    return of


def _placed(of: Element, x: float, y: float) -> Iterator[tuple[Element, float, float]]:
    """Everything that is drawn, in its order, with how far the pictures around have moved it."""
    if of.tag == "svg":
        dx, dy = _numbers(of, "x", "y")
        x, y = x + dx, y + dy
    if of.tag not in {"svg", "g", "title"}:
        yield of, x, y
    for child in of:
        yield from _placed(child, x, y)


def _corners(of: Element) -> list[tuple[float, float]]:
    """The places that a shape goes through; a closed shape ends where it starts."""
    if of.tag == "line":
        x, y, x2, y2 = _numbers(of, "x1", "y1", "x2", "y2")
        return [(x, y), (x2, y2)]
    if of.tag == "circle":
        x, y, r = _numbers(of, "cx", "cy", "r")
        turns = [math.tau * step / 48 for step in range(49)]
        return [(x + r * math.cos(turn), y + r * math.sin(turn)) for turn in turns]
    if of.tag == "rect":
        x, y, width, height = _numbers(of, "x", "y", "width", "height")
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        return [*corners, corners[0]]
    path = of.get("d", "")
    numbers = [float(part) for part in re.findall(r"[-\d.]+", path)]
    places = list(zip(numbers[::2], numbers[1::2], strict=True))
    return [*places, places[0]] if path.endswith("Z") else places


def _numbers(of: Element, *names: str) -> list[float]:
    """Attributes that are numbers; 0 where one is missing."""
    return [float(of.get(name, 0)) for name in names]
