"""Compared runs as one HTML page that opens from disk, without network, and without script too."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from isthmus.metrics.text_table import NOTHING, count_text, number, p_text
from isthmus.report.comparison.comparison_charts import difference_chart
from isthmus.report.comparison.comparison_words import (
    METRIC,
    difference_text,
    headline,
    interval_text,
    p_of,
    remarks,
    scopes_of,
    value_text,
    verdict_text,
)
from isthmus.report.pages import page_template

PACKAGE = "isthmus.report.comparison"
MOST_MARKS = 40  # domains of a chart
MOST_ROWS = 300  # domains of a table; the JSON has all


def comparison_page(report: Mapping[str, Any], *, links: Mapping[str, str] | None = None) -> str:
    """Render compared runs, given as the dict of ``compare --json``, as one self-contained HTML page.

    ``links``: names and addresses of pages to go to from here, where the page is served.
    """
    first = report["comparisons"][0]
    by_rows = sorted(first["domains"], key=lambda name: -first["domains"][name]["rows"])
    differences = [("differences", "The differences")]
    if len(report["comparisons"]) > 1:
        differences = [
            (f"run-{place}", of["b"]) for place, of in enumerate(report["comparisons"], start=2)
        ]
    return page_template(PACKAGE, "comparison.html.j2").render(
        report=report,
        kicker="Comparison",
        file=PurePath(report["runs"][0]["table"]).name,
        skip_to="the differences",
        chapters=[
            *differences,
            ("settings", "Settings"),
            ("costs", "Costs"),
            ("print", "Fine print"),
        ],
        made_by=report["isthmus"],
        links=links or {},
        differences=differences,
        first=first,
        metric=METRIC,
        charts=[
            {key: difference_chart(of, key, by_rows[:MOST_MARKS]) for key in METRIC}
            for of in report["comparisons"]
        ],
        unmarked=max(0, len(by_rows) - MOST_MARKS),
        domains=by_rows[:MOST_ROWS],
        untold=max(0, len(by_rows) - MOST_ROWS),
        headline=headline,
        remarks=remarks,
        scopes_of=scopes_of,
        difference_text=difference_text,
        interval_text=interval_text,
        verdict_text=verdict_text,
        value_text=value_text,
        p_of=p_of,
        p_text=p_text,
        number=number,
        count_text=count_text,
        nothing=NOTHING,
    )
