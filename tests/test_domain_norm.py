"""The norm per domain: hand-worked for 0, 1 and 2 rows, then what it is for."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.adapters import Hamur
from isthmus.layers.domain_norm import DomainNorm
from isthmus.layers.routing import Routing
from routed import calls_of, domains


def make(n_domains: int = 3, width: int = 1, **options) -> DomainNorm:
    return DomainNorm(width=width, n_domains=n_domains, **options)


# Domain 1 has the rows 2 and 4, domain 2 the row 9, domain 3 none; k = 2. Over all rows the mean
# is 5 and the mean square 101/3. First and second moments are (n own + 2 pooled) / (n + 2).
ROWS = torch.tensor([[2.0], [4.0], [9.0]])
ROUTING = Routing(torch.tensor([1, 1, 2]), 3)
MEAN_1, VAR_1 = (2 * 3 + 2 * 5) / 4, (2 * 10 + 2 * 101 / 3) / 4 - 4**2
MEAN_2, VAR_2 = (9 + 2 * 5) / 3, (81 + 2 * 101 / 3) / 3 - (19 / 3) ** 2


def by_hand(x: float, mean: float, var: float) -> Tensor:
    return torch.tensor([(x - mean) / (var + 1e-5) ** 0.5])


def test_two_rows_and_one_row_by_hand():
    y = make(shrinkage=2.0)(ROWS, ROUTING)
    torch.testing.assert_close(y[0], by_hand(2.0, MEAN_1, VAR_1))
    torch.testing.assert_close(y[1], by_hand(4.0, MEAN_1, VAR_1))
    torch.testing.assert_close(y[2], by_hand(9.0, MEAN_2, VAR_2))


def test_eval_by_hand():
    norm = make(shrinkage=2.0)
    norm(ROWS, ROUTING)
    y = norm.eval()(torch.tensor([[6.0], [6.0]]), Routing(torch.tensor([1, 2]), 3))
    # Domain 1: the row itself, another of mean 3 and mean square 10, and two of all rows.
    mean = (6 + 3 + 2 * 5) / 4
    torch.testing.assert_close(y[0], by_hand(6.0, mean, (36 + 10 + 2 * 101 / 3) / 4 - mean**2))
    # Domain 2 had one row a batch: the row itself, and two of all rows.
    mean = (6 + 2 * 5) / 3
    torch.testing.assert_close(y[1], by_hand(6.0, mean, (36 + 2 * 101 / 3) / 3 - mean**2))


@pytest.mark.parametrize("n", [1, 2, 30])
def test_eval_does_to_a_row_what_training_does_on_average(n):
    width = 2000  # as many repetitions of one column
    norm = make(width=width, momentum=0.02)
    torch.manual_seed(0)
    routing = Routing(torch.tensor([1] * n + [2] * 200), 3)

    def slope_and_mean(batches: int) -> Tensor:
        """Of the output over the input's distance from its domain's mean, for domain 1."""
        found = torch.zeros(3)
        for _ in range(batches):
            # Domain 1 lies at 1, the other at 0; both have spread 1.
            h = torch.randn(n + 200, width)
            y = norm(h + (routing.domain == 1).unsqueeze(1), routing).detach()
            x, y = h[:n], y[:n]
            found += torch.stack([(x * y).mean(), x.square().mean(), y.mean()])
        return torch.stack([found[0] / found[1], found[2] / batches])

    in_training = slope_and_mean(100)
    in_eval = [norm.eval(), slope_and_mean(100)][1]
    torch.testing.assert_close(in_eval, in_training, rtol=0, atol=0.01)


def test_a_domain_without_rows_has_the_statistics_of_all():
    norm = make(shrinkage=2.0)
    norm(ROWS, ROUTING)
    y = norm.eval()(torch.tensor([[7.0]]), Routing(torch.tensor([3]), 3))
    torch.testing.assert_close(y[0], by_hand(7.0, 5.0, 26 / 3))


def test_an_absent_domain_stays_untouched():
    norm = make(width=4)
    norm(torch.randn(30, 4), Routing(torch.arange(30) % 4, 3))
    before = copy.deepcopy(norm.state_dict())
    norm(torch.randn(9, 4), Routing(torch.tensor([1] * 9), 3))
    for name in ("own_mean", "own_var", "own_rows", "own_share", "own_pull"):
        for domain in (0, 2, 3):
            assert torch.equal(norm.state_dict()[name][domain], before[name][domain]), name
        assert not torch.equal(norm.state_dict()[name][1], before[name][1]), name


def test_running_statistics_weigh_a_batch_by_its_rows():
    norm = make(momentum=1e-6)  # forget almost nothing: then it is the plain statistics of all
    rows = torch.tensor([[0.0], [1.0], [5.0], [10.0], [12.0]])
    for part in rows.split([1, 3, 1]):
        norm(part, Routing(torch.ones(len(part), dtype=torch.int64), 3))
    assert norm.own_mean[1].item() == pytest.approx(rows.mean().item(), rel=1e-4)
    # Single rows have no variance of their own; the spread between batches is counted.
    assert norm.own_var[1].item() == pytest.approx(rows.var(correction=0).item(), rel=1e-4)
    assert norm.own_rows[1].item() == pytest.approx(5, rel=1e-4)


def test_one_domain_alone_is_batch_norm():
    torch.manual_seed(0)
    h = torch.randn(50, 6) * 3 + 2
    norm, plain = make(width=6), nn.BatchNorm1d(6)
    routing = Routing(torch.full((50,), 2), 3)
    torch.testing.assert_close(norm(h, routing), plain(h))
    towards = torch.randn(50, 6)
    leaf = h.clone().requires_grad_()
    torch.testing.assert_close(
        torch.autograd.grad(norm(leaf, routing), leaf, towards),
        torch.autograd.grad(plain(leaf), leaf, towards),
    )


def test_the_gradient_flows_through_the_statistics():
    norm = make(width=2, shrinkage=3.0).double()
    nn.init.normal_(norm.gain)
    routing = Routing(torch.tensor([0, 1, 1, 2, 2, 2, 1]), 3)

    def run(h: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"gain": gain, "bias": bias}, (h, routing))

    torch.manual_seed(0)
    h = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (h, norm.gain, norm.bias))


@pytest.mark.parametrize("shrinkage", [0.0, 32.0])
def test_nothing_is_ever_not_a_number(shrinkage):
    norm = make(width=2, shrinkage=shrinkage)
    one = Routing(torch.tensor([2]), 3)
    h = torch.randn(1, 2, requires_grad=True)
    assert norm.eval()(h, one).isfinite().all()  # before any training
    norm.train()(h, one).sum().backward()
    assert norm.gain.grad is not None
    assert h.grad is not None
    assert h.grad.isfinite().all()
    assert norm.gain.grad.isfinite().all()
    norm.train()(torch.full((4, 2), 1e4), Routing(torch.tensor([0, 1, 1, 2]), 3))
    for domain in range(4):
        assert norm.eval()(h, Routing(torch.tensor([domain]), 3)).isfinite().all()
    assert norm.train()(torch.zeros(0, 2), Routing(torch.zeros(0, dtype=torch.int64), 3)).shape == (
        0,
        2,
    )


def test_domains_far_from_each_other_keep_their_precision():
    torch.manual_seed(0)
    own = torch.randn(4096, 3, dtype=torch.float64)
    domain = torch.arange(4096) % 4
    h = own + 300.0 * domain.unsqueeze(1)
    norm = make(width=3)
    exact = copy.deepcopy(norm).double()(h, Routing(domain, 3))
    torch.testing.assert_close(
        norm(h.float(), Routing(domain, 3)), exact.float(), rtol=0, atol=2e-3
    )


def test_few_rows_and_many_rows_take_the_same_way_out():
    torch.manual_seed(0)
    norm = make(n_domains=8, width=4)
    for seed in range(3):
        norm(torch.randn(64, 4), Routing(domains(64, 8, seed=seed), 8))
    nn.init.normal_(norm.gain)
    norm.eval()
    h, domain = torch.randn(64, 4), domains(64, 8)
    few = torch.cat([norm(h[i : i + 4], Routing(domain[i : i + 4], 8)) for i in range(0, 64, 4)])
    torch.testing.assert_close(few, norm(h, Routing(domain, 8)))


def test_no_step_per_domain():
    def step(n_domains: int):
        norm = make(n_domains=n_domains, width=4)
        routing = Routing(domains(512, n_domains), n_domains)
        h = torch.randn(512, 4, requires_grad=True)
        return lambda: norm(h, routing).square().sum().backward()

    assert calls_of(step(3)) == calls_of(step(500))


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="shrinkage must be at least 0"):
        make(shrinkage=-1.0)
    with pytest.raises(ValueError, match="sizes must be at least 1"):
        make(width=0)


class Net(nn.Module):
    """A network whose small domains live on their norm's statistics."""

    def __init__(self, n_domains: int, *, adapter: bool) -> None:
        super().__init__()
        self.first = nn.Linear(12, 24, bias=False)
        self.n_domains = n_domains
        self.norm = DomainNorm(width=24, n_domains=n_domains)
        self.adapter = (
            Hamur(site_widths=(24,), condition_width=12, n_domains=n_domains, rank=4, bottleneck=8)
            if adapter
            else None
        )
        self.head = nn.Linear(24, 1)

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        routing = Routing(domain, self.n_domains)
        h = self.norm(self.first(x), routing).relu()
        if self.adapter is not None:
            h = self.adapter(0, h, self.adapter.prepare(x, routing))
        return self.head(h).squeeze(1)


