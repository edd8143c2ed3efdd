"""Adam for the dense parameters, and the same Adam or its lazy form for embedding tables.

Source: Kingma and Ba, Adam, ICLR 2015, arXiv:1412.6980, algorithm 1, with the L2 term inside the
gradient.

Dense: every row of a table moves at every step. A row that no batch held moves too, by L2 and by what
is left of its momentum.

Lazy: moments, L2 and step touch only the rows in the batch. The L2 term is added once per row, however
often the row occurs. All other rows keep every bit. The bias correction uses the number of optimiser
steps, as the dense form does. So the two forms are the same arithmetic when every row is in every
batch. A row that first occurs late starts with steps up to ``(1 - b1) / sqrt(1 - b2)`` = 3.2 times
``lr``, as in the dense form.

A table on several processes: each process keeps the moments of the rows that it holds, and moves them by
the gradient of all processes. The lazy rows are then the rows that any process looked up.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from isthmus.layers.routing import shapes_are_fixed
from isthmus.layers.tables import AbstractTable, Box, tables_of
from isthmus.optimisers.row_gradients import padded_rows, summed_rows

EmbeddingUpdate = Literal["dense", "lazy"]
"""Whether a step of Adam moves every row of an embedding table, or those that the batch holds."""

LAZY_ABOVE_ROWS = 1_000_000
BETAS = (0.9, 0.999)
"""Decay of Adam's two moments."""
EPS = 1e-8
"""Added to the root of Adam's second moment."""
BESIDE = "objectives"  # before the names of parameters that are not the model's


def resolve_embedding_update(
    model: nn.Module, choice: Literal["dense", "lazy", "auto"]
) -> EmbeddingUpdate:
    """Resolve ``auto``: lazy above one million table rows in all, dense below."""
    if choice != "auto":
        return choice
    rows = sum(table.rows for table in tables_of(model))
    return "lazy" if rows > LAZY_ABOVE_ROWS else "dense"


def build_optimiser(
    model: nn.Module,
    *,
    lr: float,
    embedding_l2: float = 0.0,
    embedding_update: EmbeddingUpdate = "dense",
    beside: nn.Module | None = None,
) -> "ModelOptimiser":
    """Build the optimiser of a model, with L2 on the model's tables only.

    ``embedding_update``: the dense or the lazy form. ``beside``: what else is trained with the model,
    such as the parameters of objectives. The call sets ``sparse`` of every table. With ``lazy`` no
    gradient as large as a table is ever made.
    """
    return ModelOptimiser(
        model,
        lr=lr,
        embedding_l2=embedding_l2,
        embedding_update=embedding_update,
        beside=beside,
    )


