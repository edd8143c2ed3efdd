"""One tracker in a thread of its own, which works off a queue: nobody waits for a slow server."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from isthmus.disk import write_whole
from isthmus.tracking.tracker import AbstractTracker, AbstractTrackerConfig, Ending, TrackedRun

OPENING_SECONDS = 120.0  # that a tracker has to begin, counted from the end of the run
CLOSING_SECONDS = 600.0  # that it then has to send what is left
SHOWN = 200  # characters of a library's own words

Job = Callable[[AbstractTracker], None]


class Memory:
    """``trackers.json``: by tracker the mark of its run, and how many looks it was told.

    A file that is not there, or damaged, remembers nothing: the tracker then begins another run.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.lock = file, threading.Lock()
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            self.content = {name: (one["run"], one["looks"]) for name, one in content.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self.content = {}

    def of(self, name: str) -> tuple[str, int]:
        """The mark of a tracker's run, and the number of looks; empty and 0 where there is none."""
        return self.content.get(name, ("", 0))

    def keep(self, name: str, mark: str, looks: int) -> None:
        """Replace what is known of one tracker. Called by the threads of all trackers."""
        with self.lock:
            self.content[name] = (mark, looks)
            told = {one: {"run": run, "looks": n} for one, (run, n) in self.content.items()}
            write_whole(self.file, json.dumps(told, indent=2) + "\n")


class TrackerThread:
    """One tracker and its queue. ``fault``: why the tracker takes part no more; empty while it does."""

    def __init__(self, config: AbstractTrackerConfig, run: TrackedRun, memory: Memory) -> None:
        self.config, self.run, self.memory = config, run, memory
        self.looks = memory.of(config.name)[1]
        self.fault = ""
        self.begun = threading.Event()
        self.jobs: SimpleQueue[tuple[Job, int] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name=f"track {config.name}", daemon=True)
        self.thread.start()

    def do(self, job: Job, *, look: int = 0) -> None:
        """Put a job into the queue. ``look``: the number of the look that it tells, from 1; 0 for none.

        A look that was told before the run was stopped is left out.
        """
        if not self.fault and not 0 < look <= self.looks:
            self.jobs.put((job, look))

    def close(self, how: Ending) -> None:
        """Let the tracker end, after what is in the queue."""
        self.jobs.put((lambda tracker: tracker.end(how), 0))
        self.jobs.put(None)

    def wait(self) -> None:
        """Wait until the tracker has ended; give it up where that takes too long."""
        if not self.begun.wait(OPENING_SECONDS):
            self.fault = f"it did not begin within {OPENING_SECONDS:g} s"
            return
        self.thread.join(CLOSING_SECONDS)
        if self.thread.is_alive():
            self.fault = f"it did not end within {CLOSING_SECONDS:g} s"

    def _work(self) -> None:
        try:
            tracker = self.config.open(self.run)
            if tracker.mark:
                self.memory.keep(self.config.name, tracker.mark, self.looks)
            self.begun.set()
            while (due := self.jobs.get()) is not None:
                job, look = due
                job(tracker)
                if look and tracker.mark:
                    self.memory.keep(self.config.name, tracker.mark, look)
        except Exception as fault:  # noqa: BLE001  whatever a library raises must not end a training
            self.fault = _told(fault)
        finally:
            self.begun.set()


def _told(fault: Any) -> str:
    """The first line of what a library says of a fault, cut where it is long."""
    line = (str(fault).strip().splitlines() or [""])[0]
    short = line if len(line) <= SHOWN else f"{line[:SHOWN]}..."
    return f"{type(fault).__name__}: {short}" if short else type(fault).__name__
