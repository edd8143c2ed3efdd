"""The table of runs as one HTML page. It is served, and so may ask its own server for news."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from isthmus.metrics.text_table import NOTHING, count_text, number
from isthmus.report.pages import page_template
from isthmus.report.runs_table.run_row import FoundPage, RunRow, moment_text
from isthmus.version import VERSION

PACKAGE = "isthmus.report.runs_table"
_WORDS = {
    "count_text": count_text,
    "moment_text": moment_text,
    "number": number,
    "nothing": NOTHING,
}


def runs_page(
    rows: Sequence[RunRow], pages: Sequence[FoundPage], *, folder: str, version: str, cut: str = ""
) -> str:
    """Render the table. ``version``: what the page tells its server that it has already."""
    ordered = sorted(rows, key=lambda row: (row.state != "training", -row.changed, row.name))
    return page_template(PACKAGE, "runs.html.j2").render(
        rows=ordered,
        pages=_in_order(pages),
        version=version,
        cut=cut,
        kicker="Runs",
        file=folder,
        skip_to="the table",
        chapters=[("runs", "Runs"), ("pages", "Pages")] if pages else [("runs", "Runs")],
        made_by=VERSION,
        served=True,
        **_WORDS,
    )


def row_texts(rows: Iterable[RunRow]) -> dict[str, str]:
    """Give the row of each run as the page has it, by the run's id."""
    draw = _macro("run_row")
    return {one.id: str(draw(one)) for one in rows}


def page_list(pages: Iterable[FoundPage]) -> str:
    """Give the items of the list of pages, as the page has them."""
    return str(_macro("page_items")(_in_order(pages)))


def _macro(name: str) -> Callable[[Any], Any]:
    return getattr(page_template(PACKAGE, "rows.html.j2").make_module(_WORDS), name)


def _in_order(pages: Iterable[FoundPage]) -> list[FoundPage]:
    return sorted(pages, key=lambda page: (page.kind, page.name))


def fault_page(title: str, told: Sequence[str], *, links: Mapping[str, str]) -> str:
    """Render why something cannot be shown. ``links``: where to go from here."""
    return page_template(PACKAGE, "fault.html.j2").render(
        title=title,
        told=told,
        links=links,
        kicker="Runs",
        skip_to="what is wrong",
        chapters=[("fault", "What is wrong")],
        made_by=VERSION,
        served=True,
    )
