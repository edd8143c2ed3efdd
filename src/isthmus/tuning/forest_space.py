"""The search space of trees: what a study changes in ``data.trees``, and between which bounds.

    data.trees.leaves         8 to 256, on a log scale
    data.trees.rate           0.02 to 0.2, on a log scale
    data.trees.least_rows     5 to 200, on a log scale
    data.trees.columns        0.4 to 1
    data.trees.l2             1e-3 to 100, on a log scale; the lower end stands for 0

These keys change how a forest is grown, and none of the numbers that the forest reads. So all trials
read one encoded table. How many trees there are follows from the validation rows, in each trial anew.
"""

from collections.abc import Mapping

from isthmus.config import Config, validate
from isthmus.data import Dataset
from isthmus.data.store.teaching import leaves_for
from isthmus.schema import Forest
from isthmus.tuning.portfolio import Value
from isthmus.tuning.ranges import Bounds, Options, around

PREFIX = "data.trees."
LEAVES = (8, 256)
RATE = (0.02, 0.2)
LEAST_ROWS = (5, 200)
COLUMNS = (0.4, 1.0)
NO_PENALTY = 1e-3  # stands for no penalty: a log scale has no 0
PENALTY = (NO_PENALTY, 100.0)


def with_leaves(config: Config, dataset: Dataset) -> Config:
    """Give the config with a number of leaves, where it leaves them to the number of train rows."""
    forest = config.data.forest
    leaves = forest.leaves or leaves_for(len(dataset.rows("train")))
    return _with_forest(config, forest.model_copy(update={"leaves": leaves}))


def forest_parameters(config: Config) -> dict[str, Bounds | Options]:
    """Give the bounds, which hold the config. ``config``: as `with_leaves` gives it."""
    stands = forest_point(config)
    found = {
        "leaves": around(stands[f"{PREFIX}leaves"], *LEAVES, log=True, whole=True),
        "rate": around(stands[f"{PREFIX}rate"], *RATE, log=True),
        "least_rows": around(stands[f"{PREFIX}least_rows"], *LEAST_ROWS, log=True, whole=True),
        "columns": around(stands[f"{PREFIX}columns"], *COLUMNS),
        "l2": around(stands[f"{PREFIX}l2"], *PENALTY, log=True),
    }
    return {PREFIX + key: of for key, of in found.items()}


def forest_point(config: Config) -> dict[str, Value]:
    """Give the config as a point: a value for each key of the space."""
    forest = config.data.forest
    assert forest.leaves is not None
    return {
        f"{PREFIX}leaves": forest.leaves,
        f"{PREFIX}rate": forest.rate,
        f"{PREFIX}least_rows": forest.least_rows,
        f"{PREFIX}columns": forest.columns,
        f"{PREFIX}l2": forest.l2 or NO_PENALTY,
    }


def with_forest(config: Config, params: Mapping[str, Value]) -> Config:
    """Give the config with the values of a point. Raises ConfigError where one is out of range."""
    keys = {key.removeprefix(PREFIX): value for key, value in params.items()}
    if keys["l2"] == NO_PENALTY:
        keys["l2"] = 0.0
    return _with_forest(config, validate(Forest, keys))


def _with_forest(config: Config, forest: Forest) -> Config:
    raw = config.model_dump(mode="json")
    raw["data"]["trees"] = forest.model_dump(mode="json")
    return validate(Config, raw)
