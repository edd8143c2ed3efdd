"""Trees: the raw score of a boosted forest on the same features, as one more number.

A network of embeddings learns slowly what a few splits of a number say, and a forest learns slowly
what ids say. The model adds the score to its logit, and reads it as an input. So the network begins where
the forest ends.

The forest reads, of each row: all numbers (statistics too), single categories of at most
`MOST_VALUES` ids as categories, and the domain as a category. It does not read ids of larger columns
nor lists: their statistics speak for them. The library is LightGBM (Ke et al., NeurIPS 2017), which
the extra ``trees`` installs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float32, Int32

from isthmus.data.batch import DomainPlaces
from isthmus.errors import ConfigError
from isthmus.schema import FittedField

if TYPE_CHECKING:
    from lightgbm import Booster

MOST_VALUES = 256
BLOCK = 1 << 15  # rows that are scored at once


def is_installed() -> bool:
    """Whether LightGBM is there."""
    return find_spec("lightgbm") is not None


def check_installed() -> None:
    """Raise ConfigError, which says how to install it, where LightGBM is missing."""
    if not is_installed():
        raise ConfigError("data.trees needs LightGBM: pip install 'isthmus[trees]'")


def unread(fields: Sequence[FittedField]) -> dict[str, str]:
    """The features that a forest does not read, and why: by name, in the order of the fields."""
    spoken_for = {field.source for field in fields if field.kind == "statistics"}
    found = {}
    for field in fields:
        if field.kind == "numeric_list":
            found[field.name] = "is a list of numbers"
        elif field.name in spoken_for or field.is_domain:
            continue
        elif field.kind == "categorical_list":
            found[field.name] = "is a list without statistics: true"
        elif field.kind == "categorical" and field.fitted_rows > MOST_VALUES:
            found[field.name] = (
                f"has {field.fitted_rows:,} ids, more than {MOST_VALUES}, without statistics: true"
            )
    return found


@dataclass(frozen=True, slots=True)
class ForestColumns:
    """What a forest reads of a batch, and where its score stands.

    ``score``: the position in ``Batch.numeric``; the forest reads all numbers before it.
    ``statistics``: where each column's four numbers begin. ``categories``: places in
    ``Batch.categorical``. ``sizes``: the ids that the forest knows of each category; others, which came
    after the fit, are read as unknown.
    """

    score: int
    statistics: tuple[int, ...]
    categories: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, fields: Sequence[FittedField]) -> "ForestColumns":
        """The columns of a batch with these fields, of which the forest's score is one."""
        places = DomainPlaces.of(fields)
        assert places.score is not None
        single = [field for field in fields if field.kind == "categorical"]
        categories = tuple(
            place
            for place, field in enumerate(single)
            if field.fitted_rows <= MOST_VALUES and not field.is_domain
        )
        sizes = tuple(single[place].fitted_rows for place in categories)
        return cls(places.score, places.statistics, categories, sizes)

    @property
    def width(self) -> int:
        """The number of columns of `matrix`."""
        return self.score + len(self.categories) + 1

    @property
    def categorical(self) -> list[int]:
        """Which columns of `matrix` are categories: the last ones, the domain at the end."""
        return list(range(self.score, self.width))

    def matrix(
        self,
        numeric: Float32[np.ndarray, "rows numbers"],
        categorical: Int32[np.ndarray, "rows columns"],
        domain: Int32[np.ndarray, " rows"],
    ) -> Float32[np.ndarray, "rows columns"]:
        """The rows as the forest reads them. ``domain``: 0 for a row of no trained domain."""
        found = np.empty((len(domain), self.width), dtype=np.float32)
        found[:, : self.score] = numeric[:, : self.score]
        ids = categorical[:, list(self.categories)]
        found[:, self.score : -1] = np.where(ids < np.array(self.sizes, dtype=np.int32), ids, 0)
        found[:, -1] = domain
        return found

    def hide(self, matrix: Float32[np.ndarray, "rows columns"], at: np.ndarray) -> None:
        """Hide the domain of the rows at ``at``, in place, as `Batch.hide_domain` does."""
        for effect in self.statistics:
            matrix[at, effect + 2] = matrix[at, effect]
            matrix[at, effect + 3] = 0
        matrix[at, -1] = 0


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """A fitted forest. ``booster``: None where the train rows held one class only: the score is 0."""

    columns: ForestColumns
    booster: "Booster | None"

    @property
    def size(self) -> int:
        """The number of trees."""
        return 0 if self.booster is None else self.booster.num_trees()

    def score(self, matrix: Float32[np.ndarray, "rows columns"]) -> Float32[np.ndarray, " rows"]:
        """How far the forest puts each row above the base rate, in log-odds."""
        if self.booster is None:
            return np.zeros(len(matrix), dtype=np.float32)
        found = self.booster.predict(matrix, raw_score=True, num_threads=threads())
        return np.asarray(found, dtype=np.float32)

    def fill(
        self,
        numeric: Float32[np.ndarray, "rows numbers"],
        categorical: Int32[np.ndarray, "rows columns"],
        domain: Int32[np.ndarray, " rows"],
    ) -> None:
        """Write the score of rows that were not in training into its column of ``numeric``."""
        for start in range(0, len(domain), BLOCK):
            some = slice(start, start + BLOCK)
            rows = self.columns.matrix(numeric[some], categorical[some], domain[some])
            numeric[some, self.columns.score] = self.score(rows)

    def to_text(self) -> str:
        """The forest in LightGBM's own text; empty where there is none."""
        return "" if self.booster is None else self.booster.model_to_string()

    @classmethod
    def of_text(cls, text: str, columns: ForestColumns) -> "Trees":
        """Read `to_text`. Raises ConfigError without LightGBM, ValueError where it does not fit."""
        if not text:
            return cls(columns, None)
        check_installed()
        import lightgbm

        try:
            booster = lightgbm.Booster(model_str=text)
        except lightgbm.basic.LightGBMError as fault:
            raise ValueError(f"the forest cannot be read: {fault}") from fault
        if booster.num_feature() != columns.width:
            raise ValueError(
                f"the forest must read {columns.width} columns, got {booster.num_feature()}"
            )
        return cls(columns, booster)


def threads() -> int:
    """As many threads as torch has: trainings that run side by side have one each."""
    return torch.get_num_threads()
