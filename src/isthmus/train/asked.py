"""What a step of training asks of a model: logits, and hidden states for the objectives."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

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
    model: nn.Module, objectives: Objectives, config: TrainConfig, device: torch.device
) -> Callable[[Batch], Output]:
    """What a step of training asks of a model; a module without sites gives its logits alone.

    Under ``precision: bfloat16`` products are computed in it, forward and backward. What comes out is
    float32 again, so that losses are. Raises ConfigError where that is asked of a compiled step.
    """
    if config.compile and config.precision != "float32":
        raise ConfigError(
            f"train.precision {config.precision!r} needs train.compile false, got true"
        )
    if isinstance(model, AbstractModel):
        score = torch.compile(model.score) if config.compile else model.score
        asked = partial(score, sites=objectives.sites)
    else:
        asked = partial(_logits_alone, torch.compile(model) if config.compile else model)
    if config.precision == "float32":
        return asked
    return partial(_narrowed, asked, device.type)


def _logits_alone(forward: Callable[[Batch], Tensor], batch: Batch) -> Output:
    return Output(forward(batch), {}, {})


def _narrowed(asked: Callable[[Batch], Output], device: str, batch: Batch) -> Output:
    with torch.autocast(device, torch.bfloat16):
        output = asked(batch)
    return Output(
        output.logits.float(),
        {site: one.float() for site, one in output.hidden.items()},
        {name: one.float() for name, one in output.losses.items()},
        {name: one.float() for name, one in output.told.items()},
        None if output.beside is None else output.beside.float(),
    )
