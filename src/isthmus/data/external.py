"""Tables from outside: encoded block by block in their own order, to be scored."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from isthmus.data.batch import Batch
from isthmus.data.encode import Encoder
from isthmus.data.read import Source, Table, open_table
from isthmus.data.roles import check_types, needed


@dataclass(frozen=True, slots=True)
class ReportColumns:
    """What a report needs of the rows of one batch."""

    domain: np.ndarray  # (rows,) int32 ids into EncodedTable.domain_names, from 1; 0 missing
    row: np.ndarray  # (rows,) int64
    label: np.ndarray | None  # (rows,) float32
    weight: np.ndarray | None  # (rows,) float32
    group: np.ndarray | None  # (rows,) int64


@dataclass(frozen=True, slots=True)
class UntrainedDomain:
    """A domain that was never trained: its rows are scored as the unknown domain."""

    name: str | None  # None where the domain is missing
    rows: int
    file: str
    first_row: int  # number of its first row in the table


class EncodedTable:
    """A pass over a table: iterate for ``(Batch, ReportColumns)``, then read what was met.

    ``domain_names``: the trained domains, then the others in the order they were met; grows while
    the table is read. ``untrained``: the others, with their rows.
    """

    def __init__(self, encoder: Encoder, table: Table, batch_rows: int, need_label: bool) -> None:
        self.encoder = encoder
        self.table = table
        self.batch_rows = batch_rows
        self.roles = ("label", "weight", "group") if need_label else ()
        for file, types in table.schemas:
            check_types(encoder.config, types, file, roles=self.roles, fitted=encoder.kinds)
        self._met: dict[str | None, UntrainedDomain] = {}
        self._ids: dict[str, int] = {}

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Names of all domains met so far; the one with report id ``i`` stands at ``i - 1``."""
        return (*self.encoder.domains, *self._ids)

    @property
    def untrained(self) -> tuple[UntrainedDomain, ...]:
        """Domains without training that were met so far, and the missing one (name ``None``)."""
        return tuple(self._met.values())

    def __iter__(self) -> Iterator[tuple[Batch, ReportColumns]]:
        self._met.clear()
        self._ids.clear()
        columns = needed(self.encoder.config, roles=self.roles)
        for block in self.table.blocks(columns, self.batch_rows):
            rows = self.encoder.encode(
                block.batch,
                block.first_row,
                block.file,
                file_row=block.file_row,
                roles=self.roles,
            )
            domain = rows.domain
            if not domain.all():
                strangers = np.flatnonzero(domain == 0)
                codes = rows.domain_codes.take(strangers)
                names: list[str | None] = [*rows.domain_names.to_pylist(), None]
                domain = domain.copy()
                domain[strangers] = self._meet(codes, strangers, names, block.file, block.first_row)
            yield (
                rows.batch(),
                ReportColumns(domain, rows.row, rows.label, rows.weight, rows.group),
            )

    def _meet(
        self,
        codes: np.ndarray,
        at: np.ndarray,
        names: list[str | None],
        file: str,
        first_row: int,
    ) -> np.ndarray:
        """Report ids int32 of rows with unknown domains, which are counted on the way."""
        distinct, first, counts = np.unique(codes, return_index=True, return_counts=True)
        table = np.zeros(len(names), dtype=np.int32)
        for i in np.argsort(first):
            name = names[distinct[i]]
            met = self._met.get(name)
            before = 0 if met is None else met.rows
            where = (
                (file, first_row + int(at[first[i]])) if met is None else (met.file, met.first_row)
            )
            self._met[name] = UntrainedDomain(name, before + int(counts[i]), *where)
            if name is not None:
                known = len(self.encoder.domains) + len(self._ids) + 1
                table[distinct[i]] = self._ids.setdefault(name, known)
        return table.take(codes)


def encode_table(
    encoder: Encoder, table: Source | Table, batch_rows: int = 65536, *, need_label: bool
) -> EncodedTable:
    """Encode a table that was not fitted, in table order and bounded memory.

    ``need_label``: read label, weight and group too, as an evaluation must; scoring needs none.
    Raises ``SchemaError`` as fitting does, but for domains: an unknown or missing one has id 0 in
    the batch and is counted in ``untrained``.
    """
    return EncodedTable(encoder, open_table(table), batch_rows, need_label)
