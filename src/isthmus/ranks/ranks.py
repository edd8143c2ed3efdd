"""The processes of one training, and the few things that they do together.

A process has a number, its *rank*, from 0. What a method here calls *together* is called by every
rank, in the same order; a rank that does not come lets the others wait, and end with `RankError` when
they have waited for as long as the group was told. Plain values travel as JSON and nothing is pickled.

Rank 0 alone writes a run's files and looks at the clock. While it is at such work, it gives a sign every
few seconds, so that the others can wait for as long as the work takes, and no longer than a minute for
a process that is gone. Every rank does so at work that is shared out, such as the encoding of a table.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import Store

from isthmus.errors import IsthmusError, RunError

Result = TypeVar("Result")
BEAT_SECONDS = 5.0  # between two signs of a rank at work
LONGEST_PAUSE = 0.25  # seconds between two looks for what a rank gives


def reason_of(fault: Exception) -> str:
    """What torch says of a fault of the network: one line, without places in torch's own source."""
    line = str(fault).strip().partition("\n")[0].partition(". This is typically")[0]
    return re.sub(r"^\[[^\]]*\.cc:\d+\] *", "", line)


class RankError(RunError):
    """The other processes of a training are gone, or do not answer."""


class ToldElsewhereError(RunError):
    """Another rank tells the user of the fault for which this rank ends."""


