"""A diagnosis as Markdown."""

from isthmus.metrics import TextTable
from isthmus.report.diagnosis.tables import (
    advice_lines,
    capacity_table,
    choice_table,
    effect_table,
    fine_print,
    group_lines,
    matrix_table,
    verdict_table,
    weighting_table,
)
from isthmus.report.diagnosis.values import Report, by_advice, dig
from isthmus.report.diagnosis.words import MATRICES, headline
from isthmus.report.markdown import escape
from isthmus.report.markdown import to_markdown as table_to_markdown

MATRIX_LIMIT = 20  # domains; larger matrices are in report.json and on the page


def to_markdown(report: Report) -> str:
    """What to do first, then the numbers, the matrices and the fine print."""
    names = [name for _, held in by_advice(report) for name in held]
    verdicts = [dig(report, "domains", name, "verdict") for name in names]
    parts = ["# Diagnosis", headline(verdicts), "## What to do"]
    parts.append(_table(verdict_table(report, sure=True)))
    parts.append(
        "\n".join(
            f"- **{escape(name)}**: {escape(text)}{f' Next: `{command}`' if command else ''}"
            for name, text, command in advice_lines(report, names)
        )
    )
    parts.append("## Why")
    parts += [_table(effect_table(report, metric)) for metric in ("auc", "logloss")]
    matrices = [_matrix(report, key) for key in MATRICES]
    if any(matrices):
        parts += ["## Who helps whom", *matrices]
    groups = group_lines(report)
    if groups:
        parts += ["## Groups", "\n".join(f"- {escape(line)}" for line in groups)]
    capacity, weighting = capacity_table(report), weighting_table(report)
    if capacity is not None:
        parts += ["## Capacity", _table(capacity)]
    if weighting is not None:
        parts += ["## Weighting", _table(weighting)]
    parts += ["## Fine print", "\n".join(f"- {escape(line)}" for line in fine_print(report))]
    parts.append(_table(choice_table(report)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(table: TextTable | None) -> str:
    return "" if table is None else table_to_markdown(table)


def _matrix(report: Report, key: str) -> str:
    table = matrix_table(report, key)
    if table is None:
        return ""
    if len(table.rows) > MATRIX_LIMIT:
        return f"**{table.title}**: {len(table.rows)} domains; in report.json and on the page."
    return table_to_markdown(table)
