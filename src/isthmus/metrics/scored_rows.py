"""Scored rows: what every metric reads, checked once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.special import expit

from isthmus.errors import RunError

COLUMNS = ("row", "logits", "label", "domain", "weight", "group")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ScoredRows:
    """Rows of one split with the raw logits of one model.

    Raises ValueError where lengths differ, a logit is not finite, a label is not 0 or 1, a domain
    id is out of range, a weight is negative or not finite, or a row occurs twice (in ``align``).
    """

    split: str
    row: Int64[np.ndarray, " rows"]  # number of the row in its table
    logits: Float64[np.ndarray, " rows"]  # as the model gives them: not corrected for sampling
    label: Bool[np.ndarray, " rows"]  # 0 or 1 of any dtype comes in
    domain: Int64[np.ndarray, " rows"]  # report ids 1..len(names); 0 = the row names no domain
    names: tuple[str, ...]
    weight: Float64[np.ndarray, " rows"] | None = None
    group: Int64[np.ndarray, " rows"] | None = None  # a negative id: the row has no group
    negative_rate: float = 1.0  # share of negatives kept when the table was made
    fingerprint: str = ""  # of the table, where known
    source: str = ""  # what to call the model in a table

    def __post_init__(self) -> None:
        rows = len(self.row)
        columns = {"row": np.int64, "logits": np.float64, "domain": np.int64}
        columns |= {"weight": np.float64, "group": np.int64}
        for name, dtype in columns.items():
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, np.asarray(given).astype(dtype, copy=False))
        for name in ("logits", "label", "domain", "weight", "group"):
            given = getattr(self, name)
            if given is not None and np.shape(given) != (rows,):
                raise ValueError(f"{name} must have shape ({rows},), got {np.shape(given)}")
        object.__setattr__(self, "names", tuple(self.names))
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"names of domains must differ, got {self.names}")
        if not 0 < self.negative_rate <= 1:
            raise ValueError(f"negative_rate must be in (0, 1], got {self.negative_rate}")
        label = np.asarray(self.label)
        self._refuse("logits must be finite", self.logits, ~np.isfinite(self.logits))
        self._refuse("label must be 0 or 1", label, ~((label == 0) | (label == 1)))
        outside = (self.domain < 0) | (self.domain > len(self.names))
        self._refuse(f"domain must be in 0..{len(self.names)}", self.domain, outside)
        if self.weight is not None:
            wrong = ~(np.isfinite(self.weight) & (self.weight >= 0))
            self._refuse("weight must be finite and at least 0", self.weight, wrong)
        object.__setattr__(self, "label", label == 1)

    def _refuse(self, rule: str, values: np.ndarray, wrong: np.ndarray) -> None:
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(
                f"{rule}, got {values[at]} in row {int(self.row[at])} of split {self.split!r}"
                f" ({int(wrong.sum())} such rows)"
            )

    def __len__(self) -> int:
        return len(self.row)

    @property
    def mass(self) -> Float64[np.ndarray, " rows"]:
        """Effective weight of each row."""
        return effective_weight(self.label, self.weight, self.negative_rate)

    @property
    def corrected(self) -> Float64[np.ndarray, " rows"]:
        """Logits of the table before its negatives were thinned."""
        return corrected(self.logits, self.negative_rate)

    @property
    def chance(self) -> Float64[np.ndarray, " rows"]:
        """Probability of the label 1, from the corrected logits."""
        return expit(self.corrected)

    def take(self, index: Int64[np.ndarray, " rows"]) -> "ScoredRows":
        """Choose rows by position."""
        held = {name: getattr(self, name) for name in COLUMNS}
        return replace(self, **{name: of[index] for name, of in held.items() if of is not None})


def effective_weight(
    label: Bool[np.ndarray, " rows"],
    weight: Float64[np.ndarray, " rows"] | None,
    negative_rate: float,
) -> Float64[np.ndarray, " rows"]:
    """Weight of each row, times 1 / negative_rate where it is a negative.

    So a table whose negatives were thinned gives the figures of the table before it was.
    """
    mass = np.where(label, 1.0, 1.0 / negative_rate)
    return mass if weight is None else mass * weight


def corrected(
    logits: Float64[np.ndarray, " rows"], negative_rate: float
) -> Float64[np.ndarray, " rows"]:
    """Logits of the table before its negatives were thinned: logit + log(negative_rate)."""
    return logits + np.log(negative_rate) if negative_rate != 1.0 else logits


def concatenate(parts: Sequence[ScoredRows]) -> ScoredRows:
    """Join the shards of one model's scores; the metrics of the whole are then exact.

    Raises ValueError where there is no part, or where the parts differ in what they share.
    """
    if not parts:
        raise ValueError("concatenate needs at least one part, got none")
    first = parts[0]
    for part in parts[1:]:
        for name in ("split", "names", "negative_rate", "fingerprint", "source"):
            if getattr(part, name) != getattr(first, name):
                raise ValueError(
                    f"parts must have one {name}, got {getattr(first, name)!r}"
                    f" and {getattr(part, name)!r}"
                )
        for name in ("weight", "group"):
            if (getattr(part, name) is None) != (getattr(first, name) is None):
                raise ValueError(f"parts must all have a {name}, or none")
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in COLUMNS
        if getattr(first, name) is not None
    }
    return replace(first, **joined)


def align(scored: Sequence[ScoredRows]) -> list[ScoredRows]:
    """Put several models' scores of the same rows into one order, with one numbering of domains.

    All must have the same split, table, rows, labels, domains, weights, groups and negative rate.
    Otherwise RunError is raised. It names what differs and the first row that differs.
    """
    if not scored:
        raise ValueError("at least one set of scored rows is needed, got none")
    first = _by_row(scored[0])
    return [first, *(_match(first, _by_row(other)) for other in scored[1:])]


def _by_row(rows: ScoredRows) -> ScoredRows:
    if len(rows) and not (rows.row[1:] > rows.row[:-1]).all():
        rows = rows.take(np.argsort(rows.row, kind="stable"))
        twice = rows.row[1:] == rows.row[:-1]
        if twice.any():
            raise ValueError(f"a row must occur once, got row {rows.row[twice.argmax()]} twice")
    return rows


def _match(a: ScoredRows, b: ScoredRows) -> ScoredRows:
    for name in ("split", "negative_rate", "fingerprint"):
        left, right = getattr(a, name), getattr(b, name)
        if left != right and (name != "fingerprint" or (left and right)):
            what = "table (by its fingerprint)" if name == "fingerprint" else name
            raise RunError(f"runs must be scored on one {what}, got {left!r} and {right!r}")
    if not np.array_equal(a.row, b.row):
        odd = np.setxor1d(a.row, b.row, assume_unique=True)
        raise RunError(
            f"runs must score the same rows of split {a.split!r}, got {len(a)} and {len(b)};"
            f" {len(odd)} are in one only, the first is row {odd[0]}"
        )
    _same(a, "label", a.label, b.label)
    names = sorted({*a.names, *b.names})
    number = {name: place for place, name in enumerate(names, start=1)}
    left = np.array([0, *(number[name] for name in a.names)])[a.domain]
    right = np.array([0, *(number[name] for name in b.names)])[b.domain]
    shown = np.array(["(none)", *names], dtype=object)
    _same(a, "domain", left, right, shown)
    for name in ("weight", "group"):
        if (getattr(a, name) is None) != (getattr(b, name) is None):
            raise RunError(f"runs must all have a {name} column, or none: they differ")
    if a.weight is not None and b.weight is not None:
        _same(a, "weight", a.weight, b.weight)
    if a.group is not None and b.group is not None and not _one_partition(a.group, b.group):
        raise RunError("runs must have the same group column, got rows grouped in two ways")
    return replace(b, domain=a.domain, names=a.names, group=a.group)


def _same(
    a: ScoredRows, what: str, left: np.ndarray, right: np.ndarray, shown: np.ndarray | None = None
) -> None:
    differs = left != right
    if differs.any():
        at = int(differs.argmax())
        values = (left[at], right[at]) if shown is None else (shown[left[at]], shown[right[at]])
        raise RunError(
            f"runs must agree on the {what} of every row, got {values[0]} and {values[1]}"
            f" in row {a.row[at]} of split {a.split!r} ({int(differs.sum())} such rows)"
        )


def _one_partition(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two numberings of groups put the same rows together."""
    if np.array_equal(left, right):
        return True
    if not np.array_equal(left < 0, right < 0):
        return False
    pairs = np.unique(np.stack([left, right])[:, left >= 0], axis=1).shape[1]
    return pairs == len(np.unique(left[left >= 0])) == len(np.unique(right[right >= 0]))
