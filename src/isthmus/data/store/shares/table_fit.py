"""What the first pass finds: the encoder of the train rows, and the domains of all rows.

Several processes each gather from their share of the table. The first one takes in what the others
gathered, in table order. All of it is then what one process gathers, to the bit: counts are whole
numbers, drawn numbers go by their hash, and the moments of numbers are kept block by block and added up
in table order.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from isthmus.data.encoding.encoder import Encoder
from isthmus.data.encoding.gathering.counter import Counter
from isthmus.data.encoding.gathering.encoder_fit import EncoderFit, in_order
from isthmus.data.encoding.roles import DOMAIN, Usage
from isthmus.data.store.chosen import Chosen, Piece
from isthmus.data.store.split import SPLITS, UNLABELLED, no_label
from isthmus.data.tables import columns as c
from isthmus.errors import SchemaError

_NAMES = "names.json"


class TableFit:
    """Gathers the encoder and the domains, piece by piece."""

    def __init__(self, usage: Usage) -> None:
        self._config = usage.config
        self._kind = usage.kinds[DOMAIN]
        self._encoder = EncoderFit(usage.config, usage.kinds)
        self._every = Counter("string")  # the domains of all rows, and of rows with a label
        self._labelled = Counter("string")
        self._rows = np.zeros(len(SPLITS) + 1, dtype=np.int64)  # the last: without a domain

    @property
    def columns(self) -> list[str]:
        """Columns that fitting reads."""
        return self._encoder.columns

    def add(self, piece: Piece, assigned: np.ndarray, workers: Executor) -> None:
        """Take in a piece; ``assigned``: the split number of each row."""
        config = self._config
        self._rows[:-1] += np.bincount(assigned, minlength=len(SPLITS))[: len(SPLITS)]
        train = np.flatnonzero(assigned == 0)
        self._encoder.add(piece.batch, train, piece.origin, row=piece.row, workers=workers)
        codes, names = c.domains(piece.batch.column(config.domain), self._kind)
        if config.null_domain == "refuse":
            c.refuse_null_domain(config.domain, codes, piece.origin)
        present = codes[codes >= 0]
        self._rows[-1] += len(codes) - len(present)
        self._every.add_counts(names, np.bincount(present, minlength=len(names)))
        if config.keeps_unlabelled:
            known = codes[(codes >= 0) & (assigned < UNLABELLED)]
            self._labelled.add_counts(names, np.bincount(known, minlength=len(names)))

    def save(self, folder: Path) -> None:
        """Write what was gathered, for `take_in` of another process."""
        tables = {
            **self._encoder.tables(),
            "every": self._every.pairs(),
            "labelled": self._labelled.pairs(),
            "rows": (pa.table({"rows": self._rows}),),
        }
        folder.mkdir()
        for number, parts in enumerate(tables.values()):
            _write(folder / f"{number}.arrow", iter(parts))
        (folder / _NAMES).write_text(json.dumps(list(tables)), encoding="utf-8")

    def take_in(self, folder: Path) -> None:
        """Add what another process wrote, of the rows that follow in the table."""
        names = json.loads((folder / _NAMES).read_text(encoding="utf-8"))
        tables = {name: _read(folder / f"{number}.arrow") for number, name in enumerate(names)}
        self._encoder.take_in(tables)
        self._every.take_in(tables["every"])
        self._labelled.take_in(tables["labelled"])
        self._rows += pa.concat_tables(tables["rows"])["rows"].to_numpy()

    def finish(self, chosen: Chosen) -> tuple[Encoder, tuple[str, ...]]:
        """The encoder, and the names of all chosen domains: the trained ones, then the others.

        Raises ``SchemaError`` for a split without a row, and for a domain without a label.
        """
        config, (*splits, homeless) = self._config, self._rows.tolist()
        if config.keeps_unlabelled:
            if not sum(splits):
                raise no_label(config, chosen)
            self._refuse_unlabelled_domain(chosen)
        for name, rows in zip(SPLITS, splits, strict=True):
            if not rows:
                raise SchemaError(
                    f"every split must have at least one row, got none in {name!r}"
                    f" (split by {config.split.by}, {sum(splits)} rows in {chosen.source})"
                )
        encoder = self._encoder.encoder()
        known = self._every.counts()["value"].to_list()
        trained = set(encoder.domains)
        others = in_order([name for name in known if name not in trained], self._kind)
        if homeless:
            others.append(null_name(known))
        return encoder, (*encoder.domains, *others)

    def _refuse_unlabelled_domain(self, chosen: Chosen) -> None:
        """A domain without any label can be neither trained nor judged."""
        have = set(self._labelled.counts()["value"].to_list())
        counts = self._every.counts()
        for name, rows in zip(counts["value"].to_list(), counts["count"].to_list(), strict=True):
            if name not in have:
                raise SchemaError(
                    f"every domain must have a row with a label, got domain {name!r} with null in column"
                    f" {self._config.label.column!r} in all {rows:,} rows of {chosen.source};"
                    " data.domains leaves out what it does not name"
                )


def _write(path: Path, parts: Iterator[pa.Table]) -> None:
    """Write tables of one schema, of which only one is held."""
    first = next(parts)
    with pa.ipc.new_file(str(path), first.schema) as writer:
        for part in chain((first,), parts):
            writer.write_table(part)


def _read(path: Path) -> Iterator[pa.Table]:
    """Read what `_write` wrote, batch by batch."""
    with pa.OSFile(str(path)) as source:
        reader = pa.ipc.open_file(source)
        yield reader.schema.empty_table()
        for number in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(number)])


def null_name(known: Sequence[str]) -> str:
    """What reports call the rows without a domain: a name that no domain has."""
    name = "(null)"
    while name in known:
        name = f"({name})"
    return name
