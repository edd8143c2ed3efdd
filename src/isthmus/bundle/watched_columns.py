"""How the values of a column become a few cells, so that the mix of values can be compared.

    cell 0              unknown ids; of numbers, none
    cells 1 .. k        the most frequent ids; of numbers, the bins between ``edges``
    cell k + 1          all other ids; numbers have no such cell

The frequent ids are those with the largest share in the mean over the domains, so that a large
domain does not choose for the small ones.

Left out: the domain's own column, which is constant in a domain; the parts of a time, since the rows of
an hour hold one hour; given vectors, statistics and the forest's score, which follow from the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from isthmus.data.store.arrays import Arrays
from isthmus.data.tables.plain import ragged
from isthmus.schema import FittedField

MOST_IDS = 18  # ids of a column with cells of their own
BINS = 10  # of a number

Kind = Literal["categorical", "categorical_list", "numeric", "numeric_list"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class WatchedColumn:
    """One column and its cells.

    ``place``: position of the column among the encoded columns of its sort: categorical, numeric, or
    lists of both kinds. ``size``: ids run from 0 (unknown) to ``size - 1``; 0 for numbers. ``ids``:
    those with a cell of their own. ``edges``: rising float32 numbers between the bins.
    """

    name: str
    kind: Kind
    place: int
    size: int = 0
    ids: tuple[int, ...] = ()
    edges: tuple[float, ...] = ()

    @property
    def is_list(self) -> bool:
        """Whether a row has any number of values."""
        return self.kind.endswith("_list")

    @property
    def of_ids(self) -> bool:
        """Whether the values are ids."""
        return self.kind.startswith("categorical")

    @property
    def cells(self) -> int:
        """Number of cells."""
        return (len(self.ids) if self.of_ids else len(self.edges)) + 2

    def table(self) -> Int64[np.ndarray, " ids"]:
        """The cell of each id. One entry more, the last, is of ids that came later."""
        found = np.full(self.size + 1, self.cells - 1)
        found[0] = 0
        found[list(self.ids)] = np.arange(1, len(self.ids) + 1)
        return found

    def cells_of(self, values: Shaped[np.ndarray, " items"]) -> Int64[np.ndarray, " items"]:
        """The cell of each value: of ids from 0 on, or of numbers."""
        if self.of_ids:
            return self.table()[np.minimum(values, self.size)]
        edges = np.array(self.edges, dtype=np.float32)
        return np.searchsorted(edges, values, side="right") + 1

    def values(
        self, arrays: Arrays, at: Int64[np.ndarray, " rows"]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The values of chosen rows, and how many each row has; None where each has one."""
        if not self.is_list:
            columns = arrays.categorical if self.of_ids else arrays.numeric
            return columns[at, self.place], None
        items, offsets = arrays.lists[self.place]
        lengths = offsets[at + 1] - offsets[at]
        return items[ragged(offsets[at], lengths)], lengths


def watched_columns(
    fields: Sequence[FittedField],
    arrays: Arrays,
    at: Int64[np.ndarray, " rows"],
    share: Float64[np.ndarray, " rows"],
) -> tuple[WatchedColumn, ...]:
    """Choose the cells of every column that is watched.

    ``at``: the rows that choose. ``share``: what each of these rows counts; rows of a domain sum to 1.
    """
    places = {"categorical": 0, "numeric": 0, "list": 0}
    found = []
    for field in fields:
        sort = "list" if field.kind.endswith("_list") else field.kind
        if sort not in places:
            continue
        place = places[sort]
        places[sort] += 1
        kind = field.kind
        is_part = bool(field.source) and kind in ("categorical", "numeric")
        if kind not in KINDS or field.is_domain or is_part:
            continue
        bare = WatchedColumn(field.name, kind, place, size=field.table_rows)
        found.append(_with_cells(bare, *bare.values(arrays, at), share))
    return tuple(found)


def _with_cells(
    bare: WatchedColumn, values: np.ndarray, lengths: np.ndarray | None, share: np.ndarray
) -> WatchedColumn:
    ids: tuple[int, ...] = ()
    edges: tuple[float, ...] = ()
    if bare.of_ids:
        weight = share if lengths is None else np.repeat(share, lengths)
        frequency = np.bincount(values, weight, minlength=bare.size)[1:]
        # Ties go to the smaller id, so that the same rows choose the same ids.
        order = np.argsort(-frequency, kind="stable")[:MOST_IDS]
        ids = tuple(int(id_) + 1 for id_ in order if frequency[id_] > 0)
    elif len(values):
        cuts = np.quantile(values, np.arange(1, BINS) / BINS, method="nearest")
        edges = tuple(float(edge) for edge in np.unique(cuts.astype(np.float32)))
    return WatchedColumn(bare.name, bare.kind, bare.place, bare.size, ids, edges)
