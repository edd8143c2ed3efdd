"""The trials of a study as a table, for a terminal and for Markdown."""

from collections.abc import Mapping
from typing import Any

from isthmus.metrics.text_table import NOTHING, TextTable, count_text, number, shorten
from isthmus.report.tuning.told import (
    OPTIMISM,
    best_of,
    changed_text,
    headline,
    state_text,
    title_of,
)

SHOWN = 60  # trials in the terminal's table
LETTERS = 48  # of what a trial changes, there


def trial_table(report: Mapping[str, Any], *, shown: int | None = SHOWN) -> TextTable:
    """Show the trials, the best first, then the pruned, then the failed.

    ``report``: what ``trials.json`` holds. ``shown``: rows at most; None for all.
    """
    trials = sorted(report["trials"], key=lambda trial: _rank(report, trial))
    kept = trials[:shown]
    best = best_of(report)
    more = (
        [f"{len(trials) - len(kept):,} more trials stand in trials.md."] if trials[shown:] else []
    )
    return TextTable(
        title=title_of(report),
        header=("trial", "from", report["monitor"], "epoch", "seconds", "changes", ""),
        rows=tuple(
            (
                f"{trial['number']}{' *' if best and trial['number'] == best['number'] else ''}",
                trial["recipe"] or "TPE",
                number(trial["score"]),
                f"{trial['epoch']:.2f}" if trial["epoch"] else NOTHING,
                f"{trial['seconds']:.1f}",
                changed_text(trial) if shown is None else shorten(changed_text(trial), LETTERS),
                state_text(trial) if shown is None else shorten(state_text(trial), LETTERS),
            )
            for trial in kept
        ),
        notes=(headline(report), OPTIMISM, *more, *_left_out(report)),
        left=(0, 1, 5, 6),
    )


def _left_out(report: Mapping[str, Any]) -> list[str]:
    told = [f"{name} ({why})" for name, why in report["left_out"].items()]
    if not told:
        return []
    return [f"Left out of the portfolio, {count_text(len(told), 'recipe')}: {'; '.join(told)}."]


def _rank(report: Mapping[str, Any], trial: Mapping[str, Any]) -> tuple[Any, ...]:
    """Feasible ones first, by score; then those that are not, the pruned and the failed."""
    sign = 1 if report["minimised"] else -1
    place = ("complete", "pruned", "failed").index(trial["state"])
    score = 0.0 if trial["score"] is None else sign * trial["score"]
    return place, trial["feasible"] is False, score, trial["number"]
