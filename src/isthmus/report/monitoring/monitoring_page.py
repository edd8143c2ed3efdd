"""A monitored log as one HTML page that opens from disk, without network, and without script too."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from isthmus.metrics.text_table import count_text, number, p_text, with_interval
from isthmus.report.monitoring.day_charts import day_chart
from isthmus.report.pages import page_template

PACKAGE = "isthmus.report.monitoring"
CHAPTERS = (
    ("domains", "The domains"),
    ("days", "Day by day"),
    ("print", "Fine print"),
)
MOST_DOMAINS = 24  # that have charts; the JSON has all


def monitoring_page(report: Mapping[str, Any]) -> str:
    """Render what was monitored, given as a dict, as one self-contained HTML page."""
    domains = sorted(
        report["domains"].values(),
        key=lambda of: (of["domain"] not in report["fell"], -of["served"]["rows"]),
    )
    shown = domains[:MOST_DOMAINS]
    return page_template(PACKAGE, "monitoring.html.j2").render(
        kicker="Monitor",
        skip_to="the domains",
        chapters=CHAPTERS,
        made_by=report["isthmus"],
        report=report,
        file=PurePath(report["log"]).name,
        domains=domains,
        panels=[
            (
                of,
                day_chart(report, of["domain"], "auc"),
                day_chart(report, of["domain"], "calibration"),
            )
            for of in shown
        ],
        more=len(domains) - len(shown),
        verdict=_verdict,
        with_interval=with_interval,
        number=number,
        p_text=p_text,
        count_text=count_text,
    )


def _verdict(report: Mapping[str, Any], of: Mapping[str, Any]) -> str:
    """What is said of a domain, in a few words; nothing where no fall is shown."""
    fell = report["fell"].get(of["domain"])
    return f"fell: {' and '.join(fell)}" if fell else of["why"] or ""
