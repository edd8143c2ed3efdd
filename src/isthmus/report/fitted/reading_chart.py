"""What a model reads, as a chart: the fall in AUC where a column is shuffled."""

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element

from isthmus.metrics.text_table import number, shorten
from isthmus.report.svg import Scale, box, element, label, line, picture, short, ticks

WIDTH = 380
NAME = 132  # width that names of columns take
ROW = 23
LETTERS = 19
MOST = 30  # columns


def ranked(importance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The columns and the domain, the most read first; those without a number last."""
    domain = importance["domain"]
    every = [*importance["columns"], *([] if domain is None else [{"name": None, **domain}])]
    return sorted(every, key=lambda of: (of["fall"] is None, -(of["fall"] or 0.0)))


def reading_chart(importance: Mapping[str, Any], domain_column: str) -> Element | None:
    """Draw a bar for each column, the most read first, with its spread; None where nothing is known.

    The bar is the mean over domains; the line through its end is one standard deviation of the repeats
    to each side.
    """
    told = [of for of in ranked(importance) if of["fall"] is not None][:MOST]
    if not told:
        return None
    ends = [of["fall"] + side * (of["spread"] or 0.0) for of in told for side in (-1, 1)]
    low, high = min(0.0, *ends), max(0.0, *ends, 1e-3)
    across = Scale(low - 0.02 * (high - low), high + 0.02 * (high - low), NAME, WIDTH - 52)
    foot = 6 + ROW * len(told)
    parts: list[Element] = []
    for value in ticks(low, high, 3):
        name = "zero" if value == 0 else "grid"
        parts.append(line(across.at(value), 4, across.at(value), foot, name))
        parts.append(label(across.at(value), foot + 15, short(value), "tick", "middle"))
    for place, of in enumerate(told):
        parts += _bar(of, 6 + ROW * place, across, domain_column)
    title = "Fall in AUC where a column is shuffled, mean over domains"
    return picture(WIDTH, foot + 20, title, parts, "chart reading", **across.data)


def column_name(of: Mapping[str, Any], domain_column: str) -> str:
    """What to call a column; the domain's is marked."""
    return f"{domain_column} (the domain)" if of["name"] is None else of["name"]


def _bar(of: Mapping[str, Any], y: float, across: Scale, domain_column: str) -> list[Element]:
    fall, spread = of["fall"], of["spread"]
    name = column_name(of, domain_column)
    told = f"{name}: {number(fall, signed=True)}"
    told += "" if spread is None else f", standard deviation {number(spread)} over the repeats"
    zero, end = across.at(0), across.at(fall)
    parts: list[Element] = [
        element("title", told),
        box(min(zero, end), y + 4, max(zero, end), y + ROW - 4, "share-bar"),
    ]
    edge = end
    if spread is not None:
        left, right = across.at(fall - spread), across.at(fall + spread)
        parts.append(line(left, y + ROW / 2, right, y + ROW / 2, "interval"))
        edge = max(edge, right)
    return [
        label(NAME - 8, y + 16, shorten(name, LETTERS), "name", "end"),
        element("g", *parts, class_="mark flat"),
        label(max(edge, zero) + 6, y + 16, short(fall, 4), "tick"),
    ]