@pytest.mark.parametrize("adapter", [False, True], ids=["norm", "hamur"])
def test_small_domains_have_the_same_loss_in_training_and_eval(adapter):
    n_domains, batch = 1000, 1024
    torch.manual_seed(0)
    sizes = (6000 / torch.arange(1, n_domains + 1)).round().long().clamp(min=2)
    domain = torch.repeat_interleave(torch.arange(1, n_domains + 1), sizes)
    rows = len(domain)
    # Domains differ in where their rows lie, how far they spread, and in what the label asks.
    x = torch.randn(rows, 12) * (0.5 + torch.rand(n_domains + 1, 1))[domain]
    x = x + torch.randn(n_domains + 1, 12)[domain]
    answer = torch.randn(12) + 0.5 * torch.randn(n_domains + 1, 12)
    label = ((x * answer[domain]).sum(1) + torch.randn(rows) > 0).float()

    net = Net(n_domains, adapter=adapter)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(4):
        for part in torch.randperm(rows).split(batch):
            optimiser.zero_grad()
            F.binary_cross_entropy_with_logits(net(x[part], domain[part]), label[part]).backward()
            optimiser.step()

    def loss_of_small_domains() -> float:
        found = torch.empty(rows)
        with torch.no_grad():
            for part in torch.randperm(rows).split(batch):
                logits = net(x[part], domain[part])
                found[part] = F.binary_cross_entropy_with_logits(
                    logits, label[part], reduction="none"
                )
        return found[(sizes < 50)[domain - 1]].mean().item()

    assert int((sizes < 50).sum()) > 800
    in_eval = [net.eval(), loss_of_small_domains()][1]
    in_training = [net.train(), loss_of_small_domains()][1]
    assert in_eval == pytest.approx(in_training, rel=0.02)


