"""Banks of many sets: the optimiser moves the sets of the batch and no other."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from isthmus import optimisers
from isthmus.adapters import HamurConfig
from isthmus.layers.routing import Routing
from isthmus.layers.sites import SiteSpec
from isthmus.models.domain_model import Head
from isthmus.optimisers import ModelOptimiser, build_optimiser, clip_gradients

N_DOMAINS = 20
WIDTH = 9


class Adapted(nn.Module):
    """HAMUR and a head per domain on rows that come as they are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.adapter = HamurConfig(bottleneck=5, rank=3).build(
            SiteSpec((WIDTH,), N_DOMAINS, None, {}), condition_width=WIDTH
        )
        nn.init.ones_(self.adapter.cell(0).norm.gain)
        self.head = Head(width=WIDTH, n_domains=N_DOMAINS)

    def forward(self, h: Tensor, domain: Tensor) -> Tensor:
        routing = Routing(domain, N_DOMAINS)
        state = self.adapter.prepare(h, routing)
        return self.head(self.adapter(0, h, state), routing)


@pytest.fixture
def lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimisers, "LAZY_ABOVE_SETS", N_DOMAINS)
    monkeypatch.setattr(optimisers, "LAZY_VALUES", 64)  # two sets of the larger banks at a time


def build() -> tuple[Adapted, ModelOptimiser]:
    model = Adapted()
    return model, build_optimiser(model, lr=0.01)


def train(model: Adapted, optimiser: ModelOptimiser, batches: list[Tensor], seed: int = 1) -> None:
    draw = torch.Generator().manual_seed(seed)
    for domain in batches:
        h = torch.randn(len(domain), WIDTH, generator=draw)
        optimiser.zero_grad()
        model(h, domain).tanh().square().mean().backward()
        clip_gradients(model.parameters(), 0.5)
        optimiser.step()


def every_domain(steps: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(2)
    extra = [torch.randint(0, N_DOMAINS + 1, (30,), generator=draw) for _ in range(steps)]
    return [torch.cat([torch.arange(N_DOMAINS + 1), more]) for more in extra]


def few_domains(steps: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(3)
    return [
        torch.tensor([2, 3, 5])[torch.randint(0, 3, (12,), generator=draw)] for _ in range(steps)
    ]


def banks(model: Adapted) -> dict[str, Tensor]:
    names = (
        "left",
        "right",
        "down_bias",
        "up_bias",
        "gain",
        "norm.bias",
        "head.weight",
        "head.bias",
    )
    return {
        name: tensor.detach().clone()
        for name, tensor in model.named_parameters()
        if name.endswith(names)
    }


def test_few_sets_are_dense_and_their_gradients_too():
    model, optimiser = build()
    train(model, optimiser, few_domains(1))
    assert not optimiser.lazy
    assert not any(p.grad.is_sparse for p in model.parameters() if p.grad is not None)


def test_lazy_is_dense_where_every_domain_is_in_every_batch(monkeypatch):
    dense, by_dense = build()
    train(dense, by_dense, every_domain(12))
    monkeypatch.setattr(optimisers, "LAZY_ABOVE_SETS", N_DOMAINS)
    sparse, by_lazy = build()
    assert by_lazy.lazy
    train(sparse, by_lazy, every_domain(12))
    for (name, a), b in zip(dense.state_dict().items(), sparse.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.usefixtures("lazy")
def test_absent_domains_keep_every_bit_and_no_gradient_is_as_large_as_a_bank():
    model, optimiser = build()
    before = banks(model)
    assert len(before) == 10
    train(model, optimiser, few_domains(4))
    absent = [domain for domain in range(N_DOMAINS + 1) if domain not in (2, 3, 5)]
    for name, now in banks(model).items():
        assert torch.equal(now[absent], before[name][absent]), name
        assert (now[[2, 3, 5]] != before[name][[2, 3, 5]]).flatten(1).any(1).all(), name
        grad = model.get_parameter(name).grad
        assert grad is not None
        assert grad.is_sparse
        assert grad._nnz() <= 12


@pytest.mark.usefixtures("lazy")
def test_the_next_optimiser_of_the_model_may_be_dense_again(monkeypatch):
    model, _ = build()
    monkeypatch.setattr(optimisers, "LAZY_ABOVE_SETS", N_DOMAINS + 1)
    train(model, build_optimiser(model, lr=0.01), few_domains(1))
    assert not any(p.grad.is_sparse for p in model.parameters() if p.grad is not None)


@pytest.mark.usefixtures("lazy")
def test_a_gradient_that_is_not_sparse_moves_the_sets_that_it_holds():
    model, optimiser = build()
    before = model.head.weight.detach().clone()
    model.head.weight.grad = torch.zeros_like(before)
    model.head.weight.grad[4] = 1.0
    optimiser.step()
    moved = (model.head.weight != before).any(1).nonzero().flatten()
    assert moved.tolist() == [4]
    torch.testing.assert_close(model.head.weight[4], before[4] - 0.01)


@pytest.mark.usefixtures("lazy")
def test_training_goes_on_exactly_where_a_saved_state_left_it(tmp_path: Path):
    batches = few_domains(4) + every_domain(4)
    straight, optimiser = build()
    train(straight, optimiser, batches[:4])
    state = optimiser.state_dict()
    tensors = {name: t.clone() for name, t in state.items() if isinstance(t, Tensor)}
    save_file(tensors, tmp_path / "state.safetensors")
    numbers = {name: n for name, n in state.items() if not isinstance(n, Tensor)}
    weights = {name: t.clone() for name, t in straight.state_dict().items()}
    train(straight, optimiser, batches[4:], seed=5)

    resumed, again = build()
    resumed.load_state_dict(weights)
    again.load_state_dict({**load_file(tmp_path / "state.safetensors"), **numbers})
    train(resumed, again, batches[4:], seed=5)
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="must count its steps"):
        again.load_state_dict({"lr": 0.1})
