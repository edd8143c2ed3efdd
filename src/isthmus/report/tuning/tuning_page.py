"""A study as one HTML page that opens from disk, without network, and without script too."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from isthmus.metrics.text_table import count_text, number
from isthmus.report.pages import page_template
from isthmus.report.tuning.told import (
    OPTIMISM,
    best_of,
    changed_text,
    headline,
    reference_of,
    state_text,
    told_reference,
    value_text,
)
from isthmus.report.tuning.tuning_charts import domain_chart, history_chart, importance_chart

PACKAGE = "isthmus.report.tuning"
CHAPTERS = (
    ("best", "The best trial"),
    ("history", "History"),
    ("domains", "Domains"),
    ("importances", "Importances"),
    ("trials", "All trials"),
    ("print", "Fine print"),
)
METRIC = {"auc": "AUC", "logloss": "logloss"}


def tuning_page(report: Mapping[str, Any]) -> str:
    """Render a study, given as the dict of trials.json, as one self-contained HTML page."""
    best, reference = best_of(report), reference_of(report)
    gains = {} if best is None else best["gains"]
    table = report["table"]
    return page_template(PACKAGE, "tuning.html.j2").render(
        kicker="Tuning",
        skip_to="the best trial",
        chapters=CHAPTERS,
        made_by=report["isthmus"],
        report=report,
        file=None if table is None else PurePath(table).name,
        headline=headline(report),
        optimism=OPTIMISM,
        best=best,
        reference=None if reference is None else told_reference(report),
        metric=METRIC[report["metric"]],
        gains=sorted(gains.items(), key=lambda pair: -pair[1]["rows"]),
        history=history_chart(report),
        importances=importance_chart(report),
        domains=None if best is reference else domain_chart(report, gains),
        number=number,
        count_text=count_text,
        changed_text=changed_text,
        state_text=state_text,
        value_text=value_text,
    )