def test_domains_that_a_batch_lacks_change_nothing_and_stay_as_they_are():
    """More domains than rows: the norm works on the domains of the batch alone."""
    torch.manual_seed(0)
    many, few = DomainNorm(width=3, n_domains=100), DomainNorm(width=3, n_domains=3)
    held = torch.tensor([0, 7, 50, 99])
    with torch.no_grad():
        for a, b in ((many.gain, few.gain), (many.bias, few.bias)):
            a.normal_()
            b.copy_(a[held])
    before = {name: t.clone() for name, t in many.state_dict().items()}
    absent = [domain for domain in range(101) if domain not in held.tolist()]
    for _ in range(3):
        place = torch.cat([torch.arange(4), torch.randint(0, 4, (16,))])
        h = torch.randn(20, 3) + place.unsqueeze(1)
        towards = torch.randn(20, 3)
        found = []
        for norm, domain, n in ((many, held[place], 100), (few, place, 3)):
            x = h.clone().requires_grad_()
            y = norm(x, Routing(domain, n))
            found.append((y, *torch.autograd.grad(y, (x, norm.gain, norm.bias), towards)))
        (y, to_h, *to_sets), (y_few, to_h_few, *to_few) = found
        torch.testing.assert_close(y, y_few)
        torch.testing.assert_close(to_h, to_h_few)
        for sets, expected in zip(to_sets, to_few, strict=True):
            torch.testing.assert_close(sets[held], expected)
            assert not sets[absent].any()
    for name, now in many.state_dict().items():
        if name.startswith("pooled"):
            torch.testing.assert_close(now, few.state_dict()[name])
        else:
            torch.testing.assert_close(now[held], few.state_dict()[name])
            assert torch.equal(now[absent], before[name][absent])
