"""The scores of the rows that are done, kept while an output is written, so that a stop loses few.

    .OUT.unfinished/about.json      what the scores are of: bundle, table, options, libraries
    .OUT.unfinished/N.parquet       scores of the rows that follow those of N - 1
    .OUT.unfinished/ended           all rows are written; OUT gets its name next

The folder stands beside the output OUT and goes when OUT stands under its name. What is already scored is
kept, not what is already written: a table is written out far faster than it is scored, and an output
that is written in one go has the same bytes, whether its scores were made in one go or not.
"""

import glob
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from isthmus.disk import TEMPORARY, only_writer, whole_file, write_whole
from isthmus.errors import RunError, SchemaError
from isthmus.run.output.writing import named

PIECE_ROWS = 1 << 18  # rows, or a block more, that a piece gathers before it is written
ABOUT, ENDED, NOTE = "about.json", "ended", b"isthmus"
FORMAT = 1


class FinishedRows:
    """The pieces of one output, in its working folder. `kept` opens one.

    ``rows``: how many rows, from the first row of the table on, have their scores in pieces. ``note``:
    what was told with the last piece.
    """

    def __init__(self, folder: Path, output: Path) -> None:
        self.folder, self.output = folder, output
        self.note: dict[str, Any] = {}
        self.rows = 0
        self._count = 0
        self._waiting: list[pa.RecordBatch] = []

    @classmethod
    @contextmanager
    def kept(cls, output: Path, about: Mapping[str, Any], *, resume: bool) -> Iterator[Self]:
        """Keep scores while the block writes ``output``; the folder goes when it ends without error.

        ``about``: what the scores depend on, by the name that a message has for it; JSON. ``resume``: go
        on with the pieces that are there. Otherwise they go. After an error the folder stays where it
        holds a piece, unless the table is at fault: another table would have other scores.

        Raises RunError where the pieces are of another bundle, table or options, where another process
        writes the output, and where the disk refuses.
        """
        folder = _folder(output)
        with named(output):
            folder.mkdir(exist_ok=True)
        with only_writer(folder):
            done = cls(folder, output)
            with named(output):
                done._begin(json.loads(json.dumps(about)), resume)
            try:
                yield done
            except BaseException as fault:
                if isinstance(fault, SchemaError) or not done.is_worth_keeping:
                    shutil.rmtree(folder)
                elif isinstance(fault, RunError):
                    raise RunError(f"{fault}; --resume goes on after what is scored") from fault
                raise
            shutil.rmtree(folder)

    @staticmethod
    def clear_if_ended(output: Path) -> bool:
        """Whether a call stopped when ``output`` stood under its name already; clear what it left."""
        folder = _folder(output)
        ended = output.is_file() and (folder / ENDED).is_file()
        if ended:
            shutil.rmtree(folder)
        return ended

    def end(self) -> None:
        """Say that all rows are written, before the output gets its name."""
        with named(self.output):
            write_whole(self.folder / ENDED, "")

    @property
    def is_worth_keeping(self) -> bool:
        """Whether a piece stands on the disk."""
        return self._piece(0).is_file()

    def _begin(self, about: Mapping[str, Any], resume: bool) -> None:
        """Read what is there, or clear it."""
        for left in self.output.parent.glob(f".{glob.escape(self.output.name)}{TEMPORARY}*"):
            left.unlink()  # of a process that was killed: nobody else writes this output
        (self.folder / ENDED).unlink(missing_ok=True)
        file = self.folder / ABOUT
        if resume and file.is_file():
            self._check(about)
            while (piece := self._piece(self._count)).is_file():
                told = json.loads(self._read(piece, pq.read_schema).metadata[NOTE])
                self.note, self.rows = told["note"], self.rows + sum(told["blocks"])
                self._count += 1
            return
        for piece in self.folder.glob("*.parquet"):
            piece.unlink()
        write_whole(file, json.dumps({"format": FORMAT, **about}, indent=1) + "\n")

    def _check(self, about: Mapping[str, Any]) -> None:
        file = self.folder / ABOUT
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as fault:
            raise RunError(
                f"{file} must hold what was scored, but it is damaged: {fault}"
            ) from None
        for name, value in {"format": FORMAT, **about}.items():
            if held.get(name) != value:
                raise RunError(
                    f"a prediction must go on with the {name} that it began with, got another for"
                    f" {self.output}; without --resume it begins again"
                )

    def blocks(self, of: Sequence[str]) -> Iterator[list[pa.Array]]:
        """Columns of the rows that are done, block by block as they were added."""
        for number in range(self._count):
            table = self._read(self._piece(number), pq.read_table)
            start = 0
            for rows in json.loads(table.schema.metadata[NOTE])["blocks"]:
                piece = table.slice(start, rows)
                yield [piece[name].combine_chunks() for name in of]
                start += rows

    def add(self, rows: pa.RecordBatch, note: Callable[[], Mapping[str, Any]]) -> None:
        """Keep the columns of one more block. ``note``: gives JSON that holds for all blocks so far.

        A piece is written when `PIECE_ROWS` have come. Raises RunError where the disk refuses.
        """
        self._waiting.append(rows)
        blocks = [one.num_rows for one in self._waiting]
        if sum(blocks) < PIECE_ROWS:
            return
        told = json.dumps({"blocks": blocks, "note": note()})
        table = pa.Table.from_batches(self._waiting)
        table = table.replace_schema_metadata({NOTE: told.encode()})
        with (
            named(self.output),
            whole_file(self._piece(self._count)) as temporary,
            temporary.open("wb") as file,
        ):
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)
        self._waiting, self._count = [], self._count + 1

    def _piece(self, number: int) -> Path:
        return self.folder / f"{number}.parquet"

    def _read(self, piece: Path, how: Any) -> Any:
        try:
            with piece.open("rb") as file:
                options = {} if how is pq.read_schema else {"page_checksum_verification": True}
                return how(file, **options)
        except (OSError, pa.ArrowException) as fault:
            raise RunError(
                f"{piece} must hold scored rows, but it is damaged: {fault}; without --resume the"
                " prediction begins again"
            ) from fault


def _folder(output: Path) -> Path:
    return output.with_name(f".{output.name}.unfinished")
