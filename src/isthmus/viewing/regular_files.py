"""Reading what may be anything: a link, a pipe, half a file, a file of somebody else."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

Stamp = tuple[int, int, int]  # time, size, number of the file: another one means another content


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a file cannot be read, in words."""

    why: str


def stamp_of(path: Path) -> Stamp | None:
    """What tells one content of a file from another; None where there is no regular file.

    A link is no regular file, wherever it leads.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_regular(path: Path, limit: int, *, offset: int = 0) -> bytes | Unreadable:
    """Read a regular file from ``offset`` to its end; no link, no pipe, no more than ``limit`` bytes."""
    try:
        # A pipe would block at opening; a link would lead anywhere.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as fault:
        if fault.errno == errno.ELOOP:
            return Unreadable("is a link, which is not followed")
        return Unreadable(f"cannot be read: {os.strerror(fault.errno or 0)}")
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            return Unreadable("is no regular file")
        if found.st_size - offset > limit:
            return Unreadable(f"is larger than {limit:,} bytes")
        try:
            file.seek(offset)
            return file.read(limit)
        except OSError as fault:
            return Unreadable(f"cannot be read: {os.strerror(fault.errno or 0)}")


def address_of(place: Path) -> str:
    """A relative path as it stands in an address: any name in letters that every page can hold."""
    return quote(os.fsencode(place.as_posix()))


class HeldLocks:
    """Which files are locked by a process of this machine, as ``/proc/locks`` has it.

    Trying the lock would tell the same, but a fit that starts at that moment would be refused.
    """

    LOCKS = Path("/proc/locks")

    def __init__(self) -> None:
        try:
            text = self.LOCKS.read_text("ascii", "replace")
        except OSError:  # no Linux
            self.known, text = False, ""
        else:
            self.known = True
        fields = [line.split() for line in text.splitlines()]
        self.numbers = {
            int(line[5].rsplit(":", 1)[1])
            for line in fields
            if len(line) >= 6 and line[1] == "FLOCK" and line[5].rsplit(":", 1)[1].isdigit()
        }

    def holds(self, path: Path) -> bool:
        """Whether ``path`` is locked by `fcntl.flock`."""
        stamp = stamp_of(path)
        return stamp is not None and stamp[2] in self.numbers
