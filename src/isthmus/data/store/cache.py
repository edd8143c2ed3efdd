"""The cache of encoded tables: where it is, who may write, what is in it, how it is emptied."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from isthmus.errors import IsthmusError

META = "meta.json"
_LOCKS = "locks"
_TEMPORARY = ".tmp"


def cache_folder() -> Path:
    """``$ISTHMUS_CACHE``, or ``~/.cache/isthmus``."""
    given = os.environ.get("ISTHMUS_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "isthmus"


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One encoded table in the cache."""

    key: str
    folder: Path
    table: str
    rows: int
    size: int  # bytes
    created: float  # seconds since 1970

    def __str__(self) -> str:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.created))
        return (
            f"{self.key}  {made}  {self.rows:>13,} rows  {self.size / 1e6:>10,.1f} MB  {self.table}"
        )


def entries(cache: str | Path | None = None) -> list[CacheEntry]:
    """The encoded tables, the newest first."""
    root = _datasets(cache)
    found = []
    for path in root.glob(f"*/{META}") if root.is_dir() else ():
        folder = path.parent
        if folder.suffix == _TEMPORARY:
            continue
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
            table, rows = str(meta["source"]), sum(meta["rows"].values())
            created = float(meta["created"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            table, rows, created = "damaged", 0, 0.0
        found.append(CacheEntry(folder.name, folder, table, rows, _size(folder), created))
    return sorted(found, key=lambda entry: (-entry.created, entry.key))


def clear(cache: str | Path | None = None) -> int:
    """Remove every encoded table that no process is writing, and give the number removed.

    A process that reads a removed table keeps the mapped arrays. The disk is freed when the process
    ends.
    """
    root = _datasets(cache)
    if not root.is_dir():
        return 0
    removed = 0
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or folder.name == _LOCKS:
            continue
        with _try_lock(root, folder.name.removesuffix(_TEMPORARY)) as ours:
            if ours:
                removed += folder.suffix != _TEMPORARY
                shutil.rmtree(folder, ignore_errors=True)
    return removed


def entry_folder(key: str, cache: str | Path | None = None) -> Path:
    """Folder of the encoded table with this key. The folder may not exist."""
    return _datasets(cache) / key


@contextmanager
def writing(final: Path, is_whole: Callable[[Path], bool]) -> Iterator[Path | None]:
    """Hold the only right to write ``final``; gives a fresh temporary folder to fill.

    Waits while another process writes. Gives ``None`` where ``final`` is there and ``is_whole``, as
    after another process has written it. A damaged ``final`` is removed. When the body ends well,
    the temporary folder becomes ``final`` in one step. When the body raises, the temporary folder is
    removed. The next writer removes what a killed process left behind: the kernel drops the lock of
    a dead process, so a temporary folder without a lock is stale.
    """
    root = final.parent
    (root / _LOCKS).mkdir(parents=True, exist_ok=True)
    with _lock_file(root, final.name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_stale(root, but=final.name)
        temporary = final.with_name(final.name + _TEMPORARY)
        shutil.rmtree(temporary, ignore_errors=True)
        if final.exists():
            if is_whole(final):
                yield None
                return
            shutil.rmtree(final)
        temporary.mkdir()
        try:
            yield temporary
            os.replace(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def room_in_cache(folder: Path) -> Iterator[None]:
    """Raise IsthmusError in place of OSError while an encoded table is written to ``folder``."""
    try:
        yield
    except OSError as fault:
        reason = fault.strerror or str(fault)
        raise IsthmusError(
            f"the cache must have room for the encoded table, got {reason!r} while writing"
            f" {folder.parent}; nothing was kept"
        ) from fault


def _datasets(cache: str | Path | None) -> Path:
    return (cache_folder() if cache is None else Path(cache)) / "datasets"


def _lock_file(root: Path, key: str) -> Path:
    return root / _LOCKS / key


@contextmanager
def _try_lock(root: Path, key: str) -> Iterator[bool]:
    (root / _LOCKS).mkdir(parents=True, exist_ok=True)
    with _lock_file(root, key).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _remove_stale(root: Path, *, but: str) -> None:
    for folder in root.glob(f"*{_TEMPORARY}"):
        key = folder.name.removesuffix(_TEMPORARY)
        if key != but:
            with _try_lock(root, key) as ours:
                if ours:
                    shutil.rmtree(folder, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
