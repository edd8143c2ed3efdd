"""The charts of a diagnosis, each described once: what is drawn, where, and how each mark is told.

A chart is a tree of SVG elements. The page shows the tree as it stands, and the figures for papers
are drawn from the same tree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from isthmus.metrics.text_table import count_text, shorten
from isthmus.report.diagnosis.lookup import (
    Path,
    Report,
    by_size,
    dig,
    lead_of,
    macro_margin,
    margin_of,
    metrics_of,
)
from isthmus.report.diagnosis.words import EFFECTS
from isthmus.report.json_text import pointer
from isthmus.report.svg import (
    Scale,
    box,
    element,
    label,
    line,
    picture,
    short,
    ticks,
)

ROW = 27  # height of one domain
NAME, LONG_NAME = 16, 24  # letters of a name: on the page, and in a figure
WIDTH, PLOT = 370, 264  # of a chart with its names, and of what is drawn beside the names
CHARTS = {  # effect -> 1 where above 0 is good, -1 where above 0 is bad; and the ends of its axis
    "net": (1, ("worse together", "better together")),
    "transfer": (1, ("others' rows harm", "others' rows help")),
    "interference": (-1, ("recovers nothing", "recovers more")),
}
SCORES = (
    ("score_all", "one model for all", "other"),
    ("score", "these groups", "chosen"),
    ("score_none", "each domain alone", "other"),
)


@dataclass(frozen=True, slots=True)
class Interval:
    """One mark of a chart: an effect of the report, with the margin around 0.

    ``path``: where the report holds the estimate, as a JSON pointer. ``good``: 1 where above 0 is
    good, and -1 where above 0 is bad.
    """

    name: str
    effect: Mapping[str, Any]
    margin: float
    path: str = ""
    good: int = 1

    @property
    def estimate(self) -> float | None:
        """The estimate; None where there is none."""
        return self.effect.get("estimate")

    @property
    def ci(self) -> Sequence[float] | None:
        """The ends of the interval; None where there is no interval or no estimate."""
        return None if self.estimate is None else self.effect.get("ci")

    @property
    def tone(self) -> str:
        """``up`` for better, ``down`` for worse, ``flat`` where the interval holds 0."""
        if self.estimate is None or self.ci is None or self.ci[0] <= 0 <= self.ci[1]:
            return "flat"
        return "up" if (self.estimate > 0) == (self.good > 0) else "down"

    @property
    def told(self) -> str:
        """The mark in words."""
        if self.estimate is None:
            return f"{self.name}: {self.effect.get('reason') or 'not measured'}"
        text = f"{self.name}: {short(self.estimate, 4)}"
        if self.ci is not None:
            ends = f"{short(self.ci[0], 4)} to {short(self.ci[1], 4)}"
            text += f", 95 % interval {ends}, unadjusted"
        note = self.effect.get("note")
        return f"{text}; {note}" if note else text


def interval(report: Report, path: Path, name: str, margin: float, good: int = 1) -> Interval:
    """The effect at a path of the report as one mark."""
    effect = dig(report, *path) or {}
    return Interval(name, effect, margin, pointer((*path, "estimate")), good)


def reach(marks: Sequence[Interval], stretch: float = 2.5) -> float:
    """Half the width of a common axis around 0.

    The axis holds every estimate, twice the margin, and most intervals. A small domain may have an
    interval so wide that all others would look flat. Such an interval is cut at ``stretch`` times
    the median, and the chart marks the cut by an arrow.
    """
    margin = max((of.margin for of in marks), default=0.0)
    estimates = [abs(of.estimate) for of in marks if of.estimate is not None]
    need = max([2 * margin, *(1.2 * value for value in estimates)], default=0.0)
    ends = [max(abs(of.ci[0]), abs(of.ci[1])) for of in marks if of.ci is not None]
    if ends:
        need = max(need, min(max(ends), stretch * float(np.median(ends))))
    return 1.04 * need if need > 0 else 1.0


def ends_of(marks: Sequence[Interval], stretch: float = 2.5) -> tuple[float, float]:
    """The ends of a common axis. The axis holds 0 and the margin, and need not be even about 0."""
    widest = reach(marks, stretch)
    values = [end for of in marks if of.estimate is not None for end in of.ci or (of.estimate,)]
    margin = max((of.margin for of in marks), default=0.0)
    low = min([-1.4 * margin, *values], default=-widest)
    high = max([1.4 * margin, *values], default=widest)
    if low == high:
        return -widest, widest
    pad = 0.04 * (high - low)
    return max(low - pad, -widest), min(high + pad, widest)


def net_charts(report: Report) -> dict[str, Element]:
    """For each domain its net effect in the leading metric, without an axis, to stand beside the number."""
    marks = [_effect(report, name, lead_of(report).key, "net") for name in by_size(report)]
    across = reach(marks)
    return {of.name: _single(of, across) for of in marks}


def effect_charts(
    report: Report, metric: str, names: Sequence[str], *, wide: bool = False
) -> list[tuple[str, Element]]:
    """N, T and I of some domains in one metric, each under its key, on the axis of all domains.

    An effect that no domain has is left out. ``wide``: the charts will stand side by side, so that
    only the first has names, and these may be longer.
    """
    held = {key: [_effect(report, name, metric, key) for name in by_size(report)] for key in CHARTS}
    held = {key: of for key, of in held.items() if any(mark.estimate is not None for mark in of)}
    axis = ends_of([of for marks in held.values() for of in marks])
    named = {one.key: one.title for one in metrics_of(report)}
    charts = []
    for key, marks in held.items():
        chosen = [of for of in marks if of.name in names]
        title = f"{EFFECTS[key][0]} in {named[metric]} for {len(chosen)} domains."
        letters = NAME if not wide else 0 if charts else LONG_NAME
        charts.append((key, _forest(chosen, axis, title, CHARTS[key][1], letters, wide=wide)))
    return charts


def _effect(report: Report, name: str, metric: str, key: str) -> Interval:
    margin = margin_of(report, name, metric)
    return interval(report, ("domains", name, metric, key), name, margin, CHARTS[key][0])


def weighting_chart(report: Report) -> Element | None:
    """The effect of each weighting against proportional, as a mean over domains."""
    margin = macro_margin(report)
    marks = [
        interval(report, ("weighting", place, "macro"), one["name"], margin)
        for place, one in enumerate(report.get("weighting") or [])
    ]
    marks = [of for of in marks if of.estimate is not None]
    if not marks:
        return None
    title = f"Mean {lead_of(report).gain} over domains: each weighting minus proportional."
    return _forest(marks, ends_of(marks), title, ("worse than proportional", "better"))


def _forest(
    marks: Sequence[Interval],
    axis: tuple[float, float],
    title: str,
    ends: tuple[str, str],
    letters: int = NAME,
    *,
    wide: bool = False,
) -> Element:
    """Estimates with their intervals, one row for each. The band is the margin.

    An interval that leaves the axis ends in an arrow. ``letters``: of a name; 0 leaves names out.
    ``wide``: the picture grows with its names, rather than to be as wide as all others.
    """
    top = 10
    names = [shorten(of.name, letters) if letters else "" for of in marks]
    left = 18 + round((6.6 if wide else 5.6) * max(4, *map(len, names))) if letters else 10
    right = left + PLOT if wide else WIDTH - 8
    scale = Scale(*axis, left, right)
    bottom = top + ROW * len(marks)
    rows = list(zip(marks, names, range(top, bottom, ROW), strict=True))
    parts = [
        box(scale.at(-of.margin), y, scale.at(of.margin), y + ROW, "band")
        for of, _, y in rows
        if of.margin > 0
    ]
    for tick in ticks(*axis, 7 if wide else 6):
        x = scale.at(tick)
        parts.append(line(x, top, x, bottom, "zero" if tick == 0 else "grid"))
        parts.append(label(x, bottom + 15, short(tick), "tick", "middle"))
    parts.append(label(left, bottom + 33, f"← {ends[0]}", "end", "start"))
    parts.append(label(right, bottom + 33, f"{ends[1]} →", "end", "end"))
    parts += [_mark(of, scale, y + ROW / 2, name) for of, name, y in rows]
    told = f"{title[:-1]}; the table has the numbers."
    return picture(right + 8, bottom + 44, told, parts, "chart forest", **scale.data)


def _single(of: Interval, across: float) -> Element:
    width, height = 240, 34
    scale = Scale(-across, across, 6, width - 6)
    parts = [
        box(scale.at(-of.margin), 3, scale.at(of.margin), height - 3, "band"),
        line(6, height / 2, width - 6, height / 2, "grid"),
        line(scale.at(0), 3, scale.at(0), height - 3, "zero"),
        _mark(of, scale, height / 2, None),
    ]
    return picture(width, height, of.told, parts, "chart single", **scale.data)


def _mark(of: Interval, scale: Scale, y: float, name: str | None) -> Element:
    """A row of a chart: its name, its interval, and its dot. None: the row has no name at all."""
    parts = [element("title", of.told)]
    if name:
        parts.append(label(4, y + 4, name, "name"))
    if of.estimate is None:
        if name is not None:
            parts.append(label(scale.at(0), y + 4, "no estimate", "nil", "middle"))
        return element("g", *parts, class_="mark nil")
    if of.ci is not None:
        parts.append(line(scale.at(of.ci[0]), y, scale.at(of.ci[1]), y, "interval"))
        for end, step in zip(of.ci, (6, -6), strict=True):
            x = scale.at(end)
            cut = f"M{x + step} {y - 5}L{x} {y}L{x + step} {y + 5}"
            whole = line(x, y - 4, x, y + 4, "interval")
            parts.append(whole if scale.holds(end) else element("path", d=cut, class_="arrow"))
    x = scale.at(of.estimate)
    if of.tone == "flat":
        parts.append(element("circle", cx=x, cy=y, r=4.6, class_="dot", data_x=x))
    else:
        tip, foot = (y - 6.5, y + 4.5) if of.tone == "up" else (y + 6.5, y - 4.5)
        path = f"M{x} {tip}L{x + 6.2:.2f} {foot}L{x - 6.2:.2f} {foot}Z"
        parts.append(element("path", d=path, class_="dot", data_x=x))
    return element("g", *parts, class_=f"mark {of.tone}", data_path=of.path)


def strip_chart(report: Report) -> Element | None:
    """Scores on one axis: the confirmed groups, all in one, each alone, and random groupings."""
    path: Path = ("groups", "confirmed")
    random = range(len(dig(report, *path, "random") or []))
    places = [(*path, "random", place) for place in random]
    drawn = [place for place in places if dig(report, *place) is not None]
    marks: list[tuple[str, Path, str]] = [(name, (*path, key), kind) for key, name, kind in SCORES]
    marks += [(count_text(len(drawn), "random grouping"), place, "random") for place in drawn]
    marks = [mark for mark in marks if dig(report, *mark[1]) is not None]
    score = dig(report, *path, "score")
    if score is None:
        return None
    names = list(dict.fromkeys(name for name, _, _ in marks))
    left, right, height, top = 168, 318, 26, 8
    bottom, middle = top + height * len(names), top + height / 2
    values = [dig(report, *place) for _, place, _ in marks]
    pad = 0.06 * ((max(values) - min(values)) or 0.01)
    scale = Scale(min(values) - pad, max(values) + pad, left, right)
    parts, told = [line(scale.at(score), top, scale.at(score), bottom, "grid")], []
    for row, name in enumerate(names):
        y = middle + height * row
        parts += [line(left, y, right, y, "grid"), label(4, y + 4, shorten(name, 26), "name")]
    for (name, place, kind), value in zip(marks, values, strict=True):
        x, y = scale.at(value), middle + height * names.index(name)
        text = short(value, 4, signed=False)
        told.append(f"{name}: {text}")
        if kind == "random":
            dot = element("circle", cx=x, cy=y, r=4.6, class_="dot", data_x=x)
        else:
            shape = f"M{x} {y - 6}L{x + 6} {y}L{x} {y + 6}L{x - 6} {y}Z"
            dot = element("path", d=shape, class_="dot", data_x=x)
            parts.append(label(WIDTH, y + 4, text, "value", "end"))
        both, where = (element("title", told[-1]), dot), pointer(place)
        parts.append(element("g", *both, class_=f"mark {kind}", data_path=where))
    title = f"Mean {lead_of(report).title} over domains. {'; '.join(told)}"
    return picture(WIDTH, bottom + 8, title, parts, "chart strip", **scale.data)
