"""The others who train in one folder: who they are, whether they live, whether they want the same.

Each process that shares a folder keeps one file in it, ``.worker-HOST-PID-TOKEN.json``, and counts up
in the file as long as it lives. Nobody compares clocks of two machines. Whoever doubts that another
one lives looks at the other's file, and sees by a clock of its own for how long the file stands still.
"""

import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.errors import RunError

PREFIX, SUFFIX = ".worker-", ".json"
SHOWN = 8  # differences that a refusal names one by one


@dataclass(frozen=True, slots=True)
class Sharing:
    """That several processes, on any machines, train in one folder.

    ``terms``: plain values that must be equal in all of them, such as the config.
    ``beat``: seconds between two signs of life. ``silence``: seconds without one, after which a
    process counts as dead. Network file systems show a change after up to a minute.
    """

    terms: Mapping[str, Any]
    beat: float = 5.0
    silence: float = 60.0


class Watch:
    """Tells for how long a text has stood still, by the looks that were taken at it.

    ``most``: seconds that count between two looks at most. A watcher that was stopped for an hour
    has seen nothing in that hour.
    """

    def __init__(self, most: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._seen: dict[str, tuple[str | None, float, float]] = {}

    def still(self, name: str, text: str | None) -> float:
        """Look once more, and give the seconds for which ``name`` has had this text."""
        now = self._clock()
        before, seconds, last = self._seen.get(name, (None, -1.0, now))
        if seconds < 0 or before != text:
            seconds = 0.0
        else:
            seconds += min(now - last, self._most)
        self._seen[name] = (text, seconds, now)
        return seconds


class Peers:
    """The processes that share a folder, this one among them.

    ``name``: of this process. Making it writes the process's file and starts a thread that counts;
    `leave` ends both. Raises RunError, which names each difference, while another process is at work
    on other terms. A process that left such a file and is dead is found out after ``silence``.
    Raises OSError where the folder cannot be written.
    """

    def __init__(self, folder: Path, sharing: Sharing) -> None:
        self.folder, self.sharing = folder, sharing
        self.machine, self.process = socket.gethostname(), os.getpid()
        host = re.sub(r"[^A-Za-z0-9-]+", "-", self.machine)[:40]
        self.name = f"{host}-{self.process}-{secrets.token_hex(4)}"
        self._terms = json.loads(json.dumps(dict(sharing.terms)))
        self._watch = Watch(sharing.silence / 4)
        self._silent: set[str] = set()
        self._beats = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="isthmus-beat", daemon=True)
        self._write()
        self._thread.start()
        try:
            self._check_terms()
        except BaseException:
            self.leave()
            raise

    def is_silent(self, name: str) -> bool:
        """Whether a process has given no sign of life for so long that it counts as dead.

        The answer needs several looks, since it is found by watching.
        """
        silent = name != self.name and self._still(name) >= self.sharing.silence
        (self._silent.add if silent else self._silent.discard)(name)
        return silent

    def leave(self) -> None:
        """Take away the file of this process, and those of processes that were found dead."""
        self._ended.set()
        self._thread.join(self.sharing.beat)
        for name in (self.name, *self._silent):
            with suppress(OSError):
                self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self.folder / f"{PREFIX}{name}{SUFFIX}"

    def _read(self, name: str) -> str | None:
        # A file on another machine is read anew only when it is opened anew.
        try:
            return self._file(name).read_text(encoding="utf-8")
        except OSError:
            return None

    def _still(self, name: str) -> float:
        return self._watch.still(name, self._read(name))

    def _write(self) -> None:
        content = {
            "machine": self.machine,
            "process": self.process,
            "beats": self._beats,
            "terms": self._terms,
        }
        self._file(self.name).write_text(json.dumps(content), encoding="utf-8")

    def _live(self) -> None:
        while not self._ended.wait(self.sharing.beat):
            self._beats += 1
            # A disk that is full or away for a while: the others see that, and no worse comes of it.
            with suppress(OSError):
                self._write()

    def _check_terms(self) -> None:
        """Wait until each process on other terms is found dead. Raise where one lives."""
        others = [
            path.name.removeprefix(PREFIX).removesuffix(SUFFIX)
            for path in self.folder.glob(f"{PREFIX}*{SUFFIX}")
        ]
        first = {name: self._read(name) for name in others if name != self.name}
        odd = {name for name, text in first.items() if text is not None and self._differs(text)}
        while odd:
            for name in sorted(odd):
                text = self._read(name)
                if text is None or not self._differs(text) or self.is_silent(name):
                    odd.discard(name)
                elif text != first[name]:
                    self._refuse(text)
            if odd:
                time.sleep(self.sharing.beat / 4)

    def _differs(self, text: str) -> bool:
        try:
            return json.loads(text)["terms"] != self._terms
        except (ValueError, KeyError, TypeError):
            return True  # read in the middle of its writing, or another version's

    def _refuse(self, text: str) -> None:
        try:
            other = json.loads(text)
            found = list(differences(other["terms"], self._terms))
            where = f"process {other['process']} on {other['machine']}"
        except (ValueError, KeyError, TypeError):
            return  # the next look meets a whole one
        more = [f"and {len(found) - SHOWN} more"] if found[SHOWN:] else []
        raise RunError(
            f"all who share {self.folder} must have the same config, table and version, but {where}"
            f" differs: {'; '.join(found[:SHOWN] + more)}"
        )


def differences(there: Any, here: Any, key: str = "") -> Iterator[str]:
    """Say where two trees of plain values differ: ``train.lr is 0.1 there, 0.2 here``.

    >>> list(differences({"train": {"lr": 0.1}}, {"train": {"lr": 0.2}}))
    ['train.lr is 0.1 there, 0.2 here']
    """
    pairs: list[tuple[Any, Any, Any]] = []
    if isinstance(there, dict) and isinstance(here, dict):
        names = dict.fromkeys([*there, *here])
        pairs = [(name, there.get(name), here.get(name)) for name in names]
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = [(place, *pair) for place, pair in enumerate(zip(there, here, strict=True))]
    elif there != here:
        yield f"{key} is {_shown(there)} there, {_shown(here)} here"
    for name, left, right in pairs:
        yield from differences(left, right, f"{key}.{name}" if key else str(name))


def _shown(value: Any) -> str:
    text = "missing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}..."
