"""Value statistics: what the train rows say of each value of a categorical column.

Example: author 7 has 120 train rows, 9 of them in the domain ``home``. A row of author 7 in ``home``
gets four numbers: the author's effect, the log of 120, the author's effect in ``home``, the log of 9.

Let n and k be the number of train rows, and of positive ones, of a value v in a domain d.

    p_d   = (K_d + s p) / (N_d + s)                             the domain's rate; p is the base rate
    e_v   = sum over d of n_vd p_d / n_v                        what its domains would give the value
    a_v   = logit((k_v + s e_v) / (n_v + s)) - logit(e_v)       the value's effect
    m_vd  = sigmoid(logit(p_d) + a_v)
    a_vd  = logit((k_vd + s m_vd) / (n_vd + s)) - logit(p_d)    the value's effect in the domain

So a domain's rate of a value is shrunk to the value's own rate, and the value's rate to what its
domains would give. This is the partial pooling of a multilevel model (Gelman and Hill 2007, chapter
12), done by arithmetic. Each s is a strength of its own, fitted by moments (`strength`).

0 means that nothing is known: the effects of a value that was never seen are 0, and so is the log of
its count, log(1 + n). In a domain where the value was never seen, and in the unknown domain, the
value's effect in the domain is the value's effect, and its count is 0. Effects are divided by their
root mean square over the train rows, and logs of counts by theirs.

A pair of columns has the same four numbers for each pair of its values, say user 3 and author 7. They
tell what the pair does beyond its two sides, for p_d is now

    q_vd  = sigmoid(logit(p_d) + a_ud + a_wd)                   of the pair v of the values u and w

A row must not be told its own label. So train rows are divided into `FOLDS` folds, and a row's
numbers come from the rows of the other folds. Their counts are scaled up, as a new row would see them.
The strengths alone, two numbers a column, are fitted on all train rows.
Folds are drawn by the row. Under a split by user they are of whole groups, and under a split by time
they are stretches of time: what a train row is told then is as foreign to it as to a test row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8
from scipy.special import expit, logit

from isthmus.data.encoding.counted.counted_columns import CountedColumn, CountedCross, Ids, Lists
from isthmus.data.encoding.lookup.index import Index
from isthmus.data.tables import values as v
from isthmus.schema import STATISTICS_WIDTH

if TYPE_CHECKING:
    from isthmus.data.encoding.counted.later import Later

FOLDS = 12
FOLD_SEED = 0xF01D
STRENGTHS = (1.0, 1e6)


def fold_of(keys: Int64[np.ndarray, " rows"]) -> UInt8[np.ndarray, " rows"]:
    """The fold of each train row, by hash. ``keys``: the row's number, or its group."""
    # Hashed twice: a split's hash, whatever its seed, then says nothing of the fold.
    hashed = v.mix(np.asarray(keys, dtype=np.int64)).view(np.int64)
    return (v.mix(hashed, seed=FOLD_SEED) % np.uint64(FOLDS)).astype(np.uint8)


