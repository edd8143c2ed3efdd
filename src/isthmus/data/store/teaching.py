"""What train rows teach: statistics of values, and a forest. Both are written out of fold.

The forest is stopped by its logloss on the half of the validation rows that stops trainings
(`stopping_half`): a guard decides by the other half, which no model that it judges may have seen.
Trees are added while they pay: `PATIENCE` of them must lower the logloss by a share of what the base
rate has, since each tree costs time at every row that is ever scored.

Folds are joined into `PARTS`, and the rows of a part are scored by a forest of as many trees that was
fitted on the others. The rows of the part say nothing to that forest: the statistics that it reads are
counted without them. Else a pair of rows with one value would tell each other's labels: either's
statistics hold the other's label, the forest learns how the two labels of a pair go together, and one
of the two is scored by it. (Planted random labels showed an AUC of .518 for train rows.)

A training hides the domain of some rows (`Batch.hide_domain`). So the forest learns what to say of no
domain from a share of rows whose domain is hidden, and each train row has a second score: what the
forest would say if the row's domain were hidden.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32
from scipy.special import expit, logit

from isthmus.data.encoding.counted.counted_columns import columns_of
from isthmus.data.encoding.counted.statistics import FOLDS, Statistics
from isthmus.data.encoding.taught import Taught
from isthmus.data.encoding.trees import ForestColumns, Trees, threads
from isthmus.data.store.counting.out_of_fold import FoldCounts, SplitRows, fill, slices, write_told
from isthmus.data.store.rows import stopping_half
from isthmus.data.tables import values as v
from isthmus.schema import DataConfig, FittedField, Forest

if TYPE_CHECKING:
    from lightgbm import Booster

PARTS = 4
FORESTS = PARTS + 1  # that are grown: one of all rows, and one without each part
DRAW_SEED = 0x7EE5
HIDDEN_SEED = 0x41DE
HIDDEN = 0.05  # share of the train rows whose domain a forest does not see
MOST_ROWS = 500_000  # train rows of one forest, drawn by a hash
MOST_TREES = 1000
LEAVES = (31, 127)  # where none are given: a leaf for each `LEAF_ROWS` rows, between these bounds
LEAF_ROWS = 2000
PATIENCE = 50  # trees that must lower the logloss by `GAIN`
GAIN = 1e-3  # of the logloss that the base rate has
LEAST_ROWS = 2  # that can stop a forest
UNSTOPPED = 100  # trees, where no validation rows can stop
SETTINGS: dict[str, Any] = {
    "objective": "binary",
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
    "verbosity": -1,
}


def teach(
    train: SplitRows, validation: SplitRows, fields: Sequence[FittedField], config: DataConfig
) -> Taught:
    """Fit what the config asks for on train rows, and write the numbers of both splits.

    ``validation``: rows that stop the forest.
    """
    counted = FoldCounts(train, columns_of(fields), config.negative_rate)
    statistics = counted.statistics()
    taught = Taught(statistics if counted.columns else None)
    write_told(train, counted.told(statistics))
    fill(taught, validation)
    if config.trees:
        columns = ForestColumns.of(fields)
        whole, trees = _whole(train, validation, columns, config.forest)
        _score_parts(train, columns, config.forest, trees, counted, statistics)
        taught = replace(taught, trees=Trees(columns, whole))
        fill(taught, validation)
    return taught


def grow(
    train: SplitRows, validation: SplitRows, fields: Sequence[FittedField], settings: Forest
) -> Trees:
    """Fit a forest on train rows that hold what they are told, stopped by validation rows.

    The forest depends on no score of a forest, so the rows of any encoded table with these fields
    give the one that the table would have been encoded with.
    """
    columns = ForestColumns.of(fields)
    return Trees(columns, _whole(train, validation, columns, settings)[0])


def leaves_for(rows: int) -> int:
    """The most leaves of a tree, where the config gives none. ``rows``: train rows."""
    return int(np.clip(rows // LEAF_ROWS, *LEAVES))


def _whole(
    train: SplitRows, validation: SplitRows, columns: ForestColumns, settings: Forest
) -> tuple["Booster | None", int]:
    """A forest of all train rows, or of those that are drawn, and how many trees were wanted."""
    everything = np.flatnonzero(_drawn(train, np.ones(len(train.row), dtype=bool)))
    return _fitted(train.take(everything), columns, settings, validation)


def _score_parts(
    train: SplitRows,
    columns: ForestColumns,
    settings: Forest,
    trees: int,
    counted: FoldCounts,
    statistics: Statistics,
) -> None:
    """Write two scores of each train row, by forests of so many trees of the other parts.

    The second is the score that the row would have if its domain were hidden.
    """
    assert train.fold is not None
    part_of = np.arange(FOLDS) * PARTS // FOLDS
    part = part_of[train.fold]
    for number in range(PARTS):
        told = list(counted.told(statistics, left_out=part_of == number))
        others = train.take(np.flatnonzero(_drawn(train, part != number)))
        write_told(others, told)
        forest = Trees(columns, _fitted(others, columns, settings, None, trees)[0])
        for some in slices(len(part)):
            at = some.start + np.flatnonzero(part[some] == number)
            rows = train.take(at)
            write_told(rows, told)
            matrix = _matrix(rows, columns)
            train.arrays.numeric[at, columns.score] = forest.score(matrix)
            columns.hide(matrix, np.arange(len(at)))
            train.arrays.numeric[at, columns.score + 1] = forest.score(matrix)


def _drawn(train: SplitRows, wanted: Bool[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    """The wanted rows, or about `MOST_ROWS` of them, drawn by a hash of the row."""
    there = int(wanted.sum())
    return wanted if there <= MOST_ROWS else wanted & _share(train, DRAW_SEED, MOST_ROWS / there)


def _share(rows: SplitRows, seed: int, share: float) -> Bool[np.ndarray, " rows"]:
    """Which rows belong to a share of all rows, by a hash of the row's number."""
    hashed = v.mix(np.asarray(rows.row, dtype=np.int64), seed=seed)
    return hashed < np.uint64(int(share * 2.0**64))


