"""Which operations of a training step would let the process wait for a GPU, counted on the CPU.

Such an operation gives the process a value, or a tensor whose shape is a value.
"""

import sys
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

READS = (
    "_local_scalar_dense",
    "nonzero",
    "bincount",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
    "masked_select",
    "equal",
)


class HostReads(TorchDispatchMode):
    """Counts them within `take_step`, by the function of the package that asks."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        reads = name in READS
        if name == "repeat_interleave":
            reads = (kwargs or {}).get("output_size") is None
        if name in ("index", "index_put", "index_put_"):
            reads = any(one is not None and one.dtype is torch.bool for one in args[1])
        if reads:
            self._count(name)
        return func(*args, **(kwargs or {}))

    def _count(self, name: str) -> None:
        frame, asking, within = sys._getframe(1), "", False
        while frame is not None:
            code = frame.f_code
            if not asking and "isthmus" in code.co_filename:
                asking = f"{code.co_qualname}: {name}"
            within = within or code.co_name == "take_step"
            frame = frame.f_back
        if within:
            self.found[asking] += 1
