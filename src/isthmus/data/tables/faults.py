"""Errors about tables: the rule, then the value, with file, column and row."""

from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches

import pyarrow as pa

from isthmus.errors import SchemaError


def missing_column(column: str, columns: Iterable[str], file: str) -> SchemaError:
    """A column that the config names and the table lacks; the text names the nearest one."""
    hint = _nearest(column, list(columns))
    return SchemaError(f"column {column!r} must be in the table, got none in {file}; {hint}")


def unknown_domain(name: str, domains: Iterable[str], table: str) -> SchemaError:
    """A domain that the config names and no row has; the text names the nearest one."""
    hint = _nearest(name, sorted(domains))
    return SchemaError(
        f"data.domains must name domains of the table, got {name!r} in {table}; {hint}"
    )


def _nearest(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"the nearest is {near[0]!r}"
    more = f" and {len(known) - 12} more" if len(known) > 12 else ""
    return f"it has {', '.join(map(repr, known[:12]))}{more}"


def wrong_type(column: str, rule: str, got: object, file: str) -> SchemaError:
    """A column of another type than its kind asks for."""
    return SchemaError(f"column {column!r} must {rule}, got {got} in {file}")


def bad_value(column: str, rule: str, value: object, file: str, row: int) -> SchemaError:
    """A value that breaks a rule. ``row`` counts from 0 within the file."""
    return SchemaError(f"column {column!r} must {rule}, got {value} in {file}, row {row}")


def check_once(columns: Iterable[str], file: str) -> None:
    """Raise ``SchemaError`` for the first column name that occurs twice."""
    for column, times in Counter(columns).items():
        if times > 1:
            raise SchemaError(f"column {column!r} must occur once, got it twice in {file}")


def column_types(schema: pa.Schema, file: str) -> dict[str, pa.DataType]:
    """Name and type of every column; ``SchemaError`` for a name that occurs twice."""
    check_once(schema.names, file)
    return {field.name: field.type for field in schema}
