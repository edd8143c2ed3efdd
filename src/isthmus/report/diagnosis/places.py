"""Two more charts: the map of domains, and a grouping against other groupings."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from isthmus.report.diagnosis.svg import Scale, clipped, element, label, line, picture, short

LETTER = 6.6  # a letter's usual width at the size of labels


def domain_map(
    spots: Mapping[str, Sequence[float]],
    sizes: Mapping[str, float],
    letters: Mapping[str, str],
    paths: Mapping[str, str],
) -> tuple[Markup, list[str]]:
    """Domains on a plane, near where they are alike; also the names that had no room.

    The area of a dot goes with the domain's rows; its letter is its group. Both axes have one
    scale, for only distances mean something.
    """
    width, height, edge = 370, 310, 26
    names = sorted(spots, key=lambda name: -sizes.get(name, 0))
    xs, ys = [spots[name][0] for name in names], [spots[name][1] for name in names]
    middle = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    span_x, span_y = max(xs) - min(xs), max(ys) - min(ys)
    unit = min(
        (width - 2 * edge - 60) / span_x if span_x > 0 else math.inf,
        (height - 2 * edge) / span_y if span_y > 0 else math.inf,
    )
    unit = unit if math.isfinite(unit) else 1.0
    height = max(100, min(height, round(span_y * unit + 2 * edge)))
    largest = max(max((sizes.get(name, 0) for name in names), default=1), 1)
    dots = {
        name: (
            width / 2 + unit * (spots[name][0] - middle[0]),
            height / 2 - unit * (spots[name][1] - middle[1]),
            6 + 7 * math.sqrt(sizes.get(name, 0) / largest),
        )
        for name in names
    }
    parts: list[Markup] = []
    taken = [(x - r, y - r, x + r, y + r) for x, y, r in dots.values()]
    missing: list[str] = []
    texts: list[Markup] = []
    for name in names:
        x, y, r = dots[name]
        group = letters.get(name, "")
        told = f"{name}{f', group {group}' if group else ''}"
        parts.append(
            element(
                "g",
                element("title", told),
                element("circle", cx=round(x, 2), cy=round(y, 2), r=round(r, 2), class_="dot"),
                label(round(x, 2), round(y + 4, 2), group, "letter", "middle") if group else "",
                class_="mark grouped" if group else "mark",
                data_path=paths[name],
                data_unit=round(unit, 6),
            )
        )
        text = clipped(name, 18)
        free = _room(dots[name], LETTER * len(text), taken, (width, height))
        if free is None:
            missing.append(name)
            continue
        taken.append(free[3])
        texts.append(label(round(free[0], 2), round(free[1], 2), text, "name", free[2]))
    picture_of = picture(
        width,
        height,
        f"Map of {len(names)} domains; the table of distances has the numbers.",
        [*parts, *texts],
        "chart map",
    )
    return picture_of, missing


def _room(
    dot: tuple[float, float, float],
    length: float,
    taken: Sequence[tuple[float, float, float, float]],
    size: tuple[float, float],
) -> tuple[float, float, str, tuple[float, float, float, float]] | None:
    """A free place for a label beside, above, below or at a corner of its dot."""
    x, y, r = dot
    tries = [
        (x + r + 5, y + 4, "start", x + r + 4),
        (x - r - 5, y + 4, "end", x - r - 5 - length),
        (x, y - r - 6, "middle", x - length / 2),
        (x, y + r + 15, "middle", x - length / 2),
        (x + 0.7 * r + 4, y - 0.7 * r - 3, "start", x + 0.7 * r + 4),
        (x + 0.7 * r + 4, y + 0.7 * r + 11, "start", x + 0.7 * r + 4),
        (x - 0.7 * r - 4, y - 0.7 * r - 3, "end", x - 0.7 * r - 4 - length),
        (x - 0.7 * r - 4, y + 0.7 * r + 11, "end", x - 0.7 * r - 4 - length),
    ]
    for at, base, anchor, start in tries:
        box = (start, base - 11, start + length, base + 4)
        if box[0] < 2 or box[2] > size[0] - 2 or box[1] < 2 or box[3] > size[1] - 2:
            continue
        if all(
            box[2] <= other[0] or box[0] >= other[2] or box[3] <= other[1] or box[1] >= other[3]
            for other in taken
        ):
            return at, base, anchor, box
    return None


def strip(rows: Sequence[tuple[str, Sequence[tuple[float, str]], str]], *, what: str) -> Markup:
    """Scores on one axis, a line for each kind: its name, (score, path) of each, and its class."""
    width, left, right, row, top = 370, 168, 318, 26, 8
    values = [value for _, held, _ in rows for value, _ in held]
    spread = max(values) - min(values) or 0.01
    scale = Scale(min(values) - 0.06 * spread, max(values) + 0.06 * spread, left, right)
    bottom = top + row * len(rows)
    parts = [
        line(scale.at(value), top, scale.at(value), bottom, "grid")
        for value, _ in (held[0] for _, held, kind in rows if kind == "chosen")
    ]
    told = []
    for place, (name, held, kind) in enumerate(rows):
        y = top + row * (place + 0.5)
        parts.append(line(left, y, right, y, "grid"))
        parts.append(label(4, y + 4, clipped(name, 26), "name"))
        for value, path in held:
            text = f"{name}: {short(value, 4, signed=False)}"
            x = scale.at(value)
            dot = (
                element("circle", cx=x, cy=y, r=4.6, class_="dot", data_x=x)
                if kind == "random"
                else element("path", d=f"M{x} {y - 6}L{x + 6} {y}L{x} {y + 6}L{x - 6} {y}Z",
                             class_="dot", data_x=x)
            )  # fmt: skip
            parts.append(element("g", element("title", text), dot,
                                 class_=f"mark {kind}", data_path=path))  # fmt: skip
            told.append(text)
        if len(held) == 1:
            parts.append(label(width, y + 4, short(held[0][0], 4, signed=False), "value", "end"))
    return picture(
        width,
        bottom + 8,
        f"{what}. {'; '.join(told)}",
        parts,
        "chart strip",
        data_low=scale.low,
        data_high=scale.high,
        data_start=left,
        data_end=right,
    )
