"""The supervisor: opens the door, starts the workers, starts them again, and swaps the bundle in all of them.

A reload has two steps. Every worker loads the new bundle beside the old one and scores probes; only when all
have done so are they told to put it in place, and the reload is answered when no request of the old bundle is
under way. If one worker fails, none moves.
"""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from isthmus.bundle import is_bundle
from isthmus.errors import BundleError, IsthmusError
from isthmus.serving.edition import Order
from isthmus.serving.scoring_engine import bundle_checksum, has_graphs_of
from isthmus.serving.settings import ServeSettings
from isthmus.serving.worker import Failed, Prepare, Reloaded, Word, work

GRAPHS = "onnx"  # beside a run's bundle, where `isthmus export` writes
LOAD_LIMIT = 300.0  # seconds that a worker may take to load a bundle
RESTARTS = 5  # of workers that die before they are ready, one after another
BACKLOG = 2048
Tell = Callable[[str], None]


def serve(settings: ServeSettings, *, tell: Tell = lambda _: None) -> None:
    """Serve a bundle until SIGTERM or SIGINT; requests under way are answered first.

    ``tell``: hears one line once the workers are ready, with the address. Raises BundleError where the
    bundle cannot be served, OSError where the address is taken.
    """
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(_opened(settings))
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isthmus-serve-")))
        supervisor = _Supervisor(settings, door, place)
        stack.callback(supervisor.stop)
        supervisor.start()
        host, port = door.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        checksum = supervisor.checksum[:12]
        tell(f"http://{host}:{port} serves bundle {checksum} in {settings.workers} worker(s)")
        with _stopping() as stopped:
            supervisor.watch(stopped)


