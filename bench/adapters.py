"""Numbers 2, 3 and 8: what adapters cost, and what many domains cost. ``python -m bench.adapters``.

2. A training step (forward, backward, Adam) of HAMUR at the paper's ML-1M sizes against the same
   network without it; and against HAMUR in the form that builds a weight for each row and runs
   every domain on every row, as the formula reads and the released code does.
3. 1,000 and 10,000 domains against 3 on the same rows: factors, norms and heads per domain, optimiser inside.
8. HAMUR attached to the same two blocks from outside, against HAMUR that the network knows of.
"""

import argparse
import json
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.measure import Row, alternate, at_least, at_most, informative
from isthmus.adapters import AbstractAdapter, AdapterState, HamurConfig
from isthmus.attaching import attach
from isthmus.data.batch import Batch
from isthmus.layers.hyper_network import HyperNetwork
from isthmus.layers.routing import Routing
from isthmus.models import DomainModel, ModelConfig, build_network
from isthmus.optimisers import build_optimiser
from isthmus.schema import FittedField
from isthmus.train.device import keep_freed_memory

BATCH = 4096
DIM = 16
# Values of user, movie, gender, occupation, zip and first genre in MovieLens-1M; then the domain.
VALUES = (6040, 3706, 2, 21, 3439, 18)
BACKBONE = {"name": "mlp", "widths": [256, 128], "dropout": 0.2}
PAPER = {"bottleneck": 32, "rank": 35, "hyper_widths": [64]}
RUNS = 9
STEPS = 5  # in one turn
BOUNDS = {(8, "training step"): 1.5, (8, "prediction"): 1.3, (35, "training step"): 1.4}

Work = Callable[[], object]


def step_against_backbone() -> list[Row]:
    """Number 2."""
    keep_freed_memory()
    domain = draw_domains(3, zipf=0.0)
    hamur = training_step(make(3, PAPER), domain)
    plain = training_step(make(3), domain)
    seconds = alternate({"plain": times(plain), "hamur": times(hamur)}, runs=RUNS, warm_up=3)
    naive = training_step(make(3, naive=True), domain)
    against = alternate({"naive": naive, "hamur": hamur}, runs=5)
    return [
        at_most(
            "2. HAMUR at the paper's sizes, training step over its backbone's",
            seconds["hamur"] / seconds["plain"],
            2.2,
            backbone=milliseconds(seconds["plain"] / STEPS),
            hamur=milliseconds(seconds["hamur"] / STEPS),
        ),
        at_least(
            "2. HAMUR with a weight for each row and every domain on every row, over ours",
            against["naive"] / against["hamur"],
            20.0,
            naive=milliseconds(against["naive"]),
            hamur=milliseconds(against["hamur"]),
        ),
    ]


def many_domains() -> list[Row]:
    """Number 3."""
    keep_freed_memory()
    rows = []
    for rank in (8, 35):
        for zipf in (0.0, 1.0):
            for what, build in (("training step", training_step), ("prediction", prediction)):
                domains = (3, 1000, 10_000) if (rank, what) == (8, "training step") else (3, 1000)
                work = {
                    str(n): times(
                        build(
                            make(n, {"rank": rank}, heads="per_domain"),
                            draw_domains(n, zipf=zipf),
                        )
                    )
                    for n in domains
                }
                seconds = alternate(work, runs=RUNS, warm_up=2)
                values = {f"{n} domains": milliseconds(s / STEPS) for n, s in seconds.items()}
                sizes = "Zipf" if zipf else "equal"
                for n in domains[1:]:
                    name = f"3. rank {rank}, {sizes} sizes, {what}: {n:,} domains over 3"
                    ratio, bound = seconds[str(n)] / seconds["3"], BOUNDS.get((rank, what))
                    rows.append(
                        informative(name, ratio, **values)
                        if bound is None
                        else at_most(name, ratio, bound, **values)
                    )
    return rows


def attached_step() -> list[Row]:
    """Number 8."""
    keep_freed_memory()
    domain = draw_domains(3, zipf=0.0)
    seconds = alternate(
        {
            "built in": times(training_step(make(3, PAPER), domain)),
            "attached": times(training_step(AttachedHamur(), domain)),
        },
        runs=RUNS,
        warm_up=3,
    )
    return [
        at_most(
            "8. HAMUR attached to a two-layer MLP, training step over the built-in one's",
            seconds["attached"] / seconds["built in"],
            1.1,
            built_in=milliseconds(seconds["built in"] / STEPS),
            attached=milliseconds(seconds["attached"] / STEPS),
        )
    ]


def draw_domains(n_domains: int, *, zipf: float) -> Tensor:
    """(BATCH,) int64 in 1..n_domains, sizes falling as 1 / rank**zipf."""
    share = 1 / torch.arange(1, n_domains + 1.0) ** zipf
    generator = torch.Generator().manual_seed(0)
    return 1 + torch.multinomial(share, BATCH, replacement=True, generator=generator)


