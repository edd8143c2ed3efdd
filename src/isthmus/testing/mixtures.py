"""The contracts of mixed batches, and of experts under gates.

9. A mixed batch, in any order, gives each row what a batch of its domain alone gives.
10. A row moves the parameters of its own domain, and of no other.
11. Experts and gates start apart and stay apart.
"""

import torch
from torch import Tensor, nn

from isthmus.layers.bank import BankLinear
from isthmus.layers.gates import ExpertLinear, Gate
from isthmus.layers.per_domain import domain_parameters
from isthmus.testing.subject import Subject, hold, same, train_a_little

FLAT = 1e-4  # of the largest singular value: what is below counts as nothing


def check_mixed_batch_equals_domains(subject: Subject, *, tolerance: float = 1e-4) -> None:
    """Contract 9: in eval, mixed and in any order, rows get what they get domain by domain."""
    train_a_little(subject)
    rows = subject.all_rows(at_least=512)
    expected = torch.empty_like(subject.output(rows))
    for domain in subject.domain.unique():
        own = torch.nonzero(subject.domain[rows] == domain).squeeze(1)
        expected[own] = subject.output(rows[own])
    for seed in range(3):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        what = "9: a mixed batch and its domains one by one"
        same(subject.output(rows[order]), expected[order], tolerance, what)


def check_rows_move_their_own(subject: Subject) -> None:
    """Contract 10: a loss on rows of domain d has no gradient for what belongs to other domains.

    In eval, where rows do not meet: a norm that shrinks towards the whole batch carries gradients
    from row to row in training.
    """
    train_a_little(subject)
    own = domain_parameters(subject.module)
    rows = subject.all_rows()
    for domain in subject.domain.unique().tolist() if own else ():
        subject.module.zero_grad()
        output = subject.run(rows, subject.domain)
        output[subject.domain == domain].square().sum().backward()
        for name, parameter in own.items():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            others = torch.arange(len(gradient)) != domain
            hold(
                bool((gradient[others] == 0).all()),
                f"contract 10: rows of domain {domain} move other domains' lines of {name}",
            )


def check_experts_differ(subject: Subject) -> None:
    """Contract 11: weights of experts and gates, and their gradients, have full rank.

    Looked at are every :class:`Gate`, every layer of :class:`Experts`, and every bank that no domain
    owns. The gradients of n experts must have rank n; those of a gate rank n - 1, since its weights
    sum to 1. Where domains have experts of their own, the domain with most rows is looked at. A module
    without experts passes.
    """
    busiest = int(subject.domain.bincount().argmax())
    parts = dict(_expert_parts(subject.module))
    for name, part in parts.items():
        _apart(f"the weights of {name}", _by_expert(part, part.weight, busiest), fresh=True)
    train_a_little(subject)
    for name, part in parts.items():
        _apart(f"the trained weights of {name}", _by_expert(part, part.weight, busiest))
        gradient = part.weight.grad
        hold(gradient is not None, f"contract 11: the experts of {name} have no gradient")
        assert gradient is not None
        _apart(f"the gradients of {name}", _by_expert(part, gradient, busiest))
    for name, gate in subject.module.named_modules():
        if isinstance(gate, Gate):
            gradient = gate.linear.weight.grad
            hold(gradient is not None, f"contract 11: the gate {name} has no gradient")
            assert gradient is not None
            banked = isinstance(gate.linear, BankLinear)
            by_expert = gradient[busiest].t() if banked else gradient
            _apart(f"the gradients of gate {name}", by_expert, sum_to_none=True)


def _expert_parts(module: nn.Module) -> list[tuple[str, ExpertLinear | BankLinear]]:
    return [
        (name, part)
        for name, part in module.named_modules()
        if (isinstance(part, ExpertLinear) and part.n_experts > 1)
        or (isinstance(part, BankLinear) and not part.per_domain)
    ]


def _by_expert(part: ExpertLinear | BankLinear, weight: Tensor, domain: int) -> Tensor:
    """(experts, numbers) of a weight or its gradient."""
    weight = weight.detach()
    if isinstance(part, BankLinear):
        return weight.flatten(1)
    return part.per_expert(weight if part.n_domains is None else weight[domain])


def _apart(what: str, by_expert: Tensor, *, fresh: bool = False, sum_to_none: bool = False) -> None:
    wanted = min(by_expert.shape[0] - sum_to_none, by_expert.shape[1])
    values = torch.linalg.svdvals(by_expert.double())
    rank = int((values > FLAT * values[0]).sum()) if values[0] > 0 else 0
    when = "start" if fresh else "stay"
    hold(
        rank >= wanted,
        f"contract 11: experts must {when} apart, but {what} have rank {rank}, not {wanted}",
    )
