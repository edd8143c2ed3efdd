"""The rows of one split: NumPy arrays in table order, and batches of them in any order."""

from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Bool

from isthmus.data.batch import Batch
from isthmus.data.encoding.encoder import Encoder
from isthmus.data.store.arrays import Arrays, read_array
from isthmus.data.store.order import WHOLE, Sampling, Shuffle, in_order
from isthmus.data.tables import values as v

HALF_SEED = 0x5EED


class Rows:
    """The rows of one split, mapped or in memory.

    ``row``: number of each row in the table, int64 (rows,). ``group``: ids int64 (rows,), or None
    where the config names no group. ``fold``: of train rows whose values have statistics or a forest,
    uint8 (rows,), else None.
    """

    def __init__(
        self,
        arrays: Arrays,
        *,
        row: np.ndarray,
        group: np.ndarray | None,
        n_domains: int,
        reported: np.ndarray | None = None,
        fold: np.ndarray | None = None,
    ) -> None:
        self.arrays = arrays
        self.row = row
        self.group = group
        self.fold = fold
        self._n_domains = n_domains
        self._part = WHOLE
        # Where the model is to know less than the report, its ids stand in the arrays.
        self._reported = arrays.domain if reported is None else reported

    @classmethod
    def open(cls, folder: Path, n_domains: int, n_lists: int) -> "Rows":
        """Map the arrays of one split that `build` wrote."""

        def array(name: str) -> np.ndarray:
            return read_array(folder / f"{name}.npy")

        def if_there(name: str) -> np.ndarray | None:
            return array(name) if (folder / f"{name}.npy").exists() else None

        arrays = Arrays(
            categorical=array("categorical"),
            numeric=array("numeric"),
            lists=tuple(
                (array(f"list-{i}-values"), array(f"list-{i}-offsets")) for i in range(n_lists)
            ),
            domain=array("domain"),
            label=array("label"),
            weight=if_there("weight"),
        )
        return cls(
            arrays,
            row=array("row"),
            group=if_there("group"),
            fold=if_there("fold"),
            n_domains=n_domains,
        )

    def __len__(self) -> int:
        return len(self.arrays.domain)

    @property
    def label(self) -> np.ndarray:
        """Labels float32 (rows,) in {0, 1}."""
        return self.arrays.label

    @property
    def domain(self) -> np.ndarray:
        """Report ids int32 (rows,): the domain's name is ``Dataset.domain_names[id - 1]``."""
        return self._reported

    @property
    def weight(self) -> np.ndarray | None:
        """Weights float32 (rows,), or ``None`` where the config names no weight."""
        return self.arrays.weight

    def part(self, number: int, parts: int) -> "Rows":
        """The same rows, of whose shuffled batches this view gives one of so many parts alone.

        Steps, labels and domains stay those of all rows. See ``isthmus.data.store.order.part_of``.
        """
        if not 0 <= number < parts:
            raise ValueError(f"part must be from 0 to below {parts}, got {number}")
        rows = copy(self)
        rows._part = (number, parts)
        return rows

    def steps(self, batch_rows: int) -> int:
        """Batches in one shuffled epoch.

        A last batch of one row is left out, since a batch norm could not learn from it.
        """
        full, rest = divmod(len(self), batch_rows)
        return full + (rest >= 2)

    def step_rows(self, batch_rows: int, step: int) -> int:
        """Rows of the batch of a step of a shuffled epoch, of all its parts together."""
        return min(batch_rows, len(self) - step * batch_rows)

    def batches(
        self,
        batch_rows: int,
        *,
        seed: int | None = None,
        epoch: int = 0,
        start: int = 0,
        sampling: Sampling = "proportional",
    ) -> Iterator[Batch]:
        """Yield batches of at most ``batch_rows`` rows.

        Without a seed: every row once, in table order, the last batch short. With a seed: shuffled
        by (seed, epoch), see ``isthmus.data.store.order``. ``start``: first step to yield; the ones
        before it cost next to nothing. ``sampling``: how an epoch is shared among the domains. Raises
        ``ValueError`` for numbers out of range.
        """
        if batch_rows < 1 or start < 0:
            raise ValueError(
                f"batch_rows must be above 0 and start 0 or more, got {batch_rows=}, {start=}"
            )
        if seed is None:
            if isinstance(sampling, np.ndarray) or sampling != "proportional":
                raise ValueError(f"sampling needs a seed, got {sampling=} and none")
            yield from in_order(
                self.arrays, batch_rows, start * batch_rows, len(self), self._n_domains
            )
            return
        shuffle = Shuffle(
            self.arrays, seed=seed, epoch=epoch, sampling=sampling, n_domains=self._n_domains
        )
        size = min(len(self), self.steps(batch_rows) * batch_rows)
        yield from shuffle.batches(batch_rows, start * batch_rows, size, self._part)


class TrainingRows(Protocol):
    """What a training learns from: encoded rows by split. A `Dataset`, a `Subset`, a table in memory."""

    @property
    def key(self) -> str:
        """What a checkpoint knows the rows by."""
        ...

    @property
    def encoder(self) -> Encoder:
        """What made the ids and numbers."""
        ...

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Names of all domains; report id ``i`` stands at place ``i - 1``."""
        ...

    @property
    def unlabelled(self) -> Rows | None:
        """The train rows without a label; None for none."""
        ...

    def rows(self, split: Literal["train", "validation"]) -> Rows:
        """The rows of a split."""
        ...


class OwnedRows(Protocol):
    """Rows that have numbers and may have groups."""

    @property
    def row(self) -> np.ndarray:
        """Number of each row in the table, int64 (rows,)."""
        ...

    @property
    def group(self) -> np.ndarray | None:
        """Whose each row is, int64 (rows,), or None."""
        ...


def stopping_half(rows: OwnedRows) -> Bool[np.ndarray, " rows"]:
    """Which rows stop a training; the others decide what is shipped. Groups stay whole.

    By a hash of the group, or of the row's number. Groups are 64-bit keys of any sign.
    """
    keys = rows.row if rows.group is None else rows.group
    # Hashed twice: a split's hash, whatever its seed, then says nothing of the half.
    hashed = v.mix(np.asarray(keys, dtype=np.int64)).view(np.int64)
    return v.mix(hashed, seed=HALF_SEED) < np.uint64(1 << 63)
