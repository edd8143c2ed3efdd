"""Blocks of a table as building reads them: one fetched ahead, without the rows to leave out.

Left out are rows of domains that ``data.domains`` does not name, and rows of weight 0.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from isthmus.data.encoding.roles import DOMAIN, Usage
from isthmus.data.encoding.vocabulary import Vocabulary
from isthmus.data.tables import Block
from isthmus.data.tables import columns as c
from isthmus.data.tables.faults import unknown_domain
from isthmus.data.tables.table import ahead
from isthmus.ranks import ALONE, Ranks

Progress = Callable[[str, int, int], None]
"""``progress(stage, rows done, rows in all)``; stages are ``time``, ``fit`` and ``encode``."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """The rows of a block that are kept.

    ``kept``: places int64 (rows,) of the kept rows in the block, or None where all are kept.
    """

    batch: pa.RecordBatch
    block: Block
    kept: Int64[np.ndarray, " rows"] | None = None

    def only(self, wanted: Bool[np.ndarray, " rows"]) -> "Piece":
        """Some of the rows."""
        places = np.flatnonzero(wanted)
        kept = places if self.kept is None else self.kept[places]
        return Piece(self.batch.filter(pa.array(wanted)), self.block, kept)

    @property
    def origin(self) -> c.Origin:
        """Where the rows come from, for errors."""
        return c.Origin(self.block.file, self.block.file_row, self.kept)

    @property
    def row(self) -> Int64[np.ndarray, " rows"]:
        """Number of each row in the table."""
        kept = np.arange(self.batch.num_rows) if self.kept is None else self.kept
        return self.block.first_row + kept


class Chosen:
    """The rows of a table whose domain is one of ``config.domains`` and whose weight is not 0.

    ``ranks``: the processes that share the rows out among them, each by `Table.share`. ``weightless``: rows
    of the chosen domains that the last pass of this process left out for their weight.
    """

    def __init__(
        self, usage: Usage, *, block_rows: int, progress: Progress, ranks: Ranks = ALONE
    ) -> None:
        config = usage.config
        self.table = usage.table
        self.ranks = ranks
        self.block_rows = block_rows
        self._domains = config.domains
        self._column = config.domain
        self._kind = usage.kinds[DOMAIN]
        self._progress = progress
        self._wanted = Vocabulary("string", pa.array(config.domains or (), pa.large_string()))
        self._seen: set[str] = set()
        self._checked = config.domains is None
        self._weight = config.weight
        self.weightless = 0

    @property
    def source(self) -> str:
        """What to call these rows in an error."""
        return (
            self.table.source if self._domains is None else f"data.domains of {self.table.source}"
        )

    def apart(self, work: Callable[[], Any]) -> list[Any]:
        """Let each process do ``work`` that takes a pass over its rows; give all the plain values. Together.

        ``work`` gives None where it has given the pass up. Raises ``SchemaError`` at the end of the first pass for a chosen domain that no row has.
        """
        told = self.ranks.apart(lambda: [work(), sorted(self._seen)])
        values = [value for value, _ in told]
        if self.ranks.many and None not in values:
            self._seen.update(name for _, seen in told for name in seen)
            self.ranks.every(self._check)
        return values

    def _check(self) -> None:
        """Raise ``SchemaError`` for a chosen domain that no row has, after the first pass of all rows."""
        if not self._checked:
            for name in self._domains or ():
                if name not in self._seen:
                    raise unknown_domain(name, self._seen, self.table.source)
            self._checked = True
            self._seen.clear()

    def pieces(self, columns: Sequence[str], stage: str) -> Iterator[Piece]:
        """The kept rows in table order, with these columns. No piece is empty.

        The columns that decide about rows, domain and weight, are there too. Tells the progress
        after each block. A process that reads all rows raises ``SchemaError`` at the end of the first
        pass for a chosen domain that no row has.
        """
        deciding = [self._column] if self._domains is not None else []
        deciding += [self._weight] if self._weight is not None else []
        columns = list(dict.fromkeys([*columns, *deciding]))
        done, rows, share = 0, self.table.rows, None
        if self.ranks.many:
            share = self.table.share(self.ranks.rank, self.ranks.size)
            rows = sum(self.table.stretches[number][1].rows for number in share)
        self.weightless = 0
        for block in ahead(self.table.blocks(columns, self.block_rows, share=share)):
            piece = self._piece(block)
            if piece.batch.num_rows:
                yield piece
            done += block.batch.num_rows
            self.ranks.heed()
            self._progress(stage, done, rows)
        if not self.ranks.many:
            self._check()

    def _piece(self, block: Block) -> Piece:
        piece = Piece(block.batch, block)
        if self._domains is not None:
            piece = piece.only(self._of_domains(block))
        if self._weight is not None:
            weight = piece.batch.column(self._weight)
            weighty = c.weights(self._weight, weight, piece.origin) > 0
            self.weightless += int(np.count_nonzero(~weighty))
            piece = piece if weighty.all() else piece.only(weighty)
        return piece

    def _of_domains(self, block: Block) -> np.ndarray:
        """Which rows belong to a domain that is kept, bool (rows,)."""
        codes, names = c.domains(block.batch.column(self._column), self._kind)
        if not self._checked:
            present = np.bincount(codes[codes >= 0], minlength=len(names)) > 0
            self._seen.update(names.filter(pa.array(present)).to_pylist())
        # Code -1, a row without a domain, takes the last entry.
        return np.append(self._wanted.ids(names) > 0, False).take(codes)
