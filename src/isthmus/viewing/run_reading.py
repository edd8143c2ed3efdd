"""One run folder as one row: read by file, each file again only when it changed.

Nothing here raises for what stands in the files. What is damaged or half-written is told in the row.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from isthmus.printable import printable
from isthmus.report.runs_table import RunRow
from isthmus.viewing.regular_files import HeldLocks, Stamp, Unreadable, read_regular, stamp_of

STATE, CONFIG, LOOKS, LOCK = "run.json", "config.yaml", "metrics.jsonl", ".lock"
FORMAT = 1  # of run.json
MOST_BYTES = 64 << 20  # of one file
FRESH = 120.0  # seconds after a write in which a run counts as training, where locks cannot be seen
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class LooksRead:
    """What ``metrics.jsonl`` says so far, as far as its last whole line."""

    read: int  # bytes
    lines: int
    last: Mapping[str, Any] | None
    best: Mapping[str, Any] | None  # the last look that was the best of its phase
    number: int  # of the file


class RunReading:
    """Reads run folders into rows, and remembers each file by its stamp, and each finished row."""

    def __init__(self) -> None:
        self._held: dict[Path, tuple[Stamp, Any]] = {}
        self._rows: dict[Path, tuple[Any, RunRow]] = {}
        self._seen: set[Path] = set()  # folders

    def begin(self) -> None:
        """Begin a pass over all runs."""
        self._seen = set()

    def end(self) -> None:
        """End the pass: what it did not meet is forgotten."""
        self._held = {path: held for path, held in self._held.items() if path.parent in self._seen}
        self._rows = {folder: held for folder, held in self._rows.items() if folder in self._seen}

    def row(
        self, folder: Path, name: str, address: str, locks: HeldLocks, pages: tuple[Any, ...]
    ) -> RunRow:
        """Give the row of a run folder."""
        self._seen.add(folder)
        key = name, address, pages, *(stamp_of(folder / file) for file in (STATE, CONFIG, LOOKS))
        held = self._rows.get(folder)
        if held is not None and held[0] == key:
            return held[1]
        row = self._row(folder, name, address, locks, pages)
        if row.state == "finished":  # another state depends on more than on these files
            self._rows[folder] = key, row
        return row

    def _row(
        self, folder: Path, name: str, address: str, locks: HeldLocks, pages: tuple[Any, ...]
    ) -> RunRow:
        state = self._read(folder / STATE, lambda path, _: _json_of(path))
        config = self._read(folder / CONFIG, lambda path, _: _yaml_of(path))
        looks = self._read(folder / LOOKS, _looks_of)
        faults = [
            f"{file} {value.why}"
            for file, value in ((STATE, state), (CONFIG, config), (LOOKS, looks))
            if isinstance(value, Unreadable)
        ]
        changed = max(
            (
                held[0][0] / 1e9
                for file in (STATE, LOOKS)
                if (held := self._held.get(folder / file))
            ),
            default=0.0,
        )
        state, config = _mapping(state), _mapping(config)
        looks = looks if isinstance(looks, LooksRead) else None
        kind, why = self._state(folder, state, faults, changed, locks)
        model, data, train = (_mapping(config.get(key)) for key in ("model", "data", "train"))
        best = _mapping(None if looks is None else looks.best)
        monitor = _text(train.get("monitor"))
        row = RunRow(
            id=address,
            name=printable(name),
            state=kind,
            why=printable(why),
            model=_model_text(model),
            recipe=_text(state.get("recipe")),
            guard=_text(state.get("guard")),
            table=PurePath(_text(state.get("table"))).name,
            split=_text(_mapping(data.get("split")).get("by")),
            domains=_count(state.get("n_domains")),
            parameters=_count(state.get("parameters")) or None,
            monitor=monitor,
            auc=_number(best.get("auc_pooled")),
            logloss=_number(best.get("logloss_pooled")),
            seconds=_number(state.get("seconds")) or None,
            changed=changed,
            pages=pages,
        )
        if kind not in ("training", "unfinished") or looks is None or looks.last is None:
            return row
        return row.at_look(
            epoch=_number(looks.last.get("epoch")),
            epochs=_count(train.get("epochs")),
            value=_number(looks.last.get(monitor)),
        )

    def _state(
        self,
        folder: Path,
        state: Mapping[str, Any],
        faults: list[str],
        changed: float,
        locks: HeldLocks,
    ) -> tuple[Any, str]:
        locked = locks.holds(folder / LOCK)
        if faults:
            return "damaged", "; ".join(faults)
        if not state:
            return ("training", "it begins") if locked else ("damaged", f"it has no {STATE}")
        if (found := state.get("format")) != FORMAT:
            by = _text(state.get("isthmus"))
            return "damaged", f"{STATE} must have format {FORMAT}, got {found!r}, by isthmus {by}"
        if (found := state.get("state")) not in ("running", "finished"):
            return "damaged", f"{STATE} must say running or finished, got {found!r}"
        if found == "finished":
            return "finished", ""
        if locked or (not locks.known and time.time() - changed < FRESH):
            return "training", ""
        return "unfinished", "stopped, or trained on another machine"

    def _read(self, path: Path, parse: Callable[[Path, Any], Any]) -> Any:
        """The content of a file, parsed anew where its stamp is another one; None without a file."""
        stamp = stamp_of(path)
        if stamp is None:
            self._held.pop(path, None)
            return Unreadable("is no regular file") if path.is_symlink() else None
        held = self._held.get(path)
        if held is None or held[0] != stamp:
            held = stamp, parse(path, None if held is None else held[1])
            self._held[path] = held
        return held[1]


def _json_of(path: Path) -> Any:
    text = read_regular(path, MOST_BYTES)
    if isinstance(text, Unreadable):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as fault:
        return Unreadable(f"is damaged: {_first_line(fault)}")
    return value if isinstance(value, dict) else Unreadable("is damaged: it holds no JSON object")


def _yaml_of(path: Path) -> Any:
    text = read_regular(path, MOST_BYTES)
    if isinstance(text, Unreadable):
        return text
    try:
        value = yaml.load(text, _LOADER)
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        return Unreadable(f"is damaged: {_first_line(fault)}")
    return value if isinstance(value, dict) else Unreadable("is damaged: it holds no keys")


def _looks_of(path: Path, before: Any) -> LooksRead | Unreadable:
    """Read the lines that were added since ``before``; a last line without its end is left for later."""
    stamp = stamp_of(path)
    number = 0 if stamp is None else stamp[2]
    known = before if isinstance(before, LooksRead) and before.number == number else None
    if known is not None and stamp is not None and stamp[1] < known.read:
        known = None  # another content in the same file
    begin = 0 if known is None else known.read
    text = read_regular(path, MOST_BYTES, offset=begin)
    if isinstance(text, Unreadable):
        return text
    whole = text[: text.rfind(b"\n") + 1]
    last, best = (None, None) if known is None else (known.last, known.best)
    lines = 0 if known is None else known.lines
    for line in whole.splitlines():
        lines += 1
        try:
            look = json.loads(line)
        except (ValueError, RecursionError):
            look = None
        if not isinstance(look, dict):
            return Unreadable(f"is damaged in line {lines}")
        last = look
        best = look if look.get("better") is True or best is None else best
    return LooksRead(begin + len(whole), lines, last, best, number)


def _model_text(model: Mapping[str, Any]) -> str:
    """The backbone and what is beside it: ``mlp + hamur``; or ``trees``."""
    if _text(model.get("name")) == "trees":
        return "trees"
    backbone = _text(_mapping(model.get("backbone")).get("name"))
    adapter = _text(_mapping(model.get("adapter")).get("name"))
    return " + ".join(part for part in (backbone, adapter) if part and part != "none")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return printable(value) if isinstance(value, str) else ""


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else None


def _first_line(fault: Exception) -> str:
    return str(fault).splitlines()[0] if str(fault) else type(fault).__name__
