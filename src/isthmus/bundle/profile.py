"""The profile: what each domain looked like in training, which served rows are compared with.

It is measured at the end of ``fit`` on the validation rows, which the weights did not learn from, with
the scores that the bundle serves (`isthmus.bundle.validation_profile`). For each domain, the unknown one first, it holds

- the mean score; AUC and calibration, as `isthmus.metrics` measures them,
- the share of unknown ids of each categorical column,
- the mix of the values of each column over a few cells (`isthmus.bundle.watched_columns`),
- the mean of each numeric column,

and how sure each of them is: rows of one `data.group` were drawn together. The values are weighed as rows
before negatives were dropped: a negative counts ``1 / negative_rate``. Weights of rows (`data.weight`) do
not count, since served rows have none.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from isthmus.bundle.watched_columns import KINDS, WatchedColumn

FORMAT = 1
DIGITS = 9  # that a number keeps in the file


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Profile:
    """What each domain looked like. Row 0 of every array is the unknown domain.

    What is not defined is nan. ``variance``: of the estimate, over the draw of rows.
    """

    names: tuple[str, ...]  # of the trained domains: domain i is names[i - 1]
    columns: tuple[WatchedColumn, ...]
    rows: Int64[np.ndarray, " domains"]  # validation rows
    clusters: Float64[np.ndarray, " domains"]  # how many groups of equal size they are worth
    score: Float64[np.ndarray, " domains"]  # mean
    score_variance: Float64[np.ndarray, " domains"]
    score_spread: Float64[np.ndarray, " domains"]  # variance of one row's score
    auc: Float64[np.ndarray, " domains"]
    auc_variance: Float64[np.ndarray, " domains"]
    calibration: Float64[np.ndarray, " domains"]  # predicted over observed
    calibration_variance: Float64[np.ndarray, " domains"]
    cells: Float64[np.ndarray, "domains cells"]  # values in the cells of all columns, side by side
    unknown_variance: Float64[np.ndarray, "domains columns"]  # of the share of unknown ids
    mix_values: Float64[np.ndarray, "domains columns"]  # independent known values the mix is worth
    mean: Float64[np.ndarray, "domains columns"]  # of the numeric columns, scaled

    @property
    def starts(self) -> Int64[np.ndarray, " columns"]:
        """The place of each column's first cell among all cells."""
        sizes = np.array([column.cells for column in self.columns], dtype=np.int64)
        return np.cumsum(sizes) - sizes

    def to_json(self) -> str:
        """Give the text of a file: numbers with nine digits, null for nan."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "names": self.names,
            "columns": [_column_to_dict(column) for column in self.columns],
        }
        content |= {name: _plain(getattr(self, name)) for name in ARRAYS}
        return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Profile":
        """Undo `to_json`. Raises ValueError or KeyError for other text."""
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"a profile must have format {FORMAT}, got {content['format']}")
        columns = tuple(_column_of(column) for column in content["columns"])
        domains = len(content["names"]) + 1
        arrays: dict[str, Any] = {}
        for name in ARRAYS:
            dtype = np.int64 if name == "rows" else np.float64
            array = np.array(content[name], dtype=dtype)
            width = array.size // domains
            arrays[name] = array.reshape(domains, width) if name in WIDE else array
            if len(arrays[name]) != domains:
                raise ValueError(f"a profile's {name} must be of {domains} domains, got {width}")
        return cls(names=tuple(content["names"]), columns=columns, **arrays)

    def of_domains(self, names: Sequence[str], later: "Profile | None" = None) -> "Profile":
        """The profile of a bundle with other domains, which a run was extended or pruned to.

        ``names``: its trained domains. ``later``: a profile of some of them, with the same columns, that
        was measured since; where it has rows of a domain, they count. A domain that neither has rows
        of is not watched. Raises ValueError where ``later`` has other columns.
        """
        held = [self] if later is None else [self, later]
        if any(of.columns != self.columns for of in held):
            raise ValueError("a later profile must have the columns of the first one, got others")
        found = {name: [getattr(self, name)[:1]] for name in ARRAYS}
        for domain in names:
            there = [(of, of.names.index(domain) + 1) for of in held if domain in of.names]
            of, at = next((one for one in reversed(there) if one[0].rows[one[1]]), (None, 0))
            for name, parts in found.items():
                parts.append(_empty(parts[0], name) if of is None else getattr(of, name)[[at]])
        arrays = {name: np.concatenate(parts) for name, parts in found.items()}
        return Profile(names=tuple(names), columns=self.columns, **arrays)

    def of_ids(self, kept: Mapping[str, np.ndarray]) -> "Profile":
        """The profile of a bundle with some of the ids, by column, in rising order, 0 first.

        What the rows had of an id that goes counts as unknown, where the id had a cell of its own.
        """
        columns, cells = [], []
        for column, start in zip(self.columns, self.starts, strict=True):
            of = self.cells[:, start : start + column.cells]
            ids = kept.get(column.name)
            if ids is not None and column.of_ids:
                stays = np.isin(column.ids, ids)
                own = of[:, 1:-1]
                gone = own[:, ~stays].sum(axis=1, keepdims=True)
                of = np.concatenate([of[:, :1] + gone, own[:, stays], of[:, -1:]], axis=1)
                column = replace(
                    column,
                    size=int(np.searchsorted(ids, column.size)),
                    ids=tuple(np.searchsorted(ids, np.array(column.ids)[stays]).tolist()),
                )
            columns.append(column)
            cells.append(of)
        return replace(self, columns=tuple(columns), cells=np.concatenate(cells, axis=1))

    def baseline(self) -> dict[str, dict[str, float | None]]:
        """AUC and calibration of each trained domain with their standard errors, plain values."""
        parts = {
            "rows": self.rows,
            "clusters": self.clusters,
            "auc": self.auc,
            "auc_se": np.sqrt(self.auc_variance),
            "calibration": self.calibration,
            "calibration_se": np.sqrt(self.calibration_variance),
        }
        lists = {name: _plain(array) for name, array in parts.items()}
        return {
            domain: {name: values[place] for name, values in lists.items()}
            for place, domain in enumerate(self.names, start=1)
        }


ARRAYS = tuple(field.name for field in fields(Profile) if field.name not in ("names", "columns"))
WIDE = ("cells", "unknown_variance", "mix_values", "mean")


def _empty(like: np.ndarray, name: str) -> np.ndarray:
    """An array of a domain without rows."""
    counts = name in ("rows", "clusters", "cells", "mix_values")
    return np.zeros_like(like) if counts else np.full_like(like, np.nan)


def _column_to_dict(column: WatchedColumn) -> Mapping[str, Any]:
    return {name: value for name, value in asdict(column).items() if value not in ((), 0)} | {
        "place": column.place
    }


def _column_of(content: Mapping[str, Any]) -> WatchedColumn:
    if content["kind"] not in KINDS:
        raise ValueError(f"kind of a column must be one of {KINDS}, got {content['kind']!r}")
    return WatchedColumn(
        name=content["name"],
        kind=content["kind"],
        place=content["place"],
        size=content.get("size", 0),
        ids=tuple(content.get("ids", ())),
        edges=tuple(content.get("edges", ())),
    )


def _plain(array: np.ndarray) -> Any:
    """An array as lists; whole numbers without a point, nan as None."""
    if array.ndim > 1:
        return [_plain(row) for row in array]
    return [None if x != x else _shortened(x) for x in array.tolist()]


def _shortened(x: float) -> int | float:
    # Cut first: a number that only its last digits keep from being whole is whole in the file.
    whole = x == int(x)
    cut = x if whole else float(f"{x:.{DIGITS}g}")
    return int(cut) if cut == int(cut) and abs(cut) < 1e15 else cut
