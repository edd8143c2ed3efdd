"""Rows whose best answer is known, and small networks to train on them."""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch
from torch import nn

from isthmus.data import Dataset
from isthmus.data.batch import Batch
from isthmus.data.store import dataset as data_rows
from isthmus.schema import FittedField
from isthmus.train import CheckpointDue, End, Look, TrainConfig, TrainEvent, TrainState, train


@dataclass
class Rows:
    """One split in memory, read as the encoded rows on disk are."""

    x: np.ndarray
    label: np.ndarray
    domain: np.ndarray  # report ids
    trained: int
    weight: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    def steps(self, batch_rows: int) -> int:
        return -(-len(self) // batch_rows)

    def batches(
        self, batch_rows: int, *, seed=None, epoch=0, start=0, sampling="proportional"
    ) -> Iterator[Batch]:
        order = np.arange(len(self))
        if seed is not None:
            np.random.default_rng([seed, epoch]).shuffle(order)
        for step in range(start, self.steps(batch_rows)):
            rows = order[step * batch_rows : (step + 1) * batch_rows]
            domain = self.domain[rows] * (self.domain[rows] <= self.trained)
            yield Batch(
                categorical=torch.from_numpy(domain.astype(np.int32)[:, None]),
                numeric=torch.from_numpy(self.x[rows]),
                lists=(),
                domain=torch.from_numpy(domain),
                label=torch.from_numpy(self.label[rows]),
                weight=None if self.weight is None else torch.from_numpy(self.weight[rows]),
            )


@dataclass
class Planted:
    """Rows whose logit is ``2 x . direction + offset of the domain``: the best AUC is known."""

    train: Rows
    validation: Rows
    truth: np.ndarray  # logits of the validation rows
    key: str = "planted"
    domain_names: tuple[str, ...] = ("a", "b", "c")
    encoder: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(
            fields=(
                FittedField("domain", "categorical", 2, "domain", 4, is_domain=True),
                FittedField("x", "numeric", 1),
            )
        )
    )

    def rows(self, split: str) -> Rows:
        return getattr(self, split)


def planted(rows: int = 4000, width: int = 6, seed: int = 0, validation: int = 4000) -> Planted:
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=width) / math.sqrt(width)
    offset = np.array([0.0, -1.0, 1.0, 2.0])

    def draw(n: int) -> tuple[Rows, np.ndarray]:
        x = rng.normal(size=(n, width)).astype(np.float32)
        domain = rng.integers(1, 4, n)
        logits = 2 * x @ direction + offset[domain]
        label = (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(np.float32)
        return Rows(x, label, domain, trained=3), logits

    (train_rows, _), (validation_rows, truth) = draw(rows), draw(validation)
    return Planted(train_rows, validation_rows, truth)


def begin(
    model: nn.Module,
    data: Planted,
    settings: TrainConfig,
    state: TrainState | None = None,
    exact: bool = True,
) -> Generator[TrainEvent, None, None]:
    return train(model, cast(Dataset, data), settings, state=state, exact=exact)


def split(data: Planted) -> data_rows.Rows:
    return cast(data_rows.Rows, data.validation)


class Linear(nn.Module):
    """Logistic regression with an offset per domain; ``dropout`` on its inputs."""

    def __init__(self, width: int = 6, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.offset = nn.Embedding.from_pretrained(torch.zeros(4, 1), freeze=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.dropout(batch.numeric) @ self.weight + self.offset(batch.domain)[:, 0]


class Deep(nn.Module):
    """A network with more parameters than a small table has rows."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.layers(batch.numeric).squeeze(1)


class Constant(nn.Module):
    """Scores that no training changes."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.zeros(1))

    def forward(self, batch: Batch) -> torch.Tensor:
        return 0 * self.idle + torch.zeros(batch.rows)


def config(**changes) -> TrainConfig:
    return TrainConfig(**{"batch_rows": 256, "epochs": 3, "lr": 0.05, "device": "cpu", **changes})


def fit(model: nn.Module, data: Planted, **changes) -> tuple[End, list[Look]]:
    events = list(begin(model, data, config(**changes)))
    end = events[-1]
    assert isinstance(end, End)
    return end, [event for event in events if isinstance(event, Look)]


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def states(model: nn.Module, data: Planted, settings: TrainConfig) -> Iterator[TrainState]:
    for event in begin(model, data, settings):
        if isinstance(event, CheckpointDue):
            yield event.state
