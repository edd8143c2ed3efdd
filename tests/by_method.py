"""A small table, networks with parameters of domains, and trainings of them by any method."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from isthmus.data import Dataset
from isthmus.models import DomainModel, ModelConfig, build_network
from isthmus.schema import DataConfig
from isthmus.train import Budget, CheckpointDue, End, Look, TrainConfig, TrainState, train

MLORA = [{"trains": ["inputs", "backbone", "head"]}, {"trains": ["adapter"], "lr": 0.02}]


def make_table(rows: int = 900) -> pa.Table:
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 40, rows), rng.integers(0, 30, rows)
    tab = rng.choice(["home", "feed", "shop"], rows, p=[0.5, 0.3, 0.2])
    logit = np.sin(user) + np.where(tab == "shop", -2, 2) * np.cos(item)
    return pa.table(
        {
            "user": user,
            "item": item,
            "tab": tab,
            "click": (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int64),
        }
    )


def data_config() -> DataConfig:
    features = {name: {"kind": "categorical", "dim": 4} for name in ("user", "item", "tab")}
    split = {"by": "random", "fractions": (0.6, 0.2, 0.2)}
    return DataConfig.model_validate(
        {"domain": "tab", "label": "click", "features": features, "split": split}
    )


def make_dataset(cache: Path) -> Dataset:
    return Dataset.from_table(data_config(), make_table(), cache=cache)


def make_model(
    dataset: Dataset, adapter: str = "mlora", *, norm: str = "batch", seed: int = 1, **model: Any
) -> DomainModel:
    config = ModelConfig.model_validate(
        {
            "backbone": {"name": "mlp", "widths": [8, 4], "dropout": 0.2, "norm": norm},
            "adapter": {"name": adapter},
            **model,
        }
    )
    torch.manual_seed(seed)
    return build_network(config, dataset.encoder.fields, dataset.n_domains)


def by_phases(*phases: dict[str, Any], **changes: Any) -> TrainConfig:
    return settings(method={"name": "phases", "phases": phases or MLORA}, **changes)


def by_mamdr(**changes: Any) -> TrainConfig:
    own = {key: changes.pop(key) for key in ("beta", "gamma", "helpers") if key in changes}
    return settings(method={"name": "mamdr", **own}, **changes)


def settings(**changes: Any) -> TrainConfig:
    defaults = {
        "batch_rows": 100,
        "epochs": 2,
        "lr": 0.02,
        "domain_dropout": 0.1,
        "patience": 9,
        "looks_per_epoch": 2,
        "checkpoint_minutes": 0,
        "device": "cpu",
    }
    return TrainConfig(**{**defaults, **changes})


def run(
    model: nn.Module, dataset: Dataset, config: TrainConfig, budget: Budget | None = None
) -> tuple[list[Look], End]:
    events = list(train(model, dataset, config, budget=budget))
    end = events[-1]
    assert isinstance(end, End)
    return [event for event in events if isinstance(event, Look)], end


def states(model: nn.Module, dataset: Dataset, config: TrainConfig) -> Iterator[TrainState]:
    """The state after every step, which later steps leave alone."""
    for event in train(model, dataset, config):
        if isinstance(event, CheckpointDue):
            yield deepcopy(event.state)


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


def assert_same(a: nn.Module, b: nn.Module) -> None:
    assert moved(a.state_dict(), b.state_dict()) == set()