class ModelOptimiser:
    """Adam over the parameters of a model, see :func:`build_optimiser`."""

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        embedding_l2: float,
        embedding_update: EmbeddingUpdate,
        beside: nn.Module | None = None,
    ) -> None:
        if lr <= 0:
            raise ValueError(f"lr must be positive, got {lr}")
        if embedding_l2 < 0:
            raise ValueError(f"embedding_l2 must not be negative, got {embedding_l2}")
        if embedding_update not in ("dense", "lazy"):
            raise ValueError(
                f"embedding_update must be 'dense' or 'lazy', got {embedding_update!r}"
            )
        self.tables = tables_of(model)
        for table in self.tables:
            table.sparse = embedding_update == "lazy"
        weights = [table.weight for table in self.tables]
        self._boxes = {id(table.weight): table.weight_box() for table in self.tables}
        in_table = {id(weight) for weight in weights}
        named = dict(model.named_parameters())
        if beside is not None:
            named |= {f"{BESIDE}.{name}": p for name, p in beside.named_parameters()}
        self._names = {id(parameter): name for name, parameter in named.items()}
        self._every = list(named.values())
        others = [p for p in named.values() if id(p) not in in_table and p.requires_grad]
        weights = [weight for weight in weights if weight.requires_grad]
        groups = [{"params": others, "weight_decay": 0.0}] if others else []
        self.lazy: LazyAdam | None = None
        if embedding_update == "lazy" and weights:
            self.lazy = LazyAdam(weights, lr=lr, l2=embedding_l2)
        elif weights:
            groups.append({"params": weights, "weight_decay": embedding_l2})
        self.dense = (
            torch.optim.Adam(groups, lr=lr, betas=BETAS, eps=EPS, fused=True) if groups else None
        )

    def bring_gradients(self) -> None:
        """Give tables on several processes their gradient; `step` asks for it where nobody did."""
        for table in self.tables:
            table.bring_gradients()

    def clip(self, max_norm: float) -> Tensor:
        """Scale all gradients so that their joint norm is at most ``max_norm``: see `clip_gradients`."""
        self.bring_gradients()
        return clip_gradients(self._every, max_norm, self.tables)

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        self.bring_gradients()
        if self.dense is not None:
            self.dense.step()
        if self.lazy is not None:
            self.lazy.step()

    def zero_grad(self) -> None:
        """Drop every gradient."""
        for table in self.tables:
            table.drop_gradients()
        if self.dense is not None:
            self.dense.zero_grad(set_to_none=True)
        if self.lazy is not None:
            self.lazy.zero_grad()

    @property
    def lr(self) -> float:
        """The learning rate. Assign a value to change the rate."""
        return self.dense.param_groups[0]["lr"] if self.dense else self._only_lazy.lr

    @lr.setter
    def lr(self, value: float) -> None:
        if self.dense is not None:
            for group in self.dense.param_groups:
                group["lr"] = value
        if self.lazy is not None:
            self.lazy.lr = value

    @property
    def _only_lazy(self) -> "LazyAdam":
        assert self.lazy is not None
        return self.lazy

    def state_dict(self) -> dict[str, Tensor | float]:
        """Give moments and step counts in a flat dict.

        Tensors have the key ``<moment>.<parameter>``. The other values are numbers. The tensors are
        the live ones, as in a module's state dict: copy what must not move. Of a table on several
        processes, the moments are those of the rows that this process holds: see `boxes`.
        """
        state: dict[str, Tensor | float] = {"lr": self.lr}
        if self.dense is not None:
            for parameter, moments in self.dense.state.items():
                for moment in ("step", "exp_avg", "exp_avg_sq"):
                    state[f"{moment}.{self._names[id(parameter)]}"] = moments[moment]
        if self.lazy is not None:
            state["lazy_steps"] = self.lazy.steps
            for parameter, moments in zip(self.lazy.weights, self.lazy.moments, strict=True):
                state[f"moments.{self._names[id(parameter)]}"] = moments
        return state

    def boxes(self) -> dict[str, Box]:
        """Which part of a whole each tensor of `state_dict` is, where a table lies on several processes."""
        boxes = {}
        for key, value in self.state_dict().items():
            name = key.partition(".")[2]
            for table in self.tables:
                if table.sharded and self._names[id(table.weight)] == name:
                    box = table.weight_box()
                    assert isinstance(value, Tensor)
                    if value.ndim:  # a count of steps is whole
                        boxes[key] = box.for_shape(
                            (box.shape[0], *value.shape[1:-1], box.shape[-1])
                        )
        return boxes

    def load_state_dict(self, state: Mapping[str, Tensor | float]) -> None:
        """Take over a state. Raises ``ValueError`` for a state of another model or form.

        Moments of a table on several processes may be whole or the part that this process holds.
        """
        left = dict(state)
        lr = left.pop("lr", None)
        if not isinstance(lr, float | int):
            raise ValueError(f"an optimiser's state must hold a number 'lr', got {lr!r}")
        self.lr = float(lr)
        if self.dense is not None:
            for group in self.dense.param_groups:
                for parameter in group["params"]:
                    self._load_dense(parameter, left)
        if self.lazy is not None:
            steps = left.pop("lazy_steps", None)
            if not isinstance(steps, int):
                raise ValueError(f"a lazy optimiser's state must count its steps, got {steps!r}")
            self.lazy.steps = steps
            for parameter, moments in zip(self.lazy.weights, self.lazy.moments, strict=True):
                given = left.pop(f"moments.{self._names[id(parameter)]}", None)
                _copy(moments, given, self._boxes[id(parameter)])
        if left:
            raise ValueError(f"the optimiser has no place for {sorted(left)[:5]}")

    def _load_dense(self, parameter: Tensor, left: dict[str, Tensor | float]) -> None:
        assert self.dense is not None
        name = self._names[id(parameter)]
        given = {
            moment: left.pop(f"{moment}.{name}", None)
            for moment in ("step", "exp_avg", "exp_avg_sq")
        }
        if all(moment is None for moment in given.values()):
            self.dense.state.pop(parameter, None)  # it never had a gradient
            return
        moments = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        for moment, tensor in moments.items():
            _copy(tensor, given[moment], self._boxes.get(id(parameter)))
        self.dense.state[parameter] = moments


