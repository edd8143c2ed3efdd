"""Vocabularies: which value has which id, looked up without Python steps."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.data.encoding.lookup.index import Index
from isthmus.data.tables import values as v
from isthmus.data.tables.plain import null_mask, numpy_of


@dataclass(frozen=True)
class Vocabulary:
    """Values with an id each, the most frequent first; id 0 is the unknown.

    ``kind``: what the values are (`isthmus.data.tables.kinds`). ``values``: canonical form
    (int64 keys, text, or bytes), value ``i`` has id ``i + 1``. ``hash_buckets``: no values are kept; a
    value's id is 1 + its hash modulo this number, which no process and no release changes. ``index``:
    finds the values, made of them where it is not given. Values and index may be mapped from files
    (`isthmus.data.encoding.lookup.vocabulary_file`): a lookup then reads what it needs of them.
    """

    kind: str
    values: pa.Array
    hash_buckets: int | None = None
    index: Index | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.hash_buckets is None and self.index is None:
            keys = v.hash_text(self.values) if self.is_text else self.values.to_numpy()
            object.__setattr__(self, "index", Index(keys))

    @property
    def is_text(self) -> bool:
        """Whether the values are text or bytes rather than 64-bit keys."""
        return v.is_named(self.kind)

    @property
    def rows(self) -> int:
        """Rows of the embedding table: ids run from 0 to ``rows - 1``."""
        return 1 + (len(self.values) if self.hash_buckets is None else self.hash_buckets)

    def grown(self, values: pa.Array) -> "Vocabulary":
        """The same with those of ``values`` that it lacks behind its own; ``values`` canonical, each once.

        A vocabulary of hashes, or of a column of nulls alone, stays as it is.
        """
        if self.index is None or self.kind == "null" or not len(values):
            return self
        new = values.filter(pa.array(self.ids_of_values(values) == 0))
        if not len(new):
            return self
        return Vocabulary(self.kind, pa.concat_arrays([self.values, new.cast(self.values.type)]))

    def ids_of_values(self, values: pa.Array) -> np.ndarray:
        """Ids int32 (n,) of canonical values, as `values` holds them; 0 for those that it lacks."""
        if self.index is None or self.kind == "null" or not len(values):
            return np.zeros(len(values), dtype=np.int32)
        values = values.cast(self.values.type)
        return self._find_text(values) if self.is_text else self.index.find(values.to_numpy())

    def ids(self, array: pa.Array) -> np.ndarray:
        """Ids int32 (rows,) of a column: 0 for null and for values that were not kept."""
        if self.kind == "null":
            return np.zeros(len(array), dtype=np.int32)
        if isinstance(array, pa.DictionaryArray):
            return self._through_dictionary(array)
        keys = v.canonical(array, self.kind)
        if self.is_text and self.hash_buckets is None:
            if len(keys) > 64:
                return self._through_dictionary(keys.dictionary_encode())
            return self._find_text(keys)
        missing = null_mask(keys) if keys.null_count else None
        plain = v.hash_text(keys) if self.is_text else numpy_of(keys, 0)
        ids = self._bucket(plain) if self.index is None else self.index.find(plain)
        if missing is not None:
            ids[missing] = 0
        return ids

    def _through_dictionary(self, array: pa.DictionaryArray) -> np.ndarray:
        """Look up each distinct value once, then spread the ids over the rows."""
        dictionary = array.dictionary
        if self.is_text:
            table = self._find_text(v.canonical(dictionary, self.kind))
        else:
            table = self.ids(dictionary)
        table = np.append(table, np.int32(0))
        return table.take(numpy_of(array.indices, len(dictionary)))

    def _bucket(self, keys: np.ndarray) -> np.ndarray:
        buckets = np.uint64(self.hash_buckets or 1)
        return (v.mix(keys, seed=2) % buckets).astype(np.int32) + np.int32(1)

    def _find_text(self, text: pa.Array) -> np.ndarray:
        if self.index is None:
            ids = self._bucket(v.hash_text(text))
        else:
            ids = self.index.find(v.hash_text(text))
            # Two texts can share a hash: keep the id only where the text itself is the same.
            found = np.flatnonzero(ids)
            same = pc.call_function(
                "equal", [self.values.take(pa.array(ids[found] - 1)), text.take(pa.array(found))]
            )
            ids[found[~numpy_of(same, False)]] = 0
        if text.null_count:
            ids[null_mask(text)] = 0
        return ids
