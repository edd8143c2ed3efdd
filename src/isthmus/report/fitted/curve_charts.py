"""The charts of a training: a number at each look at the validation rows, by epochs."""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from isthmus.metrics.text_table import number
from isthmus.report.fitted.calibration_charts import (
    FOOT,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    path_of,
)
from isthmus.report.svg import Scale, element, label, line, picture, short, ticks

Looks = Sequence[Mapping[str, Any]]
WIDE = 340
NAME = 52  # width of the names at the ends of lines
LEAST_SPAN = 0.02  # of an axis, so that noise looks small
APART = 13  # between two names


def taken(looks: Looks) -> Mapping[str, Any] | None:
    """The look whose weights the run kept: the best one of its last phase."""
    last = max((look.get("phase", 1) for look in looks), default=1)
    best = [look for look in looks if look["better"] and look.get("phase", 1) == last]
    return best[-1] if best else None


def domain_curve(looks: Looks, domain: str) -> Element | None:
    """Draw a domain's AUC at each look; None where no look has one. The line stands at the weights kept."""
    told = [
        (look["epoch"], value)
        for look in _moving(looks)
        if (value := look.get("auc_by_domain", {}).get(domain)) is not None
    ]
    if not told:
        return None
    return _chart({"": told}, looks, WIDTH, f"Validation AUC of {domain} by epoch", "auc")


def scope_curves(looks: Looks, metric: str) -> Element | None:
    """Draw a metric pooled, macro and worst at each look; with logloss, the train loss too."""
    lines = {
        scope: [
            (look["epoch"], value)
            for look in _moving(looks)
            if (value := look.get(f"{metric}_{scope}")) is not None
        ]
        for scope in ("pooled", "macro", "worst")
    }
    if metric == "logloss":
        lines["train"] = [(look["epoch"], look["loss"]) for look in _moving(looks)]
    lines = {name: told for name, told in lines.items() if told}
    if not lines:
        return None
    name = "AUC" if metric == "auc" else metric
    return _chart(lines, looks, WIDE, f"Validation {name} by epoch", metric)


def _moving(looks: Looks) -> Looks:
    """The looks after steps: weights with which a phase begins were looked at before."""
    return [look for look in looks if not look.get("start")]


def _chart(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    looks: Looks,
    width: int,
    title: str,
    kind: str,
) -> Element:
    values = [value for told in lines.values() for _, value in told]
    low, high = min(values), max(values)
    pad = max(0.06 * (high - low), (LEAST_SPAN - (high - low)) / 2)
    up = Scale(low - pad, high + pad, HEIGHT - FOOT, TOP)
    last = max(epoch for told in lines.values() for epoch, _ in told)
    right = width - (NAME if len(lines) > 1 else RIGHT)
    across = Scale(0.0, last or 1.0, LEFT, right)
    parts: list[Element] = []
    for value in ticks(up.low, up.high, 3):
        parts.append(line(LEFT, up.at(value), right, up.at(value), "grid"))
        parts.append(label(LEFT - 5, up.at(value) + 4, short(value, signed=False), "tick", "end"))
    for epoch in ticks(0.0, last or 1.0, 4):
        parts.append(label(across.at(epoch), HEIGHT - FOOT + 15, f"{epoch:g}", "tick", "middle"))
    parts.append(label((LEFT + right) / 2, HEIGHT - 3, "epoch", "end", "middle"))
    best = taken(looks)
    if best is not None:
        x = across.at(best["epoch"])
        told = element("title", f"weights of epoch {best['epoch']:.2f} were kept")
        parts.append(element("g", told, line(x, TOP, x, HEIGHT - FOOT, "zero")))
    for name, told in lines.items():
        parts.append(_line(name, told, across, up))
    if len(lines) > 1:
        parts += _names(lines, up, right)
    return picture(width, HEIGHT, title, parts, f"chart looks {kind}", **up.data)


def _line(name: str, told: Sequence[tuple[float, float]], across: Scale, up: Scale) -> Element:
    epoch, value = told[-1]
    start = f"{name}: " if name else ""
    title = element("title", f"{start}{number(value)} at the last look, epoch {epoch:.2f}")
    corners = [(across.at(epoch), up.at(value)) for epoch, value in told]
    if len(corners) == 1:
        (x, y) = corners[0]
        return element("g", title, element("circle", cx=x, cy=y, r=3, class_="dot"), class_="known")
    path = element("path", title, d=path_of(corners), class_="curve")
    return element("g", path, class_=f"known {name}".rstrip())


def _names(
    lines: Mapping[str, Sequence[tuple[float, float]]], up: Scale, right: float
) -> list[Element]:
    """The names of the lines at their right ends, none over another."""
    places = sorted((up.at(told[-1][1]), name) for name, told in lines.items())
    found: list[Element] = []
    floor = float("-inf")
    for y, name in places:
        floor = max(y, floor + APART)
        found.append(label(right + 6, floor + 4, name, "end"))
    return found