def _fitted(
    train: SplitRows,
    columns: ForestColumns,
    forest: Forest,
    validation: SplitRows | None,
    trees: int = UNSTOPPED,
) -> tuple["Booster | None", int]:
    """A forest of train rows, and how many trees it has. None where the rows hold one class.

    ``validation``: rows that stop it; without them it has ``trees`` trees.
    """
    import lightgbm

    label, weight = train.arrays.label, train.arrays.weight
    if not len(label) or label.min() == label.max():
        return None, trees
    base = float(logit(np.average(label, weights=weight)))
    settings = SETTINGS | {
        "num_leaves": forest.leaves or leaves_for(len(label)),
        "learning_rate": forest.rate,
        "min_data_in_leaf": forest.least_rows,
        "feature_fraction": forest.columns,
        "lambda_l2": forest.l2,
        "num_threads": threads(),
    }
    matrix = _matrix(train, columns)
    columns.hide(matrix, np.flatnonzero(_share(train, HIDDEN_SEED, HIDDEN)))
    given: dict[str, Any] = {"categorical_feature": columns.categorical, "params": settings}
    start = np.full(len(label), base)
    data = lightgbm.Dataset(matrix, label, weight=weight, init_score=start, **given)
    stopping = (
        np.empty(0, np.int64) if validation is None else np.flatnonzero(stopping_half(validation))
    )
    if validation is None or len(stopping) < LEAST_ROWS:
        return lightgbm.train(settings, data, num_boost_round=trees), trees
    held = validation.take(stopping[:MOST_ROWS])
    stop = lightgbm.Dataset(
        _matrix(held, columns),
        held.arrays.label,
        weight=held.arrays.weight,
        init_score=np.full(len(held.row), base),
        reference=data,
        **given,
    )
    rate = expit(base)
    least = GAIN * float(-(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))
    booster = lightgbm.train(
        settings,
        data,
        num_boost_round=MOST_TREES,
        valid_sets=[stop],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False, min_delta=least)],
    )
    best = max(1, booster.best_iteration)
    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=best)), best


def _matrix(rows: SplitRows, columns: ForestColumns) -> Float32[np.ndarray, "rows columns"]:
    """Rows as the forest reads them."""
    domain = rows.domains(slice(0, len(rows.row)))
    return columns.matrix(rows.arrays.numeric, rows.arrays.categorical, domain)
