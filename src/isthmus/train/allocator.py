"""How the process keeps memory between steps, and the most that it held.

A training step frees all that it took, tens of megabytes with cores per row, and takes the same
again in the next. glibc hands freed memory back to the system at once, so every step pays for the
same pages again: 14,000 page faults a step for HAMUR at rank 35, a fifth of the step's time.
"""

import ctypes
import resource
import sys
from pathlib import Path

# Options of mallopt(3), from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def keep_freed_memory(*, megabytes: int = 256) -> bool:
    """Let the process keep up to so much freed memory for its next step.

    Blocks of 32 MB and more are still returned at once. Acts on the whole process, and only where
    the C library is glibc; returns whether it did.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    kept = mallopt(M_TRIM_THRESHOLD, megabytes << 20)
    return bool(kept and mallopt(M_MMAP_THRESHOLD, 32 << 20))


def peak_mebibytes() -> float:
    """The most memory that this process held.

    Of the kernel's own count where there is one: ``getrusage`` may count the parent's memory, too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)
