"""One piece of work in a process of its own, so that its memory is its own."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import isthmus
from isthmus.disk import write_whole
from isthmus.errors import RunError

NOTE = "measured.json"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a piece of work took. ``auc``: pooled, on validation rows, where the work has one.

    ``seconds``: CPU seconds of all threads of its process.
    ``mebibytes``: the most that the process held at once, libraries included.
    """

    seconds: float
    mebibytes: float
    commit: str
    auc: float | None = None


def run_alone(work: Callable[..., None], *arguments: Any) -> None:
    """Call ``work`` in a new process with as many threads as here. Raise RunError where it fails."""
    context = get_context("spawn")
    process = context.Process(target=_work, args=(torch.get_num_threads(), work, arguments))
    process.start()
    process.join()
    if process.exitcode:
        raise RunError(f"{work.__name__} must end well, got exit code {process.exitcode}")


def _work(threads: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(threads)
    work(*arguments)


def take_note(folder: Path, seconds: float, auc: float | None = None) -> None:
    """Write what the work of this process took. The note is the last file of finished work."""
    write_note(folder, Measured(seconds, _peak_mebibytes(), commit(), auc))


def write_note(folder: Path, measured: Measured) -> None:
    """Write a note that `noted` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / NOTE, json.dumps(asdict(measured)) + "\n")


def is_finished(folder: Path) -> bool:
    """Whether the work of a folder has ended."""
    return (folder / NOTE).exists()


def noted(folder: Path) -> Measured:
    """Read `take_note`."""
    return Measured(**json.loads((folder / NOTE).read_text(encoding="utf-8")))


def _peak_mebibytes() -> float:
    """The peak of this process by the kernel. ``getrusage`` counts the parent's memory, too."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (peak,) = (line.split() for line in lines if line.startswith("VmHWM:"))
    return int(peak[1]) / 1024


@cache
def commit() -> str:
    """The commit that is checked out, with a plus sign where the package differs from it."""
    root = Path(isthmus.__file__).parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "src")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+" if changed else "")
