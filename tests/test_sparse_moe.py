"""Sparse experts: the formula row by row, what is dropped, what is balanced, what is not computed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import isthmus
from fake_batches import EVEN, make_batch
from isthmus import testing
from isthmus.backbones import SparseMoE, SparseMoeConfig
from isthmus.backbones.experts.sparse_moe import SparseBlock, balance_loss
from isthmus.layers.per_domain import domain_tensors
from isthmus.layers.routing import Routing
from isthmus.models import DomainModel, ModelConfig, build_network
from isthmus.testing import Subject
from small_runs import clicks
from small_runs import settings as run_settings

N_DOMAINS = 3
WIDTH = 6


def net(*, k: int = 1, experts: int = 3, **options) -> SparseMoE:
    torch.manual_seed(0)
    options = {"widths": (5, 4), "dropout": 0.0, "norm": "none"} | options
    return SparseMoE(in_width=WIDTH, experts=experts, k=k, **options)


def block_of(k: int, capacity: float | None, experts: int = 3) -> SparseBlock:
    found = net(k=k, capacity=capacity, experts=experts).blocks[0]
    assert isinstance(found, SparseBlock)
    return found


def slow(net: SparseMoE, h: Tensor) -> Tensor:
    """One row, one expert after the other."""
    for block in net.blocks:
        assert isinstance(block, SparseBlock)
        linear = block.deep.linear
        u = F.linear(h, linear.weight, linear.bias).relu()  # pyright: ignore[reportArgumentType]
        mean, var = block.scale.running_mean, block.scale.running_var
        assert mean is not None
        assert var is not None
        logits = block.router(((u - mean) / (var + block.scale.eps).sqrt()).unsqueeze(0))[0]
        chosen = sorted(range(block.experts), key=lambda e: -float(logits[e].detach()))[: block.k]
        shares = logits.softmax(0) if block.k == 1 else logits[chosen].softmax(0)
        h = u
        for place, e in enumerate(chosen):
            up, down = block.bank.up, block.bank.down
            assert up.bias is not None
            assert down.bias is not None
            said = (u @ up.weight[e] + up.bias[e]).relu() @ down.weight[e] + down.bias[e]
            h = h + shares[e if block.k == 1 else place] * said
    return h


@pytest.mark.parametrize("k", [1, 2, 3])
def test_4_a_network_is_its_formula_row_by_row(k):
    network = net(k=k)
    x = torch.randn(24, WIDTH)

    def run(rows: Tensor, domain: Tensor) -> Tensor:
        return network(x[rows], Routing(domain, N_DOMAINS))

    def formula(rows: Tensor, domain: Tensor) -> Tensor:
        return torch.stack([slow(network, x[r]) for r in rows.tolist()])

    subject = Subject(network, torch.arange(24) % (N_DOMAINS + 1), N_DOMAINS, run)
    testing.check_matches_formula(subject, formula)


@pytest.mark.parametrize("norm", ["batch", "domain"])
def test_two_experts_a_row_keep_the_contracts(norm):
    def make(n_domains: int) -> SparseMoE:
        return net(k=2, norm=norm, n_domains=n_domains, capacity=1.0)

    testing.check_backbone(make)


def test_no_domain_owns_an_expert():
    assert domain_tensors(net()) == {}


def test_work_does_not_grow_with_the_experts():
    """Contract 6, of experts: 64 take less than twice the products of 4."""
    found = []
    for experts in (4, 64):
        network = net(experts=experts, widths=(64, 64))
        x = torch.randn(4096, WIDTH)
        with FlopCounterMode(display=False) as counter:
            network(x, Routing(torch.zeros(4096, dtype=torch.int64), 1)).sum().backward()
        found.append(counter.get_total_flops())
    assert found[1] < 2 * found[0]


def test_the_router_learns_through_the_weight_of_a_single_choice():
    network = net(k=1)
    network(torch.randn(50, WIDTH)).square().sum().backward()
    for block in network.blocks:
        gradient = block.router.weight.grad  # pyright: ignore[reportAttributeAccessIssue]
        assert torch.linalg.matrix_rank(gradient) == 2  # pyright: ignore[reportArgumentType]


# What is dropped.


def test_an_expert_takes_its_first_rows_and_first_choices_come_before_second_ones():
    block = block_of(2, None)
    chosen = torch.tensor([[0, 1], [0, 2], [1, 0], [2, 0], [0, 1]])
    # Expert 0: first choices of rows 0, 1, 4, then second ones of rows 2, 3. Expert 1: row 2, then
    # 0 and 4. Expert 2: row 3, then 1.
    expected = [[True, True], [True, True], [True, False], [True, False], [False, False]]
    assert block.within(chosen, 2).tolist() == expected


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 40), k=st.integers(1, 3), most=st.integers(1, 30), seed=st.integers(0, 99)
)
def test_no_expert_takes_more_than_its_capacity_and_none_is_left_half_empty(rows, k, most, seed):
    drawn = torch.rand(rows, 3, generator=torch.Generator().manual_seed(seed))
    chosen = drawn.topk(k, dim=1).indices
    within = block_of(k, None).within(chosen, most)
    for e in range(3):
        wanted = int((chosen == e).sum())
        assert int((within & (chosen == e)).sum()) == min(wanted, most)


def with_one_favourite(block: SparseBlock) -> Tensor:
    """Rows that all choose expert 0."""
    with torch.no_grad():
        block.router.weight.zero_()
        block.router.bias[0] = 1.0
    return torch.rand(8, WIDTH) + 0.5


def test_dropped_rows_pass_by_the_skip_connection_in_training_and_nothing_is_dropped_in_eval():
    block = block_of(1, 0.75, experts=2)  # 3 of 8 rows
    x = with_one_favourite(block)
    u = block.deep(x)
    y, _, dropped = block(x, None, None)
    assert float(dropped) == pytest.approx(5 / 8)
    assert torch.equal(y[3:], u[3:])
    assert (y[:3] != u[:3]).any(dim=1).all()
    whole, loss, dropped = block.eval()(x, None, None)
    assert (loss, dropped) == (0, 0)
    assert (whole != u).any(dim=1).all()
    torch.testing.assert_close(whole[:3], y[:3])


def test_a_row_keeps_the_expert_that_has_room():
    block = block_of(2, 0.5)
    x = with_one_favourite(block)
    with torch.no_grad():
        block.router.bias[1] = 0.9  # the second choice of all
    with_room = block.eval()(x, None, None)[0]
    u, dropped = block.deep(x), block.train()(x, None, None)
    y = dropped[0]  # capacity: ceil(0.5 * 16 / 3) = 3 rows of each
    torch.testing.assert_close(y[:3], with_room[:3])
    assert torch.equal(y[3:], u[3:])
    assert float(dropped[2]) == pytest.approx(10 / 16)


# What is balanced.


def test_balance_by_hand():
    """Switch, eq. 4 to 6: f = (3/4, 1/4), P = (.6, .4): 2 (.45 + .1)."""
    everywhere = torch.tensor([[0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.3, 0.7]])
    chosen = everywhere.argmax(dim=1, keepdim=True)
    torch.testing.assert_close(balance_loss(everywhere, chosen), torch.tensor(1.1))
    both = torch.tensor([[0, 1]] * 4)  # every choice of two is even
    torch.testing.assert_close(balance_loss(everywhere, both), torch.tensor(1.0))


def model(**backbone) -> DomainModel:
    torch.manual_seed(0)
    section = {"name": "sparse_moe", "widths": [8, 6], "dropout": 0.1} | backbone
    return build_network(ModelConfig.model_validate({"backbone": section}), EVEN, N_DOMAINS)


def test_a_model_says_its_balance_and_what_it_dropped_in_training_alone():
    found = model(capacity=1.0, balance=0.5)
    batch = make_batch(EVEN, 64, n_domains=N_DOMAINS)
    output = found.score(batch)
    assert output.losses.keys() == {"balance"}
    assert output.losses["balance"] >= 0.5 * 2 * 0.9  # about 1 a block or more
    assert 0 <= output.told["dropped"] < 1
    torch.manual_seed(1)
    one = model(capacity=1.0, balance=0.25).score(batch).losses["balance"]
    torch.testing.assert_close(2 * one, output.losses["balance"], rtol=0.1, atol=0.0)
    output = found.eval().score(batch)
    assert (output.losses, output.told) == ({}, {})


def test_the_balance_loss_spreads_rows_that_the_router_sends_to_one_expert():
    block = block_of(1, None, experts=4)
    x = torch.randn(400, WIDTH)
    with torch.no_grad():
        block.router.bias[0] += 2.0
    optimiser = torch.optim.Adam(block.router.parameters(), lr=0.05)

    def largest() -> float:
        with torch.no_grad():
            return float(block.gate(block.router(block.scale(block.deep(x)))).mean(0).max())

    before = largest()
    for _ in range(150):
        optimiser.zero_grad()
        block(x, None, None)[1].backward()
        optimiser.step()
    assert before > 0.9
    assert largest() < 0.6


def test_a_run_logs_balance_and_drops_ships_neither_and_shows_who_uses_which_expert(tmp_path: Path):
    config = run_settings()
    config["model"] = {
        "backbone": {"name": "sparse_moe", "widths": [8], "capacity": 0.5, "balance": 0.02}
    }
    run = isthmus.fit(config, clicks(), tmp_path / "run", cache=tmp_path / "cache")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert 0.02 * 0.9 < line["loss_balance"] < 0.02 * 4
        assert 0.4 < line["dropped"] < 0.9  # half of even shares is lost at least
        assert "told" not in line
    kept = run.bundle.model.state_dict()
    assert not any("balance" in name or "dropped" in name for name in kept)
    (gate,) = run.gates().gates
    assert gate.name == "backbone.blocks.0.gate"
    assert gate.experts == ("expert 1", "expert 2", "expert 3", "expert 4")
    for shares in gate.shares:
        assert shares is not None
        assert sum(shares) == pytest.approx(1.0)


def test_gates_are_shares():
    network = net(k=2)
    logits = torch.randn(30, 3)
    shares = network.blocks[0].gate(logits)  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(shares.sum(1), torch.ones(30))
    assert ((shares > 0).sum(1) == 2).all()


# Graphs.


GRAPHS = """
import copy
import torch
from fake_batches import EVEN, make_batch
from isthmus.backbones import SparseMoE
from isthmus.models import ModelConfig, build_network

