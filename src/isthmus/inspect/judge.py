"""A first look at a user's table: what each column is, what every domain holds, what may leak."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from isthmus.data.encoding.alike import alike
from isthmus.data.encoding.clock import check_time, check_times
from isthmus.data.tables import Source, Table, open_table, refuse_empty
from isthmus.data.tables.faults import missing_column, wrong_type
from isthmus.data.tables.kinds import UNUSABLE
from isthmus.data.tables.plain import any_true, decode, matches
from isthmus.errors import SchemaError
from isthmus.inspect.guess import LEAK, Guess, group_rank, guess, lone_auc
from isthmus.inspect.inspection import Column, Inspection
from isthmus.inspect.look import DomainCounts, FirstLook, count_domains, look
from isthmus.inspect.target import (
    check_label,
    choose_label,
    equals_label,
    positive_rows,
    split_label,
)
from isthmus.schema import Time


def inspect_table(table: Source | Table, domain: str, label: str, *, seed: int = 0) -> Inspection:
    """Judge every column of a table whose domain and label columns are known.

    ``table``: anything that ``open_table`` takes; it is read a few times, in bounded memory.
    ``label``: a column of 0 and 1, or of numbers for which a threshold is chosen, or
    ``COLUMN=VALUE``: rows with that value are positive. ``seed``: of the rows that are drawn.

    Raises SchemaError for a missing column (naming the nearest), a label of other values (showing
    them and what to write), or with one value only, and a null domain or label (with file and row).
    """
    opened = open_table(table)
    refuse_empty(opened)
    opened, odd = _as_quantities(opened, keep=domain)
    column, value = split_label(label, opened)
    _check_roles(opened, domain, column)
    left_out = _unusable(opened)
    columns_in = [name for name in opened.columns if name not in left_out]
    if value is None:
        check_label(opened, column)
    seen = look(opened, columns_in, required=(domain, column), seed=seed)
    target = equals_label(opened, column, value) if value is not None else None
    if target is None:
        target = choose_label(column, seen.facts[column], seen.drawn[column], opened.rows)
    positive = positive_rows(target, seen.drawn[column])
    judged = [
        Column(name, str(dtype), "drop", left_out[name], {})
        if name in left_out
        else _judge(name, dtype, seen, positive, opened.rows)
        for name, dtype in opened.columns.items()
        if name not in (domain, column)
    ]
    time = _finest_time(judged, seen)
    columns = [
        _as_feature(one, one.name == time, opened, seen, positive) if one.use == "time" else one
        for one in judged
    ]
    weight = next((one.name for one in columns if one.use == "weight"), None)
    categorical = [one.name for one in columns if one.use == "categorical"]
    domains = tuple(count_domains(opened, domain=domain, label=target, categorical=categorical))
    own = lone_auc(seen.drawn[domain], positive, categorical=True)
    return Inspection(
        source=opened.source,
        rows=opened.rows,
        drawn=seen.drawn.height,
        domain=domain,
        label=target,
        columns=tuple(columns),
        domains=domains,
        warnings=(*odd, *_column_warnings(columns), *_domain_warnings(domain, own, domains)),
        time=time,
        group=_group(columns, seen),
        weight=weight,
        path=str(table) if isinstance(table, str | Path) else None,
        split="time" if time is not None and _divides(seen.drawn[time]) else "random",
    )


def _as_quantities(table: Table, *, keep: str) -> tuple[Table, list[str]]:
    """CSV columns such as 1.50, whose text no number gives back, as the numbers that they are.

    Leading zeros (007, a zip code) and bare exponents (3e5, a digest) are left as text, and so are
    whole numbers that 64 bits do not hold. Also warns of columns that one odd value turned to text.
    """
    text = [
        name for name, dtype in table.columns.items() if pa.types.is_string(dtype) and name != keep
    ]
    odd = {name: place for name in text if (place := table.odd(name)) is not None}
    loose = set(text) - odd.keys() if table.is_csv else set()
    pointed = set[str]()
    for block in table.blocks(sorted(loose)) if loose else ():
        for name in loose.copy():
            values = decode(block.batch.column(name))
            if any_true(matches(values, r"^[+-]?0[0-9]|^[0-9]+[eE][0-9]+$")):
                loose.discard(name)
            elif any_true(matches(values, r"[.]")):
                pointed.add(name)
    warnings = [
        f"column {name!r} is text because of {text!r} in {file}, row {row}: the values before it"
        " are numbers"
        for name, (file, row, text) in odd.items()
        if row > 0
    ]
    return table.reading(dict.fromkeys(loose & pointed, "number")), warnings


def _unusable(table: Table) -> dict[str, str]:
    """Columns that no use fits, with the reason: not in every file, or of several types."""
    found = {}
    for name in table.columns:
        try:
            table.check([name])
        except SchemaError as fault:
            found[name] = str(fault)
    return found


def _check_roles(table: Table, domain: str, label: str) -> None:
    for name in (domain, label):
        if name not in table.columns:
            raise missing_column(name, table.columns, table.source)
    if domain == label:
        raise SchemaError(f"domain and label must be two columns, got {domain!r} for both")
    table.check([domain, label])
    if table.kind(domain) in (*UNUSABLE, "null"):
        rule = "hold plain values (it is the domain)"
        raise wrong_type(domain, rule, table.columns[domain], table.source)
    if table.kind(label) in UNUSABLE:
        rule = "hold plain values (it is the label)"
        raise wrong_type(label, rule, table.columns[label], table.source)


def _judge(
    name: str, dtype: pa.DataType, seen: FirstLook, positive: np.ndarray, rows: int
) -> Column:
    drawn = seen.drawn[name] if name in seen.drawn.columns else pl.Series(name, [], pl.Int64)
    found = guess(name, dtype, seen.facts[name], drawn, rows=rows)
    alone = None
    if found.use not in ("drop", "time", "weight"):
        alone = lone_auc(drawn, positive, categorical=found.use == "categorical")
        if alone > LEAK:
            found = Guess("drop", _leak(alone), found.settings)
    return Column(name, str(dtype), found.use, found.note, found.settings, alone)


def _finest_time(judged: list[Column], seen: FirstLook) -> str | None:
    """The column to split by: the time with the most values, of those without nulls."""
    fit = {
        column.name: seen.drawn[column.name].n_unique()
        for column in judged
        if column.use == "time" and not seen.facts[column.name].nulls
    }
    return max(fit, key=lambda name: fit[name], default=None)


def _as_feature(
    column: Column, splits: bool, table: Table, seen: FirstLook, positive: np.ndarray
) -> Column:
    """A time as a feature, or left out where no clock reads it or where it gives the label away.

    ``splits``: it is the column to split by. Every row of a later split is newer than all train rows,
    so its age and its day of the year say nothing there.
    """
    name, kinds = column.name, {column.name: table.kind(column.name)}
    parts = ["hour", "weekday"] if kinds[name] != "date" else ["weekday"]
    settings = column.settings | ({"parts": parts} if splits else {})
    feature = Time.model_validate(settings)
    try:
        for file, types in table.schemas:
            check_time(name, feature, types[name], file)
        check_times({name: feature}, table.schemas, kinds)
    except SchemaError as fault:
        return replace(column, use="drop", note=str(fault))
    alone = None if splits else lone_auc(seen.drawn[name], positive, categorical=False)
    if alone is not None and alone > LEAK:
        return replace(column, use="drop", note=_leak(alone), auc=alone)
    return replace(column, settings=settings, auc=alone)


def _leak(alone: float) -> str:
    return f"alone it reaches AUC {alone:.4f}: it gives the label away"


def _group(columns: list[Column], seen: FirstLook) -> str | None:
    """The column that tells whom a row belongs to, by its name, if any."""
    ranked = {}
    for column in columns:
        rank = group_rank(column.name)
        is_value = column.auc is not None and column.use != "time"
        usable = column.use == "categorical" or is_value
        if rank is None or not usable or seen.facts[column.name].nulls:
            continue
        if seen.drawn[column.name].n_unique() > 10:
            ranked[column.name] = rank
    return min(ranked, key=lambda name: ranked[name], default=None)


def _divides(time: pl.Series) -> bool:
    """Whether times are fine enough to cut at: rows of one time are never parted."""
    counts = time.value_counts()["count"].to_numpy()
    return bool(counts.max() <= 0.05 * len(time))


def _column_warnings(columns: list[Column]) -> Iterator[str]:
    for column in columns:
        if column.use == "drop":
            yield f"column {column.name!r} is left out: {column.note}"


def _domain_warnings(domain: str, own: float, domains: tuple[DomainCounts, ...]) -> Iterator[str]:
    yield from alike(domain, {found.name: found.rows for found in domains})
    rows = sum(found.rows for found in domains)
    rate = sum(found.positives for found in domains) / rows
    if len(domains) == 1:
        yield f"domain {domain!r} has one value, {domains[0].name!r}: there is nothing to compare"
    if own > LEAK:
        yield f"domain {domain!r} gives the label away: alone it reaches AUC {own:.4f}"
    if len(domains) > 20 and rows / len(domains) < 50:
        yield (
            f"domain {domain!r} has {len(domains):,} values, {rows / len(domains):.1f} rows each on"
            " average: is it an id?"
        )
    one_class = [d for d in domains if d.positives in (0, d.rows)]
    if one_class:
        yield (
            f"domain {domain!r} gives the label away where it has one class only, and no AUC:"
            f" {_listed(one_class)}"
        )
    extreme = [
        found
        for found in domains
        if found not in one_class
        and 0.1 <= rate <= 0.9
        and not 0.02 <= found.positives / found.rows <= 0.98
    ]
    if extreme:
        yield (
            f"domain {domain!r} nearly gives the label away where its rate is near 0 or 1, against"
            f" {rate:.1%} over all rows: {_listed(extreme)}"
        )


def _listed(domains: list[DomainCounts]) -> str:
    shown = ", ".join(
        f"{found.name!r} ({found.positives:,} of {found.rows:,} positive)" for found in domains[:5]
    )
    more = f" and {len(domains) - 5:,} more" if len(domains) > 5 else ""
    return shown + more
