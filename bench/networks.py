"""Numbers 9 and 10: every network on equal terms. ``python -m bench --only 9,10``.

- A training step at 30 domains over the network's own step at 3, and at 1,000: time, and products,
  which are the multiplications of one step. The widths are those of a trunk of 100,000 at 3 domains.
- An epoch of MovieLens-1M with a trunk of 100,000; where the time goes, for a network that is slow.
- STAR, PLE and M2M against the same formulas written as the code of a benchmark writes them: every
  domain's layers run on all rows, and each row keeps its own; M2M's attention runs among the rows.
- Number 10: a training step of sparse experts, a row to one of them, over that of a dense network with as
  many products a row.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from bench.adapters import BATCH, DIM, VALUES, draw_domains, milliseconds, times
from bench.adapters import training_step as step_of
from bench.measure import Row, alternate, at_least, at_most, informative
from bench.models import DATA, Epoch
from bench.models import _step as learn
from isthmus.backbones import AbstractBackbone, BackboneConfig
from isthmus.backbones.backbone import Adapt, leave_alone
from isthmus.data.batch import Batch
from isthmus.data.store.dataset import Dataset
from isthmus.family import members
from isthmus.layers.routing import Routing
from isthmus.models import DomainModel, ModelConfig, build_network, sized
from isthmus.optimisers import build_optimiser
from isthmus.schema import DataConfig, FittedField
from isthmus.sources import movielens_1m
from isthmus.train.device import keep_freed_memory

TRUNK = 100_000
DOMAINS = (3, 30, 1000)
RUNS = 7
SPEED = 40_000  # rows/s of an epoch
EPOCH_RUNS = 3


def everything(folder: Path) -> list[Row]:
    """All of number 9."""
    keep_freed_memory()
    return [*many_domains(), *epochs(folder), *references()]


def many_domains() -> list[Row]:
    """Every network at 3, 30 and 1,000 domains."""
    rows = []
    for name in members(BackboneConfig):
        config = sized_at(name, 3)
        steps = {n: step_of(network(config, n), draw_domains(n, zipf=0.0)) for n in DOMAINS}
        seconds = alternate({str(n): times(step, 3) for n, step in steps.items()}, RUNS)
        products = {n: products_of(step) for n, step in steps.items()}
        told = {f"{n} domains": milliseconds(seconds[str(n)] / 3) for n in DOMAINS}
        rows += [
            at_most(
                f"9 {name}, training step: 30 domains over 3",
                seconds["30"] / seconds["3"],
                1.5,
                **told,
            ),
            at_most(
                f"9 {name}, products of a step: 1,000 domains over 3",
                products[1000] / products[3],
                2.0,
                products=f"{products[3] / 1e6:,.0f} million at 3",
                time=f"{seconds['1000'] / seconds['3']:.2f} times that at 3",
            ),
        ]
    return rows


def epochs(folder: Path) -> list[Row]:
    """An epoch of MovieLens-1M of every network."""
    table = movielens_1m(folder / "movielens") / "movielens-1m.parquet"
    dataset = Dataset.from_table(DataConfig.model_validate(DATA), table, cache=folder / "networks")
    rows = len(dataset.rows("train"))
    found = []
    for name in members(BackboneConfig):
        model = sized_network(name, dataset.encoder.fields, dataset.n_domains)
        speed = rows / alternate({name: epoch_of(model, dataset)}, EPOCH_RUNS)[name]
        more = {} if speed >= SPEED else {"where": where(model, dataset)}
        trunk = f"{model.parameter_report().trunk:,}"
        found.append(
            at_least(
                f"9 {name}, training on MovieLens-1M, thousand rows/s",
                speed / 1e3,
                SPEED / 1e3,
                trunk=trunk,
                **more,
            )
        )
    return found


def references() -> list[Row]:
    """STAR, PLE and M2M against every domain's layers on all rows."""
    rows = []
    for name, build in {"star": NaiveStar, "ple": NaivePle, "m2m": NaiveM2m}.items():
        for domains in (3, 30):
            config = sized_at(name, domains)
            ours = network(config, domains)
            naive = copy.deepcopy(ours)
            naive.backbone = build(naive.backbone, config.backbone, domains)
            domain = draw_domains(domains, zipf=0.0)
            work = {"ours": step_of(ours, domain), "theirs": step_of(naive, domain)}
            seconds = alternate(work, RUNS)
            ratio = seconds["theirs"] / seconds["ours"]
            told = {who: milliseconds(taken) for who, taken in seconds.items()}
            what = f"9 {name}, every domain's layers on all rows over ours, {domains} domains"
            rows.append(
                at_least(what, ratio, 3.0, **told)
                if domains == 3
                else informative(what, ratio, **told)
            )
    return rows


