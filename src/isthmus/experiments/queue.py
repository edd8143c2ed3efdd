"""Who trains what, where several processes on any machines share one folder. No server is needed.

    .KEY.claim-0             who trains KEY; the next one to take it over writes .KEY.claim-1
    .KEY.failed              why KEY cannot be trained; everybody ends with it
    KEY.claim-0.checkpoint   how far the training is

A claim is made by ``O_EXCL``, so one process has it, on network file systems too. A claim is never
renamed or given to another one: whoever finds that an owner has fallen silent makes the claim of the
next number, and again one process has it. So nobody can take away a claim that is younger than the
one that was watched. Claims are removed when the outcome is there.

The files stand beside the outcomes on purpose. Whoever makes a claim has changed the folder, and a
network file system then shows the outcomes as they are, not as they were a minute ago.

A process that was taken for dead and comes back does no harm. Its outcome has the same bits as that
of the successor, and the outcome that stands first stays.
"""

import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from isthmus.disk import TEMPORARY, write_whole
from isthmus.experiments.peers import PREFIX, Peers

LEFT = "left"  # in a claim: its owner has gone, and anybody may take over
LOST = 5  # owners of one training that may fall silent before nobody else tries
CLAIM = re.compile(r"\.(?P<key>[^.]+)\.claim-(?P<number>\d+)")
CHECKPOINT = re.compile(r"(?P<key>[^.]+)(\.claim-(?P<number>\d+))?\.checkpoint")


class Queue:
    """The claims of one folder. Call `look` before a round of questions.

    Raises OSError where the folder cannot be read or written.
    """

    def __init__(self, folder: Path, peers: Peers) -> None:
        self.folder, self.peers = folder, peers
        self._held: dict[str, int] = {}
        self._first: dict[str, int] = {}
        self._dead: dict[str, str] = {}
        for old in folder.glob(".*.failed"):  # whoever starts again wants it tried again
            old.unlink(missing_ok=True)
        self.look()

    def look(self) -> None:
        """Read the names in the folder."""
        self._names = frozenset(os.listdir(self.folder))
        self._claims: defaultdict[str, list[int]] = defaultdict(list)
        self._saved: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        for found in filter(None, map(CLAIM.fullmatch, self._names)):
            self._claims[found["key"]].append(int(found["number"]))
        for number, key, name in _checkpoints(self._names):
            self._saved[key].append((number, name))

    def may_be_done(self, key: str) -> bool:
        """Whether there was something under the name of the outcome at the last look."""
        return key in self._names

    def is_free(self, key: str) -> bool:
        """Whether nobody who lives has the training. Found by watching, so ask again and again."""
        claims = self._claims.get(key, [])
        if not claims:
            return True
        last = max(claims)
        first = self._first.setdefault(key, last)
        if not self._is_over(key, last):
            return False
        if last - first + 1 >= LOST:
            owners = [self._owner(key, number) for number in range(first, last + 1)]
            dead = [owner for owner in owners if owner != LEFT]
            if len(dead) >= LOST:
                self._dead[key] = (
                    f"{len(dead)} processes began it and fell silent, the last one {dead[-1]}"
                    " (memory may have run out)"
                )
        return True

    def fault(self, key: str) -> str | None:
        """Give why a training cannot be trained, or None."""
        name = f".{key}.failed"
        if name in self._names:
            with suppress(OSError, ValueError, KeyError):
                told = json.loads((self.folder / name).read_text(encoding="utf-8"))
                return _failed(told["machine"], told["process"], told["error"])
        return self._dead.get(key)

    def claim(self, key: str) -> bool:
        """Take a training that `is_free`. False where another process was faster."""
        number = max(self._claims.get(key, [-1])) + 1
        path = self._claim(key, number)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            try:
                os.write(handle, self.peers.name.encode())
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        self._held[key] = number
        return True

    def holds(self, key: str) -> bool:
        """Whether this process has the training, and nobody took it over."""
        number = self._held.get(key)
        return number is not None and not self._claim(key, number + 1).exists()

    def saved(self, key: str) -> Path:
        """Give where the checkpoints of a claimed training go. Those of the last owner are there.

        The folder is renamed. An owner that still lives then fails to write there, and nobody minds.
        """
        number = self._held[key]
        place = self.folder / f"{key}.claim-{number}.checkpoint"
        if number:
            self._remove_halves(key)
        for _, name in sorted(self._saved.get(key, []), reverse=True):
            if not place.exists():
                with suppress(OSError):
                    os.rename(self.folder / name, place)
        return place

    def finish(self, key: str) -> None:
        """Remove all that a finished training does not need any more."""
        held = self._held.pop(key, None)
        for _, name in self._saved.get(key, []):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for number in {*self._claims.get(key, []), *([] if held is None else [held])}:
            self._claim(key, number).unlink(missing_ok=True)

    def fail(self, key: str, error: str) -> str:
        """Tell all others why a training failed. Give what is told."""
        told = {"machine": self.peers.machine, "process": self.peers.process, "error": error}
        with suppress(OSError):  # a full disk: the others then find out by themselves
            write_whole(self.folder / f".{key}.failed", json.dumps(told))
        return _failed(told["machine"], told["process"], error)

    def release(self) -> None:
        """Let others take over what this process has not finished."""
        for key in list(self._held):
            if self.holds(key):
                self._remove_halves(key)
            with suppress(OSError):
                self._claim(key, self._held.pop(key)).write_text(LEFT, encoding="utf-8")

    def _is_over(self, key: str, number: int) -> bool:
        owner = self._owner(key, number)
        if owner == LEFT or (owner == self.peers.name and self._held.get(key) != number):
            return True
        # An owner that died before it wrote its name is watched by the claim.
        return self.peers.is_silent(owner or self._claim(key, number).name)

    def _owner(self, key: str, number: int) -> str:
        try:
            return self._claim(key, number).read_text(encoding="utf-8")
        except OSError:
            return ""

    def _claim(self, key: str, number: int) -> Path:
        return self.folder / f".{key}.claim-{number}"

    def _remove_halves(self, key: str) -> None:
        for half in self.folder.glob(f".{key}{TEMPORARY}*"):
            shutil.rmtree(half, ignore_errors=True)


def clear_queue(folder: Path) -> None:
    """Remove what shared trainings left, where nobody trains. Checkpoints stay, beside the outcomes."""
    for pattern in (f"{PREFIX}*", ".*.claim-*", ".*.failed"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    for number, key, name in sorted(_checkpoints(os.listdir(folder)), reverse=True):
        plain = folder / f"{key}.checkpoint"
        if number >= 0 and plain.exists():
            shutil.rmtree(folder / name, ignore_errors=True)
        elif number >= 0:
            os.rename(folder / name, plain)


def _checkpoints(names: Iterable[str]) -> list[tuple[int, str, str]]:
    """Number, key and name of each folder of checkpoints; -1 for that of a lone process."""
    found = map(CHECKPOINT.fullmatch, names)
    return [(int(one["number"] or -1), one["key"], one.string) for one in found if one]


def _failed(machine: str, process: int, error: str) -> str:
    return f"process {process} on {machine}: {error}"
