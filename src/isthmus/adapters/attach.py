"""Put an adapter into a network that somebody else wrote, and take it out again.

Our own backbones call ``adapt(site, h)``; a foreign module is adapted by forward hooks behind
submodules that the caller names. The adapter becomes a submodule of the module while it is
attached: its parameters are in ``module.parameters()`` and ``state_dict()``, and ``train()``,
``eval()`` and ``to()`` reach it. ``detach`` leaves the module as it was before.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from isthmus.adapters.adapter import AbstractAdapter, AdapterState
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Site

CHILD = "isthmus_adapter"


class Attachment:
    """An adapter in place. Call it like the module, with the batch's domain and condition.

    ``attachment(x, domain=domain, condition=e)`` is ``module(x)`` with the adapter at work; where
    the call is not yours to change, wrap it: ``with attachment.batch(domain=..., condition=...):``.
    """

    def __init__(
        self, module: nn.Module, at: Mapping[str, Site], adapter: AbstractAdapter, n_domains: int
    ) -> None:
        self.module = module
        self.adapter = adapter
        self.n_domains = n_domains
        # One value per thread: two servers' threads may score with one module.
        self._state: ContextVar[AdapterState | None] = ContextVar(CHILD, default=None)
        self._handles = [
            module.get_submodule(name).register_forward_hook(self._hook(name, site))
            for name, site in at.items()
        ]
        self._holder = _holder(module, next(iter(at)))
        self._holder.add_module(CHILD, adapter)

    def __call__(self, *inputs: Any, domain: Tensor, condition: Tensor, **named: Any) -> Any:
        """The module's output for one batch; ``domain`` and ``condition`` as in :meth:`batch`."""
        with self.batch(domain=domain, condition=condition):
            return self.module(*inputs, **named)

    @contextmanager
    def batch(self, *, domain: Tensor, condition: Tensor) -> Iterator[None]:
        """Say which rows the module is about to see: it may run any number of times inside.

        ``domain``: (rows,) int64, 0 the unknown, 1..n_domains; ``condition``: (rows,
        condition_width), what the hyper-network reads. Raises ``ValueError`` where they differ in
        rows.
        """
        if domain.shape[0] != condition.shape[0]:
            raise ValueError(
                "domain and condition must have equally many rows,"
                f" got {domain.shape[0]} and {condition.shape[0]}"
            )
        state = self.adapter.prepare(condition, Routing(domain, self.n_domains))
        token = self._state.set(state)
        try:
            yield
        finally:
            self._state.reset(token)

    def detach(self) -> None:
        """Take hooks and adapter away; the adapter keeps its weights and may be attached again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if getattr(self._holder, CHILD, None) is self.adapter:
            delattr(self._holder, CHILD)

    def _hook(self, name: str, site: Site) -> Any:
        def adapt(module: nn.Module, inputs: Any, output: Any) -> Tensor:  # noqa: ARG001
            state = self._state.get()
            if state is None:
                raise ValueError(
                    "an adapted module needs the batch's domain and condition: call the"
                    f" attachment or use attachment.batch(...); {name!r} ran without them"
                )
            expected = (state.routing.rows, self.adapter.spec.width(site))
            if not isinstance(output, Tensor) or tuple(output.shape) != expected:
                got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise ValueError(f"the output of {name!r} must be a tensor {expected}, got {got}")
            return self.adapter(site, output, state)

        return adapt


def attach(
    module: nn.Module, *, at: Mapping[str, Site], adapter: AbstractAdapter, n_domains: int
) -> Attachment:
    """Put ``adapter`` behind named submodules: ``at={"dnn.2": 0}`` is submodule name -> site.

    Each of those submodules must return (rows, width) with the width of its site. Raises
    ``ValueError`` for a name that the module does not have (the nearest is named), for a site that
    the adapter does not have, and for a module that is adapted already.
    """
    if not at:
        raise ValueError("at must name at least one submodule, got none")
    names = [name for name, _ in module.named_modules() if name]
    for name, site in at.items():
        if name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0.0)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise ValueError(f"at must name submodules of the module, got {name!r}{hint}")
        if site not in adapter.sites:
            raise ValueError(f"{name!r} must go to one of the sites {adapter.sites}, got {site}")
    if any(name.split(".")[-1] == CHILD for name in names):
        raise ValueError("the module has an adapter already: detach it first")
    return Attachment(module, at, adapter, n_domains)


def _holder(module: nn.Module, name: str) -> nn.Module:
    """Whose child the adapter becomes: the module, or where that runs all children, the place."""
    place = module if not isinstance(module, nn.Sequential) else module.get_submodule(name)
    if isinstance(place, nn.Sequential):
        raise ValueError(
            f"an nn.Sequential runs whatever is put into it, so {name!r} of one must name a module"
            " that is none"
        )
    return place


def detach(module: nn.Module, attachment: Attachment) -> nn.Module:
    """Give back the module as it was before :func:`attach`."""
    if attachment.module is not module:
        raise ValueError("this attachment belongs to another module")
    attachment.detach()
    return module
