"""Variance of a mean over replicates that share test rows, wholly, in part or not at all.

A replicate k is one training of both arms, with a difference D_k and the influence psi_k of each
test row on it. Replicates are seeds, which hold the same test rows, or folds, which hold disjoint
ones; psi_k is 0 on a row that replicate k does not hold. With V(psi) = G / (G - 1) * sum over G
clusters of (sum of psi)^2, W = mean of V(psi_k), A = V(mean of psi_k), s2 = variance of the D_k:

    c = max(0, (K A - W) / (K - 1)),  Var = s2 / K + c,
    df = Var^2 / [(s2 / K)^2 / (K - 1) + c^2 / (G - 1)].

Why one formula serves both: (K A - W) / (K - 1) is the mean, over pairs of replicates, of what
their psi have in common cluster by cluster, so c estimates the covariance of two replicates
through the draw of clusters. s2 misses just that part, because it is the same for all replicates,
and holds all the rest, the draw of rows of a fold included: E[s2] = mean variance - mean
covariance, hence E[s2 / K + c] = the variance of the mean. For seeds c is nearly A. For folds
without a cluster in common c is exactly 0 and s2 / K with K - 1 degrees of freedom is left; where
a cluster (a user) is met in several folds, c is what those folds share through it. The draw of
the train rows is not covered: seeds have one train split, and those of folds overlap.

Two-way clusters (users and items): V_user + V_item - V_row, never below V_user, G the smaller
count (Cameron, Gelbach and Miller, JBES 29 (2011), section 2). Departure: they subtract clusters
of user and item together where V_row takes single rows; these differ only where a user meets an
item in several rows, and then V_row leaves, as a rule, the larger variance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from isthmus.metrics.spread import inflated, over_replicates, squares

COLUMNS = ("row", "label", "cluster", "item", "weight")
ROUNDING = 1e-12  # below this an AUC or a loss in nats differs by rounding only


@dataclass(frozen=True, slots=True, eq=False)
class Replicate:
    """The test rows of one domain in one replicate (one seed, or one fold).

    Raises ValueError where lengths differ, a label is not 0 or 1, a weight is negative or not
    finite, or a row occurs twice.
    """

    row: Int64[np.ndarray, " rows"]  # number of the row in its table
    label: Bool[np.ndarray, " rows"]  # 0 or 1 of any dtype comes in
    cluster: Int64[np.ndarray, " rows"] | None = None  # below 0: the row is a cluster of its own
    item: Int64[np.ndarray, " rows"] | None = None  # below 0: the row is an item of its own
    weight: Float64[np.ndarray, " rows"] | None = None

    def __post_init__(self) -> None:
        columns = {"row": np.int64, "cluster": np.int64, "item": np.int64, "weight": np.float64}
        for name, dtype in columns.items():
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, np.asarray(given).astype(dtype, copy=False))
        label, rows = np.asarray(self.label), np.shape(self.row)
        if len(rows) != 1:
            raise ValueError(f"row must have one axis, got shape {rows}")
        for name in ("label", "cluster", "item", "weight"):
            given = getattr(self, name)
            if given is not None and np.shape(given) != rows:
                raise ValueError(f"{name} must have shape {rows}, got {np.shape(given)}")
        odd = ~((label == 0) | (label == 1))
        if odd.any():
            raise ValueError(f"label must be 0 or 1, got {label[odd.argmax()]}")
        if self.weight is not None:
            odd = ~(np.isfinite(self.weight) & (self.weight >= 0))
            if odd.any():
                value = self.weight[odd.argmax()]
                raise ValueError(f"weight must be finite and at least 0, got {value}")
        object.__setattr__(self, "label", label == 1)

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: Int64[np.ndarray, " taken"] | Bool[np.ndarray, " rows"]) -> "Replicate":
        """Choose rows by position or by a mask."""
        held = {name: getattr(self, name) for name in COLUMNS}
        return replace(self, **{name: of[index] for name, of in held.items() if of is not None})


def merge(replicates: Sequence[Replicate]) -> Replicate:
    """Join rows of several domains into one; a column must be there in all or in none."""
    joined: dict[str, np.ndarray | None] = {}
    for name in COLUMNS:
        parts = [getattr(replicate, name) for replicate in replicates]
        absent = sum(part is None for part in parts)
        if 0 < absent < len(parts):
            raise ValueError(f"all must have {name}, or none: {absent} of {len(parts)} have none")
        joined[name] = None if absent else np.concatenate(parts)
    return Replicate(**joined)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The distinct rows, clusters and items of all replicates, numbered from 0.

    ``row``, ``cluster``, ``item``: per replicate, the number of what each of its rows belongs to.
    """

    row: tuple[Int64[np.ndarray, " rows"], ...]
    cluster: tuple[Int64[np.ndarray, " rows"], ...]
    item: tuple[Int64[np.ndarray, " rows"], ...] | None
    rows: int
    positives: int
    clusters: int
    items: int

    @staticmethod
    def of(replicates: Sequence[Replicate]) -> "Grid":
        """Number what the replicates hold.

        Raises ValueError without replicates, where a column is there in some only, a row occurs
        twice in one replicate, or a row's label, cluster or item differs between replicates.
        """
        if not replicates:
            raise ValueError("at least one replicate is needed, got none")
        first, many = replicates[0], len(replicates)
        whole = first
        if not all(_equal(first, other) for other in replicates[1:]):
            whole = merge(replicates)
        starts = np.cumsum([len(replicate) for replicate in replicates])[:-1]

        def split(numbers: np.ndarray) -> tuple[np.ndarray, ...]:
            return (numbers,) * many if whole is first else tuple(np.split(numbers, starts))

        known, met, row = np.unique(whole.row, return_index=True, return_inverse=True)
        for part in split(row)[: 1 if whole is first else many]:
            twice = np.bincount(part, minlength=1) > 1
            if twice.any():
                raise ValueError(f"a row must occur once, got row {known[twice.argmax()]} twice")
        for name in ("label", "cluster", "item"):
            values = getattr(whole, name)
            differs = values is not None and values != values[met][row]
            if np.any(differs):
                at = whole.row[np.argmax(differs)]
                raise ValueError(f"replicates must agree on the {name} of a row: row {at} differs")
        cluster, clusters = _numbered(whole.cluster, row, len(known))
        item, items = _numbered(whole.item, row, len(known))
        return Grid(
            row=split(row),
            cluster=split(cluster),
            item=None if whole.item is None else split(item),
            rows=len(known),
            positives=int(whole.label[met].sum()),
            clusters=clusters,
            items=items,
        )

    @property
    def smaller_count(self) -> int:
        """G: the clusters, or the items where they are fewer."""
        return self.clusters if self.item is None else min(self.clusters, self.items)

    def spread(
        self,
        values: Float64[np.ndarray, " replicates"],
        influence: Sequence[Float64[np.ndarray, " rows"]],
    ) -> tuple[float, float]:
        """Variance and degrees of freedom of the mean of ``values``, as the file's head says.

        Replicates without a value (nan) are left out. One replicate: V(psi) and G - 1; so too A
        and G - 1 where s2 and c are 0 but for rounding (few rows, by chance the same D_k in all).
        Both are nan where G is below 2.
        """
        held = np.flatnonzero(~np.isnan(values))
        count = self.smaller_count
        if count < 2 or not len(held):
            return float("nan"), float("nan")
        joint, each = (inflated(of, count) for of in self._squares(influence, held))
        spread = over_replicates(values[held], each, joint, count)
        if spread.variance**0.5 < ROUNDING:
            return float(joint), float(count - 1)
        return float(spread.variance), float(spread.df)

    def _squares(
        self, influence: Sequence[np.ndarray], held: Int64[np.ndarray, " held"]
    ) -> tuple[float, float]:
        """Sum of squares of the mean influence, and the mean of the sums of squares of each."""

        def of(numbers: Sequence[np.ndarray], count: int) -> tuple[float, np.ndarray]:
            return squares(np.bincount(numbers[k], influence[k], minlength=count) for k in held)

        joint, each = of(self.cluster, self.clusters)
        if self.item is not None:
            items, rows = of(self.item, self.items), of(self.row, self.rows)
            joint, each = (
                np.maximum(user + item - row, user)
                for user, item, row in zip((joint, each), items, rows, strict=True)
            )
        return float(joint), float(each.mean())


def _equal(a: Replicate, b: Replicate) -> bool:
    """Whether two replicates hold the same rows in the same order, with the same columns."""
    if a is b:
        return True
    for name in ("row", "label", "cluster", "item"):
        left, right = getattr(a, name), getattr(b, name)
        if (left is None) != (right is None) or not np.array_equal(left, right):
            return False
    return True


def _numbered(
    ids: Int64[np.ndarray, " rows"] | None, row: Int64[np.ndarray, " rows"], rows: int
) -> tuple[Int64[np.ndarray, " rows"], int]:
    """Number ids from 0; a row without one (or all, without the column) is numbered by itself."""
    if ids is None:
        return row, rows
    known, number = np.unique(np.where(ids < 0, -1 - row, ids), return_inverse=True)
    return number, len(known)
