"""A first look at a user's table: what each column is, what every domain holds, what may leak."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from os.path import isabs, relpath
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import yaml

from isthmus.data import values as v
from isthmus.data.faults import missing_column, wrong_type
from isthmus.data.guess import LEAK, Facts, Guess, group_rank, guess, lone_auc
from isthmus.data.read import Source, Table, open_table
from isthmus.data.scan import DomainCounts, Look, column_types, count_domains, look
from isthmus.data.template import model_and_train, scalar
from isthmus.errors import SchemaError
from isthmus.schema import Label

__all__ = ["Column", "DomainCounts", "Inspection", "inspect_table"]

_SHOWN = 20  # domains that the text shows
_PAD = 36  # where the comments of the config begin


@dataclass(frozen=True, slots=True)
class Column:
    """One column, judged.

    ``use``: a kind of feature, ``time``, ``weight`` or ``drop``. ``dtype``: its Arrow type.
    ``note``: why. ``settings``: keys of the feature. ``auc``: what the column reaches alone in
    telling the label, in either direction; None where it was not asked.
    """

    name: str
    dtype: str
    use: str
    note: str
    settings: dict[str, Any]
    auc: float | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a table holds, and the config that follows from it. Prints as text.

    ``rows`` of the table and its ``domains``, largest first, are counted in full; the columns are
    judged on ``drawn`` rows, taken at random when the table has more than about 500,000.
    ``columns``: all but domain and label, in the order of the table. ``warnings``: what a user
    should look at before trusting a model of this table. ``path``: of the table; None of a frame.
    """

    source: str
    rows: int
    drawn: int
    domain: str
    label: Label
    columns: tuple[Column, ...]
    domains: tuple[DomainCounts, ...]
    warnings: tuple[str, ...]
    time: str | None = None
    group: str | None = None
    weight: str | None = None
    split: str = "random"
    path: str | None = None

    @property
    def positives(self) -> int:
        """Rows whose label is positive."""
        return sum(found.positives for found in self.domains)

    def config_text(self, table: str | None = None, *, folder: Path | str | None = None) -> str:
        """Write the config as commented YAML that ``fit`` accepts unchanged.

        ``table``: what stands for the path of the table; default the path as it was given, seen
        from ``folder``, where the config will stand (default: the working directory). A frame has
        no path: ``fit`` is given the frame too.
        """
        path = table if table is not None else self.path
        if table is None and path is not None and folder is not None and not isabs(path):
            path = relpath(path, folder)
        return "\n".join([*_header(self), "", *_data_section(self, path), "", model_and_train()])

    def __str__(self) -> str:
        return "\n".join(_summary(self))


def inspect_table(table: Source | Table, domain: str, label: str, *, seed: int = 0) -> Inspection:
    """Judge every column of a table whose domain and label columns are known.

    ``table``: anything that ``open_table`` takes; it is read twice, in bounded memory. ``label``:
    0 or 1, or numbers for which a threshold is chosen. ``seed``: of the rows that are drawn.

    Raises SchemaError for a missing column (naming the nearest), a label that is no number or has
    one value only, and a null domain or label (naming file and row).
    """
    opened = open_table(table)
    types = column_types(opened)
    _check_roles(types, domain, label, opened.source)
    seen = look(opened, required=(domain, label), seed=seed)
    target = _choose_label(label, seen.facts[label], seen.drawn[label], opened.rows)
    positive = _positive(target, seen.drawn[label])
    judged = [
        _judge(name, dtype, seen, positive, opened.rows)
        for name, dtype in types.items()
        if name not in (domain, label)
    ]
    time, columns = _one_time(judged, seen)
    weight = next((column.name for column in columns if column.use == "weight"), None)
    categorical = [column.name for column in columns if column.use == "categorical"]
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
        warnings=(*_column_warnings(columns), *_domain_warnings(domain, own, domains)),
        time=time,
        group=_group(columns, seen),
        weight=weight,
        path=str(table) if isinstance(table, str | Path) else None,
        split="time" if time is not None and _divides(seen.drawn[time]) else "random",
    )


