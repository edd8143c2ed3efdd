"""The page's charts as SVG: intervals by domain, one interval, and curves over capacity."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from isthmus.report.diagnosis.svg import (
    Scale,
    clipped,
    element,
    label,
    line,
    picture,
    short,
    ticks,
)

ROW = 27  # height of one domain
TOP, BOTTOM = 10, 44
NAME = 16  # letters of a name


@dataclass(frozen=True, slots=True)
class Interval:
    """One line of a chart: an estimate with its interval and the margin around 0.

    ``good``: 1 where above 0 is good, -1 where it is bad, 0 where neither. ``path``: where
    the report holds the effect, as a JSON pointer.
    """

    name: str
    estimate: float | None
    ci: Sequence[float] | None
    margin: float
    path: str
    reason: str | None = None
    good: int = 1
    note: str | None = None

    @property
    def tone(self) -> str:
        """``up``, ``down``, or ``flat`` where the interval holds 0."""
        if self.estimate is None or self.ci is None or self.ci[0] <= 0 <= self.ci[1]:
            return "flat"
        if self.good == 0:
            return "clear"
        return "up" if (self.estimate > 0) == (self.good > 0) else "down"

    @property
    def told(self) -> str:
        """The line in words."""
        if self.estimate is None:
            return f"{self.name}: {self.reason or 'not measured'}"
        text = f"{self.name}: {short(self.estimate, 4)}"
        if self.ci is not None:
            ends = f"{short(self.ci[0], 4)} to {short(self.ci[1], 4)}"
            text += f", 95 % interval {ends}, unadjusted"
        return f"{text}; {self.note}" if self.note else text


def forest(
    lines: Sequence[Interval],
    *,
    axis: tuple[float, float],
    title: str,
    ends: tuple[str, str],
    count: int = 6,
) -> Markup:
    """Estimates with intervals, one line for each domain; the band is the margin.

    ``axis``: its lower and upper end, 0 between them; intervals beyond it end in an arrow.
    """
    width, right = 370, 362
    longest = max((len(clipped(of.name, NAME)) for of in lines), default=0)
    left = 18 + round(5.6 * max(4, longest))
    scale = Scale(*axis, left, right)
    bottom = TOP + ROW * len(lines)
    parts: list[Markup] = []
    for place, of in enumerate(lines):
        if of.margin > 0:
            start, end = scale.at(-of.margin), scale.at(of.margin)
            parts.append(
                element(
                    "rect",
                    x=start,
                    y=TOP + ROW * place,
                    width=round(end - start, 2),
                    height=ROW,
                    class_="band",
                )
            )
    for tick in ticks(*axis, count):
        x = scale.at(tick)
        parts.append(line(x, TOP, x, bottom, "zero" if tick == 0 else "grid"))
        parts.append(label(x, bottom + 15, short(tick), "tick", "middle"))
    parts += [
        label(left, bottom + 33, f"← {ends[0]}", "end", "start"),
        label(right, bottom + 33, f"{ends[1]} →", "end", "end"),
    ]
    for place, of in enumerate(lines):
        parts.append(_mark(of, scale, TOP + ROW * (place + 0.5), named=True))
    return picture(
        width,
        bottom + BOTTOM,
        title,
        parts,
        "chart forest",
        data_low=axis[0],
        data_high=axis[1],
        data_start=left,
        data_end=right,
    )


def single(of: Interval, *, reach: float) -> Markup:
    """One interval without an axis, to stand beside its number."""
    width, height = 240, 34
    scale = Scale(-reach, reach, 6, width - 6)
    start, end = scale.at(-of.margin), scale.at(of.margin)
    parts = [
        element(
            "rect", x=start, y=3, width=round(end - start, 2), height=height - 6, class_="band"
        ),
        line(6, height / 2, width - 6, height / 2, "grid"),
        line(scale.at(0), 3, scale.at(0), height - 3, "zero"),
        _mark(of, scale, height / 2, named=False),
    ]
    return picture(
        width,
        height,
        of.told,
        parts,
        "chart single",
        data_low=-reach,
        data_high=reach,
        data_start=6,
        data_end=width - 6,
    )


def _mark(of: Interval, scale: Scale, y: float, *, named: bool) -> Markup:
    parts: list[Markup] = [element("title", of.told)]
    if named:
        parts.append(label(4, y + 4, clipped(of.name, NAME), "name"))
    if of.estimate is None:
        if named:
            parts.append(label(scale.at(0), y + 4, "no estimate", "nil", "middle"))
        return element("g", *parts, class_="mark nil")
    if of.ci is not None:
        low, high = of.ci
        parts.append(line(scale.at(low), y, scale.at(high), y, "interval"))
        for end, step in ((low, 1), (high, -1)):
            x = scale.at(end)
            if scale.holds(end):
                parts.append(line(x, y - 4, x, y + 4, "interval"))
            else:
                parts.append(
                    element("path", d=f"M{x + 6 * step} {y - 5}L{x} {y}L{x + 6 * step} {y + 5}",
                            class_="arrow")
                )  # fmt: skip
    parts.append(_dot(of.tone, scale.at(of.estimate), y))
    return element("g", *parts, class_=f"mark {of.tone}", data_path=of.path)


def _dot(tone: str, x: float, y: float) -> Markup:
    """Up: a triangle; down: one on its head; a ring where the interval holds 0."""
    if tone in {"up", "down"}:
        tip, foot = (y - 6.5, y + 4.5) if tone == "up" else (y + 6.5, y - 4.5)
        path = f"M{x} {tip}L{x + 6.2:.2f} {foot}L{x - 6.2:.2f} {foot}Z"
        return element("path", d=path, class_="dot", data_x=x)
    return element("circle", cx=x, cy=y, r=4.6, class_="dot", data_x=x)


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a capacity chart; ``points`` has a step on the axis and an effect's line."""

    known: bool  # whether the model sees the domain
    points: tuple[tuple[int, Interval], ...]


