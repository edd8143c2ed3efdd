"""The forest of encoded rows: fitted on train rows, and its scores written out of fold.

The forest is stopped by its logloss on validation rows. Train rows are divided into `PARTS`, and the
rows of a part are scored by a forest of as many trees that was fitted on the others.

A training hides the domain of some rows (`Batch.hide_domain`). So the forest learns what to say of no
domain from a share of rows whose domain is hidden, and each train row has a second score: what the
forest would say if the row's domain were hidden.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt64
from scipy.special import logit

from isthmus.data.encoding.trees import ForestColumns, Trees, threads
from isthmus.data.store.out_of_fold import SplitRows, slices
from isthmus.data.tables import values as v
from isthmus.schema import FittedField

if TYPE_CHECKING:
    from lightgbm import Booster

PARTS = 4
PART_SEED = 0x7EE5
HIDDEN_SEED = 0x41DE
HIDDEN = 0.05  # share of the train rows whose domain a forest does not see
MOST_ROWS = 1_000_000  # train rows of one forest, drawn by a hash
MOST_TREES = 500
PATIENCE = 25
LEAST_ROWS = 2  # validation rows, to stop by
UNSTOPPED = 100  # trees, where no validation rows can stop
SETTINGS: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.1,
    "num_leaves": 31,
    "min_data_in_leaf": 20,
    "cat_smooth": 10.0,
    "max_cat_to_onehot": 4,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
    "verbosity": -1,
}


def grow(train: SplitRows, validation: SplitRows, fields: Sequence[FittedField]) -> Trees:
    """Fit a forest on train rows, and write the rows' own scores out of fold.

    Two columns of ``train.arrays.numeric`` are written: the score, and the score of the row if its
    domain were hidden. Statistics must stand there already, in ``validation`` too.
    """
    columns = ForestColumns.of(fields)
    hashed = v.mix(v.mix(np.asarray(train.keys, dtype=np.int64)).view(np.int64), seed=PART_SEED)
    part = (hashed % np.uint64(PARTS)).astype(np.uint8)
    everything = np.ones(len(part), dtype=bool)
    whole, trees = _fitted(train, columns, _drawn(hashed, everything), validation)
    for number in range(PARTS):
        booster, _ = _fitted(train, columns, _drawn(hashed, part != number), None, trees)
        _write_scores(train, Trees(columns, booster), part == number)
    return Trees(columns, whole)


def _write_scores(train: SplitRows, trees: Trees, wanted: Bool[np.ndarray, " rows"]) -> None:
    """Write both scores of the wanted train rows."""
    columns, numeric = trees.columns, train.arrays.numeric
    for some in slices(len(wanted)):
        at = some.start + np.flatnonzero(wanted[some])
        matrix = _matrix(train, columns, at)
        numeric[at, columns.score] = trees.score(matrix)
        columns.hide(matrix, np.arange(len(at)))
        numeric[at, columns.score + 1] = trees.score(matrix)


def _drawn(
    hashed: UInt64[np.ndarray, " rows"], wanted: Bool[np.ndarray, " rows"]
) -> Int64[np.ndarray, " drawn"]:
    """Positions of the wanted rows, or of about `MOST_ROWS` of them, drawn by the hash."""
    there = int(wanted.sum())
    if there > MOST_ROWS:
        # The part follows from the remainder of the hash, the draw from its size.
        wanted = wanted & (hashed < np.uint64(int(MOST_ROWS / there * 2.0**64)))
    return np.flatnonzero(wanted)


def _fitted(
    train: SplitRows,
    columns: ForestColumns,
    at: Int64[np.ndarray, " drawn"],
    validation: SplitRows | None,
    trees: int = UNSTOPPED,
) -> tuple["Booster | None", int]:
    """A forest of the train rows at ``at``, and how many trees it has.

    ``validation``: rows that stop it; without them it has ``trees`` trees.
    """
    import lightgbm

    label, weight = _labels(train, at)
    if not len(at) or label.min() == label.max():
        return None, trees
    base = float(logit(np.average(label, weights=weight)))
    settings = SETTINGS | {"num_threads": threads()}
    matrix = _matrix(train, columns, at)
    keys = np.asarray(train.keys[at], dtype=np.int64)
    hidden = v.mix(keys, seed=HIDDEN_SEED) < np.uint64(int(HIDDEN * 2.0**64))
    columns.hide(matrix, np.flatnonzero(hidden))
    given: dict[str, Any] = {"categorical_feature": columns.categorical, "params": settings}
    data = lightgbm.Dataset(
        matrix, label, weight=weight, init_score=np.full(len(at), base), **given
    )
    held = np.arange(0 if validation is None else min(MOST_ROWS, len(validation.arrays.domain)))
    if validation is None or len(held) < LEAST_ROWS:
        return lightgbm.train(settings, data, num_boost_round=trees), trees
    label, weight = _labels(validation, held)
    stop = lightgbm.Dataset(
        _matrix(validation, columns, held),
        label,
        weight=weight,
        init_score=np.full(len(held), base),
        reference=data,
        **given,
    )
    booster = lightgbm.train(
        settings,
        data,
        num_boost_round=MOST_TREES,
        valid_sets=[stop],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    best = max(1, booster.best_iteration)
    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=best)), best


def _labels(
    rows: SplitRows, at: Int64[np.ndarray, " drawn"]
) -> tuple[Float32[np.ndarray, " drawn"], Float32[np.ndarray, " drawn"] | None]:
    """Labels and weights of some rows."""
    weight = rows.arrays.weight
    return np.asarray(rows.arrays.label[at]), None if weight is None else np.asarray(weight[at])


def _matrix(
    rows: SplitRows, columns: ForestColumns, at: Int64[np.ndarray, " drawn"]
) -> Float32[np.ndarray, "drawn columns"]:
    """Some rows as the forest reads them."""
    arrays, domain = rows.arrays, np.asarray(rows.arrays.domain[at])
    known = np.where(domain <= rows.n_domains, domain, 0).astype(np.int32)
    return columns.matrix(arrays.numeric[at], arrays.categorical[at], known)