def _check_roles(types: dict[str, pa.DataType], domain: str, label: str, source: str) -> None:
    for name in (domain, label):
        if name not in types:
            raise missing_column(name, types, source)
    if domain == label:
        raise SchemaError(f"domain and label must be two columns, got {domain!r} for both")
    if v.kind(types[domain]) in ("list", "other", "null"):
        rule = "hold plain values (it is the domain)"
        raise wrong_type(domain, rule, types[domain], source)
    if v.kind(types[label]) not in (*v.NUMBERS, "decimal"):
        rule = "be numeric or boolean (it is the label)"
        raise wrong_type(label, rule, types[label], source)


def _choose_label(name: str, facts: Facts, drawn: pl.Series, rows: int) -> Label:
    """0 and 1 as they are; other numbers above the threshold that divides the rows best."""
    if facts.lowest == facts.highest:
        rule = (
            f"hold two values or more (it is the label), got {facts.lowest:g} in all {rows:,} rows"
        )
        raise SchemaError(f"column {name!r} must {rule}")
    number = drawn.cast(pl.Float64).to_numpy()
    number = number[np.isfinite(number)]
    values = np.unique([facts.lowest, facts.highest, *np.unique(number)[:1000]])
    if len(values) == 2:
        if (values == (0, 1)).all():
            return Label(column=name)
        return Label(column=name, above=0.0 if values[0] < 0 < values[1] else values[0])
    if len(values) <= 20:  # a rating: as many rows above as not, as nearly as can be
        shares = [abs(np.mean(number > value) - 0.5) for value in values[:-1]]
        return Label(column=name, above=float(values[int(np.argmin(shares))]))
    if values[0] >= 0 and 0.05 <= np.mean(number == 0) <= 0.95:
        return Label(column=name, above=0.0)
    return Label(column=name, above=float(np.median(number)))


def _positive(label: Label, drawn: pl.Series) -> np.ndarray:
    number = drawn.cast(pl.Float64).to_numpy()
    return number == 1 if label.above is None else number > label.above


def _judge(name: str, dtype: pa.DataType, seen: Look, positive: np.ndarray, rows: int) -> Column:
    drawn = seen.drawn[name] if name in seen.drawn.columns else pl.Series(name, [], pl.Int64)
    found = guess(name, dtype, seen.facts[name], drawn, rows=rows)
    alone = None
    if found.use not in ("drop", "time", "weight"):
        alone = lone_auc(drawn, positive, categorical=found.use == "categorical")
        if alone > LEAK:
            reason = f"alone it reaches AUC {alone:.4f}: it gives the label away"
            found = Guess("drop", reason, found.settings)
    return Column(name, str(dtype), found.use, found.note, found.settings, alone)


def _one_time(judged: list[Column], seen: Look) -> tuple[str | None, list[Column]]:
    """Keep one time column, the finest without nulls; the others are no features."""
    fit = {
        column.name: seen.drawn[column.name].n_unique()
        for column in judged
        if column.use == "time" and not seen.facts[column.name].nulls
    }
    chosen = max(fit, key=lambda name: fit[name], default=None)
    columns = []
    for column in judged:
        if column.use == "time" and column.name != chosen:
            nulls = seen.facts[column.name].nulls
            reason = f"a time with {nulls:,} nulls" if nulls else f"a second time beside {chosen!r}"
            columns.append(replace(column, use="drop", note=reason))
        else:
            columns.append(column)
    return chosen, columns


def _group(columns: list[Column], seen: Look) -> str | None:
    """The column that tells whom a row belongs to, by its name, if any."""
    ranked = {}
    for column in columns:
        rank = group_rank(column.name)
        usable = column.use == "categorical" or column.auc is not None
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


def _label_text(label: Label) -> str:
    return label.column if label.above is None else f"{label.column} > {_number(label.above)}"


def _number(value: float) -> str:
    """A number as YAML reads it back."""
    plain = int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)
    return yaml.safe_dump(plain).split("\n")[0]


