"""A worker: one process that answers requests. Its supervisor tells it by a pipe what to serve.

supervisor -> worker     Prepare(order)    load and probe another bundle, beside the one that answers
                         COMMIT            put it in place; answer once the old one has no request left
                         ABORT             forget it
worker -> supervisor     READY, Failed(fault), DONE
                         RELOAD            a client asks for the bundle to be read again
supervisor -> worker     Reloaded(fault)   the answer to that: None, or why it failed
"""

import asyncio
import gc
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import uvicorn
import uvloop

from isthmus.errors import IsthmusError
from isthmus.monitoring import ScoreLog
from isthmus.serving.application import make_app
from isthmus.serving.edition import CurrentEdition, Edition, Order
from isthmus.serving.joined_writes import JoinedProtocol
from isthmus.serving.settings import ServeSettings


@dataclass(frozen=True, slots=True)
class Prepare:
    """Load a bundle."""

    order: Order


@dataclass(frozen=True, slots=True)
class Failed:
    """The bundle cannot be served."""

    fault: str


@dataclass(frozen=True, slots=True)
class Reloaded:
    """How a reload ended."""

    fault: str | None


class Word(Enum):
    """What the two say without more."""

    COMMIT = "serve what was prepared"
    ABORT = "forget what was prepared"
    READY = "the bundle is loaded, and its probes are scored"
    DONE = "no answer of the old bundle is to come any more"
    RELOAD = "a client asks for a reload"


def work(
    settings: ServeSettings,
    order: Order,
    tallies: Path,
    number: int,
    door: socket.socket,
    pipe: Connection,
) -> None:
    """Load the bundle, then answer until SIGTERM, or until the supervisor is gone.

    ``number``: of this worker among all, from 0.
    """
    torch.set_num_threads(1)
    log = None
    if settings.log is not None:
        log = ScoreLog(settings.log, sample=settings.log_share, values=settings.log_values)
    load = partial(Edition.load, settings, tallies=tallies, number=number, log=log)
    try:
        edition = load(order)
    except (IsthmusError, OSError) as fault:
        pipe.send(Failed(str(fault)))
        sys.exit(1)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Worker(settings, edition, load, tallies, pipe).run(door))


class _Worker:
    def __init__(
        self,
        settings: ServeSettings,
        edition: Edition,
        load: Callable[[Order], Edition],
        tallies: Path,
        pipe: Connection,
    ) -> None:
        self._load, self._pipe = load, pipe
        self._current = CurrentEdition(edition)
        self._prepared: Edition | None = None
        self._asked: asyncio.Future[str | None] | None = None
        app = make_app(self._current, settings, tallies, reload=self._reload, up=self._is_up)
        config = uvicorn.Config(
            app,
            http=JoinedProtocol,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(max(1, settings.drain)),
        )
        self._server = uvicorn.Server(config)

    async def run(self, door: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, daemon=True).start()
        self._current.edition.begin()
        # What libraries and bundle hold stays. The collector would walk over all of it in the midst of requests.
        gc.collect()
        gc.freeze()
        self._pipe.send(Word.READY)
        await self._server.serve(sockets=[door])
        self._current.edition.count()

    def _is_up(self) -> bool:
        return not self._server.should_exit

    async def _reload(self) -> str | None:
        """Ask the supervisor; give why it failed, or None."""
        self._asked = self._loop.create_future()
        self._pipe.send(Word.RELOAD)
        return await self._asked

    def _listen(self) -> None:
        """Hear the supervisor, in a thread: loading takes seconds, and requests go on."""
        while True:
            try:
                told = self._pipe.recv()
            except (EOFError, OSError):
                # Without a supervisor nobody would start or stop this process.
                self._server.should_exit = True
                return
            if isinstance(told, Prepare):
                self._pipe.send(self._prepare(told.order))
            elif told is Word.COMMIT:
                done = asyncio.run_coroutine_threadsafe(self._commit(), self._loop)
                done.result()
                self._pipe.send(Word.DONE)
            elif told is Word.ABORT:
                self._prepared = None
            elif isinstance(told, Reloaded):
                self._loop.call_soon_threadsafe(self._answer, told.fault)

    def _prepare(self, order: Order) -> Word | Failed:
        try:
            self._prepared = self._load(order)
        except (IsthmusError, OSError) as fault:
            return Failed(str(fault))
        return Word.READY

    async def _commit(self) -> None:
        assert self._prepared is not None
        edition, self._prepared = self._prepared, None
        edition.begin()
        await self._current.swap(edition)

    def _answer(self, fault: str | None) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(fault)
