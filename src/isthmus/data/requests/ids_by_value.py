"""Ids of a request's values: one dictionary for each vocabulary, made once.

Example: the texts of a vocabulary, ``{"home": 1, "search": 2}``, answer a request by ``dict.get``. A
dictionary holds what it can answer for sure: texts and whole numbers of a vocabulary that is not large.
All others are asked of `Vocabulary.ids`, which the tables are encoded by, and its answers are remembered:
values that are hashed, fractions, dates, and vocabularies of more than `LARGE` values.
"""

from collections.abc import Callable, MutableSequence, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa

from isthmus.data.encoding.vocabulary import Vocabulary
from isthmus.data.requests.given import arrow, by_type, fits, moment, refuse, rule_of
from isthmus.data.tables import values as v
from isthmus.data.tables.columns import Origin
from isthmus.data.tables.kinds import MOMENTS, NUMBERS

LARGE = 1 << 20  # values: a dictionary of so many takes some 100 MB
REMEMBERED = 1 << 16  # answers beside the dictionary
LONGEST = 256  # characters of a text that is remembered


class Lookup:
    """Ids of values that have a vocabulary. Threads may share one."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        values, kind = vocabulary.values, vocabulary.kind
        self._listed = vocabulary.hash_buckets is None and len(values) <= LARGE
        self._known: dict[object, int] = {}
        if self._listed and kind == "binary":
            self._known = _texts_too(values.to_pylist())
        elif self._listed and kind in ("string", *NUMBERS):
            # The key of a whole number is the number; what else has a key is never whole.
            self._known = dict(zip(values.to_pylist(), range(1, len(values) + 1), strict=True))
        # The id of a value that the dictionary holds, or a default.
        self.known: Callable[[object, int], int] = self._known.get
        self._text = self._listed and vocabulary.is_text
        self._whole = self._listed and kind in NUMBERS
        self._remembered = Remembered()

    def ids(
        self, column: str, values: Sequence[Any], origin: Origin, row_of: Callable[[int], int]
    ) -> list[int]:
        """The id of each value; 0 for None and for what the vocabulary does not hold.

        ``row_of``: the row of a value, for errors. Raises ``SchemaError`` for a value of another kind.
        """
        try:
            found = list(map(self.known, values, repeat(0)))
        except TypeError:
            self.refuse_unhashable(column, values, origin, row_of)
            raise
        if 0 in found:
            places = [at for at, id in enumerate(found) if not id]
            self.search(column, values, found, places, origin, row_of)
        return found

    def refuse_unhashable(
        self, column: str, values: Sequence[Any], origin: Origin, row_of: Callable[[int], int]
    ) -> None:
        """Raise ``SchemaError`` for the first list, mapping or array among values."""
        refuse_unhashable(column, "hold one value a row", values, origin, row_of)

    def search(
        self,
        column: str,
        values: Sequence[Any],
        found: MutableSequence[int] | np.ndarray,
        places: Sequence[int],
        origin: Origin,
        row_of: Callable[[int], int],
    ) -> None:
        """Answer the values that the dictionary does not hold, in place.

        ``found``: ids of all values so far. ``places``: of the values to search. Raises as `ids` does.
        """
        kind = self.vocabulary.kind
        asked = []
        for at in places:
            value = values[at]
            if value is None or self._sure(value):
                continue
            if (known := self._remembered.get(value)) is not None:
                found[at] = known
            elif not fits(value, kind):
                refuse(column, rule_of(kind), value, origin, row_of(at))
            elif value == value:  # which nan is not
                asked.append(at)
        if not asked or kind == "null":
            return
        for alike in by_type(values, asked).values():
            some = [values[at] for at in alike]
            for at, id in zip(alike, self.vocabulary.ids(arrow(some, kind)).tolist(), strict=True):
                found[at] = id
                self._remembered.put(values[at], id)

    def _sure(self, value: object) -> bool:
        """Whether the value is one that the dictionary would hold if the vocabulary did."""
        if type(value) is int:
            return self._whole and -(2**63) <= value < 2**63
        return type(value) is str and self._text


class Remembered:
    """Answers given before, some thousands of them. A number and a truth value are not the same."""

    def __init__(self) -> None:
        self._held: dict[tuple[type, object], int] = {}

    def get(self, value: object) -> int | None:
        """The answer, or None."""
        return self._held.get((type(value), value))

    def put(self, value: object, id: int) -> None:
        """Remember an answer; all others are forgotten where there are too many."""
        if isinstance(value, str | bytes) and len(value) > LONGEST:
            return
        if len(self._held) >= REMEMBERED:
            self._held = {}
        self._held[type(value), value] = id


class DomainLookup:
    """Ids of domains, by the value or by the name. Threads may share one.

    ``domains``: names of the trained domains, ids from 1. ``kind``: of the domain column's values.
    """

    def __init__(self, domains: Sequence[str], kind: str) -> None:
        self._kind = kind
        self._names = {name: id for id, name in enumerate(domains, start=1)}
        self._known: dict[object, int] = {**self._names}
        for name, id in self._names.items():
            if kind == "integer" and name.removeprefix("-").isdecimal():
                self._known[int(name)] = id
            elif kind == "boolean" and name in ("True", "False"):
                self._known[name == "True"] = id
        self._remembered = Remembered()

    def ids(self, column: str, values: Sequence[Any], origin: Origin) -> np.ndarray:
        """Ids int32 (rows,); 0 for None and for a domain that was not trained.

        Raises ``SchemaError`` for a list or a mapping.
        """
        get = self._known.get
        try:
            found = list(map(get, values, repeat(0)))
        except TypeError:
            rule = "hold plain values (it is the domain)"
            refuse_unhashable(column, rule, values, origin, lambda at: at)
            raise
        if 0 in found:
            for at, value in enumerate(values):
                if not found[at] and value is not None:
                    found[at] = self._other(value)
        return np.array(found, dtype=np.int32)

    def _other(self, value: Any) -> int:
        """The id of a value that the dictionary does not hold."""
        if isinstance(value, str) and self._kind not in (*MOMENTS, "binary"):
            return 0
        known = self._remembered.get(value)
        if known is None:
            known = self._names.get(self._name(value) or "", 0)
            self._remembered.put(value, known)
        return known

    def _name(self, value: Any) -> str | None:
        """The name of a value as a table would give it."""
        if self._kind == "binary" and isinstance(value, str | bytes):
            return (value.encode() if isinstance(value, str) else value).hex()
        if isinstance(value, str) and moment(value) is None:
            return None
        kind = self._kind if fits(value, self._kind) else "string"
        try:
            return v.names(arrow([value], kind), self._kind)[0].as_py()
        except pa.ArrowInvalid:  # an object that no table holds
            return None


def refuse_unhashable(
    column: str, rule: str, values: Sequence[Any], origin: Origin, row_of: Callable[[int], int]
) -> None:
    """Raise ``SchemaError`` for the first list, mapping or array among values."""
    for at, value in enumerate(values):
        if type(value).__hash__ is None:
            refuse(column, rule, value, origin, row_of(at))


def _texts_too(values: Sequence[bytes]) -> dict[object, int]:
    """Ids by bytes, and by the text that they spell."""
    known: dict[object, int] = {}
    for id, value in enumerate(values, start=1):
        known[value] = id
        try:
            known[value.decode()] = id
        except UnicodeDecodeError:
            continue
    return known
