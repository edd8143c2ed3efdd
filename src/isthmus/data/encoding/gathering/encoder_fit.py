"""The fit of an encoder: what it needs of the train rows, gathered block by block."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from decimal import Decimal
from functools import partial

import numpy as np
import pyarrow as pa

from isthmus.data.encoding.clock import ClockFit
from isthmus.data.encoding.encoder import Encoder, run_tasks
from isthmus.data.encoding.gathering.counter import Counter
from isthmus.data.encoding.numbers.fitted import NumberFit
from isthmus.data.encoding.roles import DOMAIN, vocabulary_name
from isthmus.data.encoding.vocabulary import Vocabulary
from isthmus.data.tables import columns as c
from isthmus.schema import (
    Categorical,
    CategoricalList,
    DataConfig,
    Numeric,
    NumericList,
    Time,
)


class EncoderFit:
    """Gathers what an encoder needs, block by block."""

    def __init__(self, config: DataConfig, kinds: Mapping[str, str]) -> None:
        self.config = config
        self.domain_kind = kinds[DOMAIN]
        self.domains = Counter("string")
        self.counters: dict[str, Counter] = {}
        self.numbers: dict[str, NumberFit] = {}
        self.clocks: dict[str, ClockFit] = {}
        self._members: dict[str, list[str]] = {}
        self._hashed: dict[str, Vocabulary] = {}
        for name, feature in config.features.items():
            if isinstance(feature, Numeric | NumericList):
                self.numbers[name] = NumberFit(name, feature)
            elif isinstance(feature, Time):
                self.clocks[name] = ClockFit(name, feature, kinds[name])
            elif isinstance(feature, Categorical | CategoricalList):
                table = vocabulary_name(config, name)
                buckets = getattr(config.features[table], "hash_buckets", None)
                if buckets is not None:
                    empty = pa.array([], pa.int64())
                    self._hashed[table] = Vocabulary(kinds[table], empty, buckets)
                else:
                    self._members.setdefault(table, []).append(name)
                    self.counters[table] = Counter(kinds[table])

    @property
    def columns(self) -> list[str]:
        """Columns that fitting reads."""
        features = [name for members in self._members.values() for name in members]
        return list(dict.fromkeys([*features, *self.numbers, *self.clocks, self.config.domain]))

    def add(
        self,
        batch: pa.RecordBatch,
        rows: np.ndarray,
        origin: c.Origin,
        *,
        row: np.ndarray,
        workers: Executor | None = None,
    ) -> None:
        """Take in one block; ``rows`` int64 are the positions of its train rows.

        ``row``: number of each of its rows in the table, int64 (rows,).
        """
        tasks = [partial(self._count, table, batch, rows) for table in self.counters]
        tasks += [
            partial(fit.add, batch.column(name), rows, row, origin)
            for name, fit in (*self.numbers.items(), *self.clocks.items())
        ]
        tasks.append(partial(self._count_domains, batch, rows))
        run_tasks(tasks, workers)

    def _count(self, table: str, batch: pa.RecordBatch, rows: np.ndarray) -> None:
        for name in self._members[table]:
            feature, array = self.config.features[name], batch.column(name)
            if isinstance(feature, CategoricalList):
                if pa.types.is_null(array.type):
                    continue
                array, _ = c.list_items(array.take(pa.array(rows)), feature.max_length)
                self.counters[table].add(array)
            else:
                self.counters[table].add(array, rows)

    def _count_domains(self, batch: pa.RecordBatch, rows: np.ndarray) -> None:
        codes, names = c.domains(batch.column(self.config.domain), self.domain_kind)
        codes = codes.take(rows)
        self.domains.add_counts(names, np.bincount(codes[codes >= 0], minlength=len(names)))

    def encoder(self) -> Encoder:
        """The fitted encoder."""
        vocabularies = dict(self._hashed)
        for table, counter in self.counters.items():
            min_count = getattr(self.config.features[table], "min_count", 1)
            vocabularies[table] = counter.vocabulary(min_count)
        domains = self.domains.counts()["value"].to_list()
        numbers = {name: fit.fitted() for name, fit in self.numbers.items()}
        return Encoder(
            config=self.config,
            vocabularies=vocabularies,
            scalers={name: scaler for name, (scaler, _) in numbers.items()},
            domains=tuple(in_order(domains, self.domain_kind)),
            domain_kind=self.domain_kind,
            bins={name: edges for name, (_, edges) in numbers.items() if edges},
            clocks={name: fit.clock() for name, fit in self.clocks.items()},
        )

    def tables(self) -> dict[str, Iterable[pa.Table]]:
        """All that was gathered, by name, for `take_in` of another process: tables to write one after another."""
        fits = (*self.numbers.items(), *self.clocks.items())
        return {
            "domains": self.domains.pairs(),
            **{f"counts of {name}": one.pairs() for name, one in self.counters.items()},
            **{
                f"{what} of {name}": (one,)
                for name, fit in fits
                for what, one in fit.tables().items()
            },
        }

    def take_in(self, tables: Mapping[str, Iterable[pa.Table]]) -> None:
        """Add what another process gathered, from the rows that follow in the table."""
        self.domains.take_in(tables["domains"])
        for name, counter in self.counters.items():
            counter.take_in(tables[f"counts of {name}"])
        for name, fit in (*self.numbers.items(), *self.clocks.items()):
            fit.take_in(
                {what: pa.concat_tables(tables[f"{what} of {name}"]) for what in fit.tables()}
            )


def in_order(names: Iterable[str], kind: str) -> list[str]:
    """Domain names sorted: numbers by their value, everything else by its text."""
    if kind in ("integer", "floating", "decimal"):
        return sorted(names, key=Decimal)
    return sorted(names)