batch = make_batch(EVEN, 50, n_domains=3)
for k, capacity in ((1, None), (2, 1.0)):
    torch._dynamo.reset()
    torch.manual_seed(0)
    section = {"name": "sparse_moe", "widths": [8, 6], "dropout": 0.0, "k": k, "capacity": capacity}
    eager = build_network(ModelConfig.model_validate({"backbone": section}), EVEN, 3)
    other = copy.deepcopy(eager)
    compiled = torch.compile(other.score, backend="aot_eager", fullgraph=True)
    for training in (True, False):
        found = []
        for model, score in ((eager, eager.score), (other, compiled)):
            model.train(training)
            model.zero_grad()
            output = score(batch)
            (output.logits.square().sum() + sum(output.losses.values())).backward()
            gradients = [one.grad for one in model.parameters()]
            found.append([output.logits, *output.told.values(), *gradients])
        for left, right in zip(*found, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)

    network = SparseMoE(in_width=6, widths=(5, 4), experts=3, k=k).eval()
    graph = torch.export.export(
        network, (torch.randn(7, 6),), dynamic_shapes=({0: torch.export.Dim("rows")},)
    ).module()
    for rows in (1, 7, 513):
        x = torch.randn(rows, 6)
        torch.testing.assert_close(graph(x), network(x))
"""


def test_graphs_give_what_eager_gives():
    # A process of its own: compilation does not get through the shape checks of a test run.
    run = [sys.executable, "-c", GRAPHS]
    done = subprocess.run(run, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# The config.


def test_more_choices_than_experts_are_refused():
    with pytest.raises(ValueError, match="k must be at most experts, got k 5, experts 4"):
        SparseMoeConfig(k=5)
    with pytest.raises(ValueError, match=r"k in 1..experts, got experts=3, k=4"):
        net(k=4)


def test_sizes_scale_the_experts_too():
    assert SparseMoeConfig(widths=(10, 6)).scaled(2.0).sizes == (20, 12)
