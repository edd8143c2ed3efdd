"""One table for a model, others beside it and a control: what ``make demo`` prints."""

from collections.abc import Sequence
from math import isclose
from string import ascii_lowercase
from typing import Any

from isthmus.metrics import Comparison, Evaluation, Figures, Pair, TextTable, judge
from isthmus.metrics.text_table import count_text, number, with_half_width, with_interval


def side_by_side(
    a: Evaluation, others: Sequence[tuple[Evaluation, Comparison]], control: Comparison
) -> TextTable:
    """Models a, b, c ... per domain, pooled, macro and worst; AUC minus that of a, and a' - a.

    ``others``: for each model b, c ..., its evaluation and compare(a, it). ``control`` is
    compare(a, a') with a' the model a trained with another seed. *Worst* is the domain where a is
    lowest, for all models. The notes name a winner only where ``judge`` does. Raises ValueError
    where they do not belong together, or where ``others`` is empty.
    """
    if not others:
        raise ValueError("others must hold at least one model, got none")
    for b, difference in others:
        _check(a, b, difference)
    evaluations = [b for b, _ in others]
    differences = [difference for _, difference in others]
    worst = differences[0].worst.domain
    every: tuple[Any, ...] = (a, *evaluations, *differences, control)
    scopes = [(name, [one.domains[name] for one in every]) for name in a.domains]
    scopes += [(name, [getattr(one, name) for one in every]) for name in ("pooled", "macro")]
    if worst is not None:
        scopes.append((f"worst ({worst})", [one.domains[worst] for one in every]))
    letters = dict(zip(ascii_lowercase[1:], differences, strict=False))
    told = [
        f"{verdict.winner} wins on {verdict.scope}: {verdict.why.replace('|b - a|', f'|{letter} - a|')}."
        for letter, difference in letters.items()
        for verdict in judge(difference, control)
        if verdict.winner is not None and verdict.scope in (*a.domains, "pooled", "macro")
    ]
    named = ", ".join(f"{letter} = {difference.b}" for letter, difference in letters.items())
    rule = "A winner is named only where a difference exceeds both its interval and |a' - a|"
    return TextTable(
        title=(
            f"{a.split} split, {count_text(a.pooled.rows, 'row')},"
            f" {count_text(a.seeds, 'seed')} for each model"
        ),
        header=("domain", "rows", "", "AUC [95 %]", "logloss", "calib.", "AUC - a", "a' - a"),
        left=(0, 2),
        rows=tuple(line for name, held in scopes for line in _lines(name, held, len(others))),
        notes=(
            f"a = {differences[0].a}, {named}, a' = {control.b}.",
            f"{a.notes[0]} None is adjusted for the number of lines.",
            f"{rule}{':' if told else '; here nowhere.'}",
            *told,
        ),
        rules=((1 + len(others)) * len(a.domains),),
    )


def _check(a: Evaluation, b: Evaluation, difference: Comparison) -> None:
    if not a.split == b.split == difference.split:
        raise ValueError(
            "evaluations and their comparison must be of one split, got"
            f" {a.split!r}, {b.split!r} and {difference.split!r}"
        )
    pooled = difference.pooled.logloss
    for of, read in ((a, pooled.a), (b, pooled.b)):
        if of.pooled.logloss is None or read is None or not isclose(of.pooled.logloss, read):
            raise ValueError("the comparison must be of the two evaluations given, got others")


def _lines(name: str, held: list[Any], others: int) -> list[tuple[str, ...]]:
    """The lines of one scope. ``held``: figures of each model, pairs of each but a, the control."""
    models: list[Figures] = held[: 1 + others]
    pairs: list[Pair] = held[1 + others : -1]
    control: Pair = held[-1]
    a = models[0]
    lines = [(name, f"{a.rows:,}", "a", *_model(a), "", "")]
    for letter, model, pair in zip(ascii_lowercase[1:], models[1:], pairs, strict=False):
        change = with_half_width(pair.auc.difference, pair.auc.half_width)
        lines.append(("", "", letter, *_model(model), change, ""))
    seed = number(control.auc.difference, signed=True)
    lines[-1] = (*lines[-1][:-1], seed)
    return lines


def _model(of: Figures) -> tuple[str, str, str]:
    return with_interval(of.auc, of.auc_ci), number(of.logloss), number(of.calibration, 3)