def capacity(
    name: str,
    curves: Sequence[Curve],
    labels: Sequence[str],
    *,
    ends: tuple[float, float],
    margin: float,
) -> Markup:
    """The net effect of one domain at several widths; both kinds of model in one small chart.

    ``ends``: the axis, which all charts share; intervals beyond it are cut.
    """
    width, height, left, right, top, bottom = 300, 190, 42, 288, 12, 150
    up = Scale(*ends, bottom, top)
    inset = 22
    across = Scale(0, max(1, len(labels) - 1), left + inset, right - inset)
    parts = [
        element(
            "rect",
            x=left,
            y=up.at(margin),
            width=right - left,
            height=round(up.at(-margin) - up.at(margin), 2),
            class_="band",
        )
    ]
    for tick in ticks(*ends, 5):
        parts.append(line(left, up.at(tick), right, up.at(tick), "zero" if tick == 0 else "grid"))
        parts.append(label(left - 6, up.at(tick) + 4, short(tick), "tick", "end"))
    for step, text in enumerate(labels):
        parts.append(label(across.at(step), bottom + 18, text, "tick", "middle"))
    parts.append(label((left + right) / 2, bottom + 35, "width of the layers", "end", "middle"))
    for curve in curves:
        parts += _curve(curve, across, up, -5 if curve.known else 5)
    return picture(
        width,
        height,
        f"Net effect on {name} at {len(labels)} widths; the table below has the numbers.",
        parts,
        "chart capacity",
        data_low=ends[0],
        data_high=ends[1],
        data_start=bottom,
        data_end=top,
    )


def _curve(curve: Curve, across: Scale, up: Scale, shift: float) -> list[Markup]:
    kind = "known" if curve.known else "unknown"
    held = [(step, of, of.estimate) for step, of in curve.points if of.estimate is not None]
    if not held:
        return []
    path = "L".join(f"{across.at(step) + shift:.2f} {up.at(value)}" for step, _, value in held)
    parts = [element("path", d=f"M{path}", class_=f"curve {kind}")]
    for step, of, value in held:
        x, y = round(across.at(step) + shift, 2), up.at(value)
        inner: list[Markup] = [element("title", of.told)]
        if of.ci is not None:
            inner.append(line(x, up.at(of.ci[0]), x, up.at(of.ci[1]), "interval"))
        shape = (
            element("circle", cx=x, cy=y, r=4.2, class_="dot", data_x=y)
            if curve.known
            else element(
                "rect", x=x - 3.8, y=y - 3.8, width=7.6, height=7.6, class_="dot", data_x=y
            )
        )
        parts.append(element("g", *inner, shape, class_=f"mark {kind}", data_path=of.path))
    return parts
