"""The matrices of the page: the colour of each cell, and the orders that a reader can choose."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.report.diagnosis.svg import short
from isthmus.report.diagnosis.values import (
    FALSE_SHARE,
    Path,
    Report,
    as_cell,
    cell,
    dig,
    matrix_names,
    orders,
    pointer,
)
from isthmus.report.diagnosis.words import MATRICES, MatrixWords

NUMBERS_UP_TO = 12  # larger matrices show their numbers on hover and focus only
WIDE = 22  # matrices of more domains have the page's whole width
BRIEF = 3  # letters of names that need not be turned
FULL = 0.95  # share of the cells that stay within the colours


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a matrix: ``share`` of full colour; ``path`` from its row's place, or None."""

    path: str | None
    text: str
    tone: str
    share: float
    sure: bool


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix for the page, with its domains in the order of their rows.

    ``place``: where the report holds it; ``legend``: class of a colour and what it stands for.
    """

    key: str
    words: MatrixWords
    place: str
    names: list[str]
    cells: list[list[Cell]]
    orders: dict[str, list[int]]
    legend: list[tuple[str, str]]
    numbers: bool
    wide: bool
    brief: bool
    marked: bool

    def row(self, name: str) -> str:
        """Where the report holds a row."""
        return f"{self.place}{pointer((name,))}"


def matrix_view(report: Report, key: str) -> Matrix | None:
    """One matrix with its colours and orders; None where it was not measured."""
    path: Path = ("likeness", "distance") if key == "distance" else ("matrix", key)
    matrix = dig(report, *path)
    if not matrix:
        return None
    names, told = matrix_names(report, matrix), MATRICES[key]
    low, high = colours(matrix, told)
    cells = [
        [_cell(matrix, target, source, told, (low, high)) for source in names] for target in names
    ]
    used = {"none", "level"} | {one.tone.split()[0] for row in cells for one in row}
    return Matrix(
        key=key,
        words=told,
        place=pointer(path),
        names=names,
        cells=cells,
        orders=orders(report, matrix, names, distance=key == "distance"),
        legend=[one for one in _legend(key, told, low, high) if told.signed or one[0] in used],
        numbers=len(names) <= NUMBERS_UP_TO,
        wide=len(names) > WIDE,
        brief=all(len(name) <= BRIEF for name in names),
        marked=any(one.sure for row in cells for one in row),
    )


def judged(matrix: Mapping[str, Any], target: str, source: str, told: MatrixWords) -> float | None:
    """What a cell's colour stands for: its value, or by how much it differs from the target's own."""
    value = cell(matrix, target, source).get("estimate")
    if not told.own or value is None:
        return value
    own = cell(matrix, target, target).get("estimate")
    return None if own is None else value - own


def colours(matrix: Mapping[str, Any], told: MatrixWords) -> tuple[float, float]:
    """The values of no and of full colour; a few cells may lie beyond, lest one pale all others."""
    values = [
        value
        for target, row in matrix.items()
        for source in row
        if target != source and (value := judged(matrix, target, source, told)) is not None
    ]
    if not values:
        return 0.0, 1.0
    if told.signed:
        return 0.0, float(np.quantile(np.abs(values), FULL)) or 1.0
    if told.own:
        return min(float(np.quantile(values, 1 - FULL)), -1e-9), 0.0
    return min(values), max(values)


def _cell(
    matrix: Mapping[str, Any],
    target: str,
    source: str,
    told: MatrixWords,
    ends: tuple[float, float],
) -> Cell:
    found = dig(matrix, target, source)
    held = as_cell(found)
    value = held.get("estimate")
    if target == source and (told.signed or value is None):
        return Cell(None, "", "self", 0.0, False)
    if value is None:
        return Cell(None, "–", "nil", 0.0, False)
    place = pointer((source,) if held is not found else (source, "estimate"))[1:]
    text = short(value, 3 if abs(value) < 1 else 2, signed=told.signed)
    p = held.get("p_bh")
    sure = p is not None and p <= FALSE_SHARE
    judgement = judged(matrix, target, source, told)
    if told.signed:
        tone, share = ("up" if value > 0 else "down"), abs(value) / ends[1]
    elif judgement is None:
        tone, share = "level", 0.0
    elif told.own and judgement > 0:
        tone, share = "up", 1.0
    else:
        width = ends[1] - ends[0]
        tone, share = "level", (judgement - ends[0]) / width if width else 0.0
    if target == source:
        tone += " own"
    return Cell(place, text, tone, round(min(max(share, 0.0), 1.0), 2), sure)


def _legend(key: str, told: MatrixWords, low: float, high: float) -> list[tuple[str, str]]:
    if told.signed:
        down, none, up = (
            ("against each other", "neither", "the same way")
            if key == "gradients"
            else ("harms", "no change", "helps")
        )
        return [
            ("down", f"{down} ({short(-high)} or beyond)"),
            ("none", none),
            ("up", f"{up} ({short(high)} or beyond)"),
        ]
    if told.own:
        return [
            ("none", f"far below its own model ({short(low)} or beyond)"),
            ("level", "as good as its own"),
            ("up", "better than its own"),
        ]
    ends = [short(end, 2, signed=False) for end in (low, high)]
    return [("none", f"alike ({ends[0]})"), ("level", f"far apart ({ends[1]})")]
