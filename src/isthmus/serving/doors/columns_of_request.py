"""Columns that a request names, in whatever dialect, brought to the order of the encoder."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from isthmus.data.encoding.roles import vocabulary_name
from isthmus.data.requests import RowEncoder
from isthmus.data.tables.faults import missing_column
from isthmus.data.tables.kinds import BOTH_SIGNS, NUMBERS
from isthmus.schema import Categorical, CategoricalList, Numeric, NumericList, Time, Vector
from isthmus.serving.doors.refusal import Refusal

SOURCE = "the request"


def in_order(encoder: RowEncoder, given: Mapping[str, Sequence[Any]]) -> list[Sequence[Any]]:
    """The columns that the encoder reads, in its order; others are left. Raises `Refusal`."""
    for name in encoder.columns:
        if name not in given:
            text = str(missing_column(name, given, SOURCE))
            raise Refusal(422, text, column=name)
    return [given[name] for name in encoder.columns]


def is_listed(encoder: RowEncoder, column: str) -> bool:
    """Whether a column holds a list in every row."""
    feature = encoder.encoder.config.features.get(column)
    return isinstance(feature, CategoricalList | NumericList | Vector)


def is_number(encoder: RowEncoder, column: str) -> bool:
    """Whether the values of a column are numbers."""
    config, kinds = encoder.encoder.config, encoder.encoder.kinds
    feature = config.features.get(column)
    if isinstance(feature, Numeric):
        return True
    if isinstance(feature, Time):
        return feature.unit is not None
    if isinstance(feature, Categorical):
        return kinds[vocabulary_name(config, column)] in (*NUMBERS, BOTH_SIGNS)
    return False


def parsed_lists(column: str, values: Sequence[Any]) -> list[Any]:
    """Lists that came as JSON texts. Raises `Refusal`, with the row, for a text that is none."""
    return list(_parsed(column, values))


def _parsed(column: str, values: Sequence[Any]) -> Iterator[Any]:
    for row, value in enumerate(values):
        if not isinstance(value, str | bytes):
            yield value
            continue
        try:
            found = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = value
        if found is not None and not isinstance(found, list):
            raise Refusal(
                422,
                f"column {column!r} must hold a list as JSON in {SOURCE}, row {row}",
                column=column,
                row=row,
            )
        yield found


def check_counts(given: Mapping[str, Sequence[Any]], max_rows: int) -> int:
    """The number of rows. Raises `Refusal` where columns differ, or there are too many rows."""
    counts = {name: len(values) for name, values in given.items()}
    rows = next(iter(counts.values()), 0)
    for name, count in counts.items():
        if count != rows:
            raise Refusal(
                422, f"columns must have {rows} rows, as the first, got {count} in {name!r}"
            )
    if rows > max_rows:
        raise Refusal(413, f"a request must have at most {max_rows:,} rows, got {rows:,}")
    return rows


def check_items(encoder: RowEncoder, given: Mapping[str, Sequence[Any]], max_items: int) -> None:
    """Raise `Refusal` for a list that is too long."""
    for name in encoder.columns:
        if not is_listed(encoder, name):
            continue
        for row, value in enumerate(given[name]):
            if isinstance(value, list) and len(value) > max_items:
                raise Refusal(
                    413,
                    f"a list must have at most {max_items:,} items, got {len(value):,} in column"
                    f" {name!r}, row {row}",
                    column=name,
                    row=row,
                )
