"""Where a training computes: the device that a config names, how batches come there, what memory is kept
and was held at most.

A step reads no value back from a GPU. So the process that asks for the steps is ahead of it: it reads and
sends the batch of step n + 1 while the GPU computes step n. Two things keep that so. The batch goes from
pinned memory, and the process does not wait for the copy. The copy has a stream of its own, and does not
wait for step n.
"""

import ctypes
import resource
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from isthmus.data.batch import Batch, sent
from isthmus.errors import ConfigError

# Options of mallopt(3), from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def resolve_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Turn the config's word into a device; ConfigError when ``cuda`` is asked for but absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device must name a device that is there, got 'cuda'")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def move(batch: Batch, device: torch.device) -> Batch:
    """Bring a batch to the device; from pinned memory, so that the copy overlaps with work."""
    return batch if device.type == "cpu" else batch.map(lambda tensor: sent(tensor, device))


class Feed:
    """Batches on their way to a device; on the CPU they stay where they are.

    ``streams``: where streams are made and entered.
    """

    def __init__(self, device: torch.device, *, streams: Any = torch.cuda) -> None:
        self.device, self.streams = device, streams
        self.copies = None if device.type == "cpu" else streams.Stream(device)

    def bring(self, batch: Batch) -> Batch:
        """The batch on the device. Work that is asked for from now on finds it there."""
        if self.copies is None:
            return batch
        at_work = self.streams.current_stream(self.device)
        with self.streams.stream(self.copies):
            there = move(batch, self.device)
        at_work.wait_stream(self.copies)

        def used(tensor: Tensor) -> Tensor:
            tensor.record_stream(at_work)  # its memory is free again only when the step is over
            return tensor

        return there.map(used)


def keep_freed_memory(*, megabytes: int = 256) -> bool:
    """Let the process keep up to so much freed memory for its next step.

    A training step frees all that it took, tens of megabytes with cores per row, and takes the same
    again in the next. glibc hands freed memory back to the system at once, so every step pays for the
    same pages again: 14,000 page faults a step for HAMUR at rank 35, a fifth of the step's time.
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
