"""The chart of a comparison: the difference of each scope and domain, with its interval.

A chart is a tree of SVG elements, with each mark told in its title.
"""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from isthmus.metrics.text_table import shorten
from isthmus.report.comparison.comparison_words import (
    METRIC,
    Report,
    Told,
    difference_text,
    ends_of,
    scopes_of,
    verdict_text,
)
from isthmus.report.svg import Scale, element, label, line, picture, short, ticks

WIDTH, NAME, RIGHT, ROW, TOP = 560, 172, 14, 20, 6
GAP = 10  # between the scopes and the domains
LETTERS = 22
TONE = {"better": "up", "worse": "down", "tie": "flat", None: "flat"}


def difference_chart(of: Report, metric: str, domains: Sequence[str]) -> Element | None:
    """Draw b - a in one metric: the scopes, and below them some domains; None where nothing is known."""
    scopes = scopes_of(of)
    told: list[tuple[str, Told]] = [(name, held[metric]) for name, held in scopes]
    told += [(name, of["domains"][name][metric]) for name in domains]
    known = [one for _, one in told if one["difference"] is not None]
    if not known:
        return None
    across = _scale(known)
    foot = TOP + ROW * len(told) + GAP * bool(domains)
    parts: list[Element] = []
    for value in ticks(across.low, across.high, 4):
        x = across.at(value)
        parts.append(line(x, 2, x, foot, "zero" if value == 0 else "grid"))
        parts.append(label(x, foot + 14, short(value, 4), "tick", "middle"))
    for place, (name, one) in enumerate(told):
        y = TOP + ROW * (place + 0.5) + GAP * (place >= len(scopes))
        parts.append(label(NAME - 10, y + 4, shorten(name, LETTERS), "name", "end"))
        parts.append(_mark(name, one, y, across))
    better = "right" if metric == "auc" else "left"
    foot_text = f"{better} of 0: {shorten(of['b'], 30)} is better"
    parts.append(label((NAME + WIDTH - RIGHT) / 2, foot + 32, foot_text, "end", "middle"))
    title = f"Difference in {METRIC[metric]}, {of['b']} minus {of['a']}"
    return picture(WIDTH, foot + 38, title, parts, "chart differences", **across.data)


def _mark(name: str, of: Told, y: float, across: Scale) -> Element:
    """A dot with its interval. An interval that leaves the chart ends in an arrow."""
    if of["difference"] is None:
        return label(across.at(0) + 6, y + 4, "not told", "tick")
    parts: list[Element] = [
        element("title", f"{name}: {difference_text(of)}, {verdict_text(of)}"),
    ]
    ends = ends_of(of)
    if ends is not None:
        low, high = map(across.at, ends)
        parts.append(line(low, y, high, y, "interval"))
        for end, at, turn in zip(ends, (low, high), (1, -1), strict=True):
            if not across.holds(end):
                arrow = f"M{at + 5 * turn} {y - 4}L{at} {y}l{5 * turn} 4"
                parts.append(element("path", d=arrow, class_="arrow"))
    parts.append(element("circle", cx=across.at(of["difference"]), cy=y, r=4, class_="dot"))
    return element("g", *parts, class_=f"mark {TONE[of['verdict']]}")


def _scale(known: Sequence[Told]) -> Scale:
    """A scale that holds 0, all differences and the median interval; wider intervals are cut."""
    halves = sorted((ends[1] - ends[0]) / 2 for one in known if (ends := ends_of(one)) is not None)
    half = halves[len(halves) // 2] if halves else 0.0
    low = min(0.0, *(one["difference"] - 1.15 * half for one in known))
    high = max(0.0, *(one["difference"] + 1.15 * half for one in known))
    room = max(0.06 * (high - low), 2e-4)
    return Scale(low - room, high + room, NAME, WIDTH - RIGHT)