def make(
    n_domains: int,
    adapter: dict[str, object] | None = None,
    *,
    heads: str = "shared",
    naive: bool = False,
) -> DomainModel:
    """MovieLens-1M's seven fields and age, [256, 128], batch norm; with or without HAMUR."""
    torch.manual_seed(0)
    fields = [
        FittedField(f"field_{i}", "categorical", DIM, table=f"field_{i}", table_rows=values + 1)
        for i, values in enumerate((*VALUES, n_domains))
    ]
    config = {"backbone": BACKBONE, "head": heads}
    if adapter is not None:
        config["adapter"] = {"name": "hamur", **adapter}
    model = build_network(
        ModelConfig.model_validate(config),
        (*fields, FittedField("age", "numeric", 1)),
        n_domains,
    )
    if naive:
        model.adapter = NaiveHamur(
            width=128, condition_width=DIM * 7 + 1, n_domains=n_domains, bottleneck=32, rank=35
        )
    return model


def make_batch(domain: Tensor) -> Batch:
    """Random values of every field for rows of these domains."""
    generator = torch.Generator().manual_seed(1)
    columns = [torch.randint(1, n + 1, (BATCH,), generator=generator) for n in VALUES]
    return Batch(
        categorical=torch.stack([*columns, domain], dim=1).int(),
        numeric=torch.randn(BATCH, 1, generator=generator),
        lists=(),
        domain=domain,
        label=torch.randint(0, 2, (BATCH,), generator=generator).float(),
    )


def training_step(model: nn.Module, domain: Tensor) -> Work:
    """Forward, backward, Adam."""
    batch = make_batch(domain)
    optimiser = build_optimiser(model, lr=1e-3, embedding_l2=0.0, embedding_update="dense")
    model.train()

    def step() -> None:
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(model(batch), batch.label).backward()
        optimiser.step()

    return step


def prediction(model: DomainModel, domain: Tensor) -> Work:
    """Probabilities of a batch, in eval."""
    batch = make_batch(domain)
    model.eval()

    def predict() -> Tensor:
        with torch.inference_mode():
            return model(batch).sigmoid()

    return predict


def times(work: Work, steps: int = STEPS) -> Work:
    """So many steps in one turn."""

    def several() -> None:
        for _ in range(steps):
            work()

    return several


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


class TwoLayers(nn.Module):
    """A network that knows nothing of domains: two blocks and an output."""

    def __init__(self, plain: DomainModel) -> None:
        super().__init__()
        self.blocks = plain.backbone
        self.out = nn.Linear(plain.backbone.out_width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.blocks(x)).squeeze(1)


class AttachedHamur(nn.Module):
    """The network of :func:`make`, HAMUR attached behind its second block."""

    def __init__(self) -> None:
        super().__init__()
        plain = make(3)
        self.inputs = plain.inputs
        self.adapted = attach(
            TwoLayers(plain),
            at="blocks",
            adapter=HamurConfig.model_validate(PAPER),
            n_domains=3,
            condition_width=plain.inputs.width,
            example=(torch.zeros(2, plain.inputs.width),),
        )

    def forward(self, batch: Batch) -> Tensor:
        x = self.inputs(batch)
        return self.adapted(x, domain=batch.domain, condition=x)


class NaiveHamur(AbstractAdapter):
    """HAMUR behind the second block, its cell written as in :class:`NaiveCell`."""

    def __init__(self, *, width: int, n_domains: int, **sizes: int) -> None:
        super().__init__(site_widths=(2 * width, width), n_domains=n_domains)
        self.cells = self.at_each_site(
            lambda width: NaiveCell(width=width, n_domains=n_domains, **sizes)
        )

    def prepare(self, condition: Tensor, routing: Routing) -> AdapterState:
        """Keep what the hyper-network reads: it runs once for every domain, as released."""
        return AdapterState(routing, condition)


class NaiveCell(nn.Module):
    """The formula as it is written: U_d(e) and V_d(e) in full for each row and each domain."""

    def __init__(
        self, *, width: int, condition_width: int, n_domains: int, bottleneck: int, rank: int
    ) -> None:
        super().__init__()
        self.n_domains = n_domains
        self.hyper = HyperNetwork(condition_width=condition_width, widths=(64,), rank=rank)

        def factors(fan_in: int, fan_out: int) -> nn.ParameterList:
            return nn.ParameterList(
                torch.randn(fan_in, fan_out) * fan_in**-0.5 for _ in range(n_domains)
            )

        self.down_left, self.down_right = factors(width, rank), factors(rank, bottleneck)
        self.up_left, self.up_right = factors(bottleneck, rank), factors(rank, width)
        self.down_bias = nn.ParameterList(torch.zeros(bottleneck) for _ in range(n_domains))
        self.up_bias = nn.ParameterList(torch.zeros(width) for _ in range(n_domains))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(n_domains))

    def forward(self, h: Tensor, routing: Routing, condition: Tensor) -> Tensor:
        """Run every domain on every row, then keep each row's own."""
        y = h
        for d in range(self.n_domains):
            core = self.hyper(condition)
            u = torch.einsum("mi,bij,jn->bmn", self.down_left[d], core, self.down_right[d])
            v = torch.einsum("mi,bij,jn->bmn", self.up_left[d], core, self.up_right[d])
            z = torch.einsum("bf,bfj->bj", h, u) + self.down_bias[d]
            o = torch.einsum("bf,bfj->bj", z.sigmoid(), v) + self.up_bias[d]
            own = (routing.domain == d + 1).unsqueeze(1)
            y = torch.where(own, h + self.norms[d](o), y)
        return y


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(2)
    found = [row.to_dict() for row in (*step_against_backbone(), *many_domains(), *attached_step())]
    print(json.dumps(found, indent=2))
