"""Processes of one thread each that train. No process outlives the process that started it."""

import os
import signal
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from isthmus.data.store.dataset import Dataset
from isthmus.errors import IsthmusError
from isthmus.experiments.one import run_one
from isthmus.experiments.training import Training

FOLDS = 16  # datasets that a process keeps open


Opened = Callable[[Path], Dataset]


class AbstractJob(ABC):
    """Work for a process. What comes of it lies on disk."""

    __slots__ = ()

    @abstractmethod
    def run(self, opened: Opened) -> None:
        """Do the work. ``opened``: gives the dataset of a folder, which stays open in the process."""


@dataclass(frozen=True, slots=True)
class Job(AbstractJob):
    """A training to run.

    ``dataset``: the folder of the encoded table. ``folder``: where the outcome goes. ``start``: the
    folder of the outcome that the training starts from, or None. ``saved``: where checkpoints go, or
    None for beside the outcome.
    """

    training: Training
    dataset: Path
    folder: Path
    start: Path | None
    saved: Path | None = None

    def run(self, opened: Opened) -> None:
        """Train, and write the outcome."""
        run_one(self.training, opened(self.dataset), self.folder, self.start, self.saved)


class Workers:
    """At most ``count`` processes. Each is started when there is work, and kept for more work."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._processes: dict[Connection, SpawnProcess] = {}
        self._busy: dict[Connection, int] = {}

    @property
    def are_free(self) -> bool:
        """Whether a process can take a job."""
        return len(self._busy) < self._count

    def run(self, jobs: Sequence[AbstractJob]) -> Iterator[tuple[int, str | None]]:
        """Give the number of each job when the job ends, with what went wrong, or None.

        A caller that does not read to the end must call `stop`.
        """
        left = deque(enumerate(jobs))
        while left or self._busy:
            while left and self.are_free:
                self.give(*left.popleft())
            yield from self.ended()

    def give(self, number: int, job: AbstractJob) -> None:
        """Let a process that is free begin a job."""
        pipe = next((one for one in self._processes if one not in self._busy), None)
        pipe = self._start() if pipe is None else pipe
        with suppress(BrokenPipeError):  # a dead one is found out when it does not answer
            pipe.send(job)
        self._busy[pipe] = number

    def ended(self, seconds: float | None = None) -> list[tuple[int, str | None]]:
        """Wait until a job ends, so long at most; give the number and the fault of those that did."""
        ready = [pipe for pipe in wait(list(self._busy), seconds) if isinstance(pipe, Connection)]
        return [(self._busy.pop(pipe), self._answer(pipe)) for pipe in ready]

    def stop(self) -> None:
        """End every process at once, in the middle of a training if need be."""
        for process in self._processes.values():
            process.kill()
        for pipe, process in self._processes.items():
            process.join()
            process.close()
            pipe.close()
        self._processes.clear()
        self._busy.clear()

    def _start(self) -> Connection:
        context = get_context("spawn")
        pipe, other = context.Pipe()
        process = context.Process(target=_work, args=(other,), name="isthmus-training", daemon=True)
        # Ctrl-C goes to all processes of a terminal. This one hears it and ends the others, which
        # take over the mask that they are started with. The tracker, where it does not run yet, is
        # started with the first process and would lift the mask.
        resource_tracker.ensure_running()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        other.close()
        self._processes[pipe] = process
        return pipe

    def _answer(self, pipe: Connection) -> str | None:
        try:
            return pipe.recv()
        except (EOFError, ConnectionResetError):
            process = self._processes.pop(pipe)
            process.join()
            fault = _ending(process.exitcode or 0)
            process.close()
            pipe.close()
            return fault


def _ending(code: int) -> str:
    """Say what is known of a process that ended before its training did."""
    if code >= 0:
        return (
            f"its process must live until it is done, but ended with exit code {code}: see the"
            " traceback above (a script must start trainings under `if __name__ == '__main__':`)"
        )
    hint = " (memory may have run out: fewer jobs may help)" if code == -signal.SIGKILL else ""
    name = signal.Signals(-code).name
    return f"its process must live until it is done, but was ended by signal {name}{hint}"


def _work(pipe: Connection) -> None:
    """Do one job after another, until nobody is left to give one. A process runs this."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    torch.set_num_threads(1)
    opened = lru_cache(FOLDS)(Dataset.open)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job: AbstractJob = pipe.recv()
            fault = None
            try:
                job.run(opened)
            except (IsthmusError, OSError) as error:
                fault = str(error)
            pipe.send(fault)


def _follow_parent() -> None:
    """End this process, in the middle of a training if need be, when its parent has ended."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
