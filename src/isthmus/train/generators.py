"""The random numbers of a training: where they come from, and how they are laid aside and taken up.

Torch's global generators belong to the whole process. Whoever seeds them or draws from them for a
training does so inside `turn`, so that trainings in several threads take turns and each draws what
it would draw alone.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from isthmus.ranks import ALONE, Ranks

_next = threading.Lock()  # held by the thread that comes next, while it waits
_at_work = threading.Lock()
_here = threading.local()


@contextmanager
def turn() -> Iterator[None]:
    """Be the only thread of this process at work on torch's global generators; it may be nested.

    A thread that waits comes before one that gives its turn back and asks for another. Keep it out
    of a generator's ``yield`` to its caller, who may never come back.
    """
    held = getattr(_here, "held", False)
    if not held:
        with _next:
            _at_work.acquire()
        _here.held = True
    try:
        yield
    finally:
        if not held:
            _here.held = False
            _at_work.release()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's global generator with ``seed``; at the end it is as it was. CPU only."""
    with turn(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class Generators:
    """The generators that training draws from, kept apart from the caller's.

    Dropout layers can only draw from torch's global generators, so training's states of those are
    swapped in while it works, and other threads wait. Domain dropout has a generator of its own.
    Every rank draws its own numbers for its own rows, but for domain dropout, which is drawn for the
    whole batch.
    """

    def __init__(self, device: torch.device, seed: int, *, rank: int = 0) -> None:
        self.rank = rank
        own = seed + rank * 2**43
        self.asleep = {"cpu": torch.Generator().manual_seed(own).get_state()}
        if device.type == "cuda":
            self.asleep["cuda"] = torch.Generator("cuda").manual_seed(own).get_state()
        # Far from the seeds that people choose, so that the two streams are not the same numbers.
        self.domain_dropout = torch.Generator().manual_seed(seed + 2**40)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Exchange the global states with those laid aside, and back at the end, in one `turn`."""
        with turn():
            self._swap()
            try:
                yield
            finally:
                self._swap()

    def _swap(self) -> None:
        awake = self._global()
        torch.set_rng_state(self.asleep["cpu"])
        if "cuda" in self.asleep:
            torch.cuda.set_rng_state(self.asleep["cuda"])
        self.asleep = awake

    def _global(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if "cuda" in self.asleep:
            states["cuda"] = torch.cuda.get_rng_state()
        return states

    def read(self, ranks: Ranks = ALONE) -> dict[str, Tensor]:
        """The states of all ranks, while training's own are the global ones. Together."""
        states = {
            _of_rank(name, rank): state
            for name, mine in self._global().items()
            for rank, state in enumerate(ranks.gather(mine))
        }
        return {**states, "domain_dropout": self.domain_dropout.get_state()}

    def write(self, states: dict[str, Tensor]) -> None:
        """Take back what `read` gave, while training's own states are laid aside.

        A rank that was not there then goes on with its own.
        """
        self.asleep = {
            name: states.get(_of_rank(name, self.rank), mine).clone()
            for name, mine in self.asleep.items()
        }
        self.domain_dropout.set_state(states["domain_dropout"])

    def hidden(self, rows: int, share: float) -> Tensor | None:
        """Rows (rows,) bool whose domain is hidden in this step; None for none."""
        if share == 0:
            return None
        return torch.rand(rows, generator=self.domain_dropout) < share


def _of_rank(name: str, rank: int) -> str:
    return f"{name}.{rank}" if rank else name
