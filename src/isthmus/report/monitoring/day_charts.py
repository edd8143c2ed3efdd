"""The charts of a monitored log: a domain's AUC or calibration by day, beside its validation rows."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from math import exp, log
from typing import Any
from xml.etree.ElementTree import Element

from isthmus.metrics.text_table import count_text, number, with_interval
from isthmus.report.svg import Scale, box, element, label, line, picture, short, ticks

WIDTH, HEIGHT = 430, 170
LEFT, RIGHT, TOP, FOOT = 46, 10, 10, 24
NAMES = {"auc": "AUC", "calibration": "Calibration"}
PLACES = {"auc": 3, "calibration": 2}
LEAST_SPAN = {"auc": 0.04, "calibration": 0.2}  # of an axis, so that noise looks small
CLOSE = 5  # days whose dates would touch


def day_chart(report: Mapping[str, Any], domain: str, metric: str) -> Element | None:
    """Draw a number of a domain by day with its intervals; None where no day has one.

    The line is the number of the validation rows, and the band what the margin allows. Calibration has
    a logarithmic axis. An interval that leaves the axis ends in an arrow.
    """
    days = [day for day in report["days"][domain] if day[metric] is not None]
    if metric == "calibration":
        days = [day for day in days if day[metric] > 0]
    if not days:
        return None
    change = report["domains"][domain][metric]
    before = None if change is None else change["training"]
    low, high = _allowed(report, metric, before)
    up = _axis(metric, days, [end for end in (low, high) if end is not None])
    dates = [date.fromisoformat(day["day"]) for day in report["days"][domain]]
    span = max((dates[-1] - dates[0]).days, 1)
    across = Scale(-0.5, span + 0.5, LEFT, WIDTH - RIGHT)
    parts: list[Element] = []
    if before is not None and low is not None:
        top = TOP if high is None else up.at(_place(metric, high))
        parts.append(box(LEFT, top, WIDTH - RIGHT, up.at(_place(metric, low)), "band"))
    for value in _ticks(metric, up):
        y = up.at(_place(metric, value))
        parts.append(line(LEFT, y, WIDTH - RIGHT, y, "grid"))
        parts.append(label(LEFT - 6, y + 4, _short(value, metric), "tick", "end"))
    if before is not None:
        y = up.at(_place(metric, before))
        parts.append(line(LEFT, y, WIDTH - RIGHT, y, "zero"))
    parts += _dates(dates, across)
    for day in days:
        place = (date.fromisoformat(day["day"]) - dates[0]).days
        parts.append(_mark(day, metric, across.at(place), up, low, high))
    title = f"{NAMES[metric]} of {domain} by day"
    return picture(WIDTH, HEIGHT, title, parts, "chart days", **up.data)


def _allowed(
    report: Mapping[str, Any], metric: str, before: float | None
) -> tuple[float | None, float | None]:
    """The ends of what the margin allows."""
    if before is None:
        return None, None
    if metric == "auc":
        return before - report["margin"], None
    factor = 1 + report["calibration_margin"]
    return before / factor, before * factor


def _place(metric: str, value: float) -> float:
    return value if metric == "auc" else log(value)


def _axis(metric: str, days: Sequence[Mapping[str, Any]], always: Sequence[float]) -> Scale:
    """Hold all values, and the intervals of days with many rows: small days would press the rest."""
    held = [_place(metric, day[metric]) for day in days] + [_place(metric, end) for end in always]
    ends = sorted(
        (day[f"{metric}_ci"] for day in days if day[f"{metric}_ci"] is not None),
        key=lambda ci: _place(metric, ci[1]) - _place(metric, ci[0]),
    )
    for ci in ends[: (3 * len(ends) + 3) // 4]:
        held += [_place(metric, end) for end in ci]
    low, high = min(held), max(held)
    pad = max(0.06 * (high - low), (LEAST_SPAN[metric] - (high - low)) / 2)
    low, high = low - pad, high + pad
    if metric == "auc":
        low, high = max(low, 0.0), min(high, 1.0)
    return Scale(low, high, HEIGHT - FOOT, TOP)


def _ticks(metric: str, up: Scale) -> list[float]:
    if metric == "auc":
        return ticks(up.low, up.high, 4)
    return [value for value in ticks(exp(up.low), exp(up.high), 4) if value > 0]


def _short(value: float, metric: str) -> str:
    if metric == "calibration":
        return f"{value:.2g}"
    return short(value, 3, signed=False)


def _dates(dates: Sequence[date], across: Scale) -> list[Element]:
    """Some dates below the axis, at equal steps."""
    span = (dates[-1] - dates[0]).days
    step = max(1, -(-span // CLOSE))
    y = HEIGHT - FOOT + 16
    return [
        label(across.at(days), y, f"{dates[0] + timedelta(days=days):%d %b}", "tick", "middle")
        for days in range(0, span + 1, step)
    ]


def _mark(
    day: Mapping[str, Any],
    metric: str,
    x: float,
    up: Scale,
    low: float | None,
    high: float | None,
) -> Element:
    value, ci = day[metric], day[f"{metric}_ci"]
    tone = "flat"
    if ci is not None and (
        (low is not None and ci[1] < low) or (high is not None and ci[0] > high)
    ):
        tone = "down"
    places = PLACES[metric] + 1
    told = (
        f"{day['day']}: {number(value, places) if ci is None else with_interval(value, ci, places)}"
    )
    parts: list[Element] = [element("title", f"{told}, {count_text(day['rows'], 'row')}")]
    if ci is not None:
        ends = [_place(metric, end) for end in ci]
        parts.append(line(x, up.at(ends[0]), x, up.at(ends[1]), "interval"))
        for end, turn in ((ends[0], -1), (ends[1], 1)):
            if not up.holds(end):
                y = up.at(end)
                arrow = f"M{x - 4} {y + 5 * turn}L{x} {y}L{x + 4} {y + 5 * turn}"
                parts.append(element("path", d=arrow, class_="arrow"))
    parts.append(element("circle", cx=x, cy=up.at(_place(metric, value)), r=4, class_="dot"))
    return element("g", *parts, class_=f"mark {tone}")
