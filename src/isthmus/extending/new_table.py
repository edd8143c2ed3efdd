"""A table that came after the fit: read, split by the run's own split, and encoded in memory."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from isthmus.data.encoding.encoder import EncodedRows, Encoder
from isthmus.data.encoding.gathering.counter import Counter
from isthmus.data.encoding.roles import (
    ROLES,
    Usage,
    as_used,
    check_types,
    needed,
    vocabulary_name,
)
from isthmus.data.encoding.taught import Taught
from isthmus.data.encoding.vocabulary import Vocabulary
from isthmus.data.store.arrays import Arrays
from isthmus.data.store.chosen import Chosen, Piece
from isthmus.data.store.counting.out_of_fold import SplitRows, fill
from isthmus.data.store.rows import Rows
from isthmus.data.store.split import SPLITS, SplitName, Splitter
from isthmus.data.tables import BLOCK_ROWS, Table, refuse_empty
from isthmus.data.tables import columns as c
from isthmus.data.tables.kinds import MOMENTS, kind
from isthmus.data.tables.plain import offsets_of
from isthmus.errors import SchemaError
from isthmus.schema import Categorical, CategoricalList


class NewTable:
    """The rows of some domains in a new table. ``domains``: their names.

    Raises SchemaError where the table does not hold what the encoder's config says, and where it has no
    row of one of the domains, or none in one of the splits.
    """

    def __init__(
        self,
        encoder: Encoder,
        table: Table,
        domains: Sequence[str],
        *,
        block_rows: int = BLOCK_ROWS,
    ) -> None:
        refuse_empty(table)
        config = encoder.config.model_copy(update={"domains": tuple(domains)})
        used = as_used(table, config, encoder.kinds)
        used.check_usable(needed(config, roles=ROLES))
        for file, types in used.schemas:
            check_types(config, types, file, roles=ROLES, fitted=encoder.kinds)
        times = {kind(types[config.time]) for _, types in used.schemas} if config.time else ()
        usage = Usage(config, used, encoder.kinds, any(found in MOMENTS for found in times))
        self.encoder, self.table, self.config = encoder, used, config
        self.chosen = Chosen(usage, block_rows=block_rows, progress=lambda *_: None)
        with tempfile.TemporaryDirectory(prefix="isthmus-") as folder:
            self.splitter = Splitter.of(usage, self.chosen, Path(folder) / "time.bin")

    def vocabularies(self) -> dict[str, Vocabulary]:
        """The encoder's vocabularies, each with the new values of the train rows at its end.

        The most frequent come first, and those that stand there less often than ``min_count`` are left out.
        """
        features = {
            name: one
            for name, one in self.config.features.items()
            if isinstance(one, Categorical | CategoricalList)
        }
        known = self.encoder.vocabularies
        counters = {
            table: Counter(one.kind)
            for table, one in known.items()
            if one.hash_buckets is None and one.kind != "null"
        }
        table_of = {name: vocabulary_name(self.config, name) for name in features}
        columns = [name for name in features if table_of[name] in counters]
        splits = np.zeros(len(SPLITS), dtype=np.int64)
        for piece in self.chosen.pieces([*columns, *self.splitter.columns], "fit"):
            assigned = self.splitter.assign(piece)
            splits += np.bincount(assigned, minlength=len(SPLITS))[: len(SPLITS)]
            train = np.flatnonzero(assigned == 0)
            for name in columns:
                array, counter = piece.batch.column(name), counters[table_of[name]]
                feature = features[name]
                if not isinstance(feature, CategoricalList):
                    counter.add(array, train)
                elif not pa.types.is_null(array.type):
                    counter.add(c.list_items(array.take(pa.array(train)), feature.max_length)[0])
        for name, rows in zip(SPLITS, splits, strict=True):
            if not rows:
                raise SchemaError(
                    f"every split must have at least one row, got none in {name!r} (split by"
                    f" {self.config.split.by}, {splits.sum()} rows in {self.chosen.source})"
                )
        grown = {
            table: known[table].grown(counter.vocabulary(self._min_count(table)).values)
            for table, counter in counters.items()
        }
        return {**known, **grown}

    def _min_count(self, table: str) -> int:
        return getattr(self.config.features[table], "min_count", 1)

    def encoded(self, grown: Encoder) -> "EncodedTable":
        """All rows as ``grown`` encodes them; numbers that train rows teach are left at 0."""
        plain = replace(grown, taught=Taught())
        parts: list[list[_Part]] = [[] for _ in SPLITS]
        for piece in self._pieces():
            assigned = self.splitter.assign(piece)
            rows = encode(plain, piece)
            fold = self.splitter.folds(piece) if self.config.taught else None
            for number, part in enumerate(parts):
                at = np.flatnonzero(assigned == number)
                part.append(_Part.of(rows, fold, at))
        rows = [_joined(part, grown) for part in parts]
        return EncodedTable(grown, dict(zip(SPLITS, rows, strict=True)))

    def pieces_of(self, split: SplitName) -> Iterator[Piece]:
        """The rows of a split, piece by piece, with all columns that are used."""
        for piece in self._pieces():
            own = self.splitter.assign(piece) == SPLITS.index(split)
            if own.any():
                yield piece.only(own)

    def _pieces(self) -> Iterator[Piece]:
        columns = [*needed(self.config, roles=ROLES), *self.splitter.columns]
        return self.chosen.pieces(list(dict.fromkeys(columns)), "encode")


def encode(encoder: Encoder, piece: Piece) -> EncodedRows:
    """The rows of a piece as an encoder reads them."""
    block = piece.block
    return encoder.encode(
        piece.batch, block.first_row, block.file, file_row=block.file_row, kept=piece.kept
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Some rows of one split."""

    arrays: Arrays
    row: np.ndarray
    group: np.ndarray | None
    fold: np.ndarray | None

    @classmethod
    def of(cls, rows: EncodedRows, fold: np.ndarray | None, at: np.ndarray) -> Self:
        """The rows at these places of a block."""
        assert rows.label is not None
        arrays = Arrays(
            categorical=rows.categorical,
            numeric=rows.numeric,
            lists=rows.lists,
            domain=rows.domain,
            label=rows.label,
            weight=rows.weight,
        )
        group, fold = (None if one is None else one.take(at) for one in (rows.group, fold))
        return cls(arrays.take(at), rows.row.take(at), group, fold)


