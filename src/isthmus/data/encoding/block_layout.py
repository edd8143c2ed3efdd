"""Where each field stands in the arrays of encoded rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.schema import TREES_WIDTH, FittedField


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """The columns of a block's two arrays.

    ``categorical``: names of the single values, in their order. ``numbers``: by name, the columns of
    single numbers, and behind them those of vectors. ``width``: all numbers; those that are taught
    stand last.
    """

    categorical: tuple[str, ...]
    numbers: Mapping[str, slice]
    width: int

    @classmethod
    def of(cls, fields: Sequence[FittedField]) -> "BlockLayout":
        """The layout of rows with these fields."""
        numbers, start = {}, 0
        for kind in ("numeric", "vector"):
            for field in fields:
                if field.kind == kind:
                    numbers[field.name] = slice(start, start + field.numbers)
                    start += field.numbers
        width = sum(field.numbers for field in fields)
        # A train row has a second score of the forest, without the domain.
        width += (TREES_WIDTH - 1) * any(field.kind == "trees" for field in fields)
        single = tuple(field.name for field in fields if field.kind == "categorical")
        return cls(single, numbers, width)

    def arrays(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids int32 (rows, columns) and numbers float32 (rows, width), all 0."""
        return (
            np.zeros((rows, len(self.categorical)), dtype=np.int32),
            np.zeros((rows, self.width), dtype=np.float32),
        )

    def empty(self, rows: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Ids int32 (rows, columns), numbers float32 (rows, width) of 0, and views by field."""
        ids, x = self.arrays(rows)
        into = {name: ids[:, at] for at, name in enumerate(self.categorical)}
        return ids, x, into | {name: x[:, at] for name, at in self.numbers.items()}