def sparse_experts() -> list[Row]:
    """Number 10."""
    keep_freed_memory()
    domain = draw_domains(3, zipf=0.0)
    rows = []
    for experts in (4, 16):
        backbone = {"name": "sparse_moe", "widths": [128, 64], "experts": experts}
        sparse = network(ModelConfig.model_validate({"backbone": backbone}), 3)
        banked = sum(p.numel() for name, p in sparse.named_parameters() if ".bank." in name)
        a_row = sparse.parameter_report().trunk - banked + banked // experts
        dense = {"backbone": {"name": "mlp", "widths": [128, 64]}, "sizes": {"trunk": a_row}}
        config = sized(ModelConfig.model_validate(dense), fields_of(3), 3)
        work = {"sparse": step_of(sparse, domain), "dense": step_of(network(config, 3), domain)}
        seconds = alternate({name: times(step, 3) for name, step in work.items()}, RUNS)
        products = {name: products_of(step) / 1e6 for name, step in work.items()}
        rows.append(
            at_most(
                f"10 one of {experts} experts a row, training step over the dense network's of equal"
                " products",
                seconds["sparse"] / seconds["dense"],
                1.5,
                sparse=milliseconds(seconds["sparse"] / 3),
                dense=milliseconds(seconds["dense"] / 3),
                products=f"{products['sparse']:,.0f} and {products['dense']:,.0f} million",
                dense_widths=" and ".join(map(str, config.backbone.sizes)),
            )
        )
    return rows


def sized_at(name: str, domains: int) -> ModelConfig:
    """The config of a network with a trunk of 100,000 at so many domains, widths in place of sizes."""
    config = ModelConfig.model_validate({"backbone": {"name": name}, "sizes": {"trunk": TRUNK}})
    return sized(config, fields_of(domains), domains)


def fields_of(domains: int) -> tuple[FittedField, ...]:
    """MovieLens-1M's seven categorical fields and age."""
    single = [
        FittedField(f"field_{i}", "categorical", DIM, table=f"field_{i}", table_rows=values + 1)
        for i, values in enumerate((*VALUES, domains))
    ]
    return (*single, FittedField("age", "numeric", 1))


def network(config: ModelConfig, domains: int) -> DomainModel:
    """The network, the same weights for the same sizes."""
    torch.manual_seed(0)
    return build_network(config, fields_of(domains), domains)


def sized_network(name: str, fields: tuple[FittedField, ...], domains: int) -> DomainModel:
    """A network with a trunk of 100,000 on these fields."""
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"backbone": {"name": name}, "sizes": {"trunk": TRUNK}})
    return build_network(config, fields, domains)


