"""Objectives that mix rows: hand-worked losses, who meets whom, and what the network is asked."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fake_batches import EVEN, make_batch
from isthmus.data.batch import Batch
from isthmus.layers.sites import INPUT, SiteSpec
from isthmus.models import AbstractModel, ModelConfig, Output, build_network
from isthmus.objectives import Answers, CategoryMixup, Consistency, DomainMixup, Pairs

NAN = math.nan
SPEC = SiteSpec((2,), n_domains=3, input_width=2)


class Linear(AbstractModel):
    """The logit of a row x of domain d: x[0] + 2 x[1] + d."""

    def __init__(self) -> None:
        super().__init__()
        self.fields, self.spec = (), SPEC

    def score(self, batch: Batch, sites=()) -> Output:
        raise NotImplementedError

    def from_input(self, x: Tensor, domain: Tensor) -> Tensor:
        return x[:, 0] + 2 * x[:, 1] + domain

    def start_at(self, logit: float) -> None:
        raise NotImplementedError

    def parameter_report(self):
        raise NotImplementedError


def batch_of(label: list[float], domain: list[int], weight: list[float] | None = None) -> Batch:
    rows = len(label)
    return Batch(
        categorical=torch.zeros(rows, 0, dtype=torch.int32),
        numeric=torch.zeros(rows, 0),
        lists=(),
        domain=torch.tensor(domain),
        label=torch.tensor(label),
        weight=None if weight is None else torch.tensor(weight),
    )


def answers_of(batch: Batch, x: Tensor, beside: Tensor | None = None) -> Answers:
    model = Linear()
    logits = model.from_input(x, batch.domain)
    logits = logits if beside is None else logits + beside
    return Answers(model, Output(logits, {INPUT: x}, {}, beside=beside), batch)


def shares(monkeypatch: pytest.MonkeyPatch, *given: float) -> None:
    """Let pairs draw these shares, in the order of the first rows."""
    monkeypatch.setattr(
        "isthmus.objectives.mixing._shares",
        lambda pairs, alpha, device: torch.tensor(given),
    )


def chance(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


# Who meets whom


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 10**6))
def test_within_groups_every_row_meets_its_own_and_across_another(groups: list[int], seed: int):
    torch.manual_seed(seed)
    of = torch.tensor(groups)
    within, across = Pairs.within(of, 0.2), Pairs.across(of, 0.2)
    for pairs in (within, across):
        assert sorted(pairs.first.tolist()) == list(range(len(groups)))
        assert sorted(pairs.second.tolist()) == list(range(len(groups)))
        assert ((pairs.share >= 0) & (pairs.share <= 1)).all()
    assert torch.equal(of[within.first], of[within.second])
    lonely = torch.tensor([groups.count(one) == 1 for one in groups])
    assert torch.equal((within.first == within.second), lonely[within.first])
    most = max(groups.count(one) for one in groups)
    same = int((of[across.first] == of[across.second]).sum())
    assert same == max(0, 2 * most - len(groups))


def test_shares_are_beta_and_partners_are_drawn_anew():
    torch.manual_seed(0)
    groups = torch.arange(4).repeat(5000)
    pairs = Pairs.across(groups, 0.2)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)).
    assert pairs.share.mean().item() == pytest.approx(0.5, abs=0.02)
    assert pairs.share.var().item() == pytest.approx(1 / (4 * 1.4), abs=0.01)
    other = Pairs.across(groups, 0.2)
    met = [dict(zip(p.first.tolist(), p.second.tolist(), strict=True)) for p in (pairs, other)]
    assert sum(met[0][row] == met[1][row] for row in met[0]) < 100


def test_a_mixture_is_worked_by_hand():
    pairs = Pairs(torch.tensor([0, 1]), torch.tensor([1, 1]), torch.tensor([0.25, 0.9]))
    mixed = pairs.mixed(torch.tensor([[0.0, 8.0], [4.0, 0.0]]))
    assert mixed.tolist() == [[3.0, 2.0], [4.0, 0.0]]
    moved = pairs.at(torch.tensor([5, 7]))
    assert (moved.first.tolist(), moved.second.tolist()) == ([5, 7], [7, 7])


# The losses


def test_category_mixup_is_worked_by_hand(monkeypatch: pytest.MonkeyPatch):
    """Two labelled rows of domain 2 and one without a label, which has no part."""
    shares(monkeypatch, 0.75, 0.75)
    x = torch.tensor([[1.0, 0.0], [9.0, 9.0], [0.0, -2.0]])
    batch = batch_of([1.0, NAN, 0.0], [2, 2, 2])
    objective = CategoryMixup(spec=SPEC)
    assert objective.sites == (INPUT,)
    loss = objective({INPUT: x}, batch, batch.domain, answers_of(batch, x))
    one = 0.75 * 1.0 + 0.25 * 2 * -2.0 + 2  # three quarters of row 0: logit 1.75
    other = 0.25 * 1.0 + 0.75 * 2 * -2.0 + 2  # three quarters of row 2: logit -0.75
    want = -(0.75 * math.log(chance(one)) + 0.25 * math.log(1 - chance(one))) / 2
    want -= (0.25 * math.log(chance(other)) + 0.75 * math.log(1 - chance(other))) / 2
    assert loss.item() == pytest.approx(want, rel=1e-5)


def test_category_mixup_counts_weights_and_what_goes_by_the_head(monkeypatch: pytest.MonkeyPatch):
    shares(monkeypatch, 0.75, 0.75)
    x, beside = torch.tensor([[1.0, 0.0], [0.0, -2.0]]), torch.tensor([2.0, 6.0])
    batch = batch_of([1.0, 0.0], [2, 2], [3.0, 1.0])
    loss = CategoryMixup(spec=SPEC)({}, batch, batch.domain, answers_of(batch, x, beside))
    one, other = 1.75 + 0.75 * 2 + 0.25 * 6, -0.75 + 0.25 * 2 + 0.75 * 6
    want = 0.75 * 3 * -math.log(chance(one)) + 0.25 * 1 * -math.log(1 - chance(one))
    want += 0.25 * 3 * -math.log(chance(other)) + 0.75 * 1 * -math.log(1 - chance(other))
    assert loss.item() == pytest.approx(want / 4, rel=1e-5)


def test_consistency_is_worked_by_hand_with_both_rows_in_the_target(
    monkeypatch: pytest.MonkeyPatch,
):
    shares(monkeypatch, 0.75, 0.75)
    x = torch.tensor([[1.0, 0.0], [9.0, 9.0], [0.0, -2.0]], requires_grad=True)
    batch = batch_of([NAN, 1.0, NAN], [1, 1, 1])
    answers = answers_of(batch, x)
    loss = Consistency(spec=SPEC)({INPUT: x}, batch, batch.domain, answers)
    first, second = chance(2.0), chance(-3.0)
    want = abs(chance(0.75 - 1.0 + 1) - (0.75 * first + 0.25 * second)) / 2
    want += abs(chance(0.25 - 3.0 + 1) - (0.25 * first + 0.75 * second)) / 2
    assert loss.item() == pytest.approx(want, rel=1e-5)
    (slope,) = torch.autograd.grad(loss, x)
    assert slope[0].any()
    assert not slope[1].any()


def test_the_target_of_consistency_has_no_gradient(monkeypatch: pytest.MonkeyPatch):
    shares(monkeypatch, 1.0, 1.0)  # a mixture that is the row itself: no distance, no way to go
    x = torch.tensor([[1.0, 0.0], [0.0, -2.0]], requires_grad=True)
    batch = batch_of([NAN, NAN], [1, 1])
    found: list[Tensor] = []
    logits = Linear().from_input(x, batch.domain)
    logits.register_hook(found.append)
    answers = Answers(Linear(), Output(logits, {INPUT: x}, {}), batch)
    loss = Consistency(spec=SPEC)({INPUT: x}, batch, batch.domain, answers)
    assert loss.item() == 0
    (loss + 0 * x.sum()).backward()
    assert not found


def test_domain_mixup_is_worked_by_hand(monkeypatch: pytest.MonkeyPatch):
    """Rows of domains 1 and 3, and one without a domain, which has no part."""
    shares(monkeypatch, 0.75, 0.75)
    objective = DomainMixup(spec=SPEC, site=0, reverse=False, hidden_widths=())
    objective.classifier = nn.Sequential(nn.Linear(2, 3, bias=False))
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    objective.classifier[0].weight.data.copy_(weight)  # pyright: ignore[reportArgumentType, reportCallIssue]
    h = torch.tensor([[1.0, 0.0], [7.0, 7.0], [0.0, 2.0]])
    batch = batch_of([1.0, 1.0, 0.0], [1, 0, 3])
    loss = objective({0: h}, batch, batch.domain)
    want = 0.0
    for share in (0.75, 0.25):  # of the row of domain 1
        told = weight @ torch.tensor([share * 1.0, (1 - share) * 2.0])
        log = torch.log_softmax(told, 0)
        want -= (share * log[0] + (1 - share) * log[2]).item() / 2
    assert loss.item() == pytest.approx(want, rel=1e-5)


def test_domain_mixup_reversed_turns_the_networks_gradient_alone():
    found = []
    for reverse in (False, True):
        torch.manual_seed(0)
        objective = DomainMixup(spec=SPEC, site=0, reverse=reverse)
        h = torch.randn(12, 2, requires_grad=True)
        batch = batch_of([1.0] * 12, [1, 2, 3] * 4)
        loss = objective({0: h}, batch, batch.domain)
        first = next(objective.parameters())
        found.append((loss, *torch.autograd.grad(loss, [h, first])))
    (loss, of_network, of_classifier), (again, turned, same) = found
    assert torch.equal(loss, again)
    assert torch.equal(of_network, -turned)
    assert torch.equal(of_classifier, same)


@pytest.mark.parametrize("objective", [CategoryMixup, Consistency, DomainMixup])
def test_a_batch_without_rows_of_the_kind_costs_nothing(objective: type[Any]):
    x = torch.ones(2, 2)
    label = [1.0, 0.0] if objective is Consistency else [NAN, NAN]
    batch = batch_of(label, [0, 0])
    loss = objective(spec=SPEC)({INPUT: x, 0: x}, batch, batch.domain, answers_of(batch, x))
    assert loss.item() == 0


# What the network answers


@pytest.mark.parametrize("backbone", ["mlp", "shared_private", "wide_deep", "star"])
@pytest.mark.parametrize("adapter", ["none", "hamur", "film"])
def test_the_embedded_rows_pass_on_to_the_logits_of_the_rows(backbone: str, adapter: str):
    """From site ``input`` on the network says what it says of the rows, but for what goes by the head."""
    torch.manual_seed(0)
    raw = {"backbone": {"name": backbone, "widths": [6, 4]}, "adapter": {"name": adapter}}
    if backbone == "wide_deep":
        raw["backbone"]["crosses"] = [["user", "item"]]
    model = build_network(ModelConfig.model_validate(raw), tuple(EVEN), 3).eval()
    batch = make_batch(EVEN, 20)
    output = model.score(batch, {INPUT})
    logits = model.from_input(output.hidden[INPUT], batch.domain)
    beside = torch.zeros(20) if output.beside is None else output.beside
    assert (output.beside is not None) == (backbone in ("wide_deep", "star"))
    torch.testing.assert_close(logits + beside, output.logits)
