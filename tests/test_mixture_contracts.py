"""The contracts of mixtures: each must fail for a network that breaks it."""

import pytest
import torch
from torch import Tensor, nn

from isthmus import testing
from isthmus.backbones import MMoE
from isthmus.layers.bank import BankLinear
from isthmus.testing import Subject, backbone_subject

N_DOMAINS = 3
WIDTH = 6


def spoilt(change) -> Subject:
    torch.manual_seed(0)
    net = MMoE(
        in_width=WIDTH, n_domains=N_DOMAINS, widths=(5, 4), tower_widths=(3,), experts=3,
        dropout=0.0, norm="none",
    )  # fmt: skip
    with torch.no_grad():
        change(net)
    return backbone_subject(net, n_domains=N_DOMAINS)


def make_equal(net: MMoE) -> None:
    for block in net.experts.blocks:
        weight, out = block.linear.weight, block.linear.out_width  # pyright: ignore[reportAttributeAccessIssue]
        if block.linear.one_input:  # pyright: ignore[reportAttributeAccessIssue]
            weight.copy_(weight[:, :out].repeat(1, 3))  # pyright: ignore[reportCallIssue, reportIndexIssue]
        else:
            weight.copy_(weight[:1].expand_as(weight))  # pyright: ignore[reportArgumentType, reportCallIssue, reportIndexIssue]


def close_the_gate(net: MMoE) -> None:
    assert isinstance(net.gate.linear, BankLinear)
    assert net.gate.linear.bias is not None
    net.gate.linear.bias[:, 0] = 1000.0  # the others get no row, and no gradient


def test_11_experts_that_start_equal_are_found():
    testing.check_experts_differ(spoilt(lambda net: None))
    with pytest.raises(
        AssertionError, match=r"contract 11: experts must start apart.* rank 1, not 3"
    ):
        testing.check_experts_differ(spoilt(make_equal))


def test_11_a_gate_that_lets_one_expert_through_is_found():
    with pytest.raises(AssertionError, match=r"contract 11: experts must stay apart.*gradients of"):
        testing.check_experts_differ(spoilt(close_the_gate))


class FirstRowsDomain(nn.Module):
    """Takes the first row's domain for the whole batch, and lets rows move every domain's line."""

    per_domain = ("bank",)

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.bank = nn.Parameter(torch.randn(N_DOMAINS + 1, WIDTH))

    def forward(self, h: Tensor, domain: Tensor) -> Tensor:
        if self.fault == "first row":
            return h * self.bank[domain[0]]
        return h * self.bank[domain] + 1e-3 * self.bank.sum(0)


@pytest.mark.parametrize(
    ("fault", "check", "text"),
    [
        ("first row", testing.check_mixed_batch_equals_domains, "contract 9: a mixed batch"),
        ("every line", testing.check_rows_move_their_own, "contract 10: rows of domain 0 move"),
    ],
)
def test_9_and_10_find_the_fault_they_are_for(fault, check, text):
    torch.manual_seed(0)
    module, h = FirstRowsDomain(fault), torch.randn(40, WIDTH)
    subject = Subject(
        module, torch.arange(40) % 4, N_DOMAINS, lambda rows, domain: module(h[rows], domain)
    )
    with pytest.raises(AssertionError, match=text):
        check(subject)
