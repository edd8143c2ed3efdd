"""The time of a training: what counts as training, and when something is due."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

PROGRESS_SECONDS = 0.5  # between two progress events


class Stopwatch:
    """Time spent on training steps, looks and events left out."""

    def __init__(self) -> None:
        self.before = 0.0  # seconds of training before `started`
        self.started = self.checkpoint_at = time.perf_counter()
        self.rows = 0  # since the last progress
        self.progress_at = 0.0  # in seconds of training

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Time in here does not count."""
        self.before = self.seconds()
        try:
            yield
        finally:
            self.started = time.perf_counter()

    def resume(self, seconds: float) -> None:
        """Go on from a training that took ``seconds`` so far."""
        self.before = self.progress_at = seconds
        self.started = time.perf_counter()

    def seconds(self) -> float:
        """Seconds of training so far."""
        return self.before + time.perf_counter() - self.started

    def since_checkpoint(self) -> float:
        """Seconds since the last checkpoint, by the clock on the wall."""
        return time.perf_counter() - self.checkpoint_at

    def progress_is_due(self) -> bool:
        """Whether the last progress is long enough ago."""
        return self.seconds() - self.progress_at >= PROGRESS_SECONDS

    def rate(self) -> float:
        """Rows per second since the last progress."""
        now = self.seconds()
        rate = self.rows / max(now - self.progress_at, 1e-9)
        self.rows, self.progress_at = 0, now
        return rate
