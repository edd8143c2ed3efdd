"""What the chosen train rows of a part could teach a model: ids, domains, and numbers of rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from isthmus.data.encoding.taught import Taught
from isthmus.data.store.arrays import CHUNK
from isthmus.schema import FittedField


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """The ids and the domains that the chosen train rows could teach a model.

    ``categorical``, ``lists``: one bool array (table rows,) for each column, in the order of a
    batch. An id is kept where the array is True. ``domain``: bool (report ids + 1,). ``taught``: what
    the chosen train rows taught beside.
    """

    categorical: tuple[Bool[np.ndarray, " ids"], ...]
    lists: tuple[Bool[np.ndarray, " ids"] | None, ...]  # None for a list of numbers
    domain: Bool[np.ndarray, " domains"]
    taught: Taught

    @classmethod
    def of_tables(
        cls,
        fields: Sequence[FittedField],
        tables: Mapping[str, np.ndarray],
        domain: Bool[np.ndarray, " domains"],
        taught: Taught,
    ) -> "Known":
        """What is known where columns share tables. ``tables``: kept ids by name of the table."""
        single, listed = by_ids(fields)
        return cls(
            categorical=tuple(tables[field.table] for field in single),
            lists=tuple(tables[field.table] if field.table else None for field in listed),
            domain=domain,
            taught=taught,
        )

    def tables(self, fields: Sequence[FittedField]) -> dict[str, Bool[np.ndarray, " ids"]]:
        """The kept ids by name of the table; the columns of one table agree."""
        single, listed = by_ids(fields)
        pairs = [
            *zip(single, self.categorical, strict=True),
            *zip(listed, self.lists, strict=True),
        ]
        return {field.table: kept for field, kept in pairs if kept is not None}

    def forget(
        self, categorical: np.ndarray, lists: Iterable[np.ndarray], domain: np.ndarray
    ) -> np.ndarray:
        """Set every id that is not known to 0 in place; give the domains, the unknown ones as 0.

        ``lists``: the values of each list column.
        """
        for column, kept in enumerate(self.categorical):
            _forget(categorical[:, column], kept)
        for values, kept in zip(lists, self.lists, strict=True):
            if kept is not None:
                _forget(values, kept)
        return np.where(self.domain[domain], domain, 0).astype(domain.dtype)


def by_ids(fields: Sequence[FittedField]) -> tuple[list[FittedField], list[FittedField]]:
    """The fields that are columns of ids in a batch, and those that are lists in a batch."""
    single = [field for field in fields if field.kind == "categorical"]
    return single, [field for field in fields if field.kind.endswith("_list")]


def _forget(ids: np.ndarray, kept: np.ndarray) -> None:
    """Set the ids that are not kept to 0, in place."""
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        part[~kept[part]] = 0