def _read_text(found: Inspection) -> str:
    if found.drawn == found.rows:
        return f"columns judged on all {found.rows:,} rows"
    return f"columns judged on {found.drawn:,} rows drawn at random from {found.rows:,}"


def _header(found: Inspection) -> list[str]:
    rate = found.positives / found.rows
    return [
        f"# Guessed from {_one_line(found.source)}: {found.rows:,} rows,"
        f" {len(found.domains):,} domains, {rate:.1%} positive;",
        f"# {_read_text(found)}. Read it through, then: isthmus fit",
        *(f"# Warning: {_one_line(warning)}" for warning in found.warnings),
    ]


def _data_section(found: Inspection, path: str | None) -> list[str]:
    label = scalar(found.label.column)
    if found.label.above is not None:
        label = f"{{column: {label}, above: {_number(found.label.above)}}}"
    positive = f"positive: {_one_line(_label_text(found.label))}"
    lines = [
        "data:",
        f"  table: {scalar(path)}" if path is not None else "  # table:  given to fit from Python",
        _line(f"  domain: {scalar(found.domain)}", f"{len(found.domains):,} values"),
        _line(f"  label: {label}", "0 or 1" if found.label.above is None else positive),
        *_role("time", found.time, "for the split by time"),
        *_role("group", found.group, "whom a row belongs to: GAUC, intervals, split by user"),
        *_role("weight", found.weight, "of a row in loss and metrics"),
        _line("  # negative_rate: 1.0", "share of negatives that was kept when the table was made"),
        _line("  features:", "categorical | numeric | categorical_list | numeric_list | vector"),
        _line(
            f"    {scalar(found.domain)}: categorical",
            "the domain: left out, only adapters and towers know it",
        ),
    ]
    for column in found.columns:
        entry = f"{scalar(column.name)}: {_feature(column)}"
        if column.use == "drop":
            lines.append(_line(f"    # {scalar(column.name)}:", f"left out: {column.note}"))
        elif column.use not in ("time", "weight"):
            lines.append(_line(f"    {entry}", column.note))
    split = f"  split: {{by: {found.split}, fractions: [0.8, 0.1, 0.1], seed: 0}}"
    lines.append(_line(split, "random | time | user"))
    return lines


def _role(role: str, column: str | None, comment: str) -> Iterator[str]:
    name = f"  # {role}:" if column is None else f"  {role}: {scalar(column)}"
    yield _line(name, comment)


def _feature(column: Column) -> str:
    if not column.settings:
        return column.use
    settings = "".join(f", {key}: {value}" for key, value in column.settings.items())
    return f"{{kind: {column.use}{settings}}}"


def _line(text: str, comment: str) -> str:
    return f"{text:<{_PAD}} # {_one_line(comment)}" if comment else text


def _one_line(text: str) -> str:
    """Text that cannot end the comment it stands in."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _summary(found: Inspection) -> Iterator[str]:
    yield (
        f"{found.source}: {found.rows:,} rows, label {_label_text(found.label)}"
        f" ({found.positives / found.rows:.1%} positive), {_read_text(found)}"
    )
    width = max([len(found.domain), *(len(d.name) for d in found.domains[:_SHOWN])])
    yield f"\n{found.domain:<{width}} {'rows':>12} {'label rate':>11} {'rare values':>12}"
    for one in found.domains[:_SHOWN]:
        rate = one.positives / one.rows
        yield f"{one.name:<{width}} {one.rows:>12,} {rate:>11.2%} {one.rare:>12.2%}"
    if len(found.domains) > _SHOWN:
        yield f"and {len(found.domains) - _SHOWN:,} smaller domains"
    width = max((len(column.name) for column in found.columns), default=6)
    yield f"\n{'column':<{width}} {'use':<17} {'alone (AUC)':>11}  why"
    for column in found.columns:
        alone = "" if column.auc is None else f"{column.auc:.3f}"
        yield f"{column.name:<{width}} {column.use:<17} {alone:>11}  {column.note}"
    for warning in found.warnings:
        yield f"warning: {warning}"
