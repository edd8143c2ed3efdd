"""What a long call tells while it works."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Stage = Literal["table", "encode", "train", "score", "demo", "diagnose"]


@dataclass(frozen=True, slots=True)
class Notice:
    """One line of news. ``done``: share of the stage that is done, 0 to 1; None for a message.

    ``print`` shows it as text, so that ``progress=print`` is enough in a script.
    """

    stage: Stage
    text: str
    done: float | None = None

    def __str__(self) -> str:
        share = "" if self.done is None else f"{self.done:4.0%} "
        return f"{self.stage}: {share}{self.text}"


Listener = Callable[[Notice], None]


def encoding(tell: Listener) -> Callable[[str, int, int], None]:
    """Give what `isthmus.data.Dataset.from_table` calls while it encodes: ``tell`` gets the news."""
    return lambda stage, done, rows: tell(
        Notice("encode", f"{stage}: {done:,} of {rows:,} rows", done / rows)
    )


def silent(_: Notice) -> None:
    """Tell nobody."""
