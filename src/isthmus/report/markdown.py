"""Markdown of any result that has a table."""

from isthmus.metrics import Comparison, Evaluation, TextTable
from isthmus.printable import printable


def to_markdown(result: Evaluation | Comparison | TextTable) -> str:
    """Render as a pipe table under its title, with the notes below; names are escaped."""
    table = result if isinstance(result, TextTable) else result.table()
    columns = range(len(table.header))
    marks = ["---" if column in table.left else "---:" for column in columns]
    lines = [
        _line(table.header),
        f"| {' | '.join(marks)} |",
        *(_line(row) for row in table.rows),
    ]
    notes = [f"- {escape(note)}" for note in table.notes]
    return "\n".join([f"**{escape(table.title)}**", "", *lines, *(["", *notes] if notes else [])])


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(escape(cell) for cell in cells)} |"


def escape(text: str) -> str:
    """Text as Markdown shows it: one printable line, with its marks taken as they are."""
    text = " ".join(printable(text).split())
    for mark in ("\\", "|", "*", "_", "`", "<", ">"):
        text = text.replace(mark, f"\\{mark}")
    return text
