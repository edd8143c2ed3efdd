"""A diagnosis as plain text of 100 columns."""

from itertools import groupby
from operator import itemgetter
from textwrap import fill

from isthmus.metrics.text_table import WIDTH
from isthmus.report.diagnosis.tables import (
    advice_lines,
    fine_print,
    group_lines,
    narrow_effects,
    verdict_table,
)
from isthmus.report.diagnosis.values import Report, by_advice, dig, parted
from isthmus.report.diagnosis.words import headline, several


def to_terminal(report: Report) -> str:
    """What to do with each domain, the numbers behind it, and the fine print."""
    domains = report["domains"]
    names = [name for _, held in by_advice(report) for name in held]
    shown, folded = parted(names)
    lines = []
    for command, told in groupby(advice_lines(report, shown), key=itemgetter(2)):
        these = [_filled(f"{name}: {text}") for name, text, _ in told]
        lines += these
        if command:
            whom = f"  # the {len(these)} above" if len(these) > 1 else ""
            lines.append(f"  $ {command}{whom}")
    if folded:
        lines.append(f"{several(len(folded), 'more domain')}: see the page.")
    effects = narrow_effects(report)
    parts = [
        _filled(headline([dig(domains, name, "verdict") for name in names])),
        str(verdict_table(report, sure=False)),
        "\n".join(lines),
        "" if effects is None else str(effects),
        "\n".join(_filled(line) for line in group_lines(report)),
        "\n".join(_filled(line) for line in fine_print(report)),
    ]
    return "\n\n".join(part for part in parts if part)


def _filled(text: str) -> str:
    return fill(text, WIDTH, subsequent_indent="  ", break_long_words=False)
