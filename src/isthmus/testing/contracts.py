"""The contracts of adapters, backbones and models, as checks to run on your own.

A :class:`Subject` is a module with example rows. Each check takes one and raises
``AssertionError`` with the contract's number and what was found; ``check_adapter``,
``check_backbone`` and ``check_model`` run all that apply, each on a module built afresh.

1. In eval a row's output does not depend on its batch.
2. A fresh adapter changes nothing, and can learn: every parameter gets a gradient.
3. Hidden units learn different things.
4. The fast form equals the formula written out slowly.
5. A domain's own parameters move no other domain's rows.
6. Work per row does not grow with the number of domains.
8. A domain that was never seen, or is missing, has a defined answer, and training reaches it.
7, of the exported graph, stands in `isthmus.testing.exported`, and runs where no shape check does; 9 to
11, of mixed batches and of experts, in `isthmus.testing.mixtures`.

>>> from isthmus.adapters import Hamur
>>> def make(n_domains):
...     return Hamur(site_widths=(8,), condition_width=6, n_domains=n_domains, bottleneck=4, rank=3)
>>> check_adapter(make, condition_width=6)
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from isthmus.adapters import AbstractAdapter, LowRank
from isthmus.backbones import AbstractBackbone
from isthmus.data.batch import Batch
from isthmus.layers.per_domain import domain_tensors
from isthmus.models import AbstractModel
from isthmus.testing.mixtures import (
    check_experts_differ,
    check_mixed_batch_equals_domains,
    check_rows_move_their_own,
)
from isthmus.testing.subject import (
    Run,
    Subject,
    adapter_subject,
    backbone_subject,
    hold,
    model_subject,
    same,
    train_a_little,
)
from isthmus.train.generators import seeded

ROUNDING = 1e-6  # of 32-bit outputs that are near 1


def check_rows_do_not_see_neighbours(subject: Subject, *, tolerance: float = 1e-4) -> None:
    """Contract 1: in eval a row gives the same alone, in 7 rows and in 4096, in any order."""
    train_a_little(subject)
    many = subject.all_rows(at_least=4096)
    among_many = subject.output(many)
    hold(bool(among_many.isfinite().all()), "contract 1: an output in eval is not finite")
    shuffled = torch.randperm(len(many), generator=torch.Generator().manual_seed(0))
    same(subject.output(many[shuffled]), among_many[shuffled], tolerance, "1: rows in two orders")
    some = many[:21]
    for size, words in ((1, "a row alone"), (7, "7 rows")):
        parts = torch.cat([subject.output(part) for part in some.split(size)])
        same(parts, among_many[:21], tolerance, f"1: {words} and the same among 4096")


def check_fresh_adapter_is_identity(subject: Subject, *, tolerance: float = 1e-6) -> None:
    """Contract 2: an adapter that has not been trained changes nothing, in training and in eval."""
    rows = subject.all_rows()
    for training in (True, False):
        subject.module.train(training)
        # Both from one state: what follows the rows in training, as statistics do, moves each time.
        state = {name: tensor.clone() for name, tensor in subject.module.state_dict().items()}
        with seeded(0), torch.no_grad():
            adapted = subject.output(rows)
            subject.module.load_state_dict(state)
            torch.manual_seed(0)
            same(adapted, _plain(subject, rows), tolerance, "2: a fresh adapter and none")


def check_everything_learns(subject: Subject) -> None:
    """Contract 2: some parameter has a gradient at once, and every one after one step."""
    train_a_little(subject, steps=1, lr=1e-3)
    hold(any(_moves(p) for p in subject.module.parameters()), "contract 2: no gradient anywhere")
    train_a_little(subject, steps=1, lr=1e-3)
    dead = [name for name, p in subject.module.named_parameters() if not _moves(p)]
    hold(not dead, f"contract 2: no gradient after one step for {dead}")


def check_identity_is_left_smoothly(subject: Subject, *, at_most: float = 0.05) -> None:
    """Contract 2: one Adam step at 1e-3 moves outputs by less than 5 % of what they were."""
    rows = subject.all_rows()
    train_a_little(subject, steps=1, lr=1e-3)
    for training in (True, False):
        subject.module.train(training)
        plain = _plain(subject, rows)
        moved = float((subject.output(rows) - plain).std() / plain.std())
        hold(moved < at_most, f"contract 2: one step moved the output by {moved:.3f} of its spread")


def check_hidden_units_differ(subject: Subject, *, factors: Iterable[str] | None = None) -> None:
    """Contract 3: the gradient of every factor has rank above 1.

    ``factors``: names of parameters shaped (in, out) or (n_domains + 1, in, out); by default both
    factors of every :class:`LowRank` in the module.
    """
    if factors is None:
        factors = [
            f"{name}.{side}" if name else side
            for name, module in subject.module.named_modules()
            if isinstance(module, LowRank)
            for side in ("left", "right")
        ]
    train_a_little(subject)
    busiest = int(subject.domain.bincount().argmax())
    for name in factors:
        gradient = subject.module.get_parameter(name).grad
        hold(gradient is not None, f"contract 3: {name} has no gradient")
        assert gradient is not None
        matrix = gradient[busiest] if gradient.ndim == 3 else gradient
        if min(matrix.shape) < 2:
            continue
        first, second = torch.linalg.svdvals(matrix.double())[:2].tolist()
        hold(second > 1e-4 * first, f"contract 3: the gradient of {name} has rank 1 or 0")


def check_matches_formula(subject: Subject, formula: Run, *, tolerance: float = 1e-4) -> None:
    """Contract 4: ``run`` and the slow, obvious ``formula`` agree, and so do their gradients."""
    train_a_little(subject)
    rows = subject.all_rows()
    parameters = [p for p in subject.module.parameters() if p.requires_grad]
    found = []
    for form in (subject.run, formula):
        output = form(rows, subject.domain)
        loss = (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum()
        found.append((output, *torch.autograd.grad(loss, parameters, materialize_grads=True)))
    for fast, slow in zip(*found, strict=True):
        scale = max(1.0, float(slow.detach().abs().max()))
        same(fast / scale, slow / scale, tolerance, "4: the fast form and the formula")


def check_domains_are_apart(subject: Subject, *, banks: Iterable[str] | None = None) -> None:
    """Contract 5: with the parameters of domain d spoilt, the rows of other domains stay the same.

    What is spoilt is nan, so a row that depends on it is nan too. All else is rounding: a network that
    sorts rows by what they hold, as by clusters, multiplies the others in other company.

    ``banks``: names of the parameters and buffers with one line per domain; by default those that
    the module declares, see `isthmus.layers.per_domain`.
    """
    train_a_little(subject)
    tensors = dict(subject.module.named_parameters()) | dict(subject.module.named_buffers())
    declared = domain_tensors(subject.module)
    own = list(declared.values()) if banks is None else [tensors[name] for name in banks]
    rows = subject.all_rows()
    before = subject.output(rows)
    for domain in subject.domain.unique().tolist():
        kept = [tensor.detach()[domain].clone() for tensor in own]
        with torch.no_grad():
            for tensor in own:
                tensor[domain] = torch.nan
            after = subject.output(rows)
            for tensor, line in zip(own, kept, strict=True):
                tensor[domain] = line
        others = subject.domain != domain
        what = f"5: rows of other domains before and after domain {domain} was spoilt"
        same(after[others], before[others], ROUNDING, what)
        spoilt = after[~others].isnan().reshape(int((~others).sum()), -1).any(dim=1)
        used = not own or bool(spoilt.all())
        hold(used, f"contract 5: the parameters of domain {domain} are not used by its rows")


def check_work_does_not_grow(
    make: Callable[[int], Subject], *, few: int = 3, many: int = 1000, at_most: float = 2.0
) -> None:
    """Contract 6: a training step on 4096 rows takes as many products for 1,000 domains as for 3.

    ``make(n_domains)`` builds the subject. Products are counted, not timed: filling up tiles may
    cost up to ``at_most`` times; running every domain on every row would cost hundreds.
    """
    counts = []
    for n_domains in (few, many):
        subject = make(n_domains)
        rows = subject.all_rows(at_least=4096)
        generator = torch.Generator().manual_seed(0)
        domain = torch.randint(1, n_domains + 1, rows.shape, generator=generator)
        subject.module.train()
        with FlopCounterMode(display=False) as counter:
            subject.run(rows, domain).square().sum().backward()
        counts.append(counter.get_total_flops())
    hold(
        counts[1] <= at_most * counts[0],
        f"contract 6: {few} domains take {counts[0]:,} products, {many} take {counts[1]:,}",
    )


def check_unknown_domain_is_answered(subject: Subject) -> None:
    """Contract 8: domains without a training row, and domain 0, have finite outputs in eval.

    And rows whose domain is hidden in training (domain dropout) move the answer of domain 0.
    """
    rows = subject.all_rows()
    unknown = torch.zeros_like(subject.domain)
    unseen = unknown + subject.n_domains
    train_a_little(subject, domain=torch.ones_like(subject.domain))
    for words, domain in (("missing", unknown), ("never seen", unseen)):
        with torch.no_grad():
            finite = bool(subject.run(rows, domain).isfinite().all())
        hold(finite, f"contract 8: rows whose domain is {words} have no finite output")
    with torch.no_grad():
        before = subject.run(rows, unknown)
    train_a_little(subject, domain=torch.where(rows % 2 == 0, 0, 1))
    with torch.no_grad():
        after = subject.run(rows, unknown)
    hold(bool(after.isfinite().all()), "contract 8: the unknown domain has no finite output")
    hold(bool((after != before).any()), "contract 8: training never reaches the unknown domain")


def check_adapter(make: Callable[[int], AbstractAdapter], *, condition_width: int) -> None:
    """Contracts 1 to 3, 5, 6 and 8 to 10 on adapters that ``make(n_domains)`` builds."""

    def subject(n_domains: int = 5) -> Subject:
        return adapter_subject(
            make(n_domains), condition_width=condition_width, n_domains=n_domains
        )

    _check_shared(subject)
    check_fresh_adapter_is_identity(subject())
    check_everything_learns(subject())
    check_identity_is_left_smoothly(subject())
    check_hidden_units_differ(subject())


def check_backbone(make: Callable[[int], AbstractBackbone]) -> None:
    """Contracts 1, 5, 6 and 8 to 11 on backbones that ``make(n_domains)`` builds."""

    def subject(n_domains: int = 5) -> Subject:
        return backbone_subject(make(n_domains), n_domains=n_domains)

    _check_shared(subject)
    check_experts_differ(subject())


def check_model(make: Callable[[int], AbstractModel], batch: Callable[[int], Batch]) -> None:
    """Contracts 1, 5, 6, 8 to 11, and 2 where there is an adapter, on models that ``make`` builds.

    ``batch(n_domains)``: example rows that hold several domains, among them domain 0.
    """

    def subject(n_domains: int = 5) -> Subject:
        return model_subject(make(n_domains), batch(n_domains))

    _check_shared(subject)
    check_experts_differ(subject())
    if subject().plain is not None:
        check_fresh_adapter_is_identity(subject())


def _check_shared(subject: Callable[..., Subject]) -> None:
    check_rows_do_not_see_neighbours(subject())
    check_domains_are_apart(subject())
    check_work_does_not_grow(subject)
    check_unknown_domain_is_answered(subject())
    check_mixed_batch_equals_domains(subject())
    check_rows_move_their_own(subject())


def _plain(subject: Subject, rows: Tensor) -> Tensor:
    if subject.plain is None:
        raise ValueError("this subject has no adapter to take away")
    with torch.no_grad():
        return subject.plain(rows, subject.domain[rows])


def _moves(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool((parameter.grad != 0).any())