class LazyAdam:
    """Adam that touches only the rows in the batch, for (rows, dim) weights with sparse gradients.

    ``l2``: ``l2 * w`` is added once to the summed gradient of a row. ``moments`` (rows, 2, dim) holds
    the first and second moment of a row side by side, so a row has one place in memory and not two.
    Rows that no batch held cost no time. On the CPU these rows cost no memory either.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        *,
        lr: float,
        l2: float = 0.0,
        betas: tuple[float, float] = BETAS,
        eps: float = EPS,
    ) -> None:
        self.weights = list(weights)
        self.moments = [_lazy_zeros(weight) for weight in self.weights]
        self.lr = lr
        self.l2 = l2
        self.betas = betas
        self.eps = eps
        self.steps = 0

    def zero_grad(self) -> None:
        """Drop every gradient."""
        for weight in self.weights:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update the rows that the gradients hold, and no other row."""
        self.steps += 1
        for weight, moments in zip(self.weights, self.moments, strict=True):
            if weight.grad is None:
                continue
            fixed = shapes_are_fixed(weight)
            rows, grad = (padded_rows if fixed else summed_rows)(weight.grad)
            if not len(rows):
                continue
            w = weight.index_select(0, rows)
            m, v = moments.index_select(0, rows).unbind(1)
            m, v = m.contiguous(), v.contiguous()
            adam(
                [w],
                [grad],
                [m],
                [v],
                [],
                [w.new_full((), self.steps - 1, dtype=torch.float32)],
                fused=True,
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=self.lr,
                weight_decay=self.l2,
                eps=self.eps,
                maximize=False,
            )
            weight.index_copy_(0, rows, w)
            moments.index_copy_(0, rows, torch.stack((m, v), dim=1))


@torch.no_grad()
def clip_gradients(
    parameters: Iterable[nn.Parameter], max_norm: float, tables: Iterable[AbstractTable] = ()
) -> Tensor:
    """Scale all gradients so that their joint L2 norm is at most ``max_norm``; return the norm.

    A sparse gradient counts with the sum of each row's entries, as the dense gradient would. It is
    left coalesced. The returned norm is the norm before scaling. Gradients that are nan or inf stay
    so. ``tables``: the weights of those that lie on several processes count with what all of them hold;
    their gradients must have been brought, and each process must call. Raises ValueError where
    ``max_norm`` is not above 0.
    """
    if max_norm <= 0:
        raise ValueError(f"max_norm must be positive, got {max_norm}")
    on_several = {id(table.weight): table for table in tables if table.sharded}
    parts: list[Tensor] = []
    dealt: dict[int, Tensor] = {}
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            rows, values = summed_rows(parameter.grad)
            parameter.grad = torch.sparse_coo_tensor(
                rows.unsqueeze(0),
                values,
                parameter.grad.shape,
                is_coalesced=True,
                check_invariants=False,
            )
        else:
            values = parameter.grad
        if id(parameter) in on_several:
            dealt[id(parameter)] = values
        else:
            parts.append(values)
    if not parts and not on_several:
        return torch.zeros(())
    norm = nn.utils.get_total_norm(parts)
    if on_several:
        squares = norm.square()
        for key, table in on_several.items():
            own = dealt.get(key)
            square = table.weight.new_zeros(()) if own is None else own.square().sum()
            squares = squares + table.over_parts(square)
        norm = squares.sqrt()
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # on its device: nothing waits for it
    for part in (*parts, *dealt.values()):
        part.mul_(scale)
    return norm


def _lazy_zeros(weight: Tensor) -> Tensor:
    shape = (weight.shape[0], 2, weight.shape[1])
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return torch.zeros(shape, dtype=weight.dtype, device=weight.device)
    # numpy takes zeroed pages from the system and touches none; torch would write them all.
    return torch.from_numpy(np.zeros(shape, dtype=np.float32))


def _copy(target: Tensor, given: Tensor | float | None, box: Box | None = None) -> None:
    """``box``: which part of a whole the target is. A whole is then as good as the part."""
    shape = tuple(target.shape)
    if box is None or not target.ndim:
        box = Box(shape, range(shape[0] if shape else 0), range(shape[-1] if shape else 0))
    else:
        shape = (box.shape[0], *shape[1:-1], box.shape[-1])
    part = (
        given if not shape and isinstance(given, Tensor) else box.for_shape(shape).taken_from(given)
    )
    if part is None or part.shape != target.shape:
        found = tuple(given.shape) if isinstance(given, Tensor) else given
        raise ValueError(f"the optimiser's state must have shape {shape}, got {found}")
    target.copy_(part)
