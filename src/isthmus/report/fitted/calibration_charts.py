"""The charts of scores: what was promised against what came true, and how scores are spread."""

from collections.abc import Mapping, Sequence
from math import exp, log
from typing import Any
from xml.etree.ElementTree import Element

from isthmus.metrics.text_table import count_text
from isthmus.report.svg import Scale, element, label, line, picture, ticks

WIDTH, HEIGHT = 300, 190
LEFT, RIGHT, TOP, FOOT = 44, 10, 8, 36
BIN_ROWS = 8  # in a bin of scores by mean, or bins are joined
CHANCES = (0.0001, 0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)


def percent(value: float) -> str:
    """A chance as a short percentage.

    >>> percent(0.0314), percent(0.5), percent(0.0)
    ('3.14 %', '50 %', '0 %')
    """
    return f"{100 * value:.3g} %"


def reliability_chart(points: Sequence[Mapping[str, Any]], title: str) -> Element | None:
    """Draw mean label over mean prediction, bin by bin; None without a bin.

    The band is where a perfectly calibrated model lies in 95 of 100 draws of the labels. A dot outside of
    its bin's band is coloured.
    """
    if not points:
        return None
    low, high = _span(points)
    across = Scale(low, high, LEFT, WIDTH - RIGHT)
    up = Scale(low, high, HEIGHT - FOOT, TOP)
    parts = [_band(points, across, up)]
    for value in ticks(low, high, 3):
        parts.append(line(LEFT, up.at(value), WIDTH - RIGHT, up.at(value), "grid"))
        parts.append(label(LEFT - 5, up.at(value) + 4, percent(value), "tick", "end"))
        parts.append(label(across.at(value), HEIGHT - FOOT + 15, percent(value), "tick", "middle"))
    parts.append(line(across.at(low), up.at(low), across.at(high), up.at(high), "zero"))
    parts.append(label((LEFT + WIDTH) / 2, HEIGHT - 3, "predicted", "end", "middle"))
    for of in points:
        least, most = of["noise"]
        tone = "flat" if least <= of["observed"] <= most else "down"
        told = (
            f"predicted {percent(of['promised'])}, observed {percent(of['observed'])} of"
            f" {count_text(of['rows'], 'row')}; noise {percent(least)} to {percent(most)}"
        )
        x, y = across.at(of["promised"]), up.at(of["observed"])
        dot = element("circle", cx=x, cy=y, r=3.6, class_="dot")
        parts.append(element("g", element("title", told), dot, class_=f"mark {tone}"))
    return picture(WIDTH, HEIGHT, title, parts, "chart reliability", **up.data)


def _span(points: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The ends of both axes: from 0, unless all values lie far from it."""
    values = [value for of in points for value in (of["promised"], of["observed"], *of["noise"])]
    low, high = min(values), max(values)
    pad = max(0.04 * (high - low), 1e-6)
    return (0.0 if low < 0.4 * high else max(low - pad, 0.0)), high + pad


def _band(points: Sequence[Mapping[str, Any]], across: Scale, up: Scale) -> Element:
    """The noise of all bins as one area."""
    lows = [(across.at(of["promised"]), up.at(of["noise"][0])) for of in points]
    highs = [(across.at(of["promised"]), up.at(of["noise"][1])) for of in points]
    if len(points) == 1:  # an area needs two ends
        lows, highs = (
            [(x - 4, y) for x, y in of] + [(x + 4, y) for x, y in of] for of in (lows, highs)
        )
    return element("path", d=f"{path_of([*lows, *reversed(highs)])}Z", class_="band noise")


def scores_chart(
    edges: Sequence[float], held: Mapping[str, Sequence[float]], title: str
) -> Element | None:
    """Draw how the scores of each label are spread, each as shares of its own rows; None without rows.

    The axis is that of log-odds, with chances written on it.
    """
    sums = {name: sum(held[name]) for name in ("negatives", "positives")}
    if not any(sums.values()):
        return None
    edges, held = _coarser(edges, held, sum(sums.values()))
    shares = {
        name: [count / total for count in held[name]] for name, total in sums.items() if total
    }
    across = Scale(edges[0], edges[-1], LEFT - 30, WIDTH - RIGHT)
    up = Scale(0.0, 1.06 * max(map(max, shares.values())), HEIGHT - FOOT, TOP)
    parts: list[Element] = []
    for chance in CHANCES:
        place = log(chance / (1 - chance))
        if across.holds(place):
            x = across.at(place)
            parts.append(line(x, TOP, x, HEIGHT - FOOT, "grid"))
            parts.append(label(x, HEIGHT - FOOT + 15, percent(chance), "tick", "middle"))
    if not parts:
        for end, anchor in ((edges[0], "start"), (edges[-1], "end")):
            told = percent(1 / (1 + exp(-end)))
            parts.append(label(across.at(end), HEIGHT - FOOT + 15, told, "tick", anchor))
    base = up.at(0)
    parts.append(line(across.at(edges[0]), base, across.at(edges[-1]), base, "zero"))
    parts.append(label((LEFT - 30 + WIDTH) / 2, HEIGHT - 3, "score", "end", "middle"))
    for name, heights in shares.items():
        corners = [(across.at(edges[0]), base)]
        for place, height in enumerate(heights):
            y = up.at(height)
            corners += [(across.at(edges[place]), y), (across.at(edges[place + 1]), y)]
        corners.append((across.at(edges[-1]), base))
        told = element("title", f"{name}: {sums[name]:,.6g}")
        curve = element("path", told, d=path_of(_thinned(corners)), class_="curve")
        parts.append(element("g", curve, class_=name))
    return picture(WIDTH, HEIGHT, title, parts, "chart scores")


def _coarser(
    edges: Sequence[float], held: Mapping[str, Sequence[float]], rows: float
) -> tuple[Sequence[float], Mapping[str, Sequence[float]]]:
    """Bins joined by twos or by fours, where there are few rows."""
    bins = len(edges) - 1
    step = next((step for step in (1, 2) if rows * step >= BIN_ROWS * bins), 4)
    return edges[::step], {
        name: [sum(of[at : at + step]) for at in range(0, bins, step)] for name, of in held.items()
    }


def _thinned(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same line without the corners inside of level stretches."""
    kept = [corners[0]]
    for before, here, after in zip(corners, corners[1:], corners[2:], strict=False):
        if not before[1] == here[1] == after[1]:
            kept.append(here)
    return [*kept, corners[-1]]


def path_of(corners: Sequence[tuple[float, float]]) -> str:
    """The path through some places."""
    first, *others = (f"{x:g} {y:g}" for x, y in corners)
    return f"M{first}L{' '.join(others)}" if others else f"M{first}"