@dataclass(eq=False)
class Ranks:
    """This process among ``size`` processes; ``rank``: its number. Alone it does nothing with anybody.

    ``local``: its number among the processes of its machine. ``store``: where all of them read and
    write short texts. ``patience``: how long a rank waits for another one.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    store: Store | None = None
    patience: timedelta = timedelta(seconds=60)
    turns: int = field(
        default=0, init=False
    )  # works so far that the others wait for, which name texts in the store

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank must be from 0 to below size, got {self.rank} of {self.size}")

    def __deepcopy__(self, memo: dict[int, Any]) -> "Ranks":
        return self

    @property
    def many(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    @property
    def group(self) -> dist.ProcessGroup | None:
        """The process group of all of them; None alone."""
        return dist.group.WORLD if self.many else None

    @property
    def is_first(self) -> bool:
        """Whether this rank writes, and talks to the user."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, equal on all; ``tensor`` may hold it then. Together."""
        return self.sum_soon(tensor)()

    def sum_soon(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Begin `sum`; what comes back waits for its end and gives it."""
        if not self.many:
            return lambda: tensor
        tensor = tensor.contiguous()
        with self._faults():
            work = dist.all_reduce(tensor, async_op=True)
        assert work is not None

        def wait() -> Tensor:
            with self._faults():
                work.wait()
            return tensor

        return wait

    def copy_from_first(self, tensor: Tensor) -> None:
        """Put what ``tensor`` holds on rank 0 into it on every rank. Together."""
        if self.many:
            with self._faults():
                dist.broadcast(tensor, src=0)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, by rank. They may differ in the length of the first axis. Together."""
        if not self.many:
            return [tensor]
        tensor = tensor.contiguous()
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(tensor)
        counts = self.sum(lengths).tolist()
        longest = max(counts)
        padded = tensor.new_zeros(longest, *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        found = [torch.empty_like(padded) for _ in counts]
        if longest:
            with self._faults():
                dist.all_gather(found, padded)
        return [one[:count] for one, count in zip(found, counts, strict=True)]

    def tell(self, value: Any) -> list[Any]:
        """The plain values of all ranks, by rank, through JSON. Together."""
        if not self.many:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        return [json.loads(bytes(one.tolist())) for one in self.gather(text)]

    def first(self, work: Callable[[], Any]) -> Any:
        """Let rank 0 do ``work``, however long it takes, and give every rank the plain value it gives.

        Raises what ``work`` raises on rank 0, and then ToldElsewhereError on the others. Together.
        """
        if not self.many:
            return work()
        assert self.store is not None
        self.turns += 1
        name = f"work {self.turns}"
        if not self.is_first:
            return self._awaited(name)
        with self._beating(name):
            try:
                value = work()
            except (IsthmusError, OSError) as fault:
                self._put(name, {"fault": str(fault)})
                raise
            self._put(name, {"value": value})
        return value

    def every(self, work: Callable[[], Result]) -> Result:
        """Let each rank do ``work``. Where one of them is refused, all end: rank 0 tells why. Together."""
        if not self.many:
            return work()
        result, fault = None, None
        try:
            result = work()
        except (IsthmusError, OSError) as refused:
            fault = refused
        texts = self.tell(None if fault is None else str(fault))
        if any(text is not None for text in texts):
            self._refuse(texts, fault)
        return result  # pyright: ignore[reportReturnType]

    def apart(self, work: Callable[[], Any]) -> list[Any]:
        """Let each rank do its own ``work``, however long it takes; give all the plain values, by rank.

        Long work calls `heed` now and then, so as not to go on in vain. Where a rank is refused, all end:
        rank 0 tells why. Together.
        """
        if not self.many:
            return [work()]
        self.turns += 1
        name = f"work {self.turns}"
        told: dict[str, Any] = {"value": None, "fault": None}
        fault = None
        with self._beating(f"{name} of {self.rank}"):
            try:
                told["value"] = work()
            except ToldElsewhereError as refused:
                fault = refused
            except (IsthmusError, OSError) as refused:
                fault, told["fault"] = refused, str(refused)
                self._put(f"{name} refused", told)
            self._put(f"{name} of {self.rank}", told)
        found = [
            told if rank == self.rank else self._heard(f"{name} of {rank}", rank)
            for rank in range(self.size)
        ]
        texts = [one["fault"] for one in found]
        if any(text is not None for text in texts):
            self._refuse(texts, fault)
        return [one["value"] for one in found]

    def heed(self) -> None:
        """Raise ToldElsewhereError, in work of `apart`, once another rank is refused."""
        if not self.many:
            return
        assert self.store is not None
        with self._faults():
            refused = self.store.check([f"work {self.turns} refused"])
        if refused:
            raise ToldElsewhereError(f"rank {self.rank} ends with the others")

    def barrier(self) -> None:
        """Wait until every rank is here. Together."""
        self.sum(torch.zeros(1))

    def _refuse(self, texts: list[str | None], fault: Exception | None) -> None:
        if not self.is_first:
            raise ToldElsewhereError(f"rank {self.rank} ends with the others") from fault
        if fault is not None and len(set(texts)) == 1:
            raise fault
        told = [f"rank {rank}: {text}" for rank, text in enumerate(texts) if text is not None]
        raise RunError("; ".join(told)) from fault

    def _awaited(self, name: str) -> Any:
        """Wait for what rank 0 gives, for as long as it gives a sign of life."""
        told = self._heard(name, 0)
        if "fault" in told:
            raise ToldElsewhereError(f"rank {self.rank} ends with rank 0: {told['fault']}")
        return told["value"]

    def _heard(self, name: str, rank: int) -> dict[str, Any]:
        """Wait for what a rank tells, for as long as it gives a sign of life."""
        assert self.store is not None
        beats, heard, pause = 0, time.monotonic(), 1e-3
        with self._faults():
            # Asked again and again: a wait of the store's own that is too short complains on stderr.
            while not self.store.check([name]):
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                if (now := self.store.add(f"{name} beats", 0)) != beats:
                    beats, heard = now, time.monotonic()
                elif time.monotonic() - heard > self.patience.total_seconds():
                    raise RankError(
                        f"rank {rank} of {self.size} must give a sign of life every"
                        f" {self.patience.total_seconds():g} s while the others wait, got none"
                    )
            return json.loads(self.store.get(name))

    def _put(self, name: str, told: dict[str, Any]) -> None:
        assert self.store is not None
        with self._faults():
            self.store.set(name, json.dumps(told))

    @contextmanager
    def _beating(self, name: str) -> Iterator[None]:
        """Give the others a sign of life every few seconds."""
        assert self.store is not None
        store, over = self.store, threading.Event()

        def beat() -> None:
            while not over.wait(min(BEAT_SECONDS, self.patience.total_seconds() / 4)):
                try:
                    store.add(f"{name} beats", 1)
                except RuntimeError:  # the store is gone, and with it whoever waits
                    return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Say in words that the others are gone."""
        try:
            yield
        except RuntimeError as fault:  # torch has no other for a closed connection or a time out
            raise RankError(
                f"rank {self.rank} of {self.size} must hear of the others within"
                f" {self.patience.total_seconds():g} s, got: {reason_of(fault)}"
            ) from fault


ALONE = Ranks()
"""A process that trains by itself: rank 0 of 1."""
