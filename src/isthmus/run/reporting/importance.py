"""What a model reads: how much AUC each domain loses when one column is shuffled among its rows.

Source: Breiman, Random forests, Machine Learning 45, 2001; Fisher, Rudin and Dominici, All models are
wrong, but many are useful, JMLR 20, 2019 (model reliance).

A column is shuffled among the rows of each domain, so that a domain is asked about its own values. All
that the encoder makes of the column follows: parts of a time, statistics, crosses, a forest's score. The
domain itself is the same in all rows of a domain, so it is shuffled among all rows. Columns that say the
same stand in for each other: each alone then seems to be little read.

The work is bounded by the work of the training, and not by the clock, so that the same training gives the
same numbers. A clock stops a machine that is far too slow, and what was left out is named.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from isthmus.bundle import Bundle
from isthmus.data.batch import Batch
from isthmus.data.store.arrays import Arrays, chosen_lists
from isthmus.data.store.rows import Rows
from isthmus.metrics.formulas.auc import segment_auc
from isthmus.metrics.formulas.ranking import Ranking
from isthmus.metrics.intervals import MIN_NEGATIVES, MIN_POSITIVES
from isthmus.run.notice import Listener, Notice
from isthmus.schema import FittedField

REPEATS = 5
LEAST_ROWS, MOST_ROWS = 1_000, 20_000  # sampled, where there are as many
SHARE = 0.3  # of the rows that were trained, each as often: about a tenth of the training's time
LEAST_WORK, MOST_WORK = 100_000, 2_000_000  # rows that are scored in all
SECONDS = 20.0  # after which no column is begun


@dataclass(frozen=True, slots=True, eq=False)
class ReadColumn:
    """A column of the table, and where encoded rows hold what follows from it alone."""

    name: str
    categorical: tuple[int, ...] = ()
    numeric: tuple[slice, ...] = ()
    lists: tuple[int, ...] = ()

    def shuffled(self, rows: Arrays, order: Int64[np.ndarray, " rows"]) -> Arrays:
        """The rows, each with the value that the row at ``order`` has."""
        categorical, numeric, lists = rows.categorical.copy(), rows.numeric.copy(), list(rows.lists)
        for place in self.categorical:
            categorical[:, place] = rows.categorical[order, place]
        for places in self.numeric:
            numeric[:, places] = rows.numeric[order, places]
        for place in self.lists:
            lists[place] = chosen_lists(*rows.lists[place], order)
        return Arrays(categorical, numeric, tuple(lists), rows.domain, rows.label, rows.weight)


def read_columns(fields: Sequence[FittedField]) -> list[ReadColumn]:
    """The columns that a model with these fields reads, in their order; the domain is none of them."""
    places: dict[str, dict[str, list[Any]]] = {}
    single = listed = numbers = 0
    at: dict[int, slice] = {}
    for kind in ("numeric", "vector"):  # vectors stand behind all single numbers
        for number, field in enumerate(fields):
            if field.kind == kind:
                at[number] = slice(numbers, numbers + field.numbers)
                numbers += field.numbers
    for number, field in enumerate(fields):
        if field.kind in ("statistics", "trees"):
            continue
        held = places.setdefault(
            field.source or field.name, {"categorical": [], "numeric": [], "lists": []}
        )
        if field.kind == "categorical":
            held["categorical"] += [] if field.is_domain else [single]
            single += 1
        elif field.kind in ("categorical_list", "numeric_list"):
            held["lists"].append(listed)
            listed += 1
        else:
            held["numeric"].append(at[number])
    return [
        ReadColumn(name, **{kind: tuple(of) for kind, of in held.items()})
        for name, held in places.items()
        if any(held.values())
    ]


def work_of(trained_rows: float) -> int:
    """How many rows may be scored, after a training that went through so many rows."""
    return int(min(max(SHARE * trained_rows, LEAST_WORK), MOST_WORK))


def importance(
    bundle: Bundle,
    rows: Rows,
    *,
    names: Sequence[str],
    kept: Sequence[str],
    work: int,
    seed: int,
    tell: Listener,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """Measure how much each column is read, as plain values.

    ``rows``: encoded rows of a split. ``names``: of all domains, report id 1 first; ``kept``: the domains
    that are told one by one. ``work``: rows that may be scored. For each column the fall in AUC: a mean
    over the repeats and their standard deviation, for each domain and for the mean over domains. A
    domain whose sampled rows have one class has None.
    """
    began = time.perf_counter()
    columns = read_columns(bundle.encoder.fields)
    several = len(np.unique(np.asarray(rows.domain))) > 1
    tasks = len(columns) + several
    wanted = min(max(work // max(tasks * REPEATS, 1), LEAST_ROWS), MOST_ROWS)
    at = sample(np.asarray(rows.domain, dtype=np.int64), wanted, seed)
    asked = SampledRows(bundle, rows.arrays.take(at), np.asarray(rows.domain)[at], len(names))
    base = asked.aucs(asked.logits(ReadColumn(""), np.arange(len(at))))
    falls: dict[str | None, list[np.ndarray]] = {}
    random = np.random.default_rng(seed)
    for repeat in range(REPEATS):
        within = asked.order_within(random)
        across = random.permutation(len(at)) if several else None
        for column in [*columns, *([None] if several else [])]:
            if repeat and len(falls.get(_key(column), ())) < repeat:
                continue  # left out before
            if falls and time.perf_counter() - began > seconds:
                break
            if column is None:
                assert across is not None
                logits = asked.logits_of_domains(across)
            else:
                logits = asked.logits(column, within)
            falls.setdefault(_key(column), []).append(base - asked.aucs(logits))
        done = (repeat + 1) / REPEATS
        tell(Notice("score", f"what the model reads: {len(at):,} validation rows", done))
    few = asked.short_of_rows()
    told = [name for name in kept if name in names]
    return {
        "split": "validation",
        "metric": "auc",
        "rows": len(at),
        "of": len(rows),
        "repeats": REPEATS,
        "seed": seed,
        "auc": _by_domain(base, names, told),
        "columns": [
            {"name": column.name, **_told(falls[column.name], names, told)}
            for column in columns
            if column.name in falls
        ],
        "domain": _told(falls[None], names, told) if None in falls else None,
        "left_out": [column.name for column in columns if column.name not in falls],
        "rough": [name for name in told if few[names.index(name)]],
    }


def sample(
    domain: Int64[np.ndarray, " rows"], wanted: int, seed: int
) -> Int64[np.ndarray, " sampled"]:
    """Places of at most ``wanted`` rows, ascending: equally many of each domain, as far as it has them."""
    counts = np.bincount(domain)
    share = _level(counts[counts > 0], wanted)
    order = np.lexsort((np.random.default_rng(seed).random(len(domain)), domain))
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(domain)) - starts[domain[order]]
    return np.sort(order[rank < share])


def _level(counts: np.ndarray, wanted: int) -> int:
    """The most rows of each domain, such that all together are at most ``wanted``; at least 1."""
    low, high = 1, int(counts.max(initial=1))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if np.minimum(counts, middle).sum() <= wanted else (low, middle - 1)
        )
    return low


class SampledRows:
    """The rows that were drawn, and what a bundle says of them once something was changed."""

    def __init__(self, bundle: Bundle, rows: Arrays, domain: np.ndarray, n_names: int) -> None:
        self.bundle, self.rows = bundle, rows
        self.domain, self.n_names = domain.astype(np.int64), n_names
        self.label = np.asarray(rows.label) > 0
        self.weight = None if rows.weight is None else np.asarray(rows.weight, dtype=np.float64)
        self.own = [
            place
            for place, field in enumerate(
                field for field in bundle.encoder.fields if field.kind == "categorical"
            )
            if field.is_domain
        ]

    def aucs(self, logits: Float64[np.ndarray, " rows"]) -> Float64[np.ndarray, " domains"]:
        """The AUC of each domain, nan where undefined."""
        ranking = Ranking.of(logits, self.domain, self.n_names + 1)
        return segment_auc(ranking, self.label, self.weight).value[1:]

    def logits(self, column: ReadColumn, order: np.ndarray) -> Float64[np.ndarray, " rows"]:
        """What the rows are answered where each has the column's value of the row at ``order``."""
        return self._logits(column.shuffled(self.rows, order), self.domain)

    def logits_of_domains(self, order: np.ndarray) -> Float64[np.ndarray, " rows"]:
        """What the rows are answered where each bears the domain of the row at ``order``."""
        told = ReadColumn("", categorical=tuple(self.own))
        return self._logits(told.shuffled(self.rows, order), self.domain[order])

    def _logits(self, rows: Arrays, domain: np.ndarray) -> np.ndarray:
        """``rows``: whose numbers may be written to. ``domain``: report ids."""
        encoder = self.bundle.encoder
        known = np.where(domain <= encoder.n_domains, domain, 0).astype(np.int32)
        encoder.taught.fill(rows.numeric, rows.categorical, rows.lists, known)
        batch = Batch.of_arrays(
            categorical=rows.categorical,
            numeric=rows.numeric,
            lists=rows.lists,
            domain=known,
            label=rows.label,
            weight=rows.weight,
        )
        return self.bundle.logits_of(batch)

    def order_within(self, random: np.random.Generator) -> Int64[np.ndarray, " rows"]:
        """An order that shuffles the rows of each domain among themselves."""
        order = np.empty(len(self.domain), dtype=np.int64)
        order[np.argsort(self.domain, kind="stable")] = np.lexsort(
            (random.random(len(order)), self.domain)
        )
        return order

    def short_of_rows(self) -> np.ndarray:
        """Which domains have few sampled rows of a class, bool (domains,)."""
        all_, width = np.bincount(self.domain, minlength=self.n_names + 1)[1:], self.n_names + 1
        positives = np.bincount(self.domain[self.label], minlength=width)[1:]
        return (positives < MIN_POSITIVES) | (all_ - positives < MIN_NEGATIVES)


def _key(column: ReadColumn | None) -> str | None:
    return None if column is None else column.name


def _by_domain(
    values: np.ndarray, names: Sequence[str], kept: Sequence[str]
) -> dict[str, float | None]:
    place = {name: at for at, name in enumerate(names)}
    return {name: _number(values[place[name]]) for name in kept}


def _told(
    falls: Sequence[np.ndarray], names: Sequence[str], kept: Sequence[str]
) -> Mapping[str, Any]:
    every = np.stack(falls)  # (repeats, domains)
    defined = np.isfinite(every[0])  # by the labels alone, so the same in all repeats
    means = every[:, defined].mean(axis=1) if defined.any() else np.full(len(every), np.nan)
    spread = _spread(every)
    mean = every.mean(axis=0)
    return {
        "fall": _number(means.mean()),
        "spread": _number(_spread(means[:, None])[0]),
        "repeats": len(every),
        "domains": _by_domain(mean, names, kept),
        "spreads": _by_domain(spread, names, kept),
    }


def _spread(values: np.ndarray) -> np.ndarray:
    """Standard deviation over the repeats; nan of a single one."""
    if len(values) < 2:
        return np.full(values.shape[1], np.nan)
    return values.std(axis=0, ddof=1)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
