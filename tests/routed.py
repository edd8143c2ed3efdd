"""Domains of many sizes, and a count of the operators that run: shared by tests of the layers."""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def domains(rows: int, n_domains: int, *, zipf: float = 0.0, seed: int = 0) -> Tensor:
    share = 1 / torch.arange(1, n_domains + 1.0) ** zipf
    generator = torch.Generator().manual_seed(seed)
    return 1 + torch.multinomial(share, rows, replacement=True, generator=generator)


class CountCalls(TorchDispatchMode):
    """Counts the operators that run, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def calls_of(run: Callable[[], object]) -> Counter[str]:
    with CountCalls() as counter:
        run()
    return counter.calls