def strength(
    rows: Float64[np.ndarray, " cells"],
    positives: Float64[np.ndarray, " cells"],
    mean: Float64[np.ndarray, " cells"],
    *,
    used: float = 0.0,
) -> float:
    """How many rows the prior is worth: s of a beta distribution with these means, by moments.

    Under a beta-binomial with correlation rho = 1 / (s + 1), the Pearson statistic of a cell of n
    rows has the mean 1 + (n - 1) rho (Kleinman 1973, eq. 2). The sum over the cells is solved for
    rho. ``used``: degrees of freedom that the means have taken from the same rows. The strength is
    held within `STRENGTHS`: cells that differ no more than chance makes them get the upper bound.

    >>> rows = np.array([1000.0, 1000.0])
    >>> strength(rows, np.array([500.0, 500.0]), np.array([0.5, 0.5]))
    1000000.0
    """
    least, most = STRENGTHS
    there = rows > 0
    n, k, m = rows[there], positives[there], mean[there]
    pearson = float(np.sum((k - n * m) ** 2 / (n * m * (1 - m))))
    room = float(np.sum(n)) - len(n)
    rho = (pearson - len(n) + used) / room if room > 0 else 0.0
    return float(np.clip(1 / rho - 1, least, most)) if rho > 0 else most


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Train rows by (value, domain), of one column, pairs ascending. ``domain`` 0: without a domain."""

    value: Int32[np.ndarray, " pairs"]
    domain: Int32[np.ndarray, " pairs"]
    rows: Float64[np.ndarray, " pairs"]
    positives: Float64[np.ndarray, " pairs"]


def domain_rates(
    rows: Float64[np.ndarray, " domains"], positives: Float64[np.ndarray, " domains"]
) -> Float64[np.ndarray, " domains"]:
    """The rate p_d of each domain; at place 0, the unknown domain, the base rate.

    All are nan where the rows hold one class only: then nothing can be told of any value.
    """
    total, positive = rows.sum(), positives.sum()
    if not 0 < positive < total:
        return np.full(len(rows), np.nan)
    base = np.full(len(rows), positive / total)
    s = strength(rows[1:], positives[1:], base[1:])
    rates = (positives + s * base) / (rows + s)
    rates[0] = base[0]
    return rates


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """The numbers of one column, before they are scaled.

    ``by_value``: effect and log count of each id. ``by_pair``: the same within the domain, of each
    pair of ``index``. ``strengths``: of values, and of values in domains.
    """

    index: Index
    domains: int
    by_value: Float32[np.ndarray, "ids 2"]
    by_pair: Float32[np.ndarray, "pairs 2"]
    strengths: tuple[float, float]

    @classmethod
    def of(
        cls,
        counts: Counts,
        rate: Float64[np.ndarray, " domains"],
        *,
        ids: int,
        negative_rate: float,
        own: Float64[np.ndarray, " pairs"] | None = None,
        strengths: tuple[float, float] | None = None,
    ) -> "Effects":
        """Make the numbers of all values and pairs.

        ``own``: what each (value, domain) is measured against, the rate of its domain by default.
        ``strengths``: fitted to these counts by default.
        """
        value, domain, n, k = counts.value, counts.domain, counts.rows, counts.positives
        rows, positives = (np.bincount(value, of, minlength=ids) for of in (n, k))
        by_value = np.zeros((ids, 2), dtype=np.float32)
        by_pair = np.zeros((len(n), 2), dtype=np.float32)
        by_value[:, 1] = log_count(rows, positives, negative_rate)
        by_pair[:, 1] = log_count(n, k, negative_rate)
        of_values = of_pairs = STRENGTHS[1]
        if not np.isnan(rate[0]):
            own = rate[domain] if own is None else own
            mean = np.full(ids, rate[0])
            np.divide(np.bincount(value, n * own, minlength=ids), rows, out=mean, where=rows > 0)
            of_values = strengths[0] if strengths else strength(rows, positives, mean)
            effect = value_effect(rows, positives, mean, of_values)
            by_value[:, 0] = effect
            if strengths:
                of_pairs = strengths[1]
            else:
                used = float(np.sum(rows / (rows + of_values)))
                of_pairs = strength(n, k, expit(logit(own) + effect[value]), used=used)
            by_pair[:, 0] = pair_effect(n, k, own, effect[value], of_pairs)
        trained = domain > 0  # what is known of no domain is not known of a domain
        domains = len(rate)
        keys = value.astype(np.int64) * domains + domain
        return cls(Index(keys[trained]), domains, by_value, by_pair[trained], (of_values, of_pairs))

    def find(self, ids: Ids, domain: Int32[np.ndarray, " items"]) -> Float32[np.ndarray, "items 4"]:
        """Effect and log count of each value, then the two within the domain."""
        out = np.empty((len(ids), STATISTICS_WIDTH), dtype=np.float32)
        place = self.index.find(ids.astype(np.int64) * self.domains + domain)
        out[:, :2] = self.by_value.take(ids, axis=0)
        out[:, 2], out[:, 3] = out[:, 0], 0.0
        hit = np.flatnonzero(place)
        out[hit, 2:] = self.by_pair.take(place[hit] - 1, axis=0)
        return out


def expected_rates(
    cross: CountedCross,
    pairs: Ids,
    domain: Int32[np.ndarray, " pairs"],
    rate: Float64[np.ndarray, " domains"],
    sides: Sequence[Effects],
) -> Float64[np.ndarray, " pairs"]:
    """q_vd: what a pair of values should give in a domain, by its domain and its two sides."""
    log_odds = logit(rate)[domain]
    for side, ids in zip(sides, cross.values(pairs), strict=True):
        log_odds += side.find(ids, domain)[:, 2]
    return expit(log_odds)


def value_effect(
    rows: np.ndarray, positives: np.ndarray, mean: np.ndarray, s: float
) -> Float64[np.ndarray, " values"]:
    """a_v of values with these counts. ``mean``: e_v, anything between 0 and 1 without rows."""
    found = logit((positives + s * mean) / (rows + s)) - logit(mean)
    found[rows <= 0] = 0  # but for rounding it is 0 already
    return found


def pair_effect(
    rows: np.ndarray, positives: np.ndarray, own: np.ndarray, effect: np.ndarray, s: float
) -> Float64[np.ndarray, " pairs"]:
    """a_vd of pairs with these counts. ``own``: p_d. ``effect``: a_v."""
    base = logit(own)
    prior = expit(base + effect)
    found = logit((positives + s * prior) / (rows + s)) - base
    return np.where(rows > 0, found, effect)  # without rows it is the same, but for rounding


def log_count(
    rows: np.ndarray, positives: np.ndarray, negative_rate: float, scale: float = 1.0
) -> np.ndarray:
    """log(1 + n) of the rows that there were before negatives were thinned.

    ``scale``: by how much counts are raised, where some rows are kept out of them.
    """
    if negative_rate != 1.0:
        rows = positives + (rows - positives) / negative_rate
    return np.log1p(scale * rows)


def spread_of(effects: Effects, counts: Counts) -> Float32[np.ndarray, " 2"]:
    """Root mean squares of effects, and of logs of counts, over the train rows that were counted.

    1 where all are 0.
    """
    of_pair = counts.rows[counts.domain > 0]
    of_value = np.bincount(counts.value, counts.rows, minlength=len(effects.by_value))
    squares = of_value @ np.square(effects.by_value, dtype=np.float64)
    squares += of_pair @ np.square(effects.by_pair, dtype=np.float64)
    spread = np.sqrt(squares / max(of_value.sum() + of_pair.sum(), 1.0))
    return np.where(spread > 0, spread, 1.0).astype(np.float32)


def row_means(
    items: Float32[np.ndarray, "items 4"], offsets: Int64[np.ndarray, " ends"]
) -> Float32[np.ndarray, "rows 4"]:
    """The mean over the items of each row; 0 for an empty list."""
    sums = np.zeros((len(items) + 1, STATISTICS_WIDTH))
    np.cumsum(items, axis=0, dtype=np.float64, out=sums[1:])
    ends = offsets - offsets[0]
    total = sums[ends[1:]] - sums[ends[:-1]]
    return (total / np.maximum(np.diff(ends), 1)[:, None]).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ColumnStatistics:
    """The numbers of one column. ``spread``: what effects, and logs of counts, are divided by."""

    column: CountedColumn | CountedCross
    effects: Effects
    spread: Float32[np.ndarray, " 2"]
    counts: Counts  # of all train rows: what the numbers were made of

    def numbers(
        self,
        ids: Ids,
        offsets: Int64[np.ndarray, " ends"] | None,
        domain: Int32[np.ndarray, " rows"],
    ) -> Float32[np.ndarray, "rows 4"]:
        """The scaled numbers of some rows; of a list column, the mean over the row's items."""
        if offsets is None:
            found = self.effects.find(ids, domain)
        else:
            found = row_means(self.effects.find(ids, np.repeat(domain, np.diff(offsets))), offsets)
        found /= np.tile(self.spread, 2)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """The fitted numbers of every column and pair with statistics, and the rates of the domains.

    ``later``: what domains that came after the fit added, None where none came.
    """

    columns: tuple[ColumnStatistics, ...]
    rates: Float64[np.ndarray, " domains"]
    negative_rate: float
    later: "Later | None" = None

    def fill(
        self,
        numeric: Float32[np.ndarray, "rows numbers"],
        categorical: Int32[np.ndarray, "rows columns"],
        lists: Lists,
        domain: Int32[np.ndarray, " rows"],
    ) -> None:
        """Write the numbers of rows that were not in training into their columns of ``numeric``.

        ``domain``: 0 for a row of no trained domain.
        """
        for one in self.columns:
            ids, offsets = one.column.items(categorical, lists)
            numeric[:, one.column.numbers] = one.numbers(ids, offsets, domain)

    @classmethod
    def of(
        cls,
        columns: Sequence[tuple[CountedColumn | CountedCross, Counts]],
        rates: Float64[np.ndarray, " domains"],
        negative_rate: float,
        spreads: Sequence[Float32[np.ndarray, " 2"]] | None = None,
    ) -> "Statistics":
        """The numbers of columns with these counts; a pair stands behind its two columns.

        ``spreads``: measured by default.
        """
        made: dict[str, ColumnStatistics] = {}
        for number, (column, counts) in enumerate(columns):
            own = None
            if isinstance(column, CountedCross) and not np.isnan(rates[0]):
                sides = [made[name].effects for name in column.sides]
                own = expected_rates(column, counts.value, counts.domain, rates, sides)
            effects = Effects.of(
                counts, rates, ids=column.rows, negative_rate=negative_rate, own=own
            )
            spread = spread_of(effects, counts) if spreads is None else spreads[number]
            made[column.name] = ColumnStatistics(column, effects, spread, counts)
        return cls(tuple(made.values()), rates, negative_rate)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What a file must hold: counts, strengths follow from them; spreads; rates."""
        arrays = {"rates": self.rates}
        for number, one in enumerate(self.columns):
            counts = one.counts
            arrays |= {
                f"{number}.value": counts.value,
                f"{number}.domain": counts.domain,
                f"{number}.rows": counts.rows,
                f"{number}.positives": counts.positives,
                f"{number}.spread": one.spread,
            }
            if isinstance(one.column, CountedCross):
                arrays[f"{number}.keys"] = one.column.keys
        return arrays if self.later is None else arrays | self.later.to_arrays()

    @classmethod
    def of_arrays(
        cls,
        arrays: Mapping[str, np.ndarray],
        columns: Sequence[CountedColumn | CountedCross],
        negative_rate: float,
    ) -> "Statistics":
        """Read what `to_arrays` gave. Raises KeyError or ValueError where it does not fit."""
        rates = arrays["rates"]
        counted, ids = [], {}
        for number, column in enumerate(columns):
            if isinstance(column, CountedCross):
                column = column.of_pairs(arrays[f"{number}.keys"])
                last = [int(of.max(initial=0)) for of in column.values(_all_ids(column))]
                if any(one >= ids[side] for one, side in zip(last, column.sides, strict=True)):
                    raise ValueError(f"the pairs of {column.name!r} must fit its vocabularies")
            counts = Counts(
                *(arrays[f"{number}.{of}"] for of in ("value", "domain", "rows", "positives"))
            )
            wrong = (
                len({len(part) for part in (counts.value, counts.rows, counts.positives)}) > 1
                or counts.value.max(initial=0) >= column.rows
                or counts.domain.max(initial=0) >= len(rates)
            )
            if wrong:
                raise ValueError(f"the statistics of {column.name!r} must fit its vocabulary")
            ids[column.name] = column.rows
            counted.append((column, counts))
        spreads = [arrays[f"{number}.spread"] for number in range(len(columns))]
        return cls.of(counted, rates, negative_rate, spreads)


def _all_ids(cross: CountedCross) -> Ids:
    return np.arange(1, cross.rows, dtype=np.int32)
