"""A benchmark as one HTML page that opens from disk, without network, and without script too."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from isthmus.metrics.text_table import count_text, number, p_text, with_interval
from isthmus.report.benchmark.benchmark_charts import caption, cost_chart, domain_panels
from isthmus.report.benchmark.benchmark_tables import cost_table
from isthmus.report.benchmark.standing_words import (
    METRIC,
    Model,
    gain_text,
    headline,
    lead,
    notes,
    split_text,
    tuned_text,
    verdict_text,
    worst_text,
)
from isthmus.report.pages import page_template

PACKAGE = "isthmus.report.benchmark"
CHAPTERS = (
    ("table", "The table"),
    ("cost", "Quality against cost"),
    ("domains", "Each domain"),
    ("costs", "Costs"),
    ("settings", "Settings"),
    ("print", "Fine print"),
)
MOST_DOMAINS = 24  # that have a panel; the JSON has all


def benchmark_page(report: Mapping[str, Any]) -> str:
    """Render a benchmark, given as the dict of report.json, as one self-contained HTML page."""
    table, metric = report["table"], lead(report)
    return page_template(PACKAGE, "benchmark.html.j2").render(
        kicker="Benchmark",
        skip_to="the table",
        chapters=CHAPTERS,
        made_by=report["isthmus"],
        report=report,
        file=None if table is None else PurePath(table).name,
        headline=headline(report),
        notes=list(notes(report))[1:],
        split=split_text(report),
        lead=metric,
        other="logloss" if metric == "auc" else "auc",
        metric=METRIC,
        worst=worst_text(report),
        costs=cost_table(report),
        charts=[
            chart
            for chart in (
                cost_chart(report, _training, "seconds of one training"),
                cost_chart(report, _answer, "milliseconds to score 1,000 rows"),
                cost_chart(report, _parameters, "parameters in all"),
            )
            if chart is not None
        ],
        panels=domain_panels(report, MOST_DOMAINS),
        more=max(0, len(report["domains"]) - MOST_DOMAINS),
        caption=caption(report),
        tuned_text=tuned_text,
        gain_text=gain_text,
        verdict_text=verdict_text,
        with_interval=with_interval,
        p_text=p_text,
        number=number,
        count_text=count_text,
    )


def _training(model: Model) -> float | None:
    return model["cost"]["training_seconds"]


def _answer(model: Model) -> float | None:
    rate = model["cost"]["predict_rows_per_second"]
    return 1e6 / rate if rate else None


def _parameters(model: Model) -> float | None:
    sizes = model["parameters"]
    return None if sizes is None else sizes["total"]
