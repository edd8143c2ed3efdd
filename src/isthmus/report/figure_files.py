"""Charts as PNG and SVG files, for papers. Needs matplotlib.

A figure is a sheet of charts that a page shows. The SVG file holds the sheet with its colours written out;
matplotlib draws the PNG file from the same elements.
"""

import importlib
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, tostring

from isthmus.disk import whole_file, write_whole
from isthmus.report.svg import box, element, label, picture

INCH = 96  # units of a picture
POINT = 72 / INCH
INK, SOFT, RULE, BAND, WHITE = "#1e1d1b", "#57554f", "#dcd8cc", "#ebe7da", "#ffffff"
UP, DOWN, LEVEL = "#1a5f97", "#a9401a", "#14654f"
# The colour of a mark, by a class of the mark or of what holds it.
MARKS = {
    **dict.fromkeys(("up", "known", "grouped", "negatives"), UP),
    **dict.fromkeys(("down", "unknown", "positives", "worst"), DOWN),
    **dict.fromkeys(("flat", "train"), SOFT),
}
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
    "macro curve": {"stroke-dasharray": "6 3"},
    "train curve": {"stroke-dasharray": "1.5 3"},
    "share-bar": {"fill": PALE[UP]},
    "reading interval": {"stroke": INK, "stroke-width": "1.3"},
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
SIDES = {"start": "left", "middle": "center", "end": "right"}


def write_sheets(sheets: Iterable[tuple[str, Element]], folder: str | Path) -> list[Path]:
    """Write each named sheet as NAME.png (200 dpi) and NAME.svg; returns the paths written.

    The same sheet gives the same SVG bytes. Raises ModuleNotFoundError where matplotlib is not installed,
    naming the extra that brings it.
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
    for name, drawn in sheets:
        _styled(drawn)
        png, svg = folder / f"{name}.png", folder / f"{name}.svg"
        with whole_file(png) as temporary:
            _painted(drawn).savefig(temporary, format="png", dpi=200)
        write_whole(svg, f"{tostring(drawn, 'unicode')}\n")
        written += [png, svg]
    return written


def figure_sheet(
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
