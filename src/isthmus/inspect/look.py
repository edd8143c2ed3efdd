"""One look at a whole table with bounded memory: exact facts of columns, and rows drawn at random.

A second look counts rows, positives and rare values of every domain.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.data.tables import Table
from isthmus.data.tables import columns as c
from isthmus.data.tables import values as v
from isthmus.data.tables.kinds import MOMENTS, NUMBERS, TEXTS, kind
from isthmus.data.tables.plain import decode, encoded, null_mask, numpy_of
from isthmus.inspect.guess import Facts
from isthmus.schema import Label

DRAWN_ROWS = 500_000
_SALT = 0xD4A3  # rows must not be drawn by the stream that a user's plain seed gave the table
_DRAWN_BYTES = 512 << 20
RARE = 5  # a value with fewer rows in the table is rare
_WHOLE_VALUES = 2_000_000  # rows up to which every value is counted for the rare ones
_FOLD = 2_000_000  # counted pairs after which they are added up


@dataclass(frozen=True, slots=True)
class FirstLook:
    """``facts`` of all rows by column; ``drawn``: the drawn rows, lists as their lengths."""

    facts: dict[str, Facts]
    drawn: pl.DataFrame


def look(table: Table, columns: Sequence[str], *, required: Sequence[str], seed: int) -> FirstLook:
    """Read these columns once.

    Up to about 500,000 rows (fewer where rows are wide) are drawn, each with the same chance.
    Raises SchemaError for a null in one of the ``required`` columns.
    """
    names = list(columns)
    facts = {name: Facts() for name in names}
    kinds = {name: table.kind(name) for name in names}
    rng = np.random.default_rng([seed, _SALT])
    parts: list[pl.DataFrame] = []
    chance = None
    for block in table.blocks(names):
        batch, origin = block.batch, c.Origin(block.file, block.file_row)
        for name in required:
            c.refuse_nulls(name, "the config needs it", batch.column(name), origin)
        plain = {}
        for name in names:
            array = decode(batch.column(name))
            _note(facts[name], array)
            short = _drawable(array, kinds[name])
            if short is not None:
                plain[name] = short
        if chance is None:
            width = sum(array.nbytes for array in plain.values()) / batch.num_rows
            most = min(DRAWN_ROWS, _DRAWN_BYTES / max(width, 1.0))
            chance = min(1.0, most / max(table.rows, 1))
        taken = pa.table(plain)
        if chance < 1:
            taken = taken.filter(pa.array(rng.random(batch.num_rows) < chance))
        frame = pl.from_arrow(taken)
        assert isinstance(frame, pl.DataFrame)
        parts.append(frame)
    return FirstLook(facts, pl.concat(parts, how="vertical_relaxed"))


@dataclass(frozen=True, slots=True)
class DomainCounts:
    """Rows and positives of one domain; ``rare``: share of its categorical values that are rare."""

    name: str
    rows: int
    positives: int
    rare: float


def count_domains(
    table: Table, *, domain: str, label: Label, categorical: Sequence[str]
) -> list[DomainCounts]:
    """Count every domain over all rows, largest first.

    A value is rare when fewer than 5 rows of the table hold it. Above 2 million rows an even
    share of the values, chosen by hash, stands for all.
    Raises SchemaError for a label or a domain that ``fit`` would refuse.
    """
    rows: dict[str, int] = {}
    positives: dict[str, int] = {}
    one_in = max(1, -(-table.rows // _WHOLE_VALUES))
    counters = {name: _RareValues(one_in) for name in categorical}
    wanted = list(dict.fromkeys([domain, label.column, *categorical]))
    domain_kind = table.name_kind(domain)
    for block in table.blocks(wanted):
        batch, origin = block.batch, c.Origin(block.file, block.file_row)
        codes, names = c.domains(batch.column(domain), domain_kind)
        c.refuse_null_domain(domain, codes, origin)
        positive = c.labels(label, batch.column(label.column), origin) > 0
        found = pl.DataFrame({"code": codes, "positive": positive})
        known = names.to_pylist()
        for code, n_rows, n_positives in (
            found.group_by("code").agg(pl.len(), pl.col("positive").sum().alias("p")).iter_rows()
        ):
            name = known[code]
            rows[name] = rows.get(name, 0) + n_rows
            positives[name] = positives.get(name, 0) + n_positives
        texts = pl.Series("domain", names.take(pa.array(codes)))
        for name, counter in counters.items():
            counter.add(batch.column(name), texts)
    rare = _rare_rows(counters.values())
    cells = max(len(counters), 1)
    return [
        DomainCounts(
            name=name,
            rows=n_rows,
            positives=positives[name],
            rare=min(1.0, one_in * rare.get(name, 0) / (n_rows * cells)),
        )
        for name, n_rows in sorted(rows.items(), key=lambda item: (-item[1], item[0]))
    ]


class _RareValues:
    """Counts rows by value and domain, for one value in ``one_in``, chosen by hash."""

    def __init__(self, one_in: int) -> None:
        self.one_in = one_in
        self.parts: list[pl.DataFrame] = []
        self.pairs = 0

    def add(self, array: pa.Array, domain: pl.Series) -> None:
        value = _hashed(array)
        frame = pl.DataFrame({"value": value, "domain": domain})
        if self.one_in > 1:
            frame = frame.filter(pl.col("value") % self.one_in == 0)
        self.parts.append(frame.group_by("value", "domain").agg(pl.len().cast(pl.Int64)))
        self.pairs += self.parts[-1].height
        if self.pairs > _FOLD:
            self.parts = [self.counted()]
            self.pairs = self.parts[0].height // 2  # so that folding stays rare

    def counted(self) -> pl.DataFrame:
        return pl.concat(self.parts).group_by("value", "domain").agg(pl.col("len").sum())


def _hashed(array: pa.Array) -> pl.Series:
    """A hash of every value that says which are equal, whatever their type; nulls alike."""
    coded = encoded(array)
    values = coded.dictionary
    keys = v.hash_text(values) if kind(values.type) in TEXTS else numpy_of(v.keys(values), 0)
    table = np.append(keys, 0)
    return pl.Series(table.take(numpy_of(coded.indices, len(keys)))).hash(seed=0)


def _rare_rows(counters: Iterable[_RareValues]) -> dict[str, int]:
    """Cells of each domain that hold a rare value, over all counted columns."""
    total: dict[str, int] = {}
    for counter in counters:
        if not counter.parts:
            continue
        counted = counter.counted().with_columns(everywhere=pl.col("len").sum().over("value"))
        rare = counted.filter(pl.col("everywhere") < RARE).group_by("domain")
        for name, found in rare.agg(pl.col("len").sum()).iter_rows():
            total[name] = total.get(name, 0) + found
    return total


def _note(facts: Facts, array: pa.Array) -> None:
    """Add the facts of one block of a column."""
    facts.nulls += array.null_count
    items = array
    if kind(array.type) == "list":
        lengths = _lengths(array).drop_null()
        if len(lengths):
            ends = pc.call_function("min_max", [lengths]).as_py()
            least = ends["min"] if facts.shortest is None else min(facts.shortest, ends["min"])
            facts.shortest = least
            facts.longest = max(facts.longest, ends["max"])
        items = decode(array.flatten())
        facts.item_nulls += items.null_count
    if kind(items.type) in NUMBERS and len(items) > items.null_count:
        x = c.numbers(items.drop_null())
        finite = x[np.isfinite(x)]
        facts.nan += int(np.isnan(x).sum())
        facts.infinite += int(np.isinf(x).sum())
        if len(finite):
            facts.lowest = min(facts.lowest, float(finite.min()))
            facts.highest = max(facts.highest, float(finite.max()))


def _drawable(array: pa.Array, of: str) -> pa.Array | None:
    """The column as kept for the drawn rows; None for types that cannot be judged.

    ``of``: the kind of the column over all files, which decides the type of every block.
    """
    if of == "list":
        return _lengths(array) if kind(array.type) == "list" else pa.nulls(len(array), pa.int64())
    if of in ("other", "time", "duration"):
        return None
    if of in ("floating", "decimal"):
        x = c.numbers(array)
        missing = np.isnan(x) if not array.null_count else np.isnan(x) | null_mask(array)
        return pa.array(x, mask=missing)
    if of in MOMENTS:
        zone = getattr(array.type, "tz", None)
        return pc.cast(pc.cast(array, pa.timestamp("us", zone), safe=False), pa.timestamp("us"))
    to = {"boolean": pa.bool_(), "string": pa.large_string(), "binary": pa.large_binary()}
    if of == "integer" and array.type == pa.uint64():
        return array
    return pc.cast(array, to.get(of, pa.int64()))


def _lengths(array: pa.Array) -> pa.Array:
    """Length int64 of every list; null where the list is."""
    return pc.cast(pc.call_function("list_value_length", [array]), pa.int64())
