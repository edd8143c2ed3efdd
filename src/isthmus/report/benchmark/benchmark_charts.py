"""The charts of a benchmark: gain against cost, and the gain of each domain.

A chart is a tree of SVG elements, with each mark told in its title.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from isthmus.metrics.text_table import count_text, shorten
from isthmus.report.benchmark.standing_words import METRIC, Model, Report, gain_text, lead
from isthmus.report.svg import Scale, element, label, line, picture, short, ticks

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, FOOT = 56, 16, 14, 44
PANEL = 360  # width of one domain's panel
NAME = 122  # of a panel's names
ROW = 19
LETTERS = 18
GLYPH = 7.2  # width of a letter of a label
LINE = 12  # height of a label
TONE = {"better": "up", "worse": "down", "tie": "flat", None: "flat"}


@dataclass(frozen=True, slots=True)
class _Point:
    model: Model
    x: float
    y: float
    bar: tuple[float, float]  # from top to foot


def cost_chart(
    report: Report, cost: Callable[[Model], float | None], axis: str, *, cheap_left: bool = True
) -> Element | None:
    """Gain over the control by cost, on a log scale, with corrected intervals; None without a gain.

    ``cost``: of a model, above 0; a model without one is left out. ``axis``: its name and unit.
    """
    metric = lead(report)
    told = [
        (model, value, model[metric]["pooled"])
        for model in report["models"]
        if (value := cost(model)) and model[metric]["pooled"].get("gain", 0.0) is not None
    ]
    if len(told) < 2:
        return None
    gains = [of.get("gain", 0.0) for _, _, of in told]
    across, marks = _log_scale([value for _, value, _ in told], LEFT, WIDTH - RIGHT)
    up = _gain_scale(gains, [of.get("ci") for _, _, of in told], HEIGHT - FOOT, TOP)
    parts: list[Element] = []
    for value in ticks(up.low, up.high, 5):
        name = "zero" if value == 0 else "grid"
        parts.append(line(LEFT, up.at(value), WIDTH - RIGHT, up.at(value), name))
        parts.append(label(LEFT - 6, up.at(value) + 4, short(value, 4), "tick", "end"))
    for value, text in marks:
        x = across.at(math.log10(value))
        parts.append(line(x, TOP, x, HEIGHT - FOOT, "grid"))
        parts.append(label(x, HEIGHT - FOOT + 16, text, "tick", "middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    arrow = f"{axis}; {'left' if cheap_left else 'right'} is cheaper"
    parts.append(label(middle, HEIGHT - 8, arrow, "end", "middle"))
    points = []
    for model, value, of in told:
        gain = of.get("gain", 0.0)
        low, high = of.get("ci") or (gain, gain)
        x, y = across.at(math.log10(value)), up.at(gain)
        points.append(_Point(model, x, y, (up.at(high), up.at(low))))
    parts += [_cost_mark(point, report, up) for point in points]
    parts += _labels(points)
    title = f"Gain in pooled {METRIC[metric]} over {report['control']} by {axis}"
    return picture(WIDTH, HEIGHT, title, parts, "chart cost", **up.data)


def domain_panels(report: Report, most: int) -> list[tuple[str, int, Element]]:
    """The largest domains: name, test rows, and a chart of each model's gain, all on one scale."""
    metric = lead(report)
    names = sorted(report["domains"], key=lambda name: -report["domains"][name])[:most]
    rivals = [model for model in report["models"] if model["name"] != report["control"]]
    cells = [model[metric]["domains"][name] for model in rivals for name in names]
    known = [of for of in cells if of.get("gain") is not None]
    if not known:
        return []
    across = _gain_scale([of["gain"] for of in known], [of["ci"] for of in known], NAME, PANEL - 14)
    return [(name, report["domains"][name], _panel(rivals, name, metric, across)) for name in names]


def _panel(rivals: Sequence[Model], domain: str, metric: str, across: Scale) -> Element:
    foot = 6 + ROW * len(rivals)
    parts: list[Element] = []
    for value in ticks(across.low, across.high, 4):
        parts.append(
            line(across.at(value), 2, across.at(value), foot, "zero" if value == 0 else "grid")
        )
        parts.append(label(across.at(value), foot + 14, short(value, 3), "tick", "middle"))
    for place, model in enumerate(rivals):
        y = 6 + ROW * (place + 0.5)
        of = model[metric]["domains"][domain]
        parts.append(label(NAME - 8, y + 4, shorten(model["name"], LETTERS), "name", "end"))
        if of.get("gain") is None:
            parts.append(label(across.at(0) + 6, y + 4, "not told", "tick"))
            continue
        title = element("title", f"{model['name']} in {domain}: {gain_text(of)}")
        parts.append(
            element("g", title, *_bar(of, y, across), class_=f"mark {TONE[of['verdict']]}")
        )
    title = f"Gain of each model in {domain}, in {METRIC[metric]}"
    return picture(PANEL, foot + 20, title, parts, "chart domains", **across.data)


