"""What this machine gives: cores, threads, memory on disk, and a place for the cache."""

import os
import shutil
import tempfile
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/cpu.max")
NVIDIA = Path("/proc/driver/nvidia/version")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def granted() -> float | None:
    """The cores' worth of time that a container grants, None where nothing limits it."""
    try:
        quota, period = CGROUP.read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no such file, or the quota is `max`
        return None


def why_not_writable(folder: Path) -> str:
    """Why no file can be written in a folder, or the folder not be made; empty where both can."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            return ""
    except OSError as fault:
        return fault.strerror or str(fault)


def free_bytes(folder: Path) -> int:
    """The room that is left where a folder is, or is to be."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    return shutil.disk_usage(there).free