def products_of(step: Epoch) -> int:
    """Multiplications in matrix products of one training step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() // 2


def epoch_of(model: DomainModel, dataset: Dataset, batches: int | None = None) -> Epoch:
    """One epoch, from the dataset to updated weights; or its first ``batches``."""
    optimiser = build_optimiser(model, lr=1e-3)
    rows = dataset.rows("train")
    numbers = iter(range(10**6))
    model.train()

    def epoch() -> None:
        for place, batch in enumerate(rows.batches(BATCH, seed=0, epoch=next(numbers))):
            if place == batches:
                break
            learn(model, optimiser, batch)

    return epoch


def where(model: DomainModel, dataset: Dataset) -> str:
    """The three kinds of work that take most of a step."""
    few = epoch_of(model, dataset, batches=5)
    few()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        few()
    work = sorted(seen.key_averages(), key=lambda one: -one.self_cpu_time_total)
    total = sum(one.self_cpu_time_total for one in work)
    return ", ".join(f"{one.key} {one.self_cpu_time_total / total:.0%}" for one in work[:3])


class AbstractAllOnAll(AbstractBackbone):
    """A network whose domains all run on every row; each row keeps the state of its own."""

    def __init__(self, like: AbstractBackbone, domains: int) -> None:
        super().__init__()
        self.domains = domains
        self.in_width, self.out_width = like.in_width, like.out_width
        self.site_widths = (like.out_width,)


def block(fan_in: int, fan_out: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, dropout."""
    return nn.Sequential(
        nn.Linear(fan_in, fan_out), nn.BatchNorm1d(fan_out), nn.ReLU(), nn.Dropout(0.2)
    )


