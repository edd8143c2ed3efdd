"""What the processes of a sharded table say to each other: who wants which rows, and the rows.

Each process takes its own ids apart first: every row that it needs is asked for once, however often
the batch holds it. So the commonest value of a column costs its holder one row for each process, and
not one for each occurrence.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor
from torch import distributed as dist

from isthmus.errors import RunError

ID_BYTES = 4  # an id of a row of its holder, below 2 ** 31 rows of a storage
VALUE_BYTES = 4
COUNT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Request:
    """What one process asks of the others in one look-up, and what the others ask of it.

    ``place``: (items,) int64, where each id's row stands among the rows that come back. ``counts``:
    how many rows of each process come back. ``wanted``: the rows of this process that the others
    want, process by process, ``wanted_counts`` of each.
    """

    place: Int[Tensor, " items"]
    counts: list[int]
    wanted: Int[Tensor, " wanted"]
    wanted_counts: list[int]

    @property
    def rows(self) -> int:
        """Rows that come back."""
        return sum(self.counts)


class Exchange:
    """Rows dealt to the processes of ``group`` in turn: row ``r`` lies with process ``r % world``.

    ``rows``: of the storage. ``sent``: bytes that this process has sent to others so far.
    """

    def __init__(self, *, rows: int, group: dist.ProcessGroup) -> None:
        self.rows, self.group = rows, group
        self.rank, self.world = dist.get_rank(group), dist.get_world_size(group)
        # Keys of one holder are neighbours: holder * most + row within the holder.
        self.most = -(-rows // self.world)
        self.id_dtype = torch.int32 if self.most * self.world < 2**31 else torch.int64
        self.sent = 0

    @property
    def own(self) -> range:
        """The rows of the storage that lie here."""
        return range(self.rank, self.rows, self.world)

    @torch.no_grad()
    def ask(self, ids: Int[Tensor, " items"]) -> Request:
        """Tell every process which of its rows are wanted here.

        Raises ``IndexError``, naming the bounds, for ids that are no rows of the storage.
        """
        ids = ids.to(self.id_dtype)
        keys = ids % self.world * self.most + ids // self.world
        ordered, order = torch.sort(keys, stable=True)
        first = torch.ones_like(ordered, dtype=torch.bool)
        torch.ne(ordered[1:], ordered[:-1], out=first[1:])
        place = torch.empty_like(order).scatter_(0, order, first.cumsum(0) - 1)
        asked = ordered[first]
        edges = torch.arange(self.world + 1, device=ids.device, dtype=ids.dtype) * self.most
        counts = torch.searchsorted(asked, edges).diff()
        wanted_counts = self._pass(counts, None, None)
        bounds = ids.aminmax() if len(ids) else (ids.new_zeros(()), ids.new_zeros(()))
        host = torch.cat([counts, wanted_counts, torch.stack(bounds).long()]).tolist()
        low, high = host[-2:]
        if low < 0 or high >= self.rows:
            raise IndexError(
                f"ids of a table with {self.rows} rows must lie in 0 to {self.rows - 1},"
                f" got {low} to {high}"
            )
        own, theirs = host[: self.world], host[self.world : -2]
        wanted = self._pass(asked % self.most, own, theirs)
        return Request(place, own, wanted, theirs)

    def answer(
        self, rows: Float[Tensor, "wanted dim"], request: Request
    ) -> Float[Tensor, "rows dim"]:
        """Send each process the rows that it wants; give those that were wanted here."""
        return self._pass(rows, request.wanted_counts, request.counts)

    def return_to_holders(
        self, gradient: Float[Tensor, "rows dim"], request: Request
    ) -> Float[Tensor, "wanted dim"]:
        """Send the gradient of the rows that came back to where the rows lie."""
        return self._pass(gradient, request.counts, request.wanted_counts)

    def _pass(self, given: Tensor, to: list[int] | None, back: list[int] | None) -> Tensor:
        """One all-to-all along the first axis; None: one line for each process."""
        lines = len(given) if back is None else sum(back)
        found = given.new_empty(lines, *given.shape[1:])
        dist.all_to_all_single(found, given.contiguous(), back, to, group=self.group)
        kept = 1 if to is None else to[self.rank]
        self.sent += (len(given) - kept) * given[:1].numel() * given.element_size()
        return found


def lookup_bytes(rows: float, dim: int, world: int, *, trained: bool = True) -> float:
    """Bytes that one process sends to others in one look-up, and in the gradient's way back.

    ``rows``: different rows that each process asks for, spread evenly over the holders (`Exchange`
    deals them so). Of these, ``(world - 1) / world`` lie elsewhere: ``e``. Then the bytes are
    ``8 (world - 1) + 4 e + 4 dim e``, and with the gradient (``trained``) ``4 dim e`` more.

    >>> lookup_bytes(1000, 16, 2)
    66008.0
    """
    elsewhere = rows * (world - 1) / world
    ways = 2 if trained else 1
    return COUNT_BYTES * (world - 1) + elsewhere * (ID_BYTES + ways * dim * VALUE_BYTES)


def gather_plain(value: Any, group: dist.ProcessGroup) -> list[Any]:
    """Give every process the plain value (what JSON can say) of every process, in their order."""
    device = group_device(group)
    content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    lengths = _gathered(torch.tensor([len(content)], device=device), group)
    longest = int(max(int(length) for length in lengths))
    padded = torch.zeros(longest, dtype=torch.uint8, device=device)
    padded[: len(content)] = content.to(device)
    texts = zip(_gathered(padded, group), lengths, strict=True)
    return [json.loads(bytes(text[: int(length)].tolist())) for text, length in texts]


def run_on_first(action: Callable[[], object], group: dist.ProcessGroup | None, rule: str) -> None:
    """Let the first process of the group do something with files; None: this process is alone.

    Raises RunError, with ``rule`` and the fault, on every process where the disk refused.
    """
    fault: str | None = None
    if group is None or dist.get_rank(group) == 0:
        try:
            action()
        except (OSError, SafetensorError) as error:
            fault = str(error)
            if group is None:
                raise RunError(f"{rule}, got: {fault}") from error
    told = None if group is None else gather_plain(fault, group)[0]
    if told is not None:
        raise RunError(f"{rule}, got: {told}")


def group_device(group: dist.ProcessGroup) -> torch.device:
    """Where a tensor must lie to be sent through ``group``."""
    cuda = "nccl" in dist.get_backend(group)
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")


def _gathered(value: Tensor, group: dist.ProcessGroup) -> Sequence[Tensor]:
    found = [torch.empty_like(value) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, value, group=group)
    return found
