"""What came to an encoder after its fit: domains, and ids at the end of their vocabularies.

A bundle for ``home`` and ``search`` is extended by ``mail``, whose rows name a user that nobody had seen.
The user gets the next id. A row of ``mail`` has that id. A row of ``home`` with the same user keeps id 0,
the unknown, so its score keeps every bit.

The rule: a domain sees the ids that were there when it came. Ids are only ever appended, so one number
for each vocabulary and domain says which they are:

    id of a row of domain d    id if id < seen[d] else 0

The domains of the fit and the unknown domain see the ids of the fit. `isthmus.extending.refresh` lets
every domain see every id.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from jaxtyping import Int32

from isthmus.data.encoding.vocabulary import Vocabulary
from isthmus.errors import BundleError
from isthmus.schema import FittedField


@dataclass(frozen=True, slots=True, eq=False)
class Growth:
    """What came after the fit.

    ``fitted``: number of domains of the fit. ``rows``: ids of each vocabulary at the fit, the unknown one
    counted. ``came``: int32 (n_domains + 1,), the place of each domain in the order in which domains came,
    from 1, of the pruned ones too; 0 for the unknown domain. ``ever``: how many have come. ``seen``: by vocabulary int32
    (n_domains + 1,), ids below this number are seen by rows of the domain; a vocabulary that is not named
    is seen whole by all.
    """

    fitted: int
    rows: Mapping[str, int]
    came: Int32[np.ndarray, " domains"]
    ever: int
    seen: Mapping[str, Int32[np.ndarray, " domains"]]

    @classmethod
    def of_fit(cls, vocabularies: Mapping[str, Vocabulary], n_domains: int) -> Self:
        """Nothing has come yet."""
        rows = {name: one.rows for name, one in vocabularies.items()}
        came = np.arange(n_domains + 1, dtype=np.int32)
        return cls(n_domains, rows, came, n_domains, {})

    def with_domain(self, before: Mapping[str, int], after: Mapping[str, int]) -> "Growth":
        """A domain comes, at the end of the others. ``before``, ``after``: ids of each vocabulary."""
        old = len(self.came)
        seen = {}
        for name, rows in after.items():
            limits = self.seen.get(name, np.full(old, before[name], dtype=np.int32))
            limits = np.append(limits, np.int32(rows))
            if (limits < rows).any():
                seen[name] = limits
        came = np.append(self.came, np.int32(self.ever + 1))
        return replace(self, came=came, ever=self.ever + 1, seen=seen)

    def without_domain(self, number: int, own: str | None, rows: int) -> "Growth":
        """A domain goes. ``number``: its id, from 1. ``own``: the vocabulary of the domain's own column.

        Rows of no domain that is left see none of that vocabulary's ``rows`` ids: the name of the domain that
        went says nothing any more.
        """
        seen = {name: np.delete(limits, number) for name, limits in self.seen.items()}
        if own is not None:
            limits = seen.get(own, np.full(len(self.came) - 1, rows, dtype=np.int32)).copy()
            limits[0] = 1
            seen[own] = limits
        return replace(self, came=np.delete(self.came, number), seen=seen)

    def of_ids(self, kept: Mapping[str, np.ndarray]) -> "Growth":
        """Only these ids stay, by vocabulary, in rising order, 0 first; they move together.

        Raises BundleError where a domain that has seen ids of a vocabulary would see none any more.
        """
        rows, seen = dict(self.rows), dict(self.seen)
        for name, ids in kept.items():
            rows[name] = int(np.searchsorted(ids, rows[name]))
            if name in seen:
                limits = np.searchsorted(ids, seen[name]).astype(np.int32)
                if ((limits == 1) & (seen[name] > 1)).any():
                    raise BundleError(
                        f"an id of {name!r} must stay for every domain that has seen one, got none for some"
                    )
                seen[name] = limits
        return replace(self, rows=rows, seen=seen)

    def seen_by_all(self, rows: Mapping[str, int]) -> "Growth":
        """Every domain sees every id, but for those that a pruned domain left to nobody.

        ``rows``: ids of each vocabulary.
        """
        seen = {
            name: np.where(limits == 1, limits, np.int32(rows[name]))
            for name, limits in self.seen.items()
            if limits.min() == 1
        }
        return replace(self, seen=seen)

    def fields(self, fields: Iterable[FittedField]) -> tuple[FittedField, ...]:
        """The fields with the number of ids that each table has got since the fit."""
        return tuple(
            replace(one, grown=one.table_rows - self.rows[one.table])
            if one.table in self.rows
            else one
            for one in fields
        )

    def hide(
        self,
        fields: Sequence[FittedField],
        categorical: np.ndarray,
        lists: Iterable[tuple[np.ndarray, np.ndarray]],
        domain: Int32[np.ndarray, " rows"],
    ) -> None:
        """Let ids that the row's domain does not see be unknown, in place; see `EncodedRows`."""
        single = [one for one in fields if one.kind == "categorical"]
        for place, one in enumerate(single):
            self._hide(one.table, categorical[:, place], domain, None)
        listed = [one for one in fields if one.kind.endswith("_list")]
        for one, (values, offsets) in zip(listed, lists, strict=True):
            self._hide(one.table, values, domain, offsets)

    def _hide(
        self, table: str, ids: np.ndarray, domain: np.ndarray, offsets: np.ndarray | None
    ) -> None:
        limits = self.seen.get(table)
        if limits is None:
            return
        late = np.flatnonzero(ids >= limits.min())  # few, or none
        if not len(late):
            return
        row = late if offsets is None else np.searchsorted(offsets, late, side="right") - 1
        ids[late[ids[late] >= limits[domain[row]]]] = 0

    def to_entry(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "fitted": self.fitted,
            "rows": dict(self.rows),
            "came": self.came.tolist(),
            "ever": self.ever,
            "seen": {name: limits.tolist() for name, limits in self.seen.items()},
        }

    @classmethod
    def of_entry(
        cls, entry: Mapping[str, Any], vocabularies: Mapping[str, Vocabulary], n_domains: int
    ) -> Self:
        """Undo `to_entry`. Raises ValueError where it does not fit the vocabularies and domains."""
        came, ever = np.array(entry["came"], dtype=np.int32), int(entry["ever"])
        seen = {name: np.array(one, dtype=np.int32) for name, one in entry["seen"].items()}
        rows = {str(name): int(count) for name, count in entry["rows"].items()}
        right = (
            rows.keys() == vocabularies.keys()
            and all(1 <= count <= vocabularies[name].rows for name, count in rows.items())
            and len(came) == n_domains + 1
            and came[0] == 0
            and (np.diff(came) > 0).all()
            and came[-1] <= ever
            and all(
                len(limits) == n_domains + 1
                and limits.min() >= 1
                and limits.max() <= vocabularies[name].rows
                for name, limits in seen.items()
            )
        )
        if not right:
            raise ValueError("what came after the fit must fit vocabularies and domains")
        return cls(int(entry["fitted"]), rows, came, ever, seen)
