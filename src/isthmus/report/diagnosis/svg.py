"""Small SVG parts for the page: a scale, ticks, text and elements with escaped attributes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values from ``low`` to ``high`` onto places from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The place of a value; values outside are put at the nearer end."""
        inside = min(max(value, self.low), self.high)
        share = (inside - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def holds(self, value: float) -> bool:
        """Whether the value lies on the scale."""
        return self.low <= value <= self.high


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values within a range, at most about ``count`` of them."""
    rough = (high - low) / max(count, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def short(value: float, places: int = 3, *, signed: bool = True) -> str:
    """A number for an axis or a cell: ``+.012``, ``−.005``, ``0``; the minus is a real one."""
    text = f"{abs(value):.{places}f}"
    if float(text) == 0:
        return "0"
    text = text.removeprefix("0")
    if value < 0:
        return f"−{text}"
    return f"+{text}" if signed else text


def clipped(name: str, limit: int) -> str:
    """A name for a label: cut at the end."""
    name = " ".join(name.split())
    return name if len(name) <= limit else f"{name[: limit - 1].rstrip()}…"


def element(tag: str, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """One element; ``_`` at the end of an attribute is dropped, inside it becomes ``-``."""
    told = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), value)
        for name, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), told, inner)


def line(x1: float, y1: float, x2: float, y2: float, name: str) -> Markup:
    """A straight line of a class."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=name)


def label(x: float, y: float, text: str, name: str, anchor: str = "start") -> Markup:
    """Text of a class at a place."""
    return element("text", text, x=x, y=y, class_=name, text_anchor=anchor)


def picture(
    width: float,
    height: float,
    title: str,
    parts: Iterable[Markup],
    name: str,
    **attributes: str | float | None,
) -> Markup:
    """An ``svg`` with a name for screen readers; it scales with its column."""
    return element(
        "svg",
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=title,
        class_=name,
        style=f"max-width:{width * 1.35:.0f}px",
        **attributes,
    )


def sign(tone: str) -> Markup:
    """The sign of an advice, 24 x 24: told apart by its shape, not only by its colour."""
    shapes = {
        # all in one ring; a ring with a part of its own; two; one apart; one apart, open; a gap
        "share": '<circle cx="12" cy="12" r="9.5"/><circle class="fill" cx="8.5" cy="10" r="2"/>'
        '<circle class="fill" cx="15.5" cy="10" r="2"/><circle class="fill" cx="12" cy="16" r="2"/>',
        "adapt": '<circle cx="12" cy="12" r="9.5"/><circle class="fill" cx="9" cy="12" r="2"/>'
        '<path class="fill" d="M15 8.5h6v7h-6z"/>',
        "group": '<circle cx="8.2" cy="12" r="5.7"/><circle cx="15.8" cy="12" r="5.7"/>',
        "own": '<path class="fill" d="M8 4h8v16H8z"/>',
        "provisional": '<path d="M8 4h8v16H8z" stroke-dasharray="2.6 2.2"/>',
        "unknown": '<circle cx="12" cy="12" r="9.5" stroke-dasharray="2.6 2.6"/>'
        '<path d="M9.3 9.6a2.8 2.8 0 1 1 4 2.5c-.9.5-1.3 1-1.3 2"/>'
        '<circle class="fill" cx="12" cy="17.2" r=".6"/>',
        "undecided": '<circle cx="12" cy="12" r="9.5" stroke-dasharray="2.6 2.6"/>'
        '<path d="M7.5 12h9"/>',
    }
    return Markup(
        '<svg class="sign {}" viewBox="0 0 24 24" width="24" height="24" aria-hidden="true">{}</svg>'
    ).format(tone, Markup(shapes[tone]))
