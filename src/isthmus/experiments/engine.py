"""The engine takes trainings and gives outcomes. Each training is run once, several at a time.

Outcomes lie in one folder. The name of an outcome is the key of all that decided it. So a killed
engine goes on where it stopped, and a training that is asked for again costs nothing.
"""

import shutil
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from isthmus.data.store.dataset import Dataset
from isthmus.disk import one_of_several, only_writer, reason, remove_leftovers
from isthmus.errors import IsthmusError, RunError
from isthmus.experiments.cost import cost
from isthmus.experiments.one import CHECKPOINT, run_one
from isthmus.experiments.outcome import Outcome, is_whole
from isthmus.experiments.peers import Peers, Sharing
from isthmus.experiments.queue import Queue, clear_queue
from isthmus.experiments.training import VERSION as TRAINING_VERSION
from isthmus.experiments.training import Training
from isthmus.experiments.workers import Job, Workers
from isthmus.version import VERSION

Tell = Callable[[str, int, int, Training], None]
"""The engine calls ``tell(what, done, of, training)`` after each training."""


class Engine:
    """Runs trainings and keeps their outcomes in ``folder``.

    ``datasets``: one for each fold, or a single one. ``jobs``: processes of one thread each. With 1
    job the trainings run in this process, with its threads. ``trained`` and ``cached`` count the
    trainings that were asked for since the engine was made, and ``trained_here`` those of ``trained``
    that this engine's own processes ended.

    A folder has one engine at a time, until `close` or the end of a ``with`` block. Raises
    RunError, which names the folder, where another engine is at work. Raises ValueError for numbers
    out of range.

    ``sharing``: several engines, on any machines, have the folder together, and each training is run
    by one of them. Every engine waits for the outcomes of the others, and takes over what a dead one
    left. All train in processes of one thread, also with 1 job, so that all give the same bits.
    Raises RunError, which names each difference, where another one at work differs in the terms, the
    versions or the datasets.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        folder: Path,
        *,
        jobs: int = 1,
        tell: Tell = lambda *_: None,
        sharing: Sharing | None = None,
    ) -> None:
        if jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {jobs}")
        if not datasets:
            raise ValueError("datasets must hold at least one, got none")
        self.datasets = tuple(datasets)
        self.folder = folder
        self.jobs = jobs
        self.tell = tell
        self.trained = self.trained_here = self.cached = 0
        self.asked: set[str] = set()
        self.seconds = 0.0
        self._workers = Workers(jobs)
        self._queue: Queue | None = None
        self._pause = 0.0 if sharing is None else sharing.beat / 5
        with ExitStack() as opening, _writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if sharing is None:
                opening.enter_context(only_writer(folder))
                self._clear()
            else:
                opening.enter_context(one_of_several(folder))
                peers = Peers(folder, replace(sharing, terms=self._terms(sharing)))
                opening.callback(peers.leave)
                self._queue = Queue(folder, peers)
                opening.callback(self._queue.release)
            opening.callback(self._workers.stop)
            # Also when nobody closes it: no lock and no process is left behind.
            self._closing = weakref.finalize(self, opening.pop_all().close)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes and free the folder. Outcomes can still be read."""
        self._closing()

    @property
    def is_shared(self) -> bool:
        """Whether others train in the folder, too."""
        return self._queue is not None

    @property
    def threads(self) -> int:
        """The threads of a training."""
        alone = self.jobs == 1 and self._queue is None
        return torch.get_num_threads() if alone else 1

    def dataset(self, training: Training) -> Dataset:
        """Give the dataset of the training's replicate. Raises ValueError where there is none."""
        if training.replicate >= len(self.datasets):
            raise ValueError(
                f"replicate must be below the number of datasets, {len(self.datasets)},"
                f" got {training.replicate}"
            )
        return self.datasets[training.replicate]

    def path(self, training: Training) -> Path:
        """Give the folder of the training's outcome, whether it is there or not."""
        return self.folder / training.key(self.dataset(training))

    def is_done(self, training: Training) -> bool:
        """Whether the training's outcome is there, and of this version."""
        return is_whole(self.path(training))

    def outcome(self, training: Training) -> Outcome:
        """Give the outcome of a finished training."""
        return Outcome(self.path(training), training, self.dataset(training))

    def run(self, trainings: Iterable[Training], what: str) -> list[Outcome]:
        """Train what is missing, and give the outcomes in the order of ``trainings``.

        A training that another one starts from is trained first. ``what``: words for the progress.
        Raises RunError, which names the training, where one fails. The other trainings are then
        stopped, and finished ones stay. Raises ValueError for a training that does not fit the
        datasets, before anything is trained.
        """
        wanted = list(trainings)
        for training in wanted:
            training.check(self.dataset(training))
        starts = [training.start for training in wanted if training.start is not None]
        starts = [start for start in starts if not self.is_done(start)]
        if starts:
            self.run(starts, what)
        missing: dict[Path, Training] = {}
        for training in wanted:
            path = self.path(training)
            if path.name not in self.asked:
                self.asked.add(path.name)
                self.cached += self.is_done(training)
            if not self.is_done(training):
                missing[path] = training
        if missing and not self._closing.alive:
            raise ValueError(f"an engine must be open to train, got a closed one at {self.folder}")
        # The dearest first, so that no process is left alone with a long one at the end.
        order = sorted(missing.items(), key=lambda item: -cost(item[1], self.dataset(item[1])))
        began = time.perf_counter()
        try:
            if self._queue is not None:
                with _writable(self.folder):
                    self._together(self._queue, order, what)
            elif self.jobs == 1 or len(order) <= 1:
                self._here(order, what)
            else:
                self._beside(order, what)
        finally:
            self.seconds += time.perf_counter() - began
        return [self.outcome(training) for training in wanted]

    def _start(self, training: Training) -> Path | None:
        return None if training.start is None else self.path(training.start)

    def _here(self, order: list[tuple[Path, Training]], what: str) -> None:
        with _threads(1 if self.jobs > 1 else torch.get_num_threads()):
            for number, (path, training) in enumerate(order, start=1):
                try:
                    run_one(training, self.dataset(training), path, self._start(training))
                except (IsthmusError, OSError) as fault:
                    raise _named(training, str(fault)) from fault
                self._count(training, what, number, len(order))

    def _beside(self, order: list[tuple[Path, Training]], what: str) -> None:
        jobs = [self._job(training) for _, training in order]
        finished = False
        try:
            for done, (number, fault) in enumerate(self._workers.run(jobs), start=1):
                training = jobs[number].training
                if fault is not None:
                    raise _named(training, fault)
                self._count(training, what, done, len(jobs))
            finished = True
        finally:
            if not finished:  # a fault, Ctrl-C, or an error of `tell`: nobody goes on unseen
                self._workers.stop()
                remove_leftovers(self.folder)

    def _together(self, queue: Queue, order: list[tuple[Path, Training]], what: str) -> None:
        """Train what nobody else trains, and wait for the rest."""
        left = {path.name: training for path, training in order}
        keys = list(left)
        here: set[str] = set()
        finished = False

        def end(key: str) -> None:
            queue.finish(key)
            self._count(left.pop(key), what, len(keys) - len(left), len(keys))

        try:
            while left:
                queue.look()
                free = []
                for key in [key for key in left if key not in here]:
                    if queue.may_be_done(key) and is_whole(self.folder / key):
                        end(key)
                        continue
                    is_free = queue.is_free(key)
                    if (fault := queue.fault(key)) is not None:
                        raise _named(left[key], fault)
                    free += [key] if is_free else []
                for key in free:
                    if self._workers.are_free and queue.claim(key):
                        if is_whole(self.folder / key):  # a moment ago
                            end(key)
                            continue
                        here.add(key)
                        self._workers.give(keys.index(key), self._job(left[key], queue.saved(key)))
                for number, fault in self._workers.ended(self._pause):
                    key = keys[number]
                    here.discard(key)
                    if is_whole(self.folder / key):
                        self.trained_here += 1
                        end(key)
                    elif fault is not None and queue.holds(key):
                        raise _named(left[key], queue.fail(key, fault))
            finished = True
        finally:
            if not finished:
                self._workers.stop()
                queue.release()

    def _job(self, training: Training, saved: Path | None = None) -> Job:
        folder = self.dataset(training).folder
        return Job(training, folder, self.path(training), self._start(training), saved)

    def _terms(self, sharing: Sharing) -> dict[str, Any]:
        """What must be equal in all engines of the folder."""
        return {
            "isthmus": VERSION,
            "torch": torch.__version__.partition("+")[0],
            "version of trainings": TRAINING_VERSION,
            **sharing.terms,
            "encoded tables": [dataset.key for dataset in self.datasets],
        }

    def _count(self, training: Training, what: str, number: int, of: int) -> None:
        self.trained += 1
        self.trained_here += self._queue is None
        self.tell(what, number, of, training)

    def _clear(self) -> None:
        """Remove what a killed engine left behind and nobody needs."""
        remove_leftovers(self.folder)
        clear_queue(self.folder)
        for saved in self.folder.glob(f"*{CHECKPOINT}"):
            if is_whole(saved.with_suffix("")):
                shutil.rmtree(saved, ignore_errors=True)


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Raise RunError, which names the folder, where the disk does not take what is written."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as fault:
        raise RunError(
            f"a folder of trainings must be writable at {folder}, got: {reason(fault)}"
        ) from fault


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _named(training: Training, fault: str) -> RunError:
    domains = "all domains" if training.domains is None else ", ".join(training.domains)
    place = f", replicate {training.replicate}" if training.replicate else ""
    return RunError(f"a training on {domains} with seed {training.train.seed}{place}: {fault}")
