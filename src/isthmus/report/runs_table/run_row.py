"""What the table of runs tells of one run, and of a page that lies beside the runs."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from isthmus.metrics.text_table import number

State = Literal["training", "finished", "unfinished", "damaged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run. What is not known is None, or an empty text.

    ``id``: names the run in addresses, a relative path in quoted letters. ``why``: what the state
    means here. ``auc`` and ``logloss``: pooled over the validation rows, at the best look. ``changed``:
    when the run was last written, in seconds since 1970. ``pages``: kind and address of its pages.
    ``progress``: epochs done of those that the config allows, 0 to 1; an early stop comes before 1.
    """

    id: str
    name: str
    state: State
    why: str = ""
    model: str = ""
    recipe: str = ""
    guard: str = ""
    table: str = ""
    split: str = ""
    domains: int | None = None
    parameters: int | None = None
    monitor: str = ""
    auc: float | None = None
    logloss: float | None = None
    seconds: float | None = None
    changed: float = 0.0
    pages: tuple[tuple[str, str], ...] = ()
    look: str = ""
    progress: float | None = None

    def at_look(self, *, epoch: float | None, epochs: int | None, value: float | None) -> "RunRow":
        """Give the row with its last look in words, and how far the training is."""
        if epoch is None:
            return self
        of = f" of {epochs}" if epochs else ""
        said = f"epoch {epoch:.2f}{of}"
        if self.monitor:
            said += f", {self.monitor} {number(value)}"
        progress = min(max(epoch / epochs, 0.0), 1.0) if epochs else None
        return replace(self, look=said, progress=progress)


@dataclass(frozen=True, slots=True)
class FoundPage:
    """A page that lies in no run. ``name``: its folder. ``changed``: in seconds since 1970."""

    kind: str
    name: str
    link: str
    changed: float


def moment_text(seconds: float) -> str:
    """A moment in the time of this machine, to the minute; nothing for none."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else ""
