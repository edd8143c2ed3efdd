"""An adapter in place, behind submodules of a network that somebody else wrote.

The network's code stays as it is. Forward hooks change what the named submodules return; the hooks
of the module itself begin and end a call. A hook sits on a module without taking its place: a module
that reads its parts' weights, as `nn.TransformerEncoder` does, finds what it expects.

A place goes to a site of the adapter, or, for an adapter at Linears, to one of its Linears.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from isthmus.adapters.adapter import AbstractAdapter, AdapterState
from isthmus.attaching.current import Current, Passage, no_condition
from isthmus.attaching.freezing import Frozen
from isthmus.attaching.picked import Place, picked, put_back
from isthmus.attaching.recomputing import Gathered, in_backward
from isthmus.layers.routing import Routing, in_graph
from isthmus.layers.sites import Site

CHILD = "isthmus_adapter"
RUNNING_ALL = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # what is put into one is run

# From what the module was called with: the domain of each row, and its condition or None.
Read = Callable[..., tuple[Tensor, Tensor | None]]


class Attachment(nn.Module):
    """An adapter in place. Call it like the module, with the batch's domain and condition.

    ``adapted(x, domain=domain, condition=e)`` is ``module(x)`` with the adapter at work. Where the
    call is not yours to change, wrap it: ``with adapted.batch(domain=..., condition=...):``. Where
    the module's own input holds the domain, give `attach` a ``read``, and call the module itself.

    Threads may use one attachment at once, each with its own rows. A compiler, an exporter or a copy
    (`copy.deepcopy`) takes the attachment as the network.
    """

    def __init__(
        self,
        module: nn.Module,
        at: Mapping[Place, Site],
        adapter: AbstractAdapter,
        *,
        condition_width: int | None = None,
        read: Read | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.sites = dict(at)
        self.places = tuple(at)
        self.read = read
        self.condition_width = condition_width
        self.current = Current()
        self.frozen: Frozen | None = None
        self.attached = True  # until `detach`
        # In a tuple, so that the adapter is a part of the module and not of the attachment beside it.
        self._kept = (adapter, holder_of(module, self.places[0].name))
        self._kept[1].add_module(CHILD, adapter)
        self._handles = [
            module.get_submodule(place.name).register_forward_hook(
                _SiteHook(self, place, site), with_kwargs=True
            )
            for place, site in at.items()
        ]
        self._handles += [
            module.register_forward_pre_hook(_Begin(self), with_kwargs=True),
            module.register_forward_hook(_End(self), always_call=True),
        ]

    @property
    def adapter(self) -> AbstractAdapter:
        """The adapter; while it is attached, a submodule of the module."""
        return self._kept[0]

    @property
    def n_domains(self) -> int:
        """Trained domains, the unknown one not counted."""
        return self.adapter.spec.n_domains

    def forward(
        self,
        *inputs: Any,
        domain: Tensor | None = None,
        condition: Tensor | None = None,
        **named: Any,
    ) -> Any:
        """The module's output for one batch; ``domain`` and ``condition`` as in `batch`.

        Without ``domain``, the batch around the call or ``read`` says which rows these are.
        """
        if domain is None:
            return self.module(*inputs, **named)
        passage = self.passage(domain, condition)
        before = self.current.push(passage)
        try:
            return self.module(*inputs, **named)
        finally:
            self.current.pop(before, passage)

    @contextmanager
    def batch(self, *, domain: Tensor, condition: Tensor | None = None) -> Iterator[None]:
        """Say which rows the module is about to see: it may run any number of times inside.

        ``domain``: (rows,) int64, 0 the unknown, 1..n_domains. ``condition``: (rows,
        condition_width), what the adapter reads of each row; left out for an adapter that reads
        none. Raises ``ValueError`` where the two differ in rows, where an adapter misses its
        condition, and where a site did not run until the end.
        """
        passage = self.passage(domain, condition)
        before = self.current.push(passage)
        try:
            yield
            passage.check_all_called(self.places, "a batch")
        finally:
            self.current.pop(before, passage)

    def freeze(self) -> None:
        """Train the adapter alone: the module gives no gradients, and its statistics stay.

        All parts but the adapter stay in eval until `unfreeze` or `detach`, whatever ``train`` says.
        """
        if self.frozen is None:
            self.frozen = Frozen(self.module, self.adapter)

    def unfreeze(self) -> None:
        """Let the module train again as it did before `freeze`."""
        if self.frozen is not None:
            self.frozen.release()
            self.frozen = None

    def detach(self) -> None:
        """Take hooks and adapter away; the adapter keeps its weights and may be attached again."""
        self.unfreeze()
        self.attached = False
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if getattr(self._kept[1], CHILD, None) is self.adapter:
            delattr(self._kept[1], CHILD)

    def passage(self, domain: Tensor, condition: Tensor | None) -> Passage:
        """What begins a batch of these rows."""
        if not self.attached:
            raise ValueError("the adapter must be attached, got a call after detach")
        if not isinstance(domain, Tensor):
            raise ValueError(f"domain must be a tensor (rows,), got {type(domain).__name__}")
        routing = Routing(domain, self.n_domains)
        rows = routing.rows
        if condition is not None and condition.shape[0] != rows:
            raise ValueError(
                "domain and condition must have equally many rows,"
                f" got {rows} and {condition.shape[0]}"
            )
        width = self.condition_width
        if condition is not None and width is not None and condition.shape[1:] != (width,):
            raise ValueError(f"condition must be ({rows}, {width}), got {tuple(condition.shape)}")
        state = self._prepare(routing, condition)
        gathered = None
        if state.shared is not None and state.shared.requires_grad and not in_graph():
            gathered = Gathered(state.shared)
            state = AdapterState(state.routing, gathered.tensor)
        return Passage(state, gathered)

    def _prepare(self, routing: Routing, condition: Tensor | None) -> AdapterState:
        if condition is not None:
            return self.adapter.prepare(condition, routing)
        if in_graph():
            return self.adapter.prepare(no_condition(routing), routing)
        try:
            return self.adapter.prepare(no_condition(routing), routing)
        except RuntimeError as fault:
            raise ValueError(
                f"condition must be given: {type(self.adapter).__name__} reads one of each row"
            ) from fault

    def extra_repr(self) -> str:
        """Where the adapter sits, for printing."""
        return ", ".join(map(str, self.places))


class _SiteHook:
    """Hands what a submodule returned to the cell of its place."""

    def __init__(self, attachment: Attachment, place: Place, site: Site) -> None:
        self.attachment, self.place = attachment, place
        self.site: Site = site

    def __call__(
        self,
        module: nn.Module,  # noqa: ARG002
        inputs: tuple[Any, ...],
        named: dict[str, Any],
        output: Any,
    ) -> Any:
        attachment, place = self.attachment, self.place
        passage = attachment.current.top()
        if passage is None:
            raise ValueError(_missing(place))
        h = picked(output, place)
        if h.is_nested:
            raise ValueError(
                f"the output of '{place}' must be a plain tensor, got a nested one: build the"
                " nn.TransformerEncoder with enable_nested_tensor=False"
            )
        state = passage.called(place)
        adapter, rows = attachment.adapter, state.routing.rows
        width = widths_at(adapter, self.site)[-1]
        if h.ndim not in (2, 3) or h.shape[0] != rows or h.shape[-1] != width:
            raise ValueError(
                f"the output of '{place}' must be a tensor {(rows, width)} or"
                f" ({rows}, steps, {width}) for a domain of {rows} rows, got {tuple(h.shape)}"
            )
        # An adapter at Linears reads what goes in, too.
        met = [inputs[0] if inputs else named["input"], h] if adapter.linears else [h]
        if h.ndim == 3:
            state = passage.by_step(adapter, state, h.shape[1])
            met = [tensor.flatten(0, 1) for tensor in met]
        run: Callable[..., Tensor] = adapter.meet if adapter.linears else adapter
        changed = run(self.site, *met, state)
        if h.ndim == 3:
            changed = changed.unflatten(0, (rows, h.shape[1]))
        return put_back(output, place.key, changed.to(h.dtype))


def _missing(place: Place) -> str:
    if not in_graph() and in_backward():
        return (
            f"'{place}' ran again for a backward pass, and its rows are not known: let the checkpoint"
            " call the attachment with its domain, or use checkpoint(..., use_reentrant=False)"
        )
    return (
        "an adapted module needs the batch's domain and condition: call the"
        f" attachment or use attachment.batch(...); '{place}' ran without them"
    )


class _Begin:
    """Begins a call of the module: with the batch around it, or with what ``read`` finds."""

    def __init__(self, attachment: Attachment) -> None:
        self.attachment = attachment

    def __call__(
        self,
        module: nn.Module,  # noqa: ARG002
        inputs: tuple[Any, ...],
        named: dict[str, Any],
    ) -> None:
        attachment = self.attachment
        if attachment.frozen is not None:
            attachment.frozen.hold()
        around = attachment.current.top()
        if around is None:
            if attachment.read is None:
                return  # the first site says what is missing
            found = attachment.read(*inputs, **named)
            if not isinstance(found, tuple | list) or len(found) != 2:
                raise ValueError(
                    f"read must return (domain, condition), got {type(found).__name__}"
                )
            around = attachment.passage(*found)
        passage = Passage(around.state, around.gathered, whole=True, again=around.again)
        passage.around = around
        passage.before = attachment.current.push(passage)


class _End:
    """Ends the call that `_Begin` began, also where the module failed."""

    def __init__(self, attachment: Attachment) -> None:
        self.attachment = attachment

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG002
        current = self.attachment.current
        passage = current.top()
        if passage is None or not passage.whole:
            return output
        current.pop(passage.before, passage)
        if output is None:  # the module raised, or returns nothing
            return None
        passage.check_all_called(self.attachment.places, "a call of the module")
        if passage.around is not None:
            passage.around.calls.update(passage.calls)
        return passage.sealed(output, current.restore)


def widths_at(adapter: AbstractAdapter, site: Site) -> tuple[int, ...]:
    """(width,) of the hidden state at a site, or (in_width, out_width) at a Linear."""
    if adapter.linears:
        assert isinstance(site, int)
        return adapter.spec.linears[site]
    return (adapter.spec.width(site),)


def is_adapted(module: nn.Module, name: str) -> bool:
    """Whether an adapter sits in the module already, or in the place of this name."""
    begins = any(isinstance(hook, _Begin) for hook in module._forward_pre_hooks.values())
    return begins or CHILD in dict(holder_of(module, name).named_children())


def holder_of(module: nn.Module, name: str) -> nn.Module:
    """Whose child the adapter becomes: the module, or where that runs all children, the place."""
    place = module.get_submodule(name) if isinstance(module, RUNNING_ALL) else module
    if isinstance(place, RUNNING_ALL):
        kind = type(place).__name__
        raise ValueError(
            f"a {kind} runs whatever is put into it, so {name!r} of one must name a module that is"
            " no container"
        )
    return place
