"""Logged rows that found their label, and how many did not, and why."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.data.tables import Table, refuse_empty
from isthmus.data.tables import columns as c
from isthmus.data.tables import values as v
from isthmus.data.tables.plain import decode, null_mask
from isthmus.errors import SchemaError
from isthmus.metrics.text_table import count_text
from isthmus.schema import Label

ROW = "row"


@dataclass(frozen=True, slots=True)
class JoinCounts:
    """What became of the rows of a log and of a table of labels."""

    logged: int  # rows of the log
    other_bundles: int  # of them, scored by another bundle than the one that is looked at
    logged_again: int  # of the same id and row as an earlier one
    torn: int  # lines of the log that could not be read
    ambiguous: int  # rows that share their id with others, while the labels tell no row
    without_label: int  # rows that no label was found for
    with_label: int  # rows that found their label
    labels: int  # rows of the table that have a label
    labels_again: int  # of them, for the same row as an earlier one, with the same label
    labels_at_odds: int  # of them, for a row that has both labels: none counts
    labels_unused: int  # labels of rows that the log does not hold

    def told(self) -> list[str]:
        """Sentences on all that was left out."""
        rules = (
            (self.torn, "line", "of the log could not be read"),
            (self.other_bundles, "row", "of the log came from another bundle"),
            (self.logged_again, "row", "of the log stood there before, by id and row"),
            (
                self.ambiguous,
                "row",
                "of the log shared an id with other rows, and the labels tell no row",
            ),
            (self.without_label, "row", "of the log had no label"),
            (self.labels_again, "label", "stood in the table before"),
            (self.labels_at_odds, "label", "contradicted another one of the same row"),
            (self.labels_unused, "label", "belonged to no row of the log"),
        )
        return [f"{count_text(count, noun)} {rule}." for count, noun, rule in rules if count]

    def to_dict(self) -> dict[str, int]:
        """Give plain values."""
        return asdict(self)


def read_labels(table: Table, *, id: str, label: str, row: str | None) -> pl.DataFrame:
    """Read ids as text, rows and labels; rows without an id or a label are left out.

    ``row``: the column with the place in the request. None takes ``row`` where the table has it; the
    frame has no column ``row`` where there is none. Raises SchemaError for a column that is missing, a
    label other than 0 and 1, or a place that is no whole number.
    """
    refuse_empty(table)
    if row is None and ROW in table.columns:
        row = ROW
    columns = [id, label, *([] if row is None else [row])]
    table.check_usable(columns)
    frames = []
    for block in table.blocks(list(dict.fromkeys(columns))):
        origin = c.Origin(block.file, block.file_row)
        found = c.labels(Label(column=label), block.batch.column(label), origin, unlabelled=True)
        held: dict[str, Any] = {"id": v.names(block.batch.column(id)).to_pylist(), "label": found}
        schema: dict[str, Any] = {"id": pl.String, "label": pl.Float32}
        if row is not None:
            held["row"] = _places(row, block.batch.column(row), origin)
            schema["row"] = pl.Int64
        frames.append(pl.DataFrame(held, schema=schema))
    return pl.concat(frames).filter(pl.col("label").is_not_nan()).drop_nulls()


def _places(column: str, array: pa.Array, origin: c.Origin) -> np.ndarray:
    array = decode(array)
    origin.refuse(column, "tell the place in the request", null_mask(array), "null")
    try:
        return pc.cast(array, pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as fault:
        raise SchemaError(
            f"column {column!r} must hold whole numbers, places in the request from 0 on: {fault}"
        ) from fault


def join_labels(
    logged: pl.DataFrame, labels: pl.DataFrame, *, torn: int, other_bundles: int
) -> tuple[pl.DataFrame, JoinCounts]:
    """Join rows of one bundle with their labels, by id and row where the labels tell the row.

    ``logged``: of a `LoggedRows`, without the ``other_bundles`` rows of other bundles. Gives the rows
    with a column ``label`` (bool), in the order of the log.
    """
    first = logged.unique(["id", "row"], keep="first", maintain_order=True)
    by = ["id", "row"] if "row" in labels.columns else ["id"]
    told = first
    if by == ["id"]:
        told = first.filter(pl.len().over("id") == 1)
    kinds = labels.group_by(by).agg(
        pl.len().alias("count"), pl.col("label").n_unique().alias("kinds"), pl.col("label").first()
    )
    agreed = kinds.filter(pl.col("kinds") == 1)
    found = told.join(agreed.select(*by, "label"), on=by, how="left", maintain_order="left")
    kept = found.drop_nulls("label").with_columns(label=pl.col("label") > 0.5)
    unused = agreed.join(told, on=by, how="anti")
    counts = JoinCounts(
        logged=len(logged) + other_bundles,
        other_bundles=other_bundles,
        logged_again=len(logged) - len(first),
        torn=torn,
        ambiguous=len(first) - len(told),
        without_label=len(found) - len(kept),
        with_label=len(kept),
        labels=len(labels),
        labels_again=int((agreed["count"] - 1).sum()),
        labels_at_odds=int(kinds.filter(pl.col("kinds") > 1)["count"].sum()),
        labels_unused=len(unused),
    )
    return kept, counts
