"""How the process keeps memory between steps.

A training step frees all that it took, tens of megabytes with cores per row, and takes the same
again in the next. glibc hands freed memory back to the system at once, so every step pays for the
same pages again: 14,000 page faults a step for HAMUR at rank 35, a fifth of the step's time.
"""

import ctypes

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