def _joined(parts: list[_Part], encoder: Encoder) -> Rows:
    """The rows of all parts, one after another."""

    def joined(of: Callable[[_Part], np.ndarray | None]) -> np.ndarray | None:
        found = [array for array in map(of, parts) if array is not None]
        return np.concatenate(found) if found else None

    def needed_array(of: Callable[[_Part], np.ndarray]) -> np.ndarray:
        return np.concatenate([of(part) for part in parts])

    lists = tuple(
        (
            np.concatenate([values for values, _ in column]),
            offsets_of(np.concatenate([np.diff(offsets) for _, offsets in column])),
        )
        for column in zip(*(part.arrays.lists for part in parts), strict=True)
    )
    arrays = Arrays(
        categorical=needed_array(lambda part: part.arrays.categorical),
        numeric=needed_array(lambda part: part.arrays.numeric),
        lists=lists,
        domain=needed_array(lambda part: part.arrays.domain),
        label=needed_array(lambda part: part.arrays.label),
        weight=joined(lambda part: part.arrays.weight),
    )
    return Rows(
        arrays,
        row=needed_array(lambda part: part.row),
        group=joined(lambda part: part.group),
        n_domains=encoder.n_domains,
        fold=joined(lambda part: part.fold),
    )


@dataclass(frozen=True, slots=True, eq=False)
class EncodedTable:
    """The encoded rows of a new table, by split: what `isthmus.train.train` takes for a dataset."""

    encoder: Encoder
    splits: Mapping[SplitName, Rows]

    @property
    def key(self) -> str:
        """Nothing is kept by it: such a training writes no checkpoint."""
        return "new table"

    @property
    def unlabelled(self) -> None:
        """Rows without a label are left out."""
        return

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Names of the trained domains, in the order of their ids."""
        return self.encoder.domains

    def rows(self, split: SplitName) -> Rows:
        """The rows of ``train``, ``validation`` or ``test``."""
        return self.splits[split]

    def split_rows(self, split: SplitName) -> SplitRows:
        """The same, with numbers that can be written."""
        return SplitRows.of(self.splits[split], self.encoder.n_domains)

    def fill(self, taught: Taught, *splits: SplitName) -> None:
        """Write the numbers that are taught into the rows of these splits."""
        for split in splits:
            fill(taught, self.split_rows(split))
