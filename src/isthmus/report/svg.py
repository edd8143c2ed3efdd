"""Parts of a hand-drawn chart: elements of SVG, a scale, ticks, and short numbers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element


@dataclass(frozen=True, slots=True)
class Scale:
    """A map of the values from ``low`` to ``high`` onto the places from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The place of a value. A value beyond the scale stands at the nearer end."""
        inside = min(max(value, self.low), self.high)
        share = (inside - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def holds(self, value: float) -> bool:
        """Whether the value lies on the scale."""
        return self.low <= value <= self.high

    @property
    def data(self) -> dict[str, float]:
        """Attributes by which a reader of the picture turns places into values again."""
        return {
            "data_low": self.low,
            "data_high": self.high,
            "data_start": self.start,
            "data_end": self.end,
        }


def element(tag: str, *children: Element | str, **attributes: str | float | None) -> Element:
    """One element; ``_`` at the end of an attribute is dropped, inside it becomes ``-``."""
    of = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            of.set(name.rstrip("_").replace("_", "-"), str(value))
    for child in children:
        if isinstance(child, str):
            of.text = child
        else:
            of.append(child)
    return of


def line(x1: float, y1: float, x2: float, y2: float, name: str) -> Element:
    """A straight line of a class."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=name)


def box(
    x: float, y: float, x2: float, y2: float, name: str, **attributes: str | float | None
) -> Element:
    """A rectangle of a class, from one corner to the opposite one."""
    width, height = round(x2 - x, 2), round(y2 - y, 2)
    return element("rect", x=x, y=y, width=width, height=height, class_=name, **attributes)


def label(x: float, y: float, text: str, name: str, anchor: str = "start") -> Element:
    """Text of a class at a place."""
    return element("text", text, x=x, y=y, class_=name, text_anchor=anchor)


def picture(
    width: float,
    height: float,
    title: str,
    parts: Iterable[Element],
    name: str,
    **attributes: str | float,
) -> Element:
    """A whole ``svg``. ``title`` is read by screen readers. The picture scales with its column."""
    return element(
        "svg",
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_label=title,
        class_=name,
        style=f"max-width:{width * 1.35:.0f}px",
        **attributes,
    )


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values within a range, at most about ``count`` of them."""
    rough = (high - low) / max(count, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def short(value: float, places: int = 3, *, signed: bool = True) -> str:
    """A number for an axis or a cell: ``+.012``, ``−.005``, ``0``. The minus is a real one."""
    text = f"{abs(value):.{places}f}"
    if float(text) == 0:
        return "0"
    text = text.removeprefix("0")
    if value < 0:
        return f"−{text}"
    return f"+{text}" if signed else text
