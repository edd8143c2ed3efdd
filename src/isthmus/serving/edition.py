"""An edition: a bundle at work in one process, with all that its requests need. A reload swaps editions."""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from anyio import to_thread

from isthmus.errors import SchemaError
from isthmus.serving.doors.refusal import Refusal
from isthmus.serving.doors.row_json import RowReader
from isthmus.serving.scoring_engine import Encoded, Engine, load_engine
from isthmus.serving.settings import ServeSettings
from isthmus.serving.tally import Tally

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
    """One bundle at work. ``tallies``: the folder of the counts of all processes."""

    def __init__(
        self, engine: Engine, settings: ServeSettings, order: Order, tallies: Path
    ) -> None:
        self.engine, self.settings, self.order = engine, settings, order
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

    @classmethod
    def load(cls, settings: ServeSettings, order: Order, tallies: Path) -> "Edition":
        """Load and probe a bundle. Raises BundleError as `load_engine` does."""
        return cls(load_engine(order.bundle, order.graphs), settings, order, tallies)

    async def score_columns(
        self, door: str, columns: Sequence[Sequence[Any]], rows: int, request_id: str | None
    ) -> np.ndarray:
        """Scores of columns of values, in the order of the encoder's. Raises `Refusal`."""
        encode = self.engine.encoder.encode_columns
        if rows <= AT_ONCE:
            encoded, scores = self._scored(lambda: encode(columns))
        else:
            encoded, scores = await self.aside(lambda: self._scored(lambda: encode(columns)))
        self.note(door, encoded, scores, request_id)
        return scores

    def _scored(self, encode: Callable[[], Encoded]) -> tuple[Encoded, np.ndarray]:
        try:
            encoded = encode()
        except SchemaError as fault:
            raise Refusal.of_schema(fault) from None
        return encoded, self.engine.score(encoded)

    async def aside(self, work: Callable[[], Any]) -> Any:
        """Do long work in a thread, one at a time, so that short requests go on.

        A request that runs out of time leaves its work behind.
        """
        return await to_thread.run_sync(work, limiter=self._aside, abandon_on_cancel=True)

    def note(self, door: str, encoded: Encoded, scores: np.ndarray, request_id: str | None) -> None:
        """Count what was scored. Within the event loop only."""
        self.tally.rows(door, encoded, scores)


@dataclass(slots=True)
class Current:
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


def request_name(given: str | None, header: str | None) -> str:
    """The id of a request: its own, its header's, or a new one."""
    return given or header or uuid.uuid4().hex
