"""A diagnosis in prose: Markdown for report.md, and plain text of 100 columns for a terminal."""

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from textwrap import fill

from isthmus.metrics import TextTable
from isthmus.metrics.text_table import WIDTH, count_text
from isthmus.report.diagnosis.day_one import curve_table, day_one_table, newcomer_lines
from isthmus.report.diagnosis.lookup import Report, by_advice, dig, metrics_of, parted
from isthmus.report.diagnosis.text_tables import (
    advice_lines,
    capacity_table,
    choice_table,
    effect_table,
    fine_print,
    group_lines,
    matrix_table,
    narrow_effects,
    verdict_table,
    weighting_table,
)
from isthmus.report.diagnosis.words import MATRICES, headline
from isthmus.report.markdown import escape
from isthmus.report.markdown import to_markdown as table_to_markdown

MATRIX_LIMIT = 20  # domains; larger matrices are in report.json and on the page


def to_markdown(report: Report) -> str:
    """What to do first, then the numbers, the matrices and the fine print."""
    names = [name for _, held in by_advice(report) for name in held]
    advised = [
        f"**{escape(name)}**: {escape(text)}{f' Next: `{command}`' if command else ''}"
        for name, text, command in advice_lines(report, names)
    ]
    sections = {
        "What to do": [_table(verdict_table(report, sure=True)), _bullets(advised)],
        "Why": [_table(effect_table(report, metric)) for metric in metrics_of(report)],
        "Who helps whom": [_table(matrix_table(report, key), MATRIX_LIMIT) for key in MATRICES],
        "Groups": [_bullets(map(escape, group_lines(report)))],
        "Capacity": [_table(capacity_table(report))],
        "Weighting": [_table(weighting_table(report))],
        "A new domain": [
            _bullets(
                f"**{escape(name)}**: {escape(told)}" for name, told in newcomer_lines(report)
            ),
            _table(day_one_table(report)),
            _table(curve_table(report)),
        ],
        "Fine print": [
            _bullets(map(escape, fine_print(report))),
            _table(choice_table(report)),
        ],
    }
    parts = ["# Diagnosis", _headline(report)]
    for title, held in sections.items():
        if any(held):
            parts += [f"## {title}", *filter(None, held)]
    return "\n\n".join(parts) + "\n"


def _table(table: TextTable | None, limit: int | None = None) -> str:
    """A table as Markdown; "" where there is none. ``limit``: of its rows."""
    if table is None:
        return ""
    if limit is not None and len(table.rows) > limit:
        return f"**{table.title}**: {len(table.rows)} domains; in report.json and on the page."
    return table_to_markdown(table)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _headline(report: Report) -> str:
    return headline([dig(domain, "verdict") for domain in report["domains"].values()])


def to_terminal(report: Report) -> str:
    """What to do with each domain, the numbers behind the advice, and the fine print."""
    shown, folded = parted([name for _, held in by_advice(report) for name in held])
    lines = []
    for command, told in groupby(advice_lines(report, shown), key=itemgetter(2)):
        these = [f"{name}: {text}" for name, text, _ in told]
        lines.append(_filled(these))
        if command:
            whom = f"  # the {len(these)} above" if len(these) > 1 else ""
            lines.append(f"  $ {command}{whom}")
    if folded:
        lines.append(f"{count_text(len(folded), 'more domain')}: see the page.")
    effects = narrow_effects(report)
    new = newcomer_lines(report)
    first, more = parted([f"{name}: {told}" for name, told in new])
    if more:
        first = [*first, f"{count_text(len(more), 'more domain')} as a new one: see the page."]
    day_one = day_one_table(report, brief=True)
    parts = [
        _filled([_headline(report)]),
        str(verdict_table(report, sure=False)),
        "\n".join(lines),
        "" if effects is None else str(effects),
        _filled(group_lines(report)),
        "" if day_one is None else str(day_one),
        _filled(first),
        _filled(fine_print(report)),
    ]
    return "\n\n".join(part for part in parts if part)


def _filled(lines: Iterable[str]) -> str:
    return "\n".join(
        fill(line, WIDTH, subsequent_indent="  ", break_long_words=False) for line in lines
    )
