"""The score log: a sampled, rotated record of what was answered, one JSON line a row.

    {"time": "2026-11-28T09:30:00.000Z", "id": "r-17", "row": 0, "domain": "home", "score": 0.0312,
     "bundle": "9f2c..."}

``id`` is the request's, or the row's own; ``row`` is the place in the request; ``domain`` is null where the
row named none. Values of columns are never written unless the log is asked for them, as ``values``.

A request is in the log with all its rows or not at all: a hash of its id decides, the same in every process.
Several processes append to one file. The lines of a request are one write, and the file is opened for
appending, so lines never mix. A full file becomes FILE.1, FILE.1 becomes FILE.2, and the last one goes. One
process turns the files at a time, by a lock that nobody waits for; the others notice at their next write.

At the head of each file, and where another bundle comes, stands what scores are compared with later:
``{"baseline": {domain: AUC and calibration on validation rows}, "bundle": ...}``.

A disk that takes nothing fails no request: the rows are counted in ``lost``.
"""

import fcntl
import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from isthmus.bundle.profile import Profile
from isthmus.disk import reason, writing

MAX_BYTES = 64 << 20
KEPT = 9  # files beside the one that is written


class ScoreLog:
    """Appends scores to a file that other processes append to as well.

    ``path``: the file; its folder must exist. ``sample``: the share of requests that are kept, above 0
    and at most 1. ``max_bytes``: size at which a file is full. ``kept``: how many full files stay, at
    least 1. ``values``: write the values of columns, too. ``tell``: is called with one sentence when rows
    begin to be lost.

    ``lost``: rows that could not be written so far. Raises RunError where the file cannot be opened,
    ValueError for numbers out of range.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        sample: float = 1.0,
        max_bytes: int = MAX_BYTES,
        kept: int = KEPT,
        values: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        if not 0 < sample <= 1:
            raise ValueError(f"sample must be above 0 and at most 1, got {sample}")
        if max_bytes < 1 or kept < 1:
            raise ValueError(f"max_bytes and kept must be at least 1, got {max_bytes} and {kept}")
        self.path = Path(path)
        self.sample, self.max_bytes, self.kept, self.values = sample, max_bytes, kept, values
        self.lost = 0
        self._tell = tell
        self._below = int(sample * 2**64)
        self._head = b""  # of each new file
        self._file: int | None = None
        self._place: tuple[int, int] | None = None
        self._torn = self._failing = False
        self._turn = threading.Lock()
        with writing("score log", self.path):
            self._current()

    def takes(self, request_id: str) -> bool:
        """Whether the rows of a request are kept."""
        digest = hashlib.blake2b(request_id.encode(errors="surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self._below

    def describe(self, bundle: str, profile: Profile | None) -> None:
        """Tell of a bundle that is served from now on.

        ``bundle``: its checksum. Its baseline is written now, and at the head of each new file. The
        rows of a bundle without a profile have no baseline in the log.
        """
        with self._turn:
            self._head = b""
            if profile is None:
                return
            content = {"baseline": profile.baseline(), "bundle": bundle}
            head = json.dumps(content, allow_nan=False).encode() + b"\n"
            self._append(head, rows=0)
            self._head = head

    def write(
        self,
        request_id: str,
        *,
        domains: Sequence[str | None],
        scores: Float64[np.ndarray, " rows"],
        bundle: str,
        time: float,
        values: Mapping[str, Sequence[Any]] | None = None,
        row_ids: Sequence[str] | None = None,
    ) -> None:
        """Append the rows of one request, where the sample takes it. Never raises for the disk.

        ``domains``: as the rows name them, None for none. ``bundle``: checksum of what scored them.
        ``time``: seconds since 1970. ``values``: columns by name, which are written only where the log
        was asked for values. ``row_ids``: own ids of the rows, in place of the request's.
        """
        if not self.takes(request_id):
            return
        moment = datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds")
        head = f'{{"time":"{moment.replace("+00:00", "Z")}","id":'
        tail = f',"bundle":{_quoted(bundle)}}}\n'
        ids = [_quoted(request_id)] * len(scores) if row_ids is None else map(_quoted, row_ids)
        held = self._held(values, len(scores))
        lines = [
            f'{head}{own},"row":{row},"domain":{_quoted(domain)},"score":{score:.9g}{more}{tail}'
            for row, (own, domain, score, more) in enumerate(
                zip(ids, domains, scores.tolist(), held, strict=True)
            )
        ]
        with self._turn:
            self._append("".join(lines).encode(), rows=len(lines))

    def _held(self, values: Mapping[str, Sequence[Any]] | None, rows: int) -> Sequence[str]:
        if values is None or not self.values:
            return [""] * rows
        columns = list(values.values())
        return [
            f',"values":{json.dumps(dict(zip(values, map(_finite, row), strict=True)), default=str)}'
            for row in zip(*columns, strict=True)
        ]

    def _append(self, data: bytes, rows: int) -> None:
        """Write lines at the end of the current file; count the rows that the disk does not take."""
        left = data
        try:
            size = self._current()
            if size and size + len(data) > self.max_bytes:
                self._rotate()
                self._current()
            assert self._file is not None
            if self._torn:  # what is left of a line is ended, so that it takes no other with it
                os.write(self._file, b"\n")
                self._torn = False
            while left:
                left = left[os.write(self._file, left) :]
            self._failing = False
        except OSError as fault:
            self._torn = self._torn or 0 < len(left) < len(data)
            self._lose(min(rows, left.count(b"\n")), fault)

    def _lose(self, rows: int, fault: OSError) -> None:
        self.lost += rows
        if not self._failing and self._tell is not None:
            self._tell(f"score log {self.path} cannot be written, rows are lost: {reason(fault)}")
        self._failing = True

    def _current(self) -> int:
        """Open the file where it is not open, or was turned by another process. Give its size."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            found = None
        if self._file is None or found is None or (found.st_dev, found.st_ino) != self._place:
            self.close()
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            found = os.fstat(self._file)
            self._place = found.st_dev, found.st_ino
            if found.st_size == 0:
                os.write(self._file, self._head)
        return found.st_size

    def _rotate(self) -> None:
        """Turn the files by one, unless another process does so just now or has done so."""
        lock = os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.stat(self.path)
            if (found.st_dev, found.st_ino) != self._place:
                return
            last = 1
            while last < self.kept and os.path.exists(f"{self.path}.{last}"):
                last += 1
            for number in range(last - 1, 0, -1):
                os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
            os.replace(self.path, f"{self.path}.1")
        except BlockingIOError:
            pass  # the file grows a little longer
        finally:
            os.close(lock)

    def close(self) -> None:
        """Close the file. A later write opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


@lru_cache(maxsize=4096)
def _quoted(text: str | None) -> str:
    """A text as JSON; half a surrogate pair, which is no text, as ``?``."""
    return json.dumps(text if text is None else text.encode(errors="replace").decode())


def _finite(value: Any) -> Any:
    """A value that JSON has: null for nan and inf."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
