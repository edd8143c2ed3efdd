"""Plain tables: results hand them out, ``print`` shows them, ``report`` turns them into more."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from isthmus.printable import printable

NOTHING = "–"
WIDTH = 100
SHORTEST_NAME = 12
DOMAIN_LIMIT = 50
GREY = "rgba(128,128,128,.5)"  # in a notebook: seen on white and on black
RULE, BELOW = f"border-top:1px solid {GREY}", f"border-bottom:1px solid {GREY}"
SMALL = "font-size:smaller;margin:.3em 0;opacity:.85"


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table of text. ``str`` gives it in plain text; ``rules``: rows that begin a new part.

    What is not printable in it is escaped: a name may hold a line break.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    rules: tuple[int, ...] = ()
    left: tuple[int, ...] = (0,)  # columns aligned to the left; the others to the right

    def __post_init__(self) -> None:
        texts = {
            "title": printable(self.title),
            "header": tuple(map(printable, self.header)),
            "rows": tuple(tuple(map(printable, row)) for row in self.rows),
            "notes": tuple(map(printable, self.notes)),
        }
        for name, text in texts.items():
            object.__setattr__(self, name, text)

    def fitted(self, width: int = WIDTH) -> tuple[tuple[str, ...], ...]:
        """Give header and rows with the names of the first column cut, so as to fit ``width``."""
        lines = [self.header, *self.rows]
        columns = range(1, len(self.header))
        others = sum(2 + max(len(line[column]) for line in lines) for column in columns)
        limit = max(SHORTEST_NAME, width - others)
        return tuple((shorten(line[0], limit), *line[1:]) for line in lines)

    def _repr_html_(self) -> str:
        return _html(self)

    def __str__(self) -> str:
        lines = self.fitted()
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]

        def show(line: tuple[str, ...]) -> str:
            cells = [
                cell.ljust(width) if column in self.left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            return "  ".join(cells).rstrip()

        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        text = [self.title, "", show(lines[0]), rule]
        for place, line in enumerate(lines[1:]):
            if place in self.rules:
                text.append(rule)
            text.append(show(line))
        return "\n".join([*text, *(("", *self.notes) if self.notes else ())])


def _html(table: TextTable) -> str:
    """A static table: no script, no class, no colour but the notebook's own; every text is escaped."""
    lines = []
    for place, row in enumerate(table.rows):
        edge = RULE if place and place in table.rules else ""
        cells = (_cell("td", text, at in table.left, edge) for at, text in enumerate(row))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    heads = "".join(_cell("th", text, at in table.left, "") for at, text in enumerate(table.header))
    notes = "".join(f'<p style="{SMALL}">{escape(note)}</p>' for note in table.notes)
    return (
        f'<div style="overflow-x:auto"><table style="border-collapse:collapse">'
        f'<caption style="text-align:left;caption-side:top;color:inherit;padding:.3em 0">'
        f"{escape(table.title)}</caption>"
        f'<thead><tr style="{BELOW}">{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
        f"{notes}</div>"
    )


def _cell(tag: str, text: str, left: bool, edge: str) -> str:
    side = "left" if left else "right"
    scope = ' scope="col"' if tag == "th" else ""
    return (
        f'<{tag}{scope} style="text-align:{side};padding:.2em .7em;{edge}">{escape(text)}</{tag}>'
    )


def shorten(cell: str, limit: int) -> str:
    """Cut a long name in the middle, so that both ends can be told apart; one line."""
    cell = " ".join(cell.split())
    if len(cell) <= limit:
        return cell
    head = (limit - 1) // 2
    return f"{cell[:head]}…{cell[len(cell) - (limit - 1 - head) :]}"


def number(value: float | None, places: int = 4, *, signed: bool = False) -> str:
    """A number with fixed places, or a dash for what is undefined."""
    if value is None:
        return NOTHING
    text = f"{value:+.{places}f}" if signed else f"{value:.{places}f}"
    return text.replace("-", "+" if signed else "", 1) if float(text) == 0 else text


def with_interval(
    value: float | None, ci: Sequence[float] | None, places: int = 4, *, signed: bool = False
) -> str:
    """``0.8123 [0.8081, 0.8165]``; the brackets hold a dash where there is no interval."""
    if value is None:
        return NOTHING
    ends = (NOTHING,) if ci is None else (number(end, places, signed=signed) for end in ci)
    return f"{number(value, places, signed=signed)} [{', '.join(ends)}]"


def with_half_width(value: float | None, half: float | None, places: int = 4) -> str:
    """``+0.0012 ± 0.0015``, for a difference."""
    if value is None:
        return NOTHING
    half_text = NOTHING if half is None else number(half, places)
    return f"{number(value, places, signed=True)} ± {half_text}"


def p_text(p: float | None) -> str:
    """A p value with three decimals, ``<.001`` below what they can show."""
    if p is None:
        return NOTHING
    return "<.001" if p < 0.0005 else f"{p:.3f}"


def count_text(count: int, noun: str) -> str:
    """``1 seed``, ``5 seeds``, ``12,000 rows``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def largest(rows: dict[str, int], limit: int = DOMAIN_LIMIT) -> tuple[list[str], str | None]:
    """Names to print, in their order: all, or the ``limit`` largest and a note on the others."""
    if len(rows) <= limit:
        return list(rows), None
    kept = set(sorted(rows, key=lambda name: -rows[name])[:limit])
    left = len(rows) - limit
    note = (
        f"{left:,} smaller domains are not shown; they count in every line, and to_dict() has them."
    )
    return [name for name in rows if name in kept], note
