"""Ticked runs, compared by the code of ``isthmus compare``; one comparison at a time, the last ones kept."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

from isthmus.disk import refusal
from isthmus.errors import IsthmusError, RunError
from isthmus.printable import printable
from isthmus.report.runs_table import fault_page
from isthmus.viewing.regular_files import stamp_of
from isthmus.viewing.run_reading import CONFIG, STATE
from isthmus.viewing.runs_folder import RunsFolder

MOST_RUNS = 20
KEPT = 8
SPLITS = ("test", "validation")


class TickedRuns:
    """Makes the page of a comparison, or the page that says why there is none."""

    def __init__(self, folder: RunsFolder) -> None:
        self.folder = folder
        self._pages: OrderedDict[object, str] = OrderedDict()
        self._lock = threading.Lock()  # one comparison at a time bounds the memory

    def page(self, ids: Sequence[str], split: str, first: str | None) -> tuple[int, str]:
        """Give status and HTML. ``first``: the run that the others are compared with."""
        chosen = list(dict.fromkeys(ids))
        if first in chosen:
            chosen = [first, *(one for one in chosen if one != first)]
        try:
            return 200, self._compared(chosen, split)
        except (IsthmusError, OSError) as fault:
            told = refusal(fault) if isinstance(fault, OSError) else str(fault)
            seen = self.folder.look().rows
            names = ", ".join(seen[one].name if one in seen else printable(one) for one in chosen)
            lines = [*told.splitlines(), *([f"Ticked: {names}"] if names else [])]
            return 422, fault_page(
                "These runs cannot be compared", lines, links=_links(chosen, split)
            )

    def _compared(self, ids: list[str], split: str) -> str:
        if split not in SPLITS:
            raise RunError(f"split must be test or validation, got {split!r}")
        if not 2 <= len(ids) <= MOST_RUNS:
            raise RunError(f"2 to {MOST_RUNS} runs must be ticked to compare, got {len(ids)}")
        found = self.folder.look().folders
        for one in ids:
            if one not in found:
                raise RunError(f"run {one!r} is not under {self.folder.name}")
        folders = [found[one] for one in ids]
        with self._lock:
            files = [self._own(file) for of in folders for file in _files(of, split)]
            key = (split, tuple(ids), tuple(map(stamp_of, files)))
            if key not in self._pages:
                from isthmus.run.comparing import compare_runs  # with torch, when first asked for

                compared = compare_runs(folders, split=split)
                self._pages[key] = compared.page(links=_links(ids, split))
                while len(self._pages) > KEPT:
                    self._pages.popitem(last=False)
            self._pages.move_to_end(key)
            return self._pages[key]

    def _own(self, file: Path) -> Path:
        """A file that will be read. What leads out of the folder is refused; what is missing is told later."""
        if file.is_symlink() or not file.resolve().is_relative_to(self.folder.root):
            place = file.relative_to(self.folder.root)
            raise RunError(f"{place} is a link, or lies behind one, which is not followed")
        return file


def _files(folder: Path, split: str) -> tuple[Path, ...]:
    """The files of a run that a comparison reads."""
    return folder / STATE, folder / CONFIG, folder / "scores" / f"{split}.parquet"


def _links(ids: Sequence[str], split: str) -> dict[str, str]:
    """Where to go from a comparison."""
    links = {"All runs": "/"}
    for other in SPLITS:
        if other != split and len(ids) > 1:
            query = urlencode([*(("run", one) for one in ids), ("split", other)])
            links[f"The same on {other} rows"] = f"/compare?{query}"
    return links
