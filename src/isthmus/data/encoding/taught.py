"""What train rows teach beside vocabularies and scales: statistics of values, and a forest.

Both become numbers of a row, behind the row's other numbers. A model that was trained on a part of the
rows has its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from isthmus.data.encoding.counted.counted_columns import Lists, columns_of
from isthmus.data.encoding.counted.later import statistics_of
from isthmus.data.encoding.counted.statistics import Statistics
from isthmus.data.encoding.growth import Growth
from isthmus.data.encoding.trees import ForestColumns, Trees
from isthmus.schema import FittedField

SUFFIXES = (".statistics.safetensors", ".trees.txt")


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """What one model knows of its train rows. None where the config does not ask for it.

    ``growth``: what came after the fit. The forest reads domains that came later as unknown.
    """

    statistics: Statistics | None = None
    trees: Trees | None = None
    growth: Growth | None = None

    def fill(
        self,
        numeric: Float32[np.ndarray, "rows numbers"],
        categorical: Int32[np.ndarray, "rows columns"],
        lists: Lists,
        domain: Int32[np.ndarray, " rows"],
    ) -> None:
        """Write the numbers of rows that were not in training into their columns of ``numeric``.

        ``domain``: 0 for a row of no trained domain.
        """
        if self.growth is not None:
            domain = self.growth.came[domain]
        if self.statistics is not None:
            self.statistics.fill(numeric, categorical, lists, domain)
        if self.growth is not None:
            domain = np.where(domain <= self.growth.fitted, domain, 0)
        if self.trees is not None:  # which reads the statistics
            self.trees.fill(numeric, categorical, domain)

    def save(self, stem: Path) -> list[Path]:
        """Write the files ``STEM.statistics.safetensors`` and ``STEM.trees.txt``, as far as needed."""
        files = [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]
        written = []
        if self.statistics is not None:
            save_file(self.statistics.to_arrays(), files[0])
            files[0].chmod(0o644)  # it comes readable by its owner only
            written.append(files[0])
        if self.trees is not None:
            files[1].write_text(self.trees.to_text(), encoding="utf-8")
            written.append(files[1])
        return written

    @classmethod
    def load(
        cls,
        stem: Path,
        fields: Sequence[FittedField],
        negative_rate: float,
        growth: Growth | None = None,
    ) -> "Taught":
        """Read what `save` wrote for a model with these fields.

        Raises OSError for a missing file, ValueError for one that does not fit, ConfigError where
        LightGBM is missing.
        """
        numbers, forest = (stem.with_name(stem.name + suffix) for suffix in SUFFIXES)
        statistics = trees = None
        if columns_of(fields):
            try:
                arrays = load_file(numbers)
                statistics = statistics_of(arrays, fields, negative_rate)
            except (SafetensorError, KeyError) as fault:
                raise ValueError(f"the statistics in {numbers} are damaged: {fault}") from fault
        if any(field.kind == "trees" for field in fields):
            text = forest.read_text(encoding="utf-8")
            trees = Trees.of_text(text, ForestColumns.of(fields))
        return cls(statistics, trees, growth)
