"""What a step of training asks of a model: logits, and hidden states for the objectives."""

from collections.abc import Callable

import torch
from torch import nn

from isthmus.data.batch import Batch
from isthmus.errors import ConfigError
from isthmus.layers.sites import SiteSpec
from isthmus.models import AbstractModel, Output
from isthmus.objectives import Objectives
from isthmus.train.generators import seeded
from isthmus.train.train_config import TrainConfig


def build_objectives(model: nn.Module, config: TrainConfig) -> Objectives:
    """The config's objectives with their first weights, drawn apart from all other random numbers."""
    if not config.objectives:
        return Objectives((), SiteSpec((), 0))
    if not isinstance(model, AbstractModel):
        raise ConfigError(
            "train.objectives need a model whose hidden states can be met, an AbstractModel, got"
            f" {type(model).__name__}"
        )
    with seeded(config.seed + 2**42):
        try:
            built = Objectives(config.objectives, model.spec)
        except ValueError as fault:
            raise ConfigError(f"train: {fault}") from fault
    if built.asking and type(model).from_input is AbstractModel.from_input:
        raise ConfigError(
            f"train.objectives {built.asking!r} mixes rows, so the model must have from_input, got"
            f" {type(model).__name__} without"
        )
    return built


def scorer(
    model: nn.Module, objectives: Objectives, *, compiled: bool
) -> Callable[[Batch], Output]:
    """What a step of training asks of a model; a module without sites gives its logits alone."""
    if isinstance(model, AbstractModel):
        score = torch.compile(model.score) if compiled else model.score
        return lambda batch: score(batch, objectives.sites)
    forward = torch.compile(model) if compiled else model
    return lambda batch: Output(forward(batch), {}, {})
