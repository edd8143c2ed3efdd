"""Which rows the adapters of one attachment are working on: a stack for each thread."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from isthmus.adapters.adapter import AbstractAdapter, AdapterState
from isthmus.attaching.picked import Place, with_each
from isthmus.attaching.recomputing import Gathered, in_backward
from isthmus.layers.routing import Routing, in_graph


class Passage:
    """One call of the module, or of its parts, with the state that its cells read.

    ``whole``: the module itself was called, so every site must run once. ``again``: blocks are run
    once more for a backward pass.
    """

    def __init__(
        self,
        state: AdapterState,
        gathered: Gathered | None,
        *,
        whole: bool = False,
        again: "Passage | None" = None,
    ) -> None:
        self.state = state
        self.gathered = gathered
        self.whole = whole
        self.again = again
        self.calls: dict[Place, int] = {}
        self.hidden: set[Place] = set()  # sites in a reentrant checkpoint
        self.learns = torch.is_grad_enabled() and not in_graph()
        self.around: Passage | None = None  # of the module: the batch that the call belongs to
        self.before: Passage | None = None  # of the module: what `Current.pop` wants back
        self._routings: dict[int, Routing] = {} if again is None else again._routings

    def called(self, place: Place) -> AdapterState:
        """Count a call of the site at ``place``, and give what its cell reads.

        Raises ``ValueError`` for a second call in one call of the module.
        """
        if self.again is not None:
            if place in self.again.hidden and self.gathered is not None:
                return replace(self.state, shared=self.gathered.leaf())
            return self.state
        self.calls[place] = self.calls.get(place, 0) + 1
        if self.whole and self.calls[place] > 1:
            raise ValueError(
                f"'{place}' must run once in a call of the module, got a second call: an adapter"
                " cannot tell the two apart"
            )
        if self.learns and not torch.is_grad_enabled():
            self.hidden.add(place)
        return self.state

    def by_step(self, adapter: AbstractAdapter, state: AdapterState, steps: int) -> AdapterState:
        """The state of (rows * steps) hidden states: each row's, ``steps`` times."""
        routing, shared = state.routing, state.shared
        if steps not in self._routings:
            domain = routing.domain.repeat_interleave(steps)
            self._routings[steps] = Routing(domain, routing.n_domains)
        routing = self._routings[steps]
        # Not kept for the next site: a block that is run again must save what it saved before.
        if adapter.tiled:
            return adapter.prepare(no_condition(routing), routing)
        repeated = None if shared is None else shared.repeat_interleave(steps, dim=0)
        return AdapterState(routing, repeated)

    def check_all_called(self, places: tuple[Place, ...], what: str) -> None:
        """Raise ``ValueError`` naming the sites that did not run."""
        missing = [f"'{place}'" for place in places if place not in self.calls]
        if missing and self.again is None:
            raise ValueError(
                f"every site must run in {what}, got no call of {', '.join(missing)}"
                " (a fused path, a branch not taken, or weights that another module reads)"
            )

    def sealed(self, output: Any, restore: Callable[["Passage"], None]) -> Any:
        """The module's output, ready for a backward pass that runs blocks again."""
        if not self.learns or self.again is not None:
            return output

        def reached(gradient: Tensor) -> None:  # noqa: ARG001
            if self.gathered is not None:
                self.gathered.begin()
            restore(self)

        def watched(tensor: Tensor) -> Tensor:
            if tensor.requires_grad:
                tensor.register_hook(reached)
            return tensor

        if self.hidden and self.gathered is not None:
            output = with_each(output, self.gathered.tied_to)
        with_each(output, watched)
        return output


def no_condition(routing: Routing) -> Tensor:
    """What an adapter gets that reads no condition: (rows, 0)."""
    return torch.zeros(routing.rows, 0, device=routing.domain.device)


class Current:
    """The passages that have begun and not ended, a stack for each thread.

    A graph that is being made has a plain attribute instead: compilers follow no writes to what
    belongs to a thread. Reads they follow, so a compiled module sees the stack of its thread.
    """

    def __init__(self) -> None:
        self._thread = threading.local()
        self._in_graph: Passage | None = None

    def __reduce__(self) -> tuple[type["Current"], tuple[()]]:
        return Current, ()  # a copy of a network is not within any call

    def top(self) -> Passage | None:
        """The passage that a site belongs to now, or None."""
        if in_graph():
            if self._in_graph is not None:
                return self._in_graph
            stack = getattr(self._thread, "stack", ())
            return stack[-1] if stack else None
        stack = self._stack()
        return stack[-1] if stack else None

    def push(self, passage: Passage) -> Passage | None:
        """Begin a passage; give what `pop` wants back."""
        if in_graph():
            before, self._in_graph = self._in_graph, passage
            return before
        self._stack().append(passage)
        return None

    def pop(self, before: Passage | None, passage: Passage) -> None:
        """End a passage, and whatever began inside and did not end."""
        if in_graph():
            self._in_graph = before
            return
        stack = self._stack()
        if passage in stack:
            del stack[stack.index(passage) :]

    def restore(self, passage: Passage) -> None:
        """Let blocks that are run again, until the backward pass ends, meet this passage."""
        again = Passage(passage.state, passage.gathered, again=passage)
        stack = self._stack()
        stack.append(again)

        def forget() -> None:
            if again in stack:
                stack.remove(again)

        torch.autograd.Variable._execution_engine.queue_callback(forget)

    def _stack(self) -> list[Passage]:
        stack: list[Passage] | None = getattr(self._thread, "stack", None)
        if stack is None:
            stack = self._thread.stack = []
        # A backward pass that failed forgets nothing.
        if stack and not in_backward() and any(passage.again is not None for passage in stack):
            stack[:] = [passage for passage in stack if passage.again is None]
        return stack
