"""The map of domains: near each other where they are alike, with a name wherever there is room."""

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from isthmus.metrics.text_table import shorten
from isthmus.report.diagnosis.lookup import Report, dig
from isthmus.report.json_text import pointer
from isthmus.report.svg import element, label, picture

EDGE = 26
LETTER = 6.6  # a letter's usual width at the size of labels
# Where a name may stand beside its dot: (right, up), in the order of preference.
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
Box = tuple[float, float, float, float]


def group_letters(report: Report) -> dict[str, str]:
    """Domain to the letter of its group; domains that stand alone have none."""
    groups = [group for group in dig(report, "groups", "groups") or [] if len(group) > 1]
    return {
        name: chr(ord("A") + place) if place < 26 else str(place + 1)
        for place, group in enumerate(groups)
        for name in group
    }


def map_chart(report: Report, *, wide: bool = False) -> tuple[Element, list[str]] | None:
    """The map, and the names that had no room; None where likeness was not measured.

    The area of a dot goes with the domain's test rows; the letter in the dot is the domain's group.
    Both axes have one scale, for only distances mean something. ``wide``: a larger map, with room
    for more and longer names.
    """
    spots: dict[str, Sequence[float]] = dig(report, "likeness", "map") or {}
    if not spots:
        return None
    width, tallest, letters = (660, 530, 24) if wide else (370, 310, 18)
    rows = {name: dig(report, "domains", name, "rows") or 0 for name in spots}
    names = sorted(spots, key=lambda name: -rows[name])
    (left, right), (low, high) = (
        (min(spot[axis] for spot in spots.values()), max(spot[axis] for spot in spots.values()))
        for axis in (0, 1)
    )
    spans = (right - left, width - 2 * EDGE - 60), (high - low, tallest - 2 * EDGE)
    unit = min((room / span for span, room in spans if span > 0), default=1.0)
    height = max(100, min(tallest, round((high - low) * unit + 2 * EDGE)))
    largest = max(*rows.values(), 1)
    dots = {
        name: (
            round(width / 2 + unit * (spots[name][0] - (left + right) / 2), 2),
            round(height / 2 - unit * (spots[name][1] - (low + high) / 2), 2),
            round(6 + 7 * math.sqrt(rows[name] / largest), 2),
        )
        for name in names
    }
    groups = group_letters(report)
    parts = [_dot(name, dots[name], groups.get(name)) for name in names]
    taken: list[Box] = [(x - r, y - r, x + r, y + r) for x, y, r in dots.values()]
    missing = []
    for name in names:
        text = _name(shorten(name, letters), dots[name], taken, (width, height))
        if text is None:
            missing.append(name)
        else:
            parts.append(text)
    told = f"Map of {len(names)} domains; the table of distances has the numbers."
    return picture(width, height, told, parts, "chart map"), missing


def _dot(name: str, dot: tuple[float, float, float], letter: str | None) -> Element:
    x, y, r = dot
    parts = [
        element("title", f"{name}, group {letter}" if letter else name),
        element("circle", cx=x, cy=y, r=r, class_="dot"),
    ]
    if letter:
        parts.append(label(x, y + 4, letter, "letter", "middle"))
    where = pointer(("likeness", "map", name))
    return element("g", *parts, class_="mark grouped" if letter else "mark", data_path=where)


def _name(
    text: str, dot: tuple[float, float, float], taken: list[Box], size: tuple[float, float]
) -> Element | None:
    """The name at the first side of its dot where it covers nothing; its place is then taken."""
    x, y, r = dot
    length = LETTER * len(text)
    for right, up in SIDES:
        far = 0.7 * r + 4 if up else r + 5
        lift = 0.7 * r if right else r + 3
        at = round(x + right * far, 2)
        base = round(y + {0: 4, 1: -lift - 3, -1: lift + 11}[up], 2)
        start = at - length * (1 - right) / 2
        box = (start, base - 11, start + length, base + 4)
        inside = box[0] >= 2 and box[2] <= size[0] - 2 and box[1] >= 2 and box[3] <= size[1] - 2
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return label(at, base, text, "name", ("end", "middle", "start")[right + 1])
    return None


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
