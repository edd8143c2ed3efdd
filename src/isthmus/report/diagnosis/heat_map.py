"""The matrices of a diagnosis: the colour of each cell, and the orders that a reader can choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from isthmus.report.diagnosis.lookup import (
    FALSE_SHARE,
    Report,
    cell,
    dig,
    lead_of,
    matrix_names,
    matrix_of,
)
from isthmus.report.diagnosis.words import MatrixWords, matrix_words
from isthmus.report.json_text import pointer
from isthmus.report.svg import short

NUMBERS_UP_TO = 12  # larger matrices show their numbers on hover and focus only
FULL = 0.95  # share of the cells that stay within the colours


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a matrix. ``path`` is counted from the row's place; ``share`` is of full colour.

    ``tone``: ``up``, ``down`` or ``level`` name a colour; ``nil`` is a missing cell, ``self`` a
    diagonal without a value, and ``own`` is added on a diagonal that has one. ``sure``: the cell
    stands out after adjustment.
    """

    text: str
    tone: str
    share: float = 0.0
    path: str | None = None
    sure: bool = False


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix with its domains in the order of their test rows.

    ``place``: where the report holds the matrix. ``orders``: places of ``names``. ``legend``: the
    class of each colour and what the colour stands for.
    """

    key: str
    words: MatrixWords
    place: str
    names: list[str]
    cells: list[list[Cell]]
    orders: dict[str, list[int]]
    legend: list[tuple[str, str]]

    @property
    def numbers(self) -> bool:
        """Whether the matrix is small enough to show its numbers."""
        return len(self.names) <= NUMBERS_UP_TO

    @property
    def marked(self) -> bool:
        """Whether any cell stands out."""
        return any(one.sure for row in self.cells for one in row)


def matrix_view(report: Report, key: str) -> Matrix | None:
    """One matrix with its colours and orders; None where the matrix was not measured."""
    path, matrix = matrix_of(report, key)
    if not matrix:
        return None
    lead = lead_of(report)
    names, told = matrix_names(report, matrix), matrix_words(key, lead)
    sign = 1.0 if lead.larger_is_better else -1.0
    ends = _ends(matrix, told, sign)
    cells = [
        [_cell(matrix, target, source, told, ends, sign) for source in names] for target in names
    ]
    used = {"none", "level"} | {one.tone.split()[0] for row in cells for one in row}
    return Matrix(
        key=key,
        words=told,
        place=pointer(path),
        names=names,
        cells=cells,
        orders=orders(matrix, names, distance=key == "distance"),
        legend=[one for one in _legend(key, told, *ends) if told.signed or one[0] in used],
    )


def _judged(
    matrix: Mapping[str, Any], target: str, source: str, told: MatrixWords, sign: float
) -> float | None:
    """What a cell's colour stands for: its value, or how much better than the target's own model.

    ``sign``: -1 where a smaller value is better.
    """
    value = cell(matrix, target, source).get("estimate")
    if not told.own or value is None:
        return value
    own = cell(matrix, target, target).get("estimate")
    return None if own is None else sign * (value - own)


def _ends(matrix: Mapping[str, Any], told: MatrixWords, sign: float) -> tuple[float, float]:
    """The values of no and of full colour.

    A few cells may lie beyond full colour, so that one large cell does not pale all others.
    """
    values = [
        value
        for target, row in matrix.items()
        for source in row
        if target != source and (value := _judged(matrix, target, source, told, sign)) is not None
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
    sign: float,
) -> Cell:
    held = cell(matrix, target, source)
    value = held.get("estimate")
    if target == source and (told.signed or value is None):
        return Cell("", "self")
    if value is None:
        return Cell("–", "nil")
    judgement = _judged(matrix, target, source, told, sign)
    if told.signed:
        tone, share = ("up" if value > 0 else "down"), abs(value) / ends[1]
    elif judgement is None:
        tone, share = "level", 0.0
    elif told.own and judgement > 0:
        tone, share = "up", 1.0
    else:
        width = ends[1] - ends[0]
        tone, share = "level", (judgement - ends[0]) / width if width else 0.0
    plain = not isinstance(dig(matrix, target, source), dict)
    p = held.get("p_bh")
    return Cell(
        text=short(value, 3 if abs(value) < 1 else 2, signed=told.signed),
        tone=f"{tone} own" if target == source else tone,
        share=round(min(max(share, 0.0), 1.0), 2),
        path=pointer((source,) if plain else (source, "estimate"))[1:],
        sure=p is not None and p <= FALSE_SHARE,
    )


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


def orders(
    matrix: Mapping[str, Any], names: Sequence[str], *, distance: bool = False
) -> dict[str, list[int]]:
    """Places of ``names`` by test rows, by name, by what a row receives, and by likeness.

    ``names`` are given by test rows.
    """
    cells = [[None if a == b else cell(matrix, a, b).get("estimate") for b in names] for a in names]
    off = np.ma.masked_invalid(np.array(cells, dtype=float))
    means = off.mean(1).filled(np.inf) if distance else (-off.mean(1)).filled(np.inf)
    places = range(len(names))
    return {
        "rows": list(places),
        "name": sorted(places, key=lambda i: names[i].casefold()),
        "mean": sorted(places, key=lambda i: (float(means[i]), names[i])),
        "alike": _alike(off, distance=distance),
    }


def _alike(off: np.ma.MaskedArray, *, distance: bool) -> list[int]:
    """Leaves of an average linkage of the symmetrised cells; missing cells take the mean."""
    if len(off) < 3 or not off.count():
        return list(range(len(off)))
    both = np.ma.stack([off, off.T]).mean(0)
    apart = both if distance else both.max() - both
    apart = apart.filled(apart.mean())
    np.fill_diagonal(apart, 0.0)
    near = squareform(np.maximum(apart, 0.0), checks=False)
    return [int(leaf) for leaf in leaves_list(linkage(near, "average", optimal_ordering=True))]
