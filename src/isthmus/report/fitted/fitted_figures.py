"""The charts of a run as PNG and SVG files, for papers. Needs matplotlib."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from isthmus.metrics.text_table import count_text, shorten
from isthmus.printable import shown
from isthmus.report.figure_files import figure_sheet, write_sheets
from isthmus.report.fitted.calibration_charts import reliability_chart, scores_chart
from isthmus.report.fitted.curve_charts import domain_curve, scope_curves
from isthmus.report.fitted.fitted_words import Report, reading_text, worst_first
from isthmus.report.fitted.reading_chart import reading_chart

MOST = 24  # domains on a sheet: the worst
LETTERS = 32


def write_run_figures(report: Report, folder: str | Path) -> list[Path]:
    """Write the charts of a run as NAME.png (200 dpi) and NAME.svg; returns the paths written.

    curves, curves-by-domain, reliability, reliability-by-domain, scores, scores-by-domain and reads, each
    where there is something to draw. Sheets by domain hold the 24 lowest AUCs, and say so. The same
    report gives the same SVG bytes. Raises ModuleNotFoundError where matplotlib is not installed, naming
    the extra that brings it.
    """
    return write_sheets(_sheets(shown(report)), folder)


def _sheets(report: Report) -> Iterator[tuple[str, Element]]:
    """Each figure with its name."""
    looks, evaluation = report["curves"] or [], report["evaluation"]
    curves = {"AUC": scope_curves(looks, "auc"), "Logloss": scope_curves(looks, "logloss")}
    yield from _sheet("curves", curves, 2, "validation rows")
    if evaluation is not None:
        split = f"{evaluation['split']} rows"
        told = set(report["shown"])
        names = [name for name in worst_first(report) if name in told]
        of = names[:MOST]
        more = f"; the {MOST} lowest AUCs of {count_text(len(names), 'domain')}"
        more = more if len(names) > MOST else ""
        yield from _sheet(
            "curves-by-domain",
            {name: domain_curve(looks, name) for name in of},
            3,
            f"validation AUC by epoch{more}",
        )
        held = report["reliability"]
        note = f"{split}: mean label over mean score; band: 95 % of a perfectly calibrated model's"
        drawn = {"All rows": reliability_chart(held["pooled"], "All rows")}
        yield from _sheet("reliability", drawn, 1, note)
        drawn = {name: reliability_chart(held["domains"][name], name) for name in of}
        yield from _sheet("reliability-by-domain", drawn, 3, f"{note}{more}")
        if (scores := report["scores"]) is not None:
            note = f"{split}; blue: negatives, red: positives, each as shares of its own rows"
            drawn = {"All rows": scores_chart(scores["edges"], scores["pooled"], "All rows")}
            yield from _sheet("scores", drawn, 1, note)
            drawn = {
                name: scores_chart(scores["edges"], scores["domains"][name], name) for name in of
            }
            yield from _sheet("scores-by-domain", drawn, 3, f"{note}{more}")
    if report["importance"] is not None:
        chart = reading_chart(report["importance"], report["domain_column"])
        note = f"{reading_text(report)}; line: one standard deviation over repeats"
        yield from _sheet("reads", {"Fall in AUC, column shuffled": chart}, 1, note)


def _sheet(
    name: str, charts: dict[str, Element | None], columns: int, note: str
) -> Sequence[tuple[str, Element]]:
    """A named sheet of the charts that there are; none without a chart."""
    titled = [(shorten(of, LETTERS), chart) for of, chart in charts.items() if chart is not None]
    return [(name, figure_sheet(titled, columns, note))] if titled else []
