"""Tables for a terminal, by rich."""

from rich.table import Table
from rich.text import Text

from isthmus.metrics import Comparison, Evaluation, TextTable
from isthmus.metrics.text_table import WIDTH


def to_rich(result: Evaluation | Comparison | TextTable, *, width: int = WIDTH) -> Table:
    """Render for ``rich.print``: numbers never wrap, names are text and not markup.

    ``width``: columns of the terminal; long names of domains are cut to fit it.
    """
    table = result if isinstance(result, TextTable) else result.table()
    shown = Table(
        title=Text(table.title, style="bold"),
        caption=Text("\n".join(table.notes)) if table.notes else None,
        title_justify="left",
        caption_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    header, *rows = table.fitted(width)
    for column, name in enumerate(header):
        side = "left" if column in table.left else "right"
        shown.add_column(Text(name), justify=side, no_wrap=True)
    for place, row in enumerate(rows):
        if place and place in table.rules:
            shown.add_row(*("" for _ in row))
        shown.add_row(*(Text(cell) for cell in row))
    return shown
