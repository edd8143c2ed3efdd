"""Training of a new domain's own parameters alone: everything that was there stands still, bit for bit.

What moves is the last set of each bank and the new rows of each table. All other gradients are taken out
before the optimiser sees them, tables are updated lazily, so that no penalty reaches a row without a
gradient, and every module but dropout runs as in eval: no running statistic moves.
"""

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from isthmus.data.batch import Batch, DomainPlaces
from isthmus.data.store.rows import Rows
from isthmus.layers import DomainNorm, Dropout, logical_tables
from isthmus.models import AbstractModel
from isthmus.train.methods import AbstractMethodConfig, Phase
from isthmus.train.methods.joint import AbstractMixed, MixedBatches

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from isthmus.train import TrainConfig


class OwnRowsConfig(AbstractMethodConfig):
    """Only the last set of each bank learns, and the rows of each table from ``first`` on."""

    name: Literal["own_rows"] = "own_rows"
    first: dict[str, int]

    def build(
        self,
        model: nn.Module,
        rows: Rows,
        train: "TrainConfig",
        *,
        n_domains: int,  # noqa: ARG002
        places: DomainPlaces,  # noqa: ARG002
    ) -> "OwnRows":
        """The method for one training. ``model``: an `AbstractModel`."""
        assert isinstance(model, AbstractModel)
        phase = Phase("the new domain's own parameters", train.epochs, train.lr)
        return OwnRows(MixedBatches(rows, train), phase, model, self.first)


class OwnRows(AbstractMixed):
    """The training at work. ``first``: by table in the state dict, the first row that learns."""

    def __init__(
        self, batches: MixedBatches, phase: Phase, model: AbstractModel, first: dict[str, int]
    ) -> None:
        self.batches, self.phases, self.model = batches, (phase,), model
        self.frozen = [p for p in model.parameters() if p.requires_grad]
        self.moving: dict[int, tuple[nn.Parameter, Tensor]] = {}  # which of the first axis learns
        for bank in model.domain_parameters().values():
            last = torch.zeros(bank.shape[0], dtype=torch.bool)
            last[-1] = True
            self.moving[id(bank)] = bank, last
        for name, (store, table) in logical_tables(model).items():
            _, learns = self.moving.setdefault(
                id(store.weight),
                (store.weight, torch.zeros(store.weight.shape[0], dtype=torch.bool)),
            )
            rows = store.slices[table]
            learns[rows.start + first[name] : rows.stop] = True
        self.moving = {key: one for key, one in self.moving.items() if one[1].any()}
        self.handles: list[RemovableHandle] = []

    def begin(self, phase: int) -> None:  # noqa: ARG002
        """Freeze what was there."""
        self.release()
        for parameter in self.frozen:
            parameter.requires_grad_(id(parameter) in self.moving)
            parameter.grad = None
        for parameter, learns in self.moving.values():
            learns = learns.to(parameter.device)
            self.handles.append(parameter.register_hook(lambda grad, own=learns: _only(grad, own)))
        for part in self.model.modules():
            part.training = isinstance(part, Dropout | nn.Dropout)

    def release(self) -> None:
        """Nothing is frozen any longer."""
        for handle in self.handles:
            handle.remove()
        self.handles = []
        for parameter in self.frozen:
            parameter.requires_grad_(True)


def _only(grad: Tensor, learns: Tensor) -> Tensor:
    """The gradient of the rows that learn."""
    if not grad.is_sparse:
        return torch.where(learns.view(-1, *(1,) * (grad.ndim - 1)), grad, 0)
    rows, values = grad._indices(), grad._values()
    kept = learns[rows[0]]
    return torch.sparse_coo_tensor(rows[:, kept], values[kept], grad.shape, check_invariants=False)


@torch.no_grad()
def take_statistics(model: AbstractModel, batch: Batch, *, batch_rows: int) -> None:
    """Give the norms of the last domain the statistics of its rows, in one pass from the inputs up.

    ``batch``: rows of the domain alone. ``batch_rows``: its rows count as in a training batch of theirs,
    of this size at most. Pooled statistics stay.
    """
    rows = min(batch.rows, batch_rows)

    def see(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, DomainNorm)
        h, weight = given[0], max(rows + norm.shrinkage, 1e-12)
        for table, value in (
            (norm.own_mean, h.mean(dim=0)),
            (norm.own_var, h.var(dim=0, correction=0)),
            (norm.own_rows, torch.tensor(rows / norm.momentum)),
            (norm.own_share, torch.tensor(rows / weight)),
            (norm.own_pull, torch.tensor(1 / weight)),
        ):
            table[-1] = value

    handles = [
        part.register_forward_pre_hook(see)
        for part in model.modules()
        if isinstance(part, DomainNorm) and part.per_domain
    ]
    try:
        model.eval()(batch)
    finally:
        for handle in handles:
            handle.remove()
