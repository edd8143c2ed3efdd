"""Statistics of domains that came after the fit, beside numbers that stay what they were.

The formulas are those of `isthmus.data.encoding.counted.statistics`. What the train rows of the fit gave is
frozen: strengths, spreads, base rate, and the effect of every value that they held. A later domain has its
own rate, its own effects of values within it, and the effects of the values that came with it, which are
measured against its own rate. Pairs of columns get no new pairs: a pair with a later value is unknown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from jaxtyping import Float64, Int64

from isthmus.data.encoding.counted.counted_columns import CountedCross, columns_of
from isthmus.data.encoding.counted.statistics import (
    Counts,
    Effects,
    Statistics,
    expected_rates,
    log_count,
    pair_effect,
    strength,
    value_effect,
)
from isthmus.data.encoding.lookup.index import Index
from isthmus.schema import FittedField

_PARTS = ("value", "domain", "rows", "positives")


@dataclass(frozen=True, slots=True, eq=False)
class Later:
    """Train rows of the domains that came after the fit, in the order in which they came.

    ``rates``: p_d of each. ``first``: by domain and column, how many ids there were before it came.
    ``counts``: by column; domains are numbered on from those of the fit.
    """

    rates: Float64[np.ndarray, " later"]
    first: Int64[np.ndarray, "later columns"]
    counts: tuple[Counts, ...]

    @classmethod
    def none(cls, columns: int) -> Self:
        """No domain has come."""
        ids, numbers = np.empty(0, np.int32), np.empty(0)
        empty = Counts(ids, ids, numbers, numbers)
        return cls(np.empty(0), np.empty((0, columns), np.int64), (empty,) * columns)

    def followed(self, rate: float, first: Sequence[int], counts: Sequence[Counts]) -> "Later":
        """One more domain."""
        joined = [
            Counts(*(np.concatenate([getattr(a, of), getattr(b, of)]) for of in _PARTS))
            for a, b in zip(self.counts, counts, strict=True)
        ]
        row = np.array([first], dtype=np.int64)
        return Later(np.append(self.rates, rate), np.concatenate([self.first, row]), tuple(joined))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What a file must hold."""
        arrays = {"later.rates": self.rates, "later.first": self.first}
        for number, counts in enumerate(self.counts):
            arrays |= {f"later.{number}.{of}": getattr(counts, of) for of in _PARTS}
        return arrays

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], statistics: Statistics) -> Self:
        """Undo `to_arrays`. Raises KeyError or ValueError where it does not fit."""
        rates, first = arrays["later.rates"], arrays["later.first"]
        counts = tuple(
            Counts(*(arrays[f"later.{number}.{of}"] for of in _PARTS))
            for number in range(len(statistics.columns))
        )
        fitted = len(statistics.rates)
        fits = first.shape == (len(rates), len(counts)) and all(
            len({len(one.value), len(one.domain), len(one.rows), len(one.positives)}) == 1
            and one.value.max(initial=0) < of.column.rows
            and one.domain.min(initial=fitted) >= fitted
            and one.domain.max(initial=0) < fitted + len(rates)
            for one, of in zip(counts, statistics.columns, strict=True)
        )
        if not fits:
            raise ValueError("the statistics of later domains must fit columns and vocabularies")
        return cls(rates, first, counts)


def later_rate(statistics: Statistics, rows: float, positives: float) -> float:
    """p_d of a domain with these train rows, shrunk to the base rate; nan where that is not known.

    Its strength is that of the domains of the fit.
    """
    base = statistics.rates[0]
    if np.isnan(base):
        return float("nan")
    n, k = _domain_counts(statistics)
    s = strength(n, k, np.full(len(n), base))
    return float((positives + s * base) / (rows + s))


def _domain_counts(statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """Rows and positives of the domains of the fit, as the first single column counted them."""
    one = min(statistics.columns, key=lambda column: column.column.listed)
    sets = len(statistics.rates)
    rows, positives = (
        np.bincount(one.counts.domain, of, minlength=sets)[1:]
        for of in (one.counts.rows, one.counts.positives)
    )
    return rows, positives


def with_later(statistics: Statistics, later: Later) -> Statistics:
    """The statistics of a fit, with those of later domains beside them."""
    rates = np.concatenate([statistics.rates, later.rates])
    effects: dict[str, Effects] = {}
    columns = []
    for number, one in enumerate(statistics.columns):
        counts = later.counts[number]
        own = rates[counts.domain]
        if isinstance(one.column, CountedCross) and not np.isnan(rates[0]):
            sides = [effects[name] for name in one.column.sides]
            own = expected_rates(one.column, counts.value, counts.domain, rates, sides)
        first = later.first[:, number][counts.domain - len(statistics.rates)]
        found = _extended(one.effects, one.counts, counts, own, first, len(rates), statistics)
        effects[one.column.name] = found
        columns.append(replace(one, effects=found))
    return replace(statistics, columns=tuple(columns), later=later)


def _extended(
    effects: Effects,
    fitted: Counts,
    later: Counts,
    own: np.ndarray,
    first: np.ndarray,
    domains: int,
    statistics: Statistics,
) -> Effects:
    """The numbers of one column. ``own``, ``first``: of each later pair."""
    of_values, of_pairs = effects.strengths
    n, k, known = later.rows, later.positives, not np.isnan(statistics.rates[0])
    logs = log_count(n, k, statistics.negative_rate)
    by_value = effects.by_value.copy()
    new = later.value >= first  # of each such value there is this one pair: it came with its domain
    by_value[later.value[new], 1] = logs[new]
    by_pair = np.zeros((len(n), 2), dtype=np.float32)
    by_pair[:, 1] = logs
    if known:
        by_value[later.value[new], 0] = value_effect(n[new], k[new], own[new], of_values)
        by_pair[:, 0] = pair_effect(
            n, k, own, by_value[later.value, 0].astype(np.float64), of_pairs
        )
    trained = fitted.domain > 0
    value = np.concatenate([fitted.value[trained], later.value]).astype(np.int64)
    domain = np.concatenate([fitted.domain[trained], later.domain])
    return Effects(
        Index(value * domains + domain),
        domains,
        by_value,
        np.concatenate([effects.by_pair, by_pair]),
        effects.strengths,
    )


def regrown(statistics: Statistics, fields: Sequence[FittedField]) -> Statistics:
    """The same numbers over longer vocabularies. ``fields``: those of a model with the longer ones."""
    arrays, columns = statistics.to_arrays(), columns_of(fields)
    for number, (one, column) in enumerate(zip(statistics.columns, columns, strict=True)):
        if isinstance(one.column, CountedCross) and isinstance(column, CountedCross):
            left, right = np.divmod(one.column.keys, one.column.width)
            arrays[f"{number}.keys"] = left * column.width + right
    return statistics_of(arrays, fields, statistics.negative_rate)


def statistics_of(
    arrays: Mapping[str, np.ndarray], fields: Sequence[FittedField], negative_rate: float
) -> Statistics:
    """Read what `Statistics.to_arrays` gave. Raises KeyError or ValueError where it does not fit."""
    found = Statistics.of_arrays(arrays, columns_of(fields), negative_rate)
    if "later.rates" not in arrays:
        return found
    return with_later(found, Later.of_arrays(arrays, found))
