"""Example diagnoses as pages, and where on a page a number of the report stands."""

from pathlib import Path
from typing import Any

import diagnosis_example as examples
from isthmus.report.diagnosis import page

REPORTS = {"six": examples.example(), "quick": examples.quick(), "many": examples.many()}

# Where an element's number stands in the report: its own path, or one counted from its row's.
PLACE = (
    "(e.dataset.path.startsWith('/') ? e.dataset.path"
    " : e.closest('[data-base]').dataset.base + '/' + e.dataset.path)"
)


def write_pages(folder: Path) -> dict[str, Path]:
    """Name of a report -> its page."""
    for name, report in REPORTS.items():
        (folder / f"{name}.html").write_text(page(report), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in REPORTS}


def resolve(report: Any, path: str) -> Any:
    """A JSON pointer, by its standard."""
    for step in path.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        report = report[int(step)] if isinstance(report, list) else report.get(step)
        if report is None:
            return None
    return report