def blocks(fan_in: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Blocks of these widths."""
    return nn.Sequential(*map(block, (fan_in, *widths), widths))


class NaiveStar(AbstractAllOnAll):
    """``relu(norm_d(h (W * W_d) + b + b_d))``, each product of weights made anew for each domain."""

    def __init__(self, like: AbstractBackbone, config, domains: int) -> None:
        super().__init__(like, domains)
        sizes = list(zip((like.in_width, *config.widths), config.widths, strict=False))
        self.shared = nn.ParameterList(torch.randn(i, o) * i**-0.5 for i, o in sizes)
        self.own = nn.ModuleList(
            nn.ParameterList(torch.ones(i, o) for i, o in sizes) for _ in range(domains)
        )
        self.bias = nn.ModuleList(
            nn.ParameterList(torch.zeros(o) for _, o in sizes) for _ in range(domains)
        )
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.BatchNorm1d(o) for _, o in sizes) for _ in range(domains)
        )
        self.first = nn.ModuleList(nn.BatchNorm1d(like.in_width) for _ in range(domains))
        self.auxiliary = nn.Sequential(block(like.in_width, config.aux_width))
        self.auxiliary.append(nn.Linear(config.aux_width, 1))

    def forward(
        self, x: Tensor, routing: Routing | None = None, adapt: Adapt = leave_alone
    ) -> Tensor:
        """Run them all."""
        assert routing is not None
        y = x.new_zeros(len(x), self.out_width)
        for d in range(self.domains):
            own = (routing.domain == d + 1).unsqueeze(1)
            y = torch.where(own, self.state(x, d), y)
        return adapt(0, y)

    def state(self, x: Tensor, domain: int) -> Tensor:
        h = self.first[domain](x)
        mine: list[Any] = [part[domain] for part in (self.own, self.bias, self.norms)]
        for shared, own, bias, norm in zip(self.shared, *mine, strict=True):
            h = F.dropout(norm(h @ (shared * own) + bias).relu(), 0.2, self.training)
        return h

    def shortcut(self, batch: Batch, inputs: nn.Module, x: Tensor) -> Tensor:  # noqa: ARG002
        return self.auxiliary(x).squeeze(1)


class NaivePle(AbstractAllOnAll):
    """Levels of experts: shared ones and every domain's, all on all rows, a gate for each domain."""

    def __init__(self, like: AbstractBackbone, config, domains: int) -> None:
        super().__init__(like, domains)
        self.levels = nn.ModuleList()
        ends = (like.in_width, *config.widths)
        for fan_in, width in zip(ends, config.widths, strict=False):
            level = nn.ModuleDict(
                {
                    "own": nn.ModuleList(
                        nn.ModuleList(block(fan_in, width) for _ in range(config.own_experts))
                        for _ in range(domains)
                    ),
                    "shared": nn.ModuleList(
                        block(fan_in, width) for _ in range(config.shared_experts)
                    ),
                    "gates": nn.ModuleList(
                        nn.Linear(fan_in, config.own_experts + config.shared_experts)
                        for _ in range(domains)
                    ),
                    "shared_gate": nn.Linear(
                        fan_in, domains * config.own_experts + config.shared_experts
                    ),
                }
            )
            self.levels.append(level)
        self.towers = nn.ModuleList(
            blocks(config.widths[-1], config.tower_widths) for _ in range(domains)
        )

    def forward(
        self, x: Tensor, routing: Routing | None = None, adapt: Adapt = leave_alone
    ) -> Tensor:
        """Every level of every domain, then every tower."""
        assert routing is not None
        states, common = [x] * self.domains, x
        level: Any
        for level in self.levels:
            shared = [expert(common) for expert in level["shared"]]
            own = [
                [expert(h) for expert in experts]
                for experts, h in zip(level["own"], states, strict=True)
            ]
            gates = zip(level["gates"], states, own, strict=True)
            states = [mixture(gate(h), [*mine, *shared]) for gate, h, mine in gates]
            everything = [state for mine in own for state in mine] + shared
            common = mixture(level["shared_gate"](common), everything)
        y = x.new_zeros(len(x), self.out_width)
        for d, (tower, h) in enumerate(zip(self.towers, states, strict=True)):
            y = torch.where((routing.domain == d + 1).unsqueeze(1), tower(h), y)
        return adapt(0, y)


def mixture(logits: Tensor, states: list[Tensor]) -> Tensor:
    """The states, weighed by a softmax."""
    return (logits.softmax(dim=1).unsqueeze(2) * torch.stack(states, dim=1)).sum(dim=1)


class NaiveM2m(AbstractAllOnAll):
    """Attention among the rows of the batch, and weights made for every row from its domain."""

    def __init__(self, like: AbstractBackbone, config, domains: int) -> None:
        super().__init__(like, domains)
        width, dim = config.width, config.domain_dim
        self.heads = 4
        self.inner = self.heads * (like.in_width // self.heads)
        self.transformer = nn.Transformer(self.inner, self.heads, 2, 2, self.inner)
        self.domain = nn.Embedding(domains + 1, dim)
        self.experts = nn.ModuleList(block(self.inner, width) for _ in range(config.experts))
        layers = 1 + config.tower_layers
        self.weight = nn.ModuleList(nn.Linear(dim, width * width) for _ in range(layers))
        self.bias = nn.ModuleList(nn.Linear(dim, width) for _ in range(layers))
        self.read = nn.Linear(width, 1, bias=False)

    def made(self, layer: int, h: Tensor, domain: Tensor) -> Tensor:
        """A map whose weights are made for each row."""
        width = h.shape[-1]
        weight = self.weight[layer](domain).view(-1, width, width)
        return torch.bmm(h, weight) + self.bias[layer](domain).unsqueeze(1)

    def forward(
        self, x: Tensor, routing: Routing | None = None, adapt: Adapt = leave_alone
    ) -> Tensor:
        """The batch is the sequence."""
        assert routing is not None
        x = x[:, : self.inner]
        f = self.transformer(x, x)
        states = torch.stack([expert(f) for expert in self.experts], dim=1)
        domain = self.domain(routing.domain)
        share = self.read(F.leaky_relu(self.made(0, states, domain))).softmax(dim=1)
        h = (share * states).sum(dim=1, keepdim=True)
        for layer in range(1, len(self.weight)):
            h = F.leaky_relu(self.made(layer, h, domain) + h)
        return adapt(0, h.squeeze(1))
