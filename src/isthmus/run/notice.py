"""Notices: what a long call tells while it works."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Stage = Literal["table", "encode", "train", "score", "demo", "diagnose", "tune", "benchmark"]


@dataclass(frozen=True, slots=True)
class Notice:
    """One line of news.

    ``done``: the share of the stage that is done, from 0 to 1, or None for a message. ``print``
    shows a notice as text, so ``progress=print`` is enough in a script.
    """

    stage: Stage
    text: str
    done: float | None = None

    def __str__(self) -> str:
        share = "" if self.done is None else f"{self.done:4.0%} "
        return f"{self.stage}: {share}{self.text}"


Listener = Callable[[Notice], None]
"""What a fit tells its notices."""


def encoding(tell: Listener) -> Callable[[str, int, int], None]:
    """Give a ``progress`` for `isthmus.data.Dataset.from_table` that passes news on to ``tell``."""
    return lambda stage, done, rows: tell(
        Notice("encode", f"{stage}: {done:,} of {rows:,} rows", done / rows)
    )


def silent(_: Notice) -> None:
    """Take a notice and do nothing. The listener of a call that was given none."""
