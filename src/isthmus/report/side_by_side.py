"""One table for two models and a control: what ``make demo`` prints."""

from math import isclose
from typing import Any

from isthmus.metrics import Comparison, Evaluation, Figures, Pair, TextTable, judge
from isthmus.metrics.text_table import count_text, number, with_half_width, with_interval


def side_by_side(
    a: Evaluation, b: Evaluation, difference: Comparison, control: Comparison
) -> TextTable:
    """Both models per domain, pooled, macro and worst; AUC of b - a and, beside it, of a' - a.

    ``difference`` is compare(a, b), ``control`` is compare(a, a') with a' the model a trained with
    another seed. *Worst* is the domain where a is lowest, for both models. The notes name a winner
    only where ``judge`` does. Raises ValueError where the four do not belong together.
    """
    if not a.split == b.split == difference.split:
        raise ValueError(
            "both evaluations and their comparison must be of one split, got"
            f" {a.split!r}, {b.split!r} and {difference.split!r}"
        )
    pooled = difference.pooled.logloss
    for of, read in ((a, pooled.a), (b, pooled.b)):
        if of.pooled.logloss is None or read is None or not isclose(of.pooled.logloss, read):
            raise ValueError("the comparison must be of the two evaluations given, got others")
    worst = difference.worst.domain
    four: tuple[Any, ...] = (a, b, difference, control)
    scopes = [(name, [one.domains[name] for one in four]) for name in a.domains]
    scopes += [(name, [getattr(one, name) for one in four]) for name in ("pooled", "macro")]
    if worst is not None:
        scopes.append((f"worst ({worst})", [one.domains[worst] for one in four]))
    told = [
        f"{verdict.winner} wins on {verdict.scope}: {verdict.why}."
        for verdict in judge(difference, control)
        if verdict.winner is not None and verdict.scope in (*a.domains, "pooled", "macro")
    ]
    rule = "A winner is named only where |b - a| in AUC exceeds both its interval and |a' - a|"
    return TextTable(
        title=(
            f"{a.split} split, {count_text(a.pooled.rows, 'row')},"
            f" {count_text(a.seeds, 'seed')} for each model"
        ),
        header=("domain", "rows", "", "AUC [95 %]", "logloss", "calib.", "AUC b - a", "a' - a"),
        left=(0, 2),
        rows=tuple(line for name, held in scopes for line in _lines(name, *held)),
        notes=(
            f"a = {difference.a}, b = {difference.b}, a' = {control.b}.",
            f"{a.notes[0]} None is adjusted for the number of lines.",
            f"{rule}{':' if told else '; here nowhere.'}",
            *told,
        ),
        rules=(2 * len(a.domains),),
    )


def _lines(
    name: str, a: Figures, b: Figures, difference: Pair, control: Pair
) -> list[tuple[str, ...]]:
    change = with_half_width(difference.auc.difference, difference.auc.half_width)
    seed = number(control.auc.difference, signed=True)
    return [
        (name, f"{a.rows:,}", "a", *_model(a), "", ""),
        ("", "", "b", *_model(b), change, seed),
    ]


def _model(of: Figures) -> tuple[str, str, str]:
    return with_interval(of.auc, of.auc_ci), number(of.logloss), number(of.calibration, 3)