@contextlib.contextmanager
def _opened(settings: ServeSettings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((settings.host, settings.port))
        door.listen(BACKLOG)
        door.set_inheritable(True)
        yield door


@contextlib.contextmanager
def _stopping() -> Iterator[Connection]:
    """A connection that can be read once the process is told to stop."""
    hear, say = get_context("spawn").Pipe(duplex=False)

    def told(*_: object) -> None:
        with contextlib.suppress(OSError):
            say.send_bytes(b"stop")

    before = {each: signal.signal(each, told) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield hear
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        hear.close()
        say.close()


class _Process:
    """A worker's process and the supervisor's end of its pipe."""

    def __init__(
        self,
        settings: ServeSettings,
        order: Order,
        tallies: Path,
        number: int,
        door: socket.socket,
    ) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.number, self.ready = number, False
        self.process = context.Process(
            target=work,
            args=(settings, order, tallies, number, door, theirs),
            name="isthmus-worker",
        )
        self.process.start()
        theirs.close()

    def send(self, told: Any) -> bool:
        """Whether the worker could be told."""
        try:
            self.pipe.send(told)
        except OSError:
            return False
        return True

    def hear(self, limit: float) -> Any:
        """The next that the worker says; None where it says nothing within ``limit`` seconds, or is gone."""
        try:
            return self.pipe.recv() if self.pipe.poll(max(0.0, limit)) else None
        except (EOFError, OSError):
            return None

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class _Supervisor:
    def __init__(self, settings: ServeSettings, door: socket.socket, place: Path) -> None:
        self._settings, self._door = settings, door
        self._tallies, self._graphs = place / "tallies", place / "graphs"
        self._tallies.mkdir()
        self._workers: list[_Process] = []
        self._waiting: list[_Process] = []  # whose clients ask for a reload
        self._failed = 0
        self._order, self.checksum = self._next(0)

    def start(self) -> None:
        """Start the workers. Raises BundleError where one cannot serve the bundle."""
        self._workers = [self._started(number) for number in range(self._settings.workers)]
        for worker in self._workers:
            found = worker.hear(LOAD_LIMIT)
            if found is not Word.READY:
                told = found.fault if isinstance(found, Failed) else "a worker did not start"
                raise BundleError(told)
            worker.ready = True

    def _started(self, number: int) -> _Process:
        return _Process(self._settings, self._order, self._tallies, number, self._door)

    def watch(self, stopped: Connection) -> None:
        """Hear the workers until ``stopped`` can be read; start those again that are gone."""
        while True:
            heard = connection.wait(
                [
                    stopped,
                    *(w.pipe for w in self._workers),
                    *(w.process.sentinel for w in self._workers),
                ]
            )
            if stopped in heard:
                return
            for at, worker in enumerate(self._workers):
                if worker.pipe in heard:
                    self._heard(worker)
                if not worker.process.is_alive():
                    self._workers[at] = self._again(worker)
            while self._waiting:
                self._reload()

    def _heard(self, worker: _Process) -> None:
        told = worker.hear(0)
        if told is Word.READY:
            worker.ready, self._failed = True, 0
        elif told is Word.RELOAD:
            self._waiting.append(worker)

    def _again(self, worker: _Process) -> _Process:
        """Another worker in the place of one that is gone. Raises BundleError where none stays up."""
        self._failed += 0 if worker.ready else 1
        if self._failed > RESTARTS:
            raise BundleError(
                f"workers must stay up, got {self._failed} that died before they were ready"
            )
        worker.kill()
        return self._started(worker.number)

    def _reload(self) -> None:
        """Read the bundle again, in all workers or in none, and tell those who asked."""
        asked, self._waiting = self._waiting, []
        try:
            fault = self._moved()
        except (IsthmusError, OSError) as found:
            fault = str(found)
        for worker in asked:
            worker.send(Reloaded(None if fault is None else self._without_places(fault)))

    def _moved(self) -> str | None:
        order, checksum = self._next(self._order.generation + 1)
        if order.bundle == self._order.bundle and checksum == self.checksum:
            return None
        limit = time.monotonic() + LOAD_LIMIT
        for worker in self._workers:
            if not worker.ready:  # one that was started again, and loads the old bundle yet
                self._answer_of(worker, limit)
        told = [worker for worker in self._workers if worker.send(Prepare(order))]
        found = [self._answer_of(worker, limit) for worker in told]
        faults = [one.fault for one in found if isinstance(one, Failed)]
        if len(told) < len(self._workers) or not all(one is Word.READY for one in found):
            for worker in told:
                worker.send(Word.ABORT)
            return faults[0] if faults else "a worker was gone before the bundle was ready"
        # From here on all move: a worker that dies now is started again with the new bundle.
        old, self._order, self.checksum = self._order, order, checksum
        moving = [worker for worker in told if worker.send(Word.COMMIT)]
        limit = time.monotonic() + self._settings.time_limit + self._settings.drain
        for worker in moving:
            if self._answer_of(worker, limit) is not Word.DONE:
                worker.process.kill()  # the watch starts it again
        if old.graphs is not None and self._graphs in old.graphs.parents:
            shutil.rmtree(old.graphs, ignore_errors=True)
        return None

    def _answer_of(self, worker: _Process, limit: float) -> Any:
        """A worker's answer; the requests for a reload that come in between wait."""
        while True:
            found = worker.hear(limit - time.monotonic())
            if found is not Word.RELOAD:
                if found is Word.READY:
                    worker.ready = True
                return found
            self._waiting.append(worker)

    def _next(self, generation: int) -> tuple[Order, str]:
        """What to serve now, and its checksum. Its graphs are made where no export holds them."""
        # One real folder for all workers, should a link be turned meanwhile.
        given = self._settings.bundle
        folder = (given if is_bundle(given) else given / "bundle").resolve()
        checksum = bundle_checksum(folder)
        if self._settings.backend == "torch":
            return Order(folder, None, generation), checksum
        beside = folder.parent / GRAPHS
        if has_graphs_of(beside, checksum):
            return Order(folder, beside, generation), checksum
        if getattr(self, "checksum", None) == checksum:
            return replace(self._order, bundle=folder, generation=generation), checksum
        made = self._graphs / f"{generation:06d}"
        made.parent.mkdir(exist_ok=True)
        _export(folder, made)
        return Order(folder, made, generation), checksum

    def _without_places(self, fault: str) -> str:
        """A fault as a client may read it: where files lie is nobody's business."""
        folders = {
            self._settings.bundle.absolute(),
            self._settings.bundle.resolve(),
            self._graphs.parent,
        }
        for folder in sorted(map(str, folders), key=len, reverse=True):
            fault = fault.replace(folder, "BUNDLE")
        return fault

    def stop(self) -> None:
        """Let every worker answer what it has, then end it."""
        for worker in self._workers:
            worker.process.terminate()
        limit = time.monotonic() + self._settings.drain + 5
        for worker in self._workers:
            worker.process.join(max(0.0, limit - time.monotonic()))
            worker.kill()


def _export(bundle: Path, made: Path) -> None:
    """Write a bundle's graphs, in a process of their own. Raises BundleError."""
    words = [
        sys.executable,
        "-c",
        "from isthmus.cli import app; app()",
        "export",
        str(bundle),
        "-o",
        str(made),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        told = done.stderr.strip().rpartition("error:")[2].strip()
        raise BundleError(told or f"the export of {bundle} ended with code {done.returncode}")
