"""What a contract is checked on: a module with example rows, and a little training."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from isthmus.adapters import AbstractAdapter
from isthmus.backbones import AbstractBackbone
from isthmus.data.batch import Batch
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Site
from isthmus.models import AbstractModel, DomainModel
from isthmus.train.generators import seeded

Run = Callable[[Tensor, Tensor], Tensor]
"""A batch of which rows, in which domains, (rows,) int64 each -> the module's output, rows first."""


@dataclass(frozen=True)
class Subject:
    """A module and example rows to try it on.

    ``run(rows, domain)``: the module's output for a batch of these example rows (they may repeat)
    as rows of these domains. ``plain``: the same without the adapter, or ``None`` where there is
    nothing to take away. ``domain``: (rows,) int64, the domain of each example row.
    """

    module: nn.Module
    domain: Tensor
    n_domains: int
    run: Run
    plain: Run | None = None

    def all_rows(self, at_least: int = 0) -> Tensor:
        """Numbers of the example rows, over and over until there are ``at_least`` so many."""
        rows = self.domain.shape[0]
        return torch.arange(max(rows, at_least)) % rows

    def output(self, rows: Tensor) -> Tensor:
        """The output for these example rows in their own domains, without gradients."""
        with torch.no_grad():
            return self.run(rows, self.domain[rows])


def adapter_subject(
    adapter: AbstractAdapter,
    *,
    condition_width: int,
    n_domains: int,
    site: Site | None = None,
    rows: int = 96,
    seed: int = 0,
) -> Subject:
    """An adapter on normal rows, at ``site`` (by default its last), or at its Linears.

    An adapter at Linears is met at each of them, with the product of a drawn Linear; its outputs stand
    side by side.
    """
    generator = torch.Generator().manual_seed(seed)
    if not adapter.sites:
        return _linear_subject(adapter, condition_width, n_domains, rows, generator)
    at = adapter.sites[-1] if site is None else site
    h = torch.randn(rows, adapter.spec.width(at), generator=generator)
    condition = torch.randn(rows, condition_width, generator=generator)

    def run(rows: Tensor, domain: Tensor) -> Tensor:
        state = adapter.prepare(condition[rows], Routing(domain, n_domains))
        return adapter(at, h[rows], state)

    def plain(rows: Tensor, domain: Tensor) -> Tensor:  # noqa: ARG001
        return h[rows]

    return Subject(adapter, torch.arange(rows) % (n_domains + 1), n_domains, run, plain)


def _linear_subject(
    adapter: AbstractAdapter, condition_width: int, n_domains: int, rows: int, source: Generator
) -> Subject:
    widths = {linear: adapter.spec.linears[linear] for linear in adapter.linears}
    x = {at: torch.randn(rows, wide, generator=source) for at, (wide, _) in widths.items()}
    weight = {at: torch.randn(pair, generator=source) for at, pair in widths.items()}
    for one in weight.values():  # the products of a Linear count, as they do in training
        one.mul_(one.shape[0] ** -0.5).requires_grad_()
    condition = torch.randn(rows, condition_width, generator=source)

    def plain(rows: Tensor, domain: Tensor) -> Tensor:  # noqa: ARG001
        return torch.cat([x[at][rows] @ weight[at] for at in adapter.linears], dim=1)

    def run(rows: Tensor, domain: Tensor) -> Tensor:
        state = adapter.prepare(condition[rows], Routing(domain, n_domains))
        met = [adapter.meet(at, x[at][rows], x[at][rows] @ weight[at], state) for at in widths]
        return torch.cat(met, dim=1)

    return Subject(adapter, torch.arange(rows) % (n_domains + 1), n_domains, run, plain)


def backbone_subject(
    backbone: AbstractBackbone, *, n_domains: int, rows: int = 96, seed: int = 0
) -> Subject:
    """A backbone on normal rows."""
    x = torch.randn(rows, backbone.in_width, generator=torch.Generator().manual_seed(seed))

    def run(rows: Tensor, domain: Tensor) -> Tensor:
        return backbone(x[rows], Routing(domain, n_domains))

    return Subject(backbone, torch.arange(rows) % (n_domains + 1), n_domains, run)


def model_subject(model: AbstractModel, batch: Batch) -> Subject:
    """A model on the rows of ``batch``; ``plain`` takes its adapter away."""

    def run(rows: Tensor, domain: Tensor) -> Tensor:
        chosen = replace(batch.take(rows), domain=domain)
        return model(chosen.hide_domain(domain == 0, model.domain_places))

    adapted = model if isinstance(model, DomainModel) and model.adapter is not None else None

    def plain(rows: Tensor, domain: Tensor) -> Tensor:
        assert adapted is not None
        adapter, adapted.adapter = adapted.adapter, None
        try:
            return run(rows, domain)
        finally:
            adapted.adapter = adapter

    return Subject(model, batch.domain, model.n_domains, run, None if adapted is None else plain)


def train_a_little(
    subject: Subject, *, steps: int = 3, lr: float = 1e-2, domain: Tensor | None = None
) -> None:
    """Adam towards random targets; leaves the module in eval, with statistics that have moved.

    Gradients of the last step stay in ``.grad``. ``domain``: train the example rows as rows of
    these domains instead of their own. A module without parameters is left as it is, in eval.
    """
    if next(subject.module.parameters(), None) is None:
        subject.module.eval()
        return
    domain = subject.domain if domain is None else domain
    optimiser = torch.optim.Adam(subject.module.parameters(), lr=lr)
    rows = subject.all_rows()
    with seeded(1):
        subject.module.train()
        for _ in range(steps):
            optimiser.zero_grad()
            output = subject.run(rows, domain)
            (output - torch.randn_like(output)).square().sum().backward()
            optimiser.step()
        subject.module.eval()


def hold(holds: bool, text: str) -> None:
    """Raise ``AssertionError`` with ``text`` unless ``holds``."""
    if not holds:
        raise AssertionError(text)


def same(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Raise ``AssertionError`` where two tensors are further apart than ``tolerance``, or NaN."""
    apart = (found - expected).abs().max().item() if found.numel() else 0.0
    # Written so that NaN does not hold.
    hold(apart <= tolerance, f"contract {what} differ by {apart:.2e}, at most {tolerance:.0e}")
