"""Value statistics of a new domain, fitted on its own train rows; those that were there stay."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from isthmus.data.encoding.counted.cells import FoldCells
from isthmus.data.encoding.counted.counted_columns import columns_of
from isthmus.data.encoding.counted.later import Later, later_rate, with_later
from isthmus.data.encoding.counted.statistics import FOLDS, Statistics
from isthmus.data.store.counting.out_of_fold import SplitRows, counted_cells, fill
from isthmus.extending.new_table import EncodedTable


def teach_own(table: EncodedTable, before: Mapping[str, int]) -> EncodedTable:
    """Fit the last domain's statistics, and write the numbers of all rows: train rows' out of fold.

    ``table``: rows of that domain alone, whose encoder has grown. ``before``: ids of each vocabulary before
    the domain came. The forest, which stays as it is, then says its score of each row.
    """
    taught = table.encoder.taught
    if taught.statistics is None:
        table.fill(taught, "train", "validation", "test")
        return table
    own = _OwnCounts(table, taught.statistics, before)
    train = table.split_rows("train")
    assert train.fold is not None
    for fold in range(FOLDS):
        at = np.flatnonzero(train.fold == fold)
        if not len(at):
            continue
        rows = train.take(at)
        told = own.statistics(np.arange(FOLDS) != fold)
        fill(replace(taught, statistics=told), rows)
        train.arrays.numeric[at] = rows.arrays.numeric
    taught = replace(taught, statistics=own.statistics(np.ones(FOLDS, dtype=bool)))
    table = replace(table, encoder=replace(table.encoder, taught=taught))
    table.fill(taught, "validation", "test")
    return table


class _OwnCounts:
    """The train rows of the new domain by value and fold, over the statistics of the fit."""

    def __init__(
        self, table: EncodedTable, statistics: Statistics, before: Mapping[str, int]
    ) -> None:
        encoder, train = table.encoder, table.split_rows("train")
        growth = encoder.growth
        assert growth is not None
        assert train.fold is not None
        fields = {one.name: one for one in encoder.fields}
        columns = columns_of(encoder.fields)
        self.fitted = Statistics.of_arrays(
            statistics.to_arrays(), columns, statistics.negative_rate
        )
        self.later = statistics.later or Later.none(len(columns))
        # Pairs of columns get no new pairs: none is behind the last.
        self.first = [
            before[fields[one.column.name].table] if one.column.name in fields else one.column.rows
            for one in self.fitted.columns
        ]
        came = np.full(len(train.row), growth.ever, dtype=np.int32)
        rows = SplitRows(
            replace(train.arrays, domain=came), growth.ever, train.row, train.fold, train.group
        )
        self.cells: list[FoldCells] = [
            counted_cells(rows, one.column) for one in self.fitted.columns
        ]
        label, weight = np.asarray(train.arrays.label, dtype=np.float64), train.arrays.weight
        mass = np.ones_like(label) if weight is None else weight.astype(np.float64)
        self.rows = np.bincount(train.fold, mass, minlength=FOLDS)
        self.positives = np.bincount(train.fold, mass * label, minlength=FOLDS)

    def statistics(self, folds: Bool[np.ndarray, " folds"]) -> Statistics:
        """The statistics by the domain's rows in some folds, beside those that were there."""
        rate = later_rate(self.fitted, self.rows[folds].sum(), self.positives[folds].sum())
        counts = [cells.total(folds) for cells in self.cells]
        return with_later(self.fitted, self.later.followed(rate, self.first, counts))
