"""Checkpoints: a block that runs once more in the backward pass meets the same rows' condition.

`torch.utils.checkpoint` runs a block again while gradients flow, when the call that knew domain and
condition is over. A hook on the module's outputs therefore gives the condition back as soon as
gradients reach the module. Calls that went forward one after the other go backward in the opposite
order, so that each block meets its own.

A reentrant checkpoint hides from the graph what its block read. The gradient of what all cells share
(a hyper-network's cores) is then gathered while blocks are run again, and goes on its way in one sum,
once the last of them is done: the hyper-network runs backward once.
"""

from typing import Any

import torch
from torch import Tensor


class _Box:
    """The gradient that was gathered; apart from tensors, so that no graph holds itself."""

    def __init__(self) -> None:
        self.gradient: Tensor | None = None
        self.open = True

    def add(self, gradient: Tensor) -> None:
        if not self.open:
            raise RuntimeError(
                "a reentrant checkpoint ran its block after the gradient of the adapter's condition"
                " was passed on: use checkpoint(..., use_reentrant=False)"
            )
        self.gradient = gradient if self.gradient is None else self.gradient + gradient


class Gathered:
    """What all cells of one batch share, and the gradient that hidden blocks have for it.

    ``tensor``: what cells read in the graph.
    """

    def __init__(self, shared: Tensor) -> None:
        self._box = _Box()
        self.tensor: Tensor = _Gather.apply(shared, self._box)  # pyright: ignore[reportAttributeAccessIssue]

    def begin(self) -> None:
        """A backward pass has reached the module."""
        self._box.open, self._box.gradient = True, None

    def leaf(self) -> Tensor:
        """What a block reads that is run again; its gradient is kept here."""
        leaf = self.tensor.detach().requires_grad_()
        leaf.register_hook(self._box.add)
        return leaf

    def tied_to(self, output: Tensor) -> Tensor:
        """The same values as ``output``; its gradient reaches what is gathered, last of all."""
        return _Tie.apply(output, self.tensor) if output.requires_grad else output  # pyright: ignore[reportReturnType]


class _Gather(torch.autograd.Function):
    """Identity. Its backward adds what was gathered."""

    @staticmethod
    def forward(ctx: Any, shared: Tensor, box: _Box) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.box = box
        return shared.view_as(shared)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        box: _Box = ctx.box
        kept, box.gradient, box.open = box.gradient, None, False
        if kept is None or grad is None:
            return (grad if kept is None else kept), None
        return grad + kept, None


class _Tie(torch.autograd.Function):
    """A copy of the output, so that backward reaches what was gathered after all that came later."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, shared: Tensor) -> Tensor:  # noqa: ARG004
        ctx.set_materialize_grads(False)
        return output.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:  # noqa: ARG004  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad, None


def in_backward() -> bool:
    """Whether this thread is running a backward pass."""
    return torch._C._current_graph_task_id() != -1
