"""What lies under the folder that is viewed: runs, and pages of studies, benchmarks and diagnoses.

The walk follows no link, and looks into no run. Only what the walk found is ever served.
"""

import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.errors import RunError
from isthmus.printable import printable
from isthmus.report.runs_table import FoundPage, RunRow
from isthmus.viewing.regular_files import HeldLocks, address_of, stamp_of
from isthmus.viewing.run_reading import LOOKS, STATE, RunReading

MOST_FOLDERS = 20_000
DEEPEST = 8
COALESCED = 0.3  # seconds in which one walk serves all who ask
RESTS = 4  # times as long as a walk took, the next one waits at least: a fit needs the cores, too
OF_FOLDER = (
    ("study.json", "Tuning"),
    ("benchmark.json", "Benchmark"),
    ("report.json", "Diagnosis"),
)
# Files that are served where they lie, and what they are. ``report.html`` is what its folder is.
PAGES = {
    "report.html": "Report",
    "diagnosis.html": "Diagnosis",
    "comparison.html": "Comparison",
    "benchmark.html": "Benchmark",
    "tuning.html": "Tuning",
    "monitor.html": "Monitor",
}
NOT_ENTERED = ("bundle", "checkpoint", "configs", "figures", "scores", "trainings", "node_modules")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the last walk found.

    ``version``: grows with each change. ``since``: the version at which a row last changed; ``gone``:
    the one at which a run vanished. ``served``: address -> file. ``cut``: why the walk ended early.
    """

    version: int = 0
    rows: dict[str, RunRow] = field(default_factory=dict)
    since: dict[str, int] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    pages: tuple[FoundPage, ...] = ()
    pages_since: int = 0
    served: dict[str, Path] = field(default_factory=dict)
    cut: str = ""


class RunsFolder:
    """The folder, and what was seen in it last. Any number of threads may look."""

    def __init__(self, path: str | Path) -> None:
        if not Path(path).is_dir():
            raise RunError(f"folder to view must exist, got {path}")
        self.root = Path(path).resolve()
        self.name = printable(str(path))
        self.token = secrets.token_hex(4)  # versions of another server mean nothing here
        self._reading = RunReading()
        self._seen, self._next = Seen(), 0.0
        self._lock = threading.Lock()

    def look(self) -> Seen:
        """Give what lies under the folder now."""
        with self._lock:
            begun = time.monotonic()
            if begun >= self._next:
                self._seen = self._walked(self._seen)
                ended = time.monotonic()
                self._next = ended + max(COALESCED, RESTS * (ended - begun))
            return self._seen

    def file_of(self, path: Path) -> Path | None:
        """A file that was found, where it still lies inside the folder; None where it does not."""
        inside = stamp_of(path) is not None and path.resolve() == path
        return path if inside and path.is_relative_to(self.root) else None

    def _walked(self, before: Seen) -> Seen:
        rows: dict[str, RunRow] = {}
        folders: dict[str, Path] = {}
        pages: list[FoundPage] = []
        served: dict[str, Path] = {}
        locks = HeldLocks()
        self._reading.begin()
        walk = _Walk(self.root)
        for folder, names in walk:
            place = folder.relative_to(self.root)
            name = self.root.name if folder == self.root else str(place)
            found = []
            for file in sorted(names & PAGES.keys()):
                stamp = stamp_of(folder / file)
                if stamp is not None:
                    address = f"pages/{address_of(place / file)}"
                    served[address] = folder / file
                    found.append((_kind(file, names), address, stamp[0] / 1e9))
            if _is_run(names):
                address = address_of(place)
                links = tuple((kind, link) for kind, link, _ in found)
                rows[address] = self._reading.row(folder, name, address, locks, links)
                folders[address] = folder
            else:
                pages += [FoundPage(kind, printable(name), link, at) for kind, link, at in found]
        self._reading.end()
        return _next(before, rows, folders, tuple(pages), served, walk.cut)


class _Walk:
    """Folders under a root, the names in each, breadth first; ``cut``: why some were left out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cut = ""

    def __iter__(self) -> Iterator[tuple[Path, set[str]]]:
        waiting = deque([(self.root, 0)])
        count = 0
        while waiting:
            folder, depth = waiting.popleft()
            count += 1
            if count > MOST_FOLDERS:
                self.cut = f"Only the first {MOST_FOLDERS:,} folders were looked into."
                return
            try:
                with os.scandir(folder) as entries:
                    held = [(one.name, one.is_dir(follow_symlinks=False)) for one in entries]
            except OSError:  # gone meanwhile, or not ours to read
                continue
            names = {name for name, _ in held}
            yield folder, names
            if depth < DEEPEST and not _is_whole(names):
                waiting += [
                    (folder / name, depth + 1)
                    for name, is_folder in sorted(held)
                    if is_folder and not name.startswith(".") and name not in NOT_ENTERED
                ]


def _is_run(names: set[str]) -> bool:
    """A run, also one that lost its state, or that has only just begun."""
    return STATE in names or LOOKS in names or {"config.yaml", ".lock"} <= names


def _is_whole(names: set[str]) -> bool:
    """Whether what is inside belongs to one thing, which is a row or a page already."""
    return _is_run(names) or "study.json" in names or "benchmark.json" in names


def _kind(file: str, names: set[str]) -> str:
    if file == "report.html" and not _is_run(names):
        return next((kind for mark, kind in OF_FOLDER if mark in names), PAGES[file])
    return PAGES[file]


def _next(
    before: Seen,
    rows: dict[str, RunRow],
    folders: dict[str, Path],
    pages: tuple[FoundPage, ...],
    served: dict[str, Path],
    cut: str,
) -> Seen:
    """Give what was found a version, where it differs from what was found before."""
    changed = [key for key, row in rows.items() if before.rows.get(key) != row]
    vanished = [key for key in before.rows if key not in rows]
    version = before.version + bool(changed or vanished or pages != before.pages)
    return Seen(
        version=version,
        rows=rows,
        since={key: before.since.get(key, version) for key in rows}
        | dict.fromkeys(changed, version),
        gone={key: at for key, at in before.gone.items() if key not in rows}
        | dict.fromkeys(vanished, version),
        folders=folders,
        pages=pages,
        pages_since=before.pages_since if pages == before.pages else version,
        served=served,
        cut=cut,
    )