def _bar(of: Model, y: float, across: Scale) -> list[Element]:
    """A dot with its interval, along x; an interval that leaves the chart ends in an arrow."""
    parts: list[Element] = []
    if of["ci"] is not None:
        low, high = (across.at(end) for end in of["ci"])
        parts.append(line(low, y, high, y, "interval"))
        for end, at, turn in zip(of["ci"], (low, high), (1, -1), strict=True):
            if not across.holds(end):
                arrow = f"M{at + 5 * turn} {y - 4}L{at} {y}l{5 * turn} 4"
                parts.append(element("path", d=arrow, class_="arrow"))
    parts.append(element("circle", cx=across.at(of["gain"]), cy=y, r=3.8, class_="dot"))
    return parts


def _cost_mark(point: _Point, report: Report, up: Scale) -> Element:
    of = point.model[lead(report)]["pooled"]
    control = "gain" not in of
    told = f"{point.model['name']}: " + ("the control" if control else gain_text(of))
    parts: list[Element] = [element("title", told)]
    ends = None if control else of["ci"]
    if ends is not None:
        parts.append(line(point.x, point.bar[1], point.x, point.bar[0], "interval"))
        for end, at, turn in zip(ends, reversed(point.bar), (-1, 1), strict=True):
            if not up.holds(end):
                arrow = f"M{point.x - 4} {at + 5 * turn}L{point.x} {at}l4 {5 * turn}"
                parts.append(element("path", d=arrow, class_="arrow"))
    radius = 5.5 if control else 4.5
    kind = "control" if control else "dot"
    parts.append(element("circle", cx=point.x, cy=point.y, r=radius, class_=kind))
    return element("g", *parts, class_=f"mark {TONE[of.get('verdict')]}")


def _labels(points: Sequence[_Point]) -> list[Element]:
    """Names beside the points, each moved until it covers no point and no other name."""
    taken = [(p.x - 6, p.y - 6, p.x + 6, p.y + 6) for p in points]
    taken += [(p.x - 2, p.bar[0], p.x + 2, p.bar[1]) for p in points]
    parts: list[Element] = []
    for point in sorted(points, key=lambda one: (one.y, one.x)):
        text = shorten(point.model["name"], LETTERS)
        width = GLYPH * len(text)
        places = [
            (side, rise)
            for rise in (0, *(sign * step for step in range(10, 130, 10) for sign in (-1, 1)))
            for side in (1, -1)
        ]

        def area(
            side: int, rise: int, point: _Point = point, width: float = width
        ) -> tuple[float, float, float, float]:
            low = point.x + 9 if side > 0 else point.x - 9 - width
            return low, point.y + rise - LINE / 2, low + width, point.y + rise + LINE / 2

        free = (
            (side, rise)
            for side, rise in places
            if _inside(area(side, rise)) and not any(_meet(area(side, rise), one) for one in taken)
        )
        side, rise = next(free, (1, 0))
        taken.append(area(side, rise))
        edge, y = point.x + 9 * side, point.y + rise
        if rise:
            parts.append(line(point.x + 5 * side, point.y, edge - side, y, "leader"))
        parts.append(label(edge, y + 4, text, "name", "start" if side > 0 else "end"))
    return parts


Area = tuple[float, float, float, float]


def _inside(area: Area) -> bool:
    return area[0] >= LEFT and area[2] <= WIDTH - 2 and area[1] >= 2 and area[3] <= HEIGHT - FOOT


def _meet(a: Area, b: Area) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _log_scale(
    values: Sequence[float], start: float, end: float
) -> tuple[Scale, list[tuple[float, str]]]:
    """A scale of the logarithms with room at both ends, and its ticks with their text."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(0.12 * (high - low), 0.08)
    scale = Scale(low - room, high + 2.2 * room, start, end)
    units = (1, 2, 5) if scale.high - scale.low < 3 else (1,)
    powers = range(math.floor(scale.low), math.ceil(scale.high) + 1)
    marks = [of for p in powers for unit in units if scale.holds(math.log10(of := 10.0**p * unit))]
    if len(marks) < 3:
        marks = [of for of in ticks(10**scale.low, 10**scale.high, 5) if of > 0]
    return scale, [(of, f"{of:,.10g}") for of in marks]


def _gain_scale(
    gains: Sequence[float],
    intervals: Sequence[Sequence[float] | None],
    start: float,
    end: float,
) -> Scale:
    """A scale that holds 0, all gains and the median interval; wider intervals are cut."""
    ends = [each for each in intervals if each is not None]
    halves = sorted((high - low) / 2 for low, high in ends)
    middle = halves[len(halves) // 2] if halves else 0.0
    low = min(0.0, *(gain - 1.15 * middle for gain in gains))
    high = max(0.0, *(gain + 1.15 * middle for gain in gains))
    room = max(0.06 * (high - low), 2e-4)
    return Scale(low - room, high + room, start, end)


def caption(report: Report) -> str:
    """What the marks of the charts mean."""
    return (
        "Filled blue: better than the control. Filled red: worse. Open: a tie. The bar is the corrected"
        f" interval. {count_text(len(report['seeds']), 'seed')}. Point at a mark to read it."
    )
