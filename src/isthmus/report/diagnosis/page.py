"""A diagnosis as one HTML page that opens from disk, without network, and without script too."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from isthmus.metrics.text_table import NOTHING, count_text
from isthmus.report.diagnosis import charts, words
from isthmus.report.diagnosis.capacity_charts import capacity_charts, curve_keys
from isthmus.report.diagnosis.day_one import newcomer_charts, newcomer_keys, newcomer_lines
from isthmus.report.diagnosis.domain_map import group_letters, map_chart
from isthmus.report.diagnosis.heat_map import matrix_view
from isthmus.report.diagnosis.lookup import (
    Report,
    by_advice,
    by_size,
    dig,
    lead_of,
    margins_of,
    parted,
)
from isthmus.report.diagnosis.text_tables import recipes, remark_lines, said_of
from isthmus.report.json_text import pointer
from isthmus.report.pages import page_template

PACKAGE, TEMPLATES = "isthmus.report.diagnosis", "templates"
CHAPTERS = {
    "verdicts": "What to do",
    "effects": "Why",
    "matrices": "Who helps whom",
    "groups": "Groups",
    "map": "Likeness",
    "capacity": "Capacity",
    "weighting": "Weighting",
    "new-domain": "A new domain",
    "print": "Fine print",
}


def page(report: Report) -> str:
    """Render a diagnosis, given as the dict of report.json, as one self-contained HTML page.

    Every number is written beside its place in the report: a JSON pointer in ``data-path``, in
    tables counted from the row's ``data-base``. The report itself is embedded as JSON. What is null
    is left out, or named with its reason.
    """
    names = by_size(report)
    shown, folded = parted(names)
    lead = lead_of(report)
    net = (lead.key, "net")
    told = [name for name in names if dig(report, "domains", name, *net, "ci") is not None]
    of_report = (_dig, _num, _chance, _only_one)
    plan = report.get("plan") or {}
    matrices = {key: view for key in words.MATRICES if (view := matrix_view(report, key))}
    capacity, domain_map = capacity_charts(report), map_chart(report)
    newcomer = newcomer_lines(report)
    held = {
        "matrices": matrices.keys() - {"distance"},
        "groups": dig(report, "groups"),
        "map": domain_map or dig(report, "likeness", "distance"),
        "capacity": capacity,
        "weighting": report.get("weighting"),
        "new-domain": newcomer,
    }
    return page_template(PACKAGE, "page.html.j2").render(
        {of.__name__.strip("_"): partial(of, report) for of in of_report},
        kicker="Diagnosis",
        file=_file_name(plan.get("table")),
        skip_to="the verdicts",
        chapters=[(key, name) for key, name in CHAPTERS.items() if held.get(key, True)],
        made_by=_made_by(plan),
        count=partial(_num, report, places=0),
        report=report,
        plan=plan,
        names=names,
        shown=shown,
        folded=folded,
        sections=by_advice(report),
        headline=words.headline([dig(report, "domains", name, "verdict") for name in names]),
        words=words,
        pointer=pointer,
        count_text=count_text,
        remarks=partial(remark_lines, report),
        said_of=said_of,
        recipes=recipes(report),
        under=_under,
        lead=lead,
        margins=margins_of(report),
        common_note=_only_one(report, told, *net, "note"),
        breakable=_breakable,
        net_charts=charts.net_charts(report),
        effect_charts=partial(charts.effect_charts, report),
        curve_keys=curve_keys(report),
        matrices=matrices,
        capacity=capacity,
        domain_map=domain_map,
        letters=group_letters(report),
        strip=charts.strip_chart(report),
        weighting=charts.weighting_chart(report),
        newcomer_charts=newcomer_charts(report),
        newcomer_lines=newcomer,
        newcomer_keys=newcomer_keys(),
        script=_asset("script.js"),
        embedded=_embedded(report),
    )


def _file_name(table: Any) -> str | None:
    """The name of a table's file, wherever the path was written."""
    return str(table).replace("\\", "/").rsplit("/", 1)[-1] if table else None


def _made_by(plan: Mapping[str, Any]) -> str:
    """The versions that a report names."""
    versions = (plan.get("isthmus"), plan.get("torch") and f"torch {plan['torch']}")
    return ", ".join(version for version in versions if version)


Step = str | int | tuple[str | int, ...]


def _flat(steps: tuple[Step, ...]) -> tuple[str | int, ...]:
    """A path of single steps. Templates give the parts of a path as steps or as tuples of steps."""
    return tuple(one for step in steps for one in (step if isinstance(step, tuple) else (step,)))


def _dig(report: Report, *steps: Step) -> Any:
    return dig(report, *_flat(steps))


def _only_one(report: Report, names: Sequence[str], *steps: str) -> Any:
    """What several domains all hold at a place; None where they differ."""
    held = {dig(report, "domains", name, *steps) for name in names}
    return held.pop() if len(held) == 1 else None


def _breakable(name: str) -> Markup:
    """A name that may break after a stroke, such as ``/``."""
    return Markup("<wbr>").join(re.split(r"(?<=[/_.-])(?=.)", name))


def _under(text: Markup, base: str) -> Markup:
    """The cells of a row, their places counted from the row's ``base``, so that the page is small."""
    start = Markup(' data-path="{}/').format(base)
    return Markup(str(text).replace(str(start), ' data-path="'))


def _num(report: Report, *steps: Step, places: int = 4, signed: bool = False) -> Markup:
    """A number of the report as text, with its place; a dash where the number is null."""
    path = _flat(steps)
    value = dig(report, *path)
    place = pointer(path)
    if value is None:
        reason = dig(report, *path[:-1], "reason")
        return Markup('<span class="nil" data-path="{}"{}>{}</span>').format(
            place,
            Markup(' title="{}"').format(reason) if isinstance(reason, str) else "",
            NOTHING,
        )
    text = f"{value:{'+' if signed else ''},.{places}f}"
    if not text.strip("+-0."):  # nothing but zeros
        text = text.lstrip("+-")
    return _tagged(place, text.replace("-", "−"))


def _chance(report: Report, *steps: Step) -> Markup:
    """A p value with three decimals, ``<0.001`` below what they can show."""
    path = _flat(steps)
    value = dig(report, *path)
    if value is not None and value < 0.0005:
        return _tagged(pointer(path), "<0.001")
    return _num(report, *path, places=3)


def _tagged(place: str, text: str) -> Markup:
    return Markup('<span data-path="{}">{}</span>').format(place, text)


def _asset(name: str) -> Markup:
    return Markup((files(PACKAGE) / TEMPLATES / name).read_text("utf-8"))


def _embedded(report: Report) -> Markup:
    """The report as JSON that cannot end its own script element."""
    text = json.dumps(report, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(mark, code)
    return Markup(text)
