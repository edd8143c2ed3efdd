"""What every tracker is: a place outside of the run folder that shows how a run goes.

A tracker may fail: its server may be away. `isthmus.tracking.Trackers` sees to it that no training
waits for one, or ends with it. A member of your own derives from both classes here, and registers by
an entry point of the group ``isthmus.trackers`` (`isthmus.family`).
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from isthmus.family import Member

Ending = Literal["finished", "failed", "stopped"]
"""How a training ended."""
Plain = str | int | float | bool | None
_UNKNOWN = re.compile(r"[^\w.\- /]")


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a tracker is told of a run when tracking begins.

    ``folder``: the run folder, which is there. ``config``: the config by dotted key; a list is its JSON.
    ``mark``: the `AbstractTracker.mark` of the start before, where a stopped run goes on; else empty.
    ``step``: the step of the last look that is known by then, 0 for none.
    """

    folder: Path
    config: Mapping[str, Plain]
    mark: str = ""
    step: int = 0

    @property
    def name(self) -> str:
        """The name of the folder, under which people look for the run."""
        return self.folder.absolute().name


class AbstractTracker(ABC):
    """One run at one tracker. All calls come from one thread, and each may raise what it likes.

    ``mark``: finds this run again after a stop; empty where the run folder alone does.
    """

    mark: str = ""

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Keep numbers by name, all of them finite, as those of a step. A step may come twice."""

    @abstractmethod
    def keep(self, path: Path) -> None:
        """Keep a file of the run folder, or a folder with all that is in it, under its name."""

    @abstractmethod
    def end(self, how: Ending) -> None:
        """Say how the run ended, and wait until all is kept. Nothing comes after it."""


class AbstractTrackerConfig(Member, ABC):
    """The config of one tracker.

    ``library``: the module that the tracker imports. ``extra``: the extra of isthmus that brings it.
    ``required``: whether a fit is refused where the library is missing.
    """

    library: ClassVar[str]
    extra: ClassVar[str]
    required: ClassVar[bool] = True

    @property
    def is_installed(self) -> bool:
        """Whether the library is there; it is not imported."""
        return find_spec(self.library) is not None

    @abstractmethod
    def open(self, run: TrackedRun) -> AbstractTracker:
        """Begin to track a run, or go on with the run of ``run.mark``. May raise what it likes."""


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Plain]:
    """Nested plain values by dotted key; a list becomes its JSON, and an empty mapping ``{}``.

    >>> flattened({"train": {"lr": 0.01, "objectives": []}})
    {'train.lr': 0.01, 'train.objectives': '[]'}
    """
    flat: dict[str, Plain] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple | Mapping):
            flat[f"{prefix}{key}"] = json.dumps(value, ensure_ascii=False)
        else:
            flat[f"{prefix}{key}"] = value
    return flat


class SafeNames:
    """Names of which only letters, digits, ``_``, ``-``, ``.``, blanks and single ``/`` are left.

    Another mark becomes ``_``. Names that become one that way are told apart by a number, in the order
    in which they come.

    >>> names = SafeNames(limit=250)
    >>> [names.of(name) for name in ("val/auc/a&b", "val/auc/a:b", "val/auc/a&b")]
    ['val/auc/a_b', 'val/auc/a_b 2', 'val/auc/a_b']
    """

    def __init__(self, *, limit: int) -> None:
        self.limit = limit
        self.known: dict[str, str] = {}
        self.taken: set[str] = set()

    def of(self, name: str) -> str:
        """The safe name of one name, always the same."""
        if name not in self.known:
            parts = _UNKNOWN.sub("_", name).split("/")
            # A part that a path would leave out, or go up by, is no name to a server.
            plain = "/".join(
                "_" * len(part) or "_" if part.strip(".") == "" else part for part in parts
            )
            self.known[name] = self._free(plain[: self.limit])
            self.taken.add(self.known[name])
        return self.known[name]

    def _free(self, plain: str) -> str:
        number, free = 1, plain
        while free in self.taken:
            number += 1
            free = f"{plain[: self.limit - 1 - len(str(number))]} {number}"
        return free
