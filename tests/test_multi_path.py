"""Multi-path networks: paths by hand, both estimators against slow formulas, what is not computed."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from fake_batches import EVEN, make_batch
from isthmus import testing
from isthmus.backbones import AbstractPassing, MultiPath, MultiPathConfig
from isthmus.backbones.experts.multi_path import PACE, PathGate, PathLayer, over_others
from isthmus.layers.bank import BankLinear
from isthmus.layers.per_domain import domain_parameters
from isthmus.layers.routing import Routing
from isthmus.models import ModelConfig, build_network
from isthmus.testing import Subject
from multi_paths import ESTIMATORS, N_DOMAINS, SMALL, WIDTH, gates_of, layers_of, net


def choose(network: MultiPath, *paths: tuple[int, ...]) -> None:
    """Give the unknown domain, then each domain, the path of these blocks, all but surely."""
    for layer, gate in enumerate(gates_of(network)):
        with torch.no_grad():
            gate.choice.zero_()
            for domain, path in enumerate(paths):
                gate.choice[domain, path[layer]] = 50.0 / PACE


def block(layer: PathLayer, number: int, u: Tensor) -> Tensor:
    """One row through one block, numbered from 0, widest first."""
    first = 0
    for kind in layer.bank.kinds:
        place, first = number - first, first + kind.count  # pyright: ignore[reportOperatorIssue, reportAssignmentType]
        if number >= first:
            continue
        for up, relu in ((kind.up, True), (kind.down, False)):
            if isinstance(up, BankLinear):
                assert up.bias is not None
                u = u @ up.weight[place] + up.bias[place]
            else:
                assert isinstance(up, nn.Linear)
                u = F.linear(u, up.weight, up.bias)
            u = u.relu() if relu else u
        return u
    return torch.zeros_like(u)


# The path of a domain.


def test_a_path_by_hand():
    """Width 1: the stem gives relu(2 x), block 1 adds 3 h, block 2 adds 10 h, block 3 nothing."""
    network = MultiPath(
        in_width=1, n_domains=2, width=1, layers=2, blocks=(1.0, 1.0, 0.0), dropout=0.0, norm="none"
    ).eval()
    with torch.no_grad():
        network.stem.linear.weight.fill_(2.0)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue, reportArgumentType]
        network.stem.linear.bias.zero_()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue, reportOptionalMemberAccess]
        for layer in layers_of(network):
            (kind,) = layer.bank.kinds
            kind.up.weight.copy_(torch.ones(2, 1, 1))  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
            kind.down.weight.copy_(torch.tensor([3.0, 10.0]).view(2, 1, 1))  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    choose(network, (2, 2), (0, 1), (1, 0))
    x = torch.tensor([[1.0], [1.0], [1.0], [-1.0], [0.5]])
    y = network(x, Routing(torch.tensor([0, 1, 2, 1, 1]), 2))
    # Unknown: 2. Domain 1: 2 (1 + 3)(1 + 10) = 88; domain 2 the same in the other order.
    assert y.flatten().tolist() == [2.0, 88.0, 88.0, 0.0, 44.0]


def test_the_largest_logit_is_the_path_in_eval_and_the_gate_says_so():
    network = net().eval()
    choose(network, (0, 3), (1, 2), (1, 0), (3, 3))
    domain = torch.tensor([3, 0, 1, 2, 1])
    routing = Routing(domain, N_DOMAINS)
    for layer, gate in enumerate(gates_of(network)):
        weights = gate(torch.zeros(5, 1), routing)
        assert torch.equal(weights.sum(1), torch.ones(5))
        wanted = [{0: (0, 3), 1: (1, 2), 2: (1, 0), 3: (3, 3)}[d][layer] for d in domain.tolist()]
        assert weights.argmax(1).tolist() == wanted
    assert gates_of(network)[0].experts == (
        "block 1: 8", "block 2: 8", "block 3: 4", "block 4: identity",
    )  # fmt: skip


def slow(network: MultiPath, x: Tensor, domain: int) -> Tensor:
    h = F.linear(x, network.stem.linear.weight, network.stem.linear.bias).relu()  # pyright: ignore[reportArgumentType, reportCallIssue]
    for gate, layer in zip(gates_of(network), layers_of(network), strict=True):
        chance = (PACE * gate.choice[domain]).log_softmax(0)
        c = int(chance.argmax())
        h = h + (1 + chance[c] - chance[c].detach()) * block(layer, c, h)
    return h


def test_4_a_network_in_eval_is_its_formula_row_by_row():
    network = net()
    x = torch.randn(24, WIDTH)
    with torch.no_grad():
        for gate in gates_of(network):
            gate.choice.normal_()

    def fast(rows: Tensor, domain: Tensor) -> Tensor:
        return network(x[rows], Routing(domain, N_DOMAINS))

    def formula(rows: Tensor, domain: Tensor) -> Tensor:
        pairs = zip(rows.tolist(), domain.tolist(), strict=True)
        return torch.stack([slow(network, x[row], d) for row, d in pairs])

    subject = Subject(network, torch.arange(24) % (N_DOMAINS + 1), N_DOMAINS, fast)
    testing.check_matches_formula(subject, formula)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("norm", ["batch", "domain", "none"])
def test_each_estimator_and_norm_keeps_the_contracts(estimator: Any, norm: Any):
    testing.check_backbone(lambda n: net(n, estimator=estimator, norm=norm, dropout=0.1))


def test_a_domain_owns_its_logits_and_nothing_else():
    owned = domain_parameters(net())
    assert owned.keys() == {"paths.0.choice", "paths.1.choice"}
    assert all(bank.shape == (N_DOMAINS + 1, 4) for bank in owned.values())


# What is not computed.


def products(network: MultiPath, rows: int = 256) -> int:
    routing = Routing(torch.ones(rows, dtype=torch.int64), 1)
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.randn(rows, WIDTH), routing)
    return counter.get_total_flops() // (2 * rows)


def test_a_row_takes_the_products_of_its_own_path():
    network, stem = net(1), WIDTH * 8
    for path, units in (((0, 1), 8 + 8), ((2, 0), 4 + 8), ((2, 3), 4), ((3, 3), 0)):
        choose(network, (0, 0), path)
        assert products(network) == stem + 2 * 8 * units


def test_work_does_not_grow_with_the_blocks():
    found = []
    for count in (4, 64):
        network = net(blocks=(1.0,) * count, width=32)
        x, domain = torch.randn(4096, WIDTH), torch.arange(4096) % (N_DOMAINS + 1)
        with FlopCounterMode(display=False) as counter:
            network(x, Routing(domain, N_DOMAINS)).sum().backward()
        found.append(counter.get_total_flops())
    assert found[1] < 2 * found[0]


# What moves the logits.


def test_over_others_is_the_mean_of_the_other_rows_of_a_domain():
    value = torch.randn(30, 1)
    domain = torch.tensor([0, 1, 1, 2] + [3] * 26)
    expected = []
    for row in range(30):
        others = [r for r in range(30) if domain[r] == domain[row] and r != row]
        expected.append(float(value[row] - value[others].mean()) if others else 0.0)
    found = over_others(value, Routing(domain, 3)).flatten()
    torch.testing.assert_close(found, torch.tensor(expected))


def test_the_straight_through_gradient_against_a_slow_formula():
    network = net(layers=1, temperature=0.7, last_temperature=0.7)
    (gate,), (layer,) = gates_of(network), layers_of(network)
    with torch.no_grad():
        gate.choice.normal_(std=0.1)
    rows = 40
    x, target = torch.randn(rows, WIDTH), torch.randn(rows, 8)
    domain = torch.arange(rows) % (N_DOMAINS + 1)
    torch.manual_seed(3)
    loss = (network(x, Routing(domain, N_DOMAINS)) - target).square().sum()
    (found,) = torch.autograd.grad(loss, gate.choice)

    torch.manual_seed(3)
    noise = -torch.empty(rows, 4).exponential_().log()
    signal, chosen, y = [], [], []
    for row in range(rows):
        logits = (PACE * gate.choice.detach()[domain[row]] + noise[row]) / 0.7
        y.append(logits.softmax(0))
        chosen.append(int(logits.argmax()))
        h = F.linear(x[row], network.stem.linear.weight, network.stem.linear.bias).relu()  # pyright: ignore[reportArgumentType, reportCallIssue]
        f = block(layer, chosen[-1], h).detach()
        signal.append(
            float((2 * (h.detach() + f - target[row])) @ f)
        )  # of a weight of 1 on the block
    expected = torch.zeros_like(found)
    for row in range(rows):
        d = int(domain[row])
        others = [signal[r] for r in range(rows) if domain[r] == d and r != row]
        ahead = signal[row] - sum(others) / len(others)
        slope = (F.one_hot(torch.tensor(chosen[row]), 4) - y[row]) / 0.7
        expected[d] += PACE * ahead * slope
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


class Heard(AbstractPassing):
    """What a backbone hands over."""

    def __init__(self) -> None:
        self.losses: dict[str, Tensor] = {}
        self.numbers: dict[str, Tensor] = {}
        self.waiting: dict[str, Any] = {}

    def __call__(self, site: Any, h: Tensor) -> Tensor:
        return h

    def meet(self, linear: int) -> None:
        return None

    def add_loss(self, name: str, loss: Tensor) -> None:
        self.losses[name] = loss

    def await_losses(self, name: str, of: Any) -> None:
        self.waiting[name] = of

    def tell(self, name: str, value: Tensor) -> None:
        self.numbers[name] = value


def test_the_reinforce_gradient_against_a_slow_formula():
    network = net(layers=1, estimator="reinforce", cost=0.3)
    (gate,) = gates_of(network)
    with torch.no_grad():
        gate.choice.normal_(std=0.1)
    domain = torch.tensor([1, 1, 1, 2, 2, 0, 3, 1])
    loss = torch.tensor([0.2, 0.9, 0.4, 1.0, 0.1, 5.0, 2.0, 0.3])
    share = torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0]) / 11
    heard = Heard()
    torch.manual_seed(5)
    network(torch.randn(8, WIDTH), Routing(domain, N_DOMAINS), heard)
    assert heard.losses == {}, "the cost is in the reward"
    (found,) = torch.autograd.grad(heard.waiting["path"](loss, share), gate.choice)

    torch.manual_seed(5)
    torch.randn(8, WIDTH)
    logits = PACE * gate.choice.detach()[domain]
    chosen = (logits - torch.empty(8, 4).exponential_().log()).argmax(1)
    price = torch.tensor([1.0, 1.0, 0.5, 0.0])
    reward = -loss - 0.3 * price[chosen]
    expected = torch.zeros_like(found)
    for row in range(8):
        d = int(domain[row])
        others = [float(reward[r]) for r in range(8) if domain[r] == d and r != row]
        if others:
            ahead = float(reward[row]) - sum(others) / len(others)
            slope = F.one_hot(chosen[row], 4) - logits[row].softmax(0)
            expected[d] -= PACE * share[row] * ahead * slope
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(heard.numbers["products"], price[chosen].mean())


def test_a_model_gives_the_rows_own_losses_to_the_reward():
    torch.manual_seed(0)
    section = {"name": "multi_path", **SMALL, "dropout": 0.0, "estimator": "reinforce"}
    model = build_network(ModelConfig.model_validate({"backbone": section}), EVEN, N_DOMAINS)
    batch = make_batch(EVEN, 64, n_domains=N_DOMAINS)
    output = model.score(batch)
    assert output.losses.keys() == {"path"}
    output.losses["path"].backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"backbone.paths.0.choice", "backbone.paths.1.choice"}
    assert model.eval().score(batch).losses == {}


def test_the_cost_by_hand():
    """Chances (.5, .5) of blocks of 1 and 0 in layer 1, (.25, .75) in layer 2: 0.8 * (.5 + .25) / 2."""
    network = net(1, blocks=(1.0, 0.0), cost=0.8)
    with torch.no_grad():
        for gate, first in zip(gates_of(network), (0.5, 0.25), strict=True):
            gate.choice.copy_(torch.tensor([first, 1 - first]).log().expand(2, 2) / PACE)
    heard = Heard()
    network(torch.randn(6, WIDTH), Routing(torch.ones(6, dtype=torch.int64), 1), heard)
    torch.testing.assert_close(heard.losses["cost"], torch.tensor(0.8 * 0.375))
    assert 0 <= float(heard.numbers["products"]) <= 1


def test_the_temperature_falls_with_the_steps_of_training_alone():
    gate = PathGate(("a", "b"), n_domains=1, temperature=2.0, last_temperature=0.5, anneal_steps=4)
    routing, found = Routing(torch.tensor([1, 0]), 1), []
    for _ in range(6):
        found.append(float(gate.temperature))
        gate(torch.zeros(2, 1), routing)
    np.testing.assert_allclose(found, [2.0, 2**0.5, 1.0, 0.5**0.5, 0.5, 0.5], rtol=1e-6)
    gate.eval()(torch.zeros(2, 1), routing)
    assert gate.state_dict()["drawn"] == 6


def test_draws_follow_the_softmax_of_the_logits():
    gate = PathGate(("a", "b", "c"), n_domains=1, temperature=0.4)
    with torch.no_grad():
        gate.choice[1] = torch.tensor([0.6, 0.3, 0.1]).log() / PACE
    torch.manual_seed(0)
    drawn = gate(torch.zeros(20_000, 1), Routing(torch.ones(20_000, dtype=torch.int64), 1))
    np.testing.assert_allclose(drawn.detach().mean(0), [0.6, 0.3, 0.1], atol=0.012)


# The config.


@pytest.mark.parametrize("blocks", [(0.0, 0.0), (1.0, -0.5)])
def test_blocks_without_a_size_are_refused(blocks: tuple[float, ...]):
    with pytest.raises(ValueError, match="blocks must be 0 or more, and one of them above 0"):
        MultiPathConfig(blocks=blocks)
    with pytest.raises(ValueError, match="blocks must be 2 or more"):
        net(blocks=blocks)


def test_a_budget_sizes_the_width():
    assert MultiPathConfig(width=10, layers=3).scaled(2.0).sizes == (20,) * 4
    assert MultiPathConfig(width=64).scaled(1e-6).sizes == (2,) * 3
    for trunk in (2_000, 20_000):
        section = {"backbone": {"name": "multi_path"}, "sizes": {"trunk": trunk}}
        model = build_network(ModelConfig.model_validate(section), EVEN, N_DOMAINS)
        assert 0.8 * trunk < model.parameter_report().trunk <= trunk


def test_towers_of_domains_are_refused():
    with pytest.raises(ValueError, match="towers must be shared for backbone 'multi_path'"):
        ModelConfig.model_validate({"backbone": {"name": "multi_path"}, "towers": "per_domain"})
