"""Processes of `trainings_to_kill.py`, really started and really killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import isthmus

SCRIPT = Path(__file__).with_name("trainings_to_kill.py")
SRC = Path(isthmus.__file__).parents[1]


class Killable:
    """`trainings_to_kill.py` in a process group of its own."""

    def __init__(
        self,
        table: Path,
        cache: Path,
        folder: Path,
        *,
        jobs: int = 2,
        shared: str | None = None,
    ) -> None:
        order = {"table": str(table), "cache": str(cache), "folder": str(folder)}
        order |= {"jobs": jobs, "shared": shared, "seeds": 1 if shared else 2}
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(order)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SRC)},
        )
        self.group = self.process.pid

    def heard(self) -> str:
        """The next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, self.process.stderr.read() if self.process.stderr else ""
        return line

    def close(self) -> None:
        """End what is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGKILL)
        self.process.communicate(timeout=60)

    def ended(self) -> str:
        """Wait until every process of the group is gone; give what they complained."""
        _, complaint = self.process.communicate(timeout=60)
        deadline = time.monotonic() + 60
        while left := members(self.group):
            assert time.monotonic() < deadline, f"processes {left} must end"
            time.sleep(0.02)
        return complaint


def members(group: int) -> list[int]:
    """Living processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_group) == group and state != "Z":
            found.append(int(path.parent.name))
    return found
