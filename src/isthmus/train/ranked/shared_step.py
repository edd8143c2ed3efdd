"""One step of a training whose batch lies on several ranks: what is summed, and when.

The step of N ranks is the step of one rank with the whole batch. Each rank has its own rows of the
batch, and divides the sum of their losses by the weight of the whole batch. So the gradient of the batch
is the sum of the ranks' gradients, whatever the number of rows of each rank; a rank may have none.

Why not `torch.nn.parallel.DistributedDataParallel`: it averages over ranks, where ranks with fewer rows
must count less. It wants one wrapped call a step, while a training asks `AbstractModel.score` for sites.
It wants to be told again which parameters learn, when a phase ends. And it has no sum of sparse
gradients under gloo. What it gains, sending one layer's gradient while the next one is worked out, is
little for the small dense parts of recommenders: all their gradients go in one message here.

Three messages a step: a few numbers on the CPU, sent while the network is at work; all dense gradients
of a dtype, with the losses at their end; and for each lazy table the rows of the batch, never the table.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.layers.tables import tables_of
from isthmus.objectives.row_loss import known_mass
from isthmus.optimisers import summed_rows
from isthmus.ranks import Ranks


class SharedStep:
    """The sums of every step. ``modules``: what is trained, as it is frozen and lazy now."""

    def __init__(self, ranks: Ranks, modules: Sequence[nn.Module]) -> None:
        self.ranks = ranks
        tables = [table for one in modules for table in tables_of(one)]
        # A table that lies on several ranks brings its gradients by itself.
        dealt = {id(table.weight) for table in tables if table.sharded}
        lazy = {id(table.weight) for table in tables if table.sparse}
        every = [
            p for one in modules for p in one.parameters() if p.requires_grad and id(p) not in dealt
        ]
        self.lazy = [p for p in every if id(p) in lazy]
        self.dense = [p for p in every if id(p) not in lazy]

    def begin(self, batch: Batch, due: Sequence[bool]) -> Callable[[], tuple[Tensor, list[bool]]]:
        """Ask for the weight () of the whole batch, and for what is due by the clock of rank 0.

        ``batch``: this rank's rows, on the CPU. ``due``: by this rank's clock. What comes back waits.
        """
        told = [float(one) if self.ranks.is_first else 0.0 for one in due]
        mass = known_mass(batch.label, batch.weight).reshape(1)
        wait = self.ranks.sum_soon(torch.cat((mass, mass.new_tensor(told))))

        def answer() -> tuple[Tensor, list[bool]]:
            sums = wait()
            return sums[0], [value > 0 for value in sums[1:].tolist()]

        return answer

    def sum(
        self, loss: Tensor, told: Mapping[str, Tensor], *, share: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Put the gradient of the whole batch in place of this rank's; give its loss and what it told.

        ``loss``: this rank's part of the loss. ``told``: means over this rank's rows, scalars () by name,
        the same names on all ranks. ``share``: this rank's part of the batch's rows. A parameter that has
        a gradient on one rank has one on all.
        """
        parameters = [*self.dense, *self.lazy]
        flags = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32)
        there = self.ranks.sum_soon(flags)
        numbers = [loss, *(one * share for one in told.values())]
        summed = self._sum_dense([one.detach().to(loss.dtype).reshape(1) for one in numbers])
        found = (there() > 0).tolist()
        for parameter, has in zip(self.dense, found, strict=False):
            if not has:
                parameter.grad = None
        for parameter, has in zip(self.lazy, found[len(self.dense) :], strict=True):
            if has:
                self._gather(parameter)
        values = [one.reshape(()) for one in summed]
        return values[0], dict(zip(told, values[1:], strict=True))

    def _sum_dense(self, numbers: list[Tensor]) -> list[Tensor]:
        """Sum all dense gradients, and the numbers behind those of their dtype, in one message each."""
        last = numbers[0].dtype
        dtypes = dict.fromkeys([*(p.dtype for p in self.dense), last])
        for dtype in dtypes:
            mine = [p for p in self.dense if p.dtype == dtype]
            behind = numbers if dtype == last else []
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in mine]
            pieces = [*grads, *behind]
            total = self.ranks.sum(torch.cat([piece.reshape(-1) for piece in pieces]))
            parts = total.split([piece.numel() for piece in pieces])
            for parameter, part in zip(mine, parts, strict=False):
                parameter.grad = part.view_as(parameter)
            if behind:
                numbers = list(parts[len(mine) :])
        return numbers

    def _gather(self, parameter: nn.Parameter) -> None:
        """Give a lazy table the rows of all ranks, those of rank 0 first."""
        if parameter.grad is None:
            ids = torch.zeros(0, dtype=torch.int64, device=parameter.device)
            rows = parameter.detach()[:0]
        else:
            ids, rows = summed_rows(parameter.grad)
        parameter.grad = torch.sparse_coo_tensor(
            torch.cat(self.ranks.gather(ids)).unsqueeze(0),
            torch.cat(self.ranks.gather(rows)),
            parameter.shape,
            check_invariants=False,
        )


def copy_from_first(module: nn.Module, ranks: Ranks) -> None:
    """Let every rank begin with the weights of rank 0. Other machines may draw other last bits.

    Of a table that lies on several ranks, each keeps its own rows.
    """
    if ranks.many:
        dealt = {id(table.weight) for table in tables_of(module) if table.sharded}
        for tensor in (*module.parameters(), *module.buffers()):
            if id(tensor) not in dealt:
                ranks.copy_from_first(tensor.detach())
