"""A small net, its batches, and the gradients a weighting leaves: shared by tests of weightings."""

from typing import get_args

import torch
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.layers import BankLinear
from isthmus.layers.routing import Routing
from isthmus.layers.tables import FusedTable
from isthmus.train.weighting import Weighting, WeightingName, build_weighting

NAMES: tuple[WeightingName, ...] = get_args(WeightingName)
PER_DOMAIN = ("gradnorm", "pcgrad", "cagrad")


class Net(nn.Module):
    """Shared dense layers, a table of embeddings, and a set of weights of each domain's own."""

    def __init__(self, n_domains: int = 3, width: int = 3) -> None:
        super().__init__()
        self.n_domains = n_domains
        self.table = FusedTable(rows={"item": 6}, dim=2, std=1.0)
        self.first = nn.Linear(width + 2, 4)
        self.last = nn.Linear(4, 4)
        self.own = BankLinear(n_domains=n_domains, in_width=4, out_width=1)

    def forward(self, batch: Batch) -> Tensor:
        x = torch.cat([batch.numeric, self.table(batch.categorical[:, 0])], dim=1)
        h = torch.tanh(self.last(torch.tanh(self.first(x))))
        return self.own(h, Routing(batch.domain, self.n_domains)).squeeze(1)


def net(seed: int = 0, *, sparse: bool = False, n_domains: int = 3) -> Net:
    torch.manual_seed(seed)
    model = Net(n_domains)
    model.table.sparse = sparse
    return model


def batch_of(domain: list[int], seed: int = 0, *, weighted: bool = False) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    rows = len(domain)
    return Batch(
        categorical=torch.randint(0, 6, (rows, 1), generator=draw, dtype=torch.int32),
        numeric=torch.randn(rows, 3, generator=draw),
        lists=(),
        domain=torch.tensor(domain),
        label=torch.randint(0, 2, (rows,), generator=draw).float(),
        weight=torch.rand(rows, generator=draw) + 0.5 if weighted else None,
    )


def build(
    name: WeightingName, model: nn.Module, *, n_domains: int = 3, lr: float = 0.1, seed: int = 0
) -> Weighting:
    return build_weighting(name, model, n_domains=n_domains, lr=lr, seed=seed, compiled=False)


def take(weighting: Weighting, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The gradients that a weighting leaves, dense."""
    model.zero_grad()
    weighting.backward(model(batch), batch, batch.domain)
    return gradients(model)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad.to_dense().clone()
    return found


def losses_by_hand(model: nn.Module, batch: Batch) -> dict[int, Tensor]:
    """Each domain's mean loss, row after row, with its graph."""
    logits = model(batch)
    total: dict[int, Tensor] = {}
    mass: dict[int, float] = {}
    for row in range(batch.rows):
        d, y = int(batch.domain[row]), float(batch.label[row])
        w = 1.0 if batch.weight is None else float(batch.weight[row])
        p = torch.sigmoid(logits[row])
        loss = -y * torch.log(p) - (1 - y) * torch.log(1 - p)
        total[d] = total.get(d, torch.zeros(())) + w * loss
        mass[d] = mass.get(d, 0.0) + w
    return {d: total[d] / mass[d] for d in sorted(total)}


def gradients_by_hand(
    model: nn.Module, batch: Batch, shares: dict[int, float]
) -> dict[str, Tensor]:
    model.zero_grad()
    each = losses_by_hand(model, batch)
    torch.stack([shares[d] * loss for d, loss in each.items()]).sum().backward()
    return gradients(model)


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=2e-4, atol=2e-6, msg=name)


def shares_of(weighting: Weighting, losses: dict[int, float], n_groups: int) -> dict[int, float]:
    """What each domain's loss is multiplied with, read from the gradients of the logits."""
    domain = torch.tensor(list(losses))
    wanted = torch.tensor(list(losses.values()), dtype=torch.float64)
    logits = -torch.log(torch.expm1(wanted)).float()  # label 1: the loss is log(1 + exp(-logit))
    logits.requires_grad_()
    batch = batch_of(list(losses))
    batch = Batch(batch.categorical, batch.numeric, (), domain, torch.ones(len(domain)))
    assert weighting.n_groups == n_groups
    weighting.backward(logits, batch, domain)
    assert logits.grad is not None
    slope = -torch.sigmoid(-logits.detach())
    return dict(zip(losses, (logits.grad / slope).tolist(), strict=True))


UNEQUAL = [1] * 7 + [2] * 3 + [3] * 2
