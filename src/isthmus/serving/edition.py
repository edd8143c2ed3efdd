"""An edition: a bundle at work in one process, with all that its requests need. A reload swaps editions."""

import asyncio
import contextlib
import math
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from anyio import to_thread

from isthmus.errors import SchemaError
from isthmus.monitoring import Drift, DriftWatch, ScoreLog
from isthmus.serving.doors.refusal import Refusal
from isthmus.serving.doors.row_json import RowReader
from isthmus.serving.scoring_engine import Encoded, ScoringEngine, load_engine
from isthmus.serving.settings import ServeSettings
from isthmus.serving.tally import Tally

WATCHED_EVERY = 0.02  # seconds: the drift watch looks at 50 requests a second of a worker at most
COUNTED_EVERY = 0.05  # seconds: what was answered is counted together, and late by so much at most
AT_ONCE = 512  # rows that are scored within the event loop; more are scored in a thread


@dataclass(frozen=True, slots=True)
class Order:
    """What a process is told to serve. ``graphs``: the folder of ONNX graphs, None for torch.

    ``generation``: counts the bundles that this server had, from 0.
    """

    bundle: Path
    graphs: Path | None
    generation: int


class Edition:
    """One bundle at work in one process.

    ``tallies``: the folder of the counts of all processes. ``number``: of this worker, from 0: a worker in
    the place of one that is gone goes on with its drift watch. ``log``: keeps the scores.
    """

    def __init__(
        self,
        engine: ScoringEngine,
        settings: ServeSettings,
        order: Order,
        tallies: Path,
        *,
        number: int = 0,
        log: ScoreLog | None = None,
    ) -> None:
        self.engine, self.settings, self.order = engine, settings, order
        self._log = log
        self.reader = RowReader(
            engine.encoder, max_rows=settings.max_rows, max_items=settings.max_items
        )
        fields = engine.bundle.encoder.fields
        columns = [
            field.name
            for kind in ("categorical", "categorical_list")
            for field in fields
            if field.kind == kind
        ]
        self._aside = anyio.CapacityLimiter(1)
        place = tallies / f"{order.generation:06d}"
        self.tally = Tally(place, engine.bundle.domains, columns)

        self._place, profile = place, engine.bundle.profile
        self._watch: DriftWatch | None = None
        self._watch_next = 0.0
        self._to_watch: list[tuple[Encoded, np.ndarray]] = []
        self._counting: asyncio.TimerHandle | None = None
        if profile is not None:
            file, size = place / f"{number}.drift", DriftWatch.state_size(profile)
            mode = "r+" if file.exists() else "w+"
            state = np.memmap(file, dtype=np.float64, mode=mode, shape=(size,))
            self._watch = DriftWatch(profile=profile, state=state.view(np.ndarray))
        domain = engine.bundle.config.data.domain
        self._domain_at = engine.encoder.columns.index(domain)

    @classmethod
    def load(
        cls,
        settings: ServeSettings,
        order: Order,
        tallies: Path,
        *,
        number: int = 0,
        log: ScoreLog | None = None,
    ) -> "Edition":
        """Load and probe a bundle. Raises BundleError as `load_engine` does."""
        engine = load_engine(order.bundle, order.graphs)
        return cls(engine, settings, order, tallies, number=number, log=log)

    def begin(self) -> None:
        """Tell the log whose scores come from now on."""
        if self._log is not None:
            self._log.describe(self.engine.checksum, self.engine.bundle.profile)

    def drift(self) -> tuple[Drift, ...]:
        """The domains that left their training interval, by the rows of all workers."""
        if self._watch is None:
            return ()
        self.count()
        files = sorted(self._place.glob("*.drift"))
        return self._watch.flags([np.fromfile(file, dtype=np.float64) for file in files])

    async def score_columns(
        self,
        door: str,
        columns: Sequence[Sequence[Any]],
        rows: int,
        request_id: str | None,
        *,
        typed: bool = False,
    ) -> np.ndarray:
        """Scores of columns of values, in the order of the encoder's. Raises `Refusal`.

        ``typed``: as in `RowEncoder.encode_columns`.
        """
        if rows <= AT_ONCE:
            encoded, scores = self._scored(columns, typed)
        else:
            encoded, scores = await self.aside(lambda: self._scored(columns, typed))
        self.note(door, encoded, scores, request_id, columns[self._domain_at], columns)
        return scores

    def _scored(self, columns: Sequence[Sequence[Any]], typed: bool) -> tuple[Encoded, np.ndarray]:
        try:
            encoded = self.engine.encoder.encode_columns(columns, typed=typed)
        except SchemaError as fault:
            raise Refusal.of_schema(fault) from None
        scores = self.engine.score(encoded)
        check_scores(scores)
        return encoded, scores

    async def aside(self, work: Callable[[], Any]) -> Any:
        """Do long work in a thread, one at a time, so that short requests go on.

        A request that runs out of time leaves its work behind.
        """
        return await to_thread.run_sync(work, limiter=self._aside, abandon_on_cancel=True)

    def note(
        self,
        door: str,
        encoded: Encoded,
        scores: np.ndarray,
        request_id: str | None,
        domains: Sequence[Any],
        columns: Sequence[Sequence[Any]] | None = None,
    ) -> None:
        """Count what was scored, and log it. Within the event loop only.

        ``domains``: as the rows name them. ``columns``: their values, in the order of the encoder's.
        """
        self.tally.rows(door, encoded, scores)
        if self._watch is not None and len(scores) and time.monotonic() >= self._watch_next:
            # Which requests are watched follows the clock alone, so they are as good as all of them.
            self._watch_next = time.monotonic() + WATCHED_EVERY
            self._to_watch.append((encoded, scores))
        if self._log is None:
            return
        name = request_id or uuid.uuid4().hex
        if self._log.takes(name):
            held = None
            if self.settings.log_values and columns is not None:
                held = dict(zip(self.engine.encoder.columns, columns, strict=True))
            told = [None if domain is None else str(domain) for domain in domains]
            self._log.write(
                name,
                domains=told,
                scores=scores,
                bundle=self.engine.checksum,
                time=time.time(),
                values=held,
            )

    def answered(self, door: str, status: int, seconds: float) -> None:
        """Count a request that was answered, soon. Within the event loop only."""
        self.tally.request(door, status, seconds)
        if self.tally.full:
            self.count()
        elif self._counting is None:
            self._counting = asyncio.get_running_loop().call_later(COUNTED_EVERY, self.count)

    def count(self) -> None:
        """Add what was answered so far to the counts that all processes see. Within the event loop only."""
        if self._counting is not None:
            self._counting.cancel()
            self._counting = None
        self.tally.flush()
        if self._watch is None:
            return
        watched, self._to_watch = self._to_watch, []
        for encoded, scores in watched:
            self._watch.add(
                domain=encoded.domain,
                scores=scores,
                categorical=encoded.categorical,
                numeric=encoded.numeric,
                lists=encoded.lists,
            )


def check_scores(scores: np.ndarray) -> None:
    """Raise `Refusal` for a row whose numbers are too large for the network."""
    if not math.isfinite(scores.sum()):  # scores lie from 0 to 1, so no sum of them overflows
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise Refusal(422, f"a row must have a score, got nan in the request, row {row}", row=row)


@dataclass(slots=True)
class CurrentEdition:
    """The edition that answers, and the requests under way in each. Within the event loop only."""

    edition: Edition
    _under_way: dict[int, int] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.contextmanager
    def held(self) -> Iterator[Edition]:
        """The edition, for the time of one request."""
        edition = self.edition
        key = id(edition)
        self._under_way[key] = self._under_way.get(key, 0) + 1
        try:
            yield edition
        finally:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]
                self._changed.set()

    async def swap(self, edition: Edition) -> None:
        """Put another edition in place, and wait until no request is under way in the old one."""
        old, self.edition = self.edition, edition
        while id(old) in self._under_way:
            self._changed.clear()
            await self._changed.wait()
