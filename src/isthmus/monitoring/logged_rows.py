"""A score log, read again with the files that it was rotated into."""

import fcntl
import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from isthmus.errors import RunError

CHUNK = 1 << 23  # bytes that are parsed at once
HEAD = b'{"baseline"'
SCHEMA = {
    "time": pl.String,
    "id": pl.String,
    "row": pl.Int64,
    "domain": pl.String,
    "score": pl.Float64,
    "bundle": pl.String,
}

Baselines = Mapping[str, Mapping[str, Mapping[str, float | None]]]


@dataclass(frozen=True, slots=True, eq=False)
class LoggedRows:
    """What a score log holds.

    ``frame``: time (UTC), id, row, domain, score and bundle of each row, as they were written. ``torn``:
    lines that could not be read, such as a last one that was cut. ``baselines``: for each bundle, what
    each domain's AUC and calibration were on validation rows.
    """

    frame: pl.DataFrame
    torn: int
    baselines: Baselines


def log_files(path: str | Path) -> list[Path]:
    """Files of a log, the oldest first. Raises RunError where there is none."""
    path = Path(path)
    numbered: dict[int, Path] = {}
    if path.parent.is_dir():
        for file in path.parent.iterdir():
            found = re.fullmatch(re.escape(path.name) + r"\.([1-9]\d*)", file.name)
            if found:
                numbered[int(found[1])] = file
    files = [numbered[number] for number in sorted(numbered, reverse=True)]
    if path.is_file():
        files.append(path)
    if not files:
        raise RunError(f"a score log must exist, got none at {path}")
    return files


def read_score_log(path: str | Path) -> LoggedRows:
    """Read a log and the files that it was rotated into.

    A line that is cut or not of this form is skipped and counted. Raises RunError where there is no
    log, or a file of it cannot be read.
    """
    frames = [pl.DataFrame(schema=SCHEMA)]
    baselines: dict[str, Any] = {}
    torn = 0
    try:
        with ExitStack() as stack:
            for file in _opened(Path(path), stack):
                for chunk in _chunks(file):
                    heads, lines = _parted(chunk)
                    for head in heads:
                        torn += not _take(head, baselines)
                    frame, lost = _parsed(lines)
                    frames.append(frame)
                    torn += lost
    except OSError as fault:
        raise RunError(f"a score log must be readable, got {path}: {fault}") from fault
    frame = pl.concat(frames)
    time = pl.col("time").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="ms", strict=False)
    frame = frame.with_columns(time=time.dt.replace_time_zone("UTC"))
    whole = frame.drop_nulls(["time", "id", "row", "score", "bundle"])
    whole = whole.filter(pl.col("score").is_between(0, 1))
    return LoggedRows(whole, torn + len(frame) - len(whole), baselines)


def _opened(path: Path, stack: ExitStack) -> list[BinaryIO]:
    """Open all files of a log, the oldest first, while no writer turns them."""
    with ExitStack() as still:
        lock = path.with_name(f"{path.name}.lock")
        if lock.exists():
            fcntl.flock(still.enter_context(lock.open("rb")), fcntl.LOCK_SH)
        return [stack.enter_context(file.open("rb")) for file in log_files(path)]


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """Whole lines, some megabytes at a time; the last chunk may end in a cut line."""
    rest = b""
    while block := file.read(CHUNK):
        whole, found, after = (rest + block).rpartition(b"\n")
        if found:
            yield whole
        rest = after
    if rest:
        yield rest


def _parted(chunk: bytes) -> tuple[list[bytes], list[bytes]]:
    heads, lines = [], []
    for line in chunk.split(b"\n"):
        if line:
            (heads if line.startswith(HEAD) else lines).append(line)
    return heads, lines


def _take(head: bytes, baselines: dict[str, Any]) -> bool:
    try:
        content = json.loads(head)
        baselines[content["bundle"]] = dict(content["baseline"])
    except (ValueError, KeyError, TypeError):
        return False
    return True


def _parsed(lines: list[bytes]) -> tuple[pl.DataFrame, int]:
    """Lines as a frame, and how many of them are none."""
    try:
        return _frame(lines), 0
    except (pl.exceptions.PolarsError, OSError):
        kept = [line for line in lines if _is_whole(line)]
        return _frame(kept), len(lines) - len(kept)


def _frame(lines: list[bytes]) -> pl.DataFrame:
    if not lines:
        return pl.DataFrame(schema=SCHEMA)
    return pl.read_ndjson(io.BytesIO(b"\n".join(lines)), schema=SCHEMA)


def _is_whole(line: bytes) -> bool:
    try:
        content = json.loads(line)
        texts = [content[name] for name in ("time", "id", "bundle")]
        text = "".join([*texts, content["domain"] or ""])
        text.encode()  # half a surrogate pair is no text
        row, score = content["row"], content["score"]
        return type(row) is int and 0 <= row < 1 << 62 and 0 <= score <= 1
    except (ValueError, KeyError, TypeError):
        return False
