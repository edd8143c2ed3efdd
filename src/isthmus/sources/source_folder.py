"""What every named data set does on disk: its folder, its config, files whole or not there."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from isthmus.disk import sha256, whole_file
from isthmus.errors import IsthmusError

Report = Callable[[str], None]
_ROW_GROUP = 1 << 17


def silent(_: str) -> None:
    """Report nothing."""


def prepared(folder: Path, known: set[str], *, overwrite: bool) -> Path:
    """Make the folder; refuse before any work when a config in it is not ours to replace."""
    config = folder / "config.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        theirs = config.read_text(encoding="utf-8") if config.exists() else None
    except OSError as error:
        raise IsthmusError(f"cannot write to {folder}: {error.strerror or error}") from error
    if theirs is not None and theirs not in known and not overwrite:
        raise IsthmusError(
            f"{config} exists and was changed since it was written; move it or choose another"
            " folder with --out"
        )
    return folder


def write(folder: Path, table: pa.Table, name: str, config: str) -> Path:
    """Write ``FOLDER/NAME.parquet`` and ``FOLDER/config.yaml``; give the path of the table."""
    path = folder / f"{name}.parquet"
    with _writing(path) as target:
        pq.write_table(table, target, compression="zstd", row_group_size=_ROW_GROUP)
    _write_config(folder, config)
    return path


def write_parts(folder: Path, parts: Iterable[pa.Table], name: str, config: str) -> Path:
    """Write like `write` a table that comes in parts of one schema, one part in memory at a time.

    Raises IsthmusError, with nothing left behind, where no part has a row.
    """
    path = folder / f"{name}.parquet"
    with _writing(path) as target:
        writer = None
        try:
            for part in parts:
                if writer is None and part.num_rows:
                    writer = pq.ParquetWriter(target, part.schema, compression="zstd")
                if writer is not None:
                    writer.write_table(part, row_group_size=_ROW_GROUP)
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise IsthmusError(f"{path.name} must have at least one row, got none")
    _write_config(folder, config)
    return path


def _write_config(folder: Path, config: str) -> None:
    with _writing(folder / "config.yaml") as target:
        target.write_text(config, encoding="utf-8")


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write; it takes the place of ``path`` if all goes well."""
    try:
        with whole_file(path) as temporary:
            yield temporary
            if path.exists() and sha256(path) == sha256(temporary):
                # The same bytes keep their time, by which the cache and a stopped run know them.
                shutil.copystat(path, temporary)
    except (OSError, pa.ArrowException) as error:
        raise IsthmusError(f"cannot write {path}: {error}") from error
