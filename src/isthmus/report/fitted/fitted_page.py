"""A run as one HTML page that opens from disk, without network, and without script too."""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import PurePath
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from markupsafe import Markup

from isthmus.metrics.text_table import NOTHING, count_text, number
from isthmus.report.fitted import fitted_words as words
from isthmus.report.fitted.calibration_charts import reliability_chart, scores_chart
from isthmus.report.fitted.curve_charts import domain_curve, scope_curves, taken
from isthmus.report.fitted.reading_chart import column_name, ranked, reading_chart
from isthmus.report.json_text import pointer
from isthmus.report.pages import page_template
from isthmus.report.svg import short

PACKAGE = "isthmus.report.fitted"
OPEN = 8  # domains whose charts are shown at once
LISTED = 500  # domains in the table: the worst
COLUMNS = 12  # the most read, by domain
CHAPTERS = {
    "domains": "The domains",
    "training": "Training",
    "scores": "Scores",
    "each": "Each domain",
    "reads": "What it reads",
    "gates": "Experts",
    "guard": "Guard",
    "cost": "Cost",
    "print": "Fine print",
}


class DomainCharts(NamedTuple):
    """The charts of one domain; None where there is nothing to draw."""

    name: str
    curve: Element | None
    reliability: Element | None
    scores: Element | None


def fitted_page(report: Mapping[str, Any]) -> str:
    """Render a run, given as the dict of its report.json, as one self-contained HTML page.

    Every number of the tables stands beside its place in the report: a JSON pointer in ``data-path``,
    counted from the row's ``data-base``.
    """
    evaluation, looks = report["evaluation"], report["curves"] or []
    order = [] if evaluation is None else words.worst_first(report)
    told = set(report["shown"])
    charts = [_charts(report, name) for name in order if name in told]
    importance = report["importance"]
    columns = [] if importance is None else _columns(importance)[:COLUMNS]
    held = {"guard": report["guard"], "each": len(order) > 1}
    return page_template(PACKAGE, "fitted.html.j2").render(
        kicker="Run",
        file=report["run"],
        skip_to="the domains",
        chapters=[(key, name) for key, name in CHAPTERS.items() if held.get(key, True)],
        made_by=f"{report['isthmus']}, torch {report['torch']}",
        report=report,
        table=PurePath(report["table"]).name,
        evaluation=evaluation,
        headline=words.headline(report),
        order=order[:LISTED],
        unlisted=max(0, len(order) - LISTED),
        unshown=max(0, len(order) - len(charts)),
        grouped=evaluation is not None and evaluation["clusters"] == "group",
        cells=partial(_cells, report),
        cell=partial(_cell, report),
        remark=words.remark,
        base=_base,
        scopes=[
            chart
            for metric in ("auc", "logloss")
            if (chart := scope_curves(looks, metric)) is not None
        ],
        kept=taken(looks),
        looks=looks,
        curve_text=words.curve_text,
        pooled=_pooled(report),
        open_charts=charts[:OPEN],
        folded=charts[OPEN:],
        reading=None if importance is None else reading_chart(importance, report["domain_column"]),
        reading_text=words.reading_text,
        columns=columns,
        most=max(
            (abs(fall) for _, of in columns for fall in of["domains"].values() if fall), default=0
        ),
        column_name=partial(column_name, domain_column=report["domain_column"]),
        share=_share,
        short=short,
        number=number,
        count_text=count_text,
        cost=words.cost_facts(report),
        script=_asset("fitted.js"),
    )


def _charts(report: Mapping[str, Any], name: str) -> DomainCharts:
    scores = report["scores"]
    return DomainCharts(
        name=name,
        curve=domain_curve(report["curves"] or [], name),
        reliability=reliability_chart(
            report["reliability"]["domains"][name], f"Reliability of {name}"
        ),
        scores=None
        if scores is None
        else scores_chart(scores["edges"], scores["domains"][name], f"Scores of {name} by label"),
    )


def _pooled(report: Mapping[str, Any]) -> list[tuple[str, Element]]:
    """The charts of all rows together, with their names."""
    scores = report["scores"]
    if scores is None:
        return []
    charts = {
        "Predicted and observed": reliability_chart(
            report["reliability"]["pooled"], "Reliability of all rows"
        ),
        "Scores by label": scores_chart(scores["edges"], scores["pooled"], "Scores by label"),
    }
    return [(name, chart) for name, chart in charts.items() if chart is not None]


def _columns(
    importance: Mapping[str, Any],
) -> list[tuple[tuple[str | int, ...], Mapping[str, Any]]]:
    """The columns, the most read first, each with its place in the report."""
    places = {id(of): ("importance", "columns", at) for at, of in enumerate(importance["columns"])}
    return [(places.get(id(of), ("importance", "domain")), of) for of in ranked(importance)]


FIGURES = (  # name, places, whether an interval stands below
    ("auc", 4, True),
    ("gauc", 4, True),
    ("logloss", 4, False),
    ("ne", 4, False),
    ("calibration", 3, True),
    ("ece", 4, False),
    ("ece_noise", 4, False),
)


def _cells(report: Mapping[str, Any], *base: str) -> Markup:
    """The cells of one scope of the evaluation."""
    of: Any = report
    for step in base:
        of = of[step]
    grouped = report["evaluation"]["clusters"] == "group"
    found = [_count(of, name) for name in ("rows", "positives")]
    for name, places, interval in FIGURES:
        if name != "gauc" or grouped:
            found.append(_figure(of, name, places, interval))
    return Markup("").join(found)


def _base(*path: Any) -> str:
    """A JSON pointer. Templates give the parts of a path as steps or as tuples of steps."""
    return pointer(one for step in path for one in (step if isinstance(step, tuple) else (step,)))


def _count(of: Mapping[str, Any], name: str) -> Markup:
    return Markup('<td class="n" data-value="{0}"><span data-path="{1}">{0:,}</span></td>').format(
        of[name], name
    )


def _figure(of: Mapping[str, Any], name: str, places: int, interval: bool) -> Markup:
    value = of[name]
    if value is None:
        why = of.get(f"{name}_reason", "")
        return Markup('<td class="n nil" title="{}"><span data-path="{}">{}</span></td>').format(
            why, name, NOTHING
        )
    text = Markup('<td class="n" data-value="{}"><span data-path="{}">{}</span>').format(
        value, name, _text(value, places)
    )
    ci = of.get(f"{name}_ci")
    if interval and ci is not None:
        text += Markup(
            '<br><span class="ci to"><span data-path="{0}/0">{1}</span> to'
            ' <span data-path="{0}/1">{2}</span></span>'
        ).format(f"{name}_ci", *(_text(end, places) for end in ci))
    return text + Markup("</td>")


def _cell(report: Mapping[str, Any], path: Sequence[str | int], places: int) -> Markup:
    """One number of the report as text, with its place; a dash where the number is null."""
    of: Any = report
    for step in path:
        of = of[step]
    text = NOTHING if of is None else _text(of, places)
    return Markup('<span data-path="{}">{}</span>').format(pointer(path), text)


def _text(value: float, places: int) -> str:
    return number(value, places).replace("-", "−")


def _share(value: float | None, largest: float) -> str:
    """How much of its colour a cell has, from 0 to 1."""
    return "0" if not value or largest <= 0 else f"{min(abs(value) / largest, 1.0):.2f}"


def _asset(name: str) -> Markup:
    return Markup((files(PACKAGE) / "templates" / name).read_text("utf-8"))
