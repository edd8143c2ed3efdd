"""The label of a table that somebody looks at for the first time: what makes a row positive."""

from typing import Any

import numpy as np
import polars as pl
import yaml

from isthmus.data.tables import Table
from isthmus.data.tables import columns as c
from isthmus.data.tables import values as v
from isthmus.data.tables.kinds import NUMBERS
from isthmus.data.tables.plain import decode, plain
from isthmus.errors import SchemaError
from isthmus.inspect.guess import Facts
from isthmus.inspect.template import scalar
from isthmus.schema import Label


def split_label(label: str, table: Table) -> tuple[str, str | None]:
    """``COLUMN=VALUE`` apart, where no column has that whole name."""
    column, equals, value = label.partition("=")
    if label in table.columns or not equals or column not in table.columns:
        return label, None
    return column, value


def check_label(table: Table, label: str) -> None:
    """Refuse a label that is no number, with its values and with what to write."""
    if table.kind(label) in NUMBERS:
        return
    found = _some_values(table, label)
    shown = " and ".join(map(repr, found)) if len(found) == 2 else ", ".join(map(repr, found))
    one = found[-1] if found else "VALUE"
    raise SchemaError(
        f"column {label!r} must be numeric or boolean (it is the label), got {shown or 'nulls'} in"
        f" {table.source}; say which value is positive: --label {f'{label}={one}'!r}, in a config"
        f" label: {{column: {scalar(label)}, equals: {scalar(one)}}}"
    )


def _some_values(table: Table, column: str, most: int = 5) -> list[str]:
    """Names of the first few values of a column, sorted."""
    found: dict[str, None] = {}
    for block in table.blocks([column]):
        array = decode(block.batch.column(0)).dictionary_encode().dictionary
        found |= dict.fromkeys(x for x in v.names(array).to_pylist() if x is not None)
        if len(found) >= most:
            break
    return sorted(list(found)[:most])


def equals_label(table: Table, column: str, value: str) -> Label:
    """The label that is positive at ``value``, which must occur and must not be alone."""
    like: Any = value
    if table.kind(column) in NUMBERS:
        like = yaml.safe_load(value)
        if not isinstance(like, bool | int | float):
            raise SchemaError(
                f"label {column!r} holds numbers, so its positive value must be one, got {value!r}"
            )
    label = Label(column=column, equals=like)
    rows = positives = 0
    for block in table.blocks([column]):
        origin = c.Origin(block.file, block.file_row)
        found = c.labels(label, block.batch.column(0), origin)
        rows, positives = rows + len(found), positives + int(found.sum())
    if positives in (0, rows):
        shown = ", ".join(map(repr, _some_values(table, column)))
        raise SchemaError(
            f"column {column!r} must hold {value!r} in some rows and another value in others, got it"
            f" in {positives:,} of {rows:,} rows; its values are {shown}"
        )
    return label


def choose_label(name: str, facts: Facts, drawn: pl.Series, rows: int) -> Label:
    """0 and 1 as they are; other numbers above the threshold that divides the rows best."""
    if facts.lowest == facts.highest:
        raise SchemaError(
            f"column {name!r} must hold two values or more (it is the label), got"
            f" {facts.lowest:g} in all {rows:,} rows"
        )
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


def positive_rows(label: Label, drawn: pl.Series) -> np.ndarray:
    """Bool (rows,): which of the drawn values of the label's column are positive."""
    if label.equals is not None:
        return c.labels(label, plain(drawn.to_arrow()), c.Origin("", 0)) > 0
    number = drawn.cast(pl.Float64).to_numpy()
    return number == 1 if label.above is None else number > label.above
