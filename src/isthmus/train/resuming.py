"""Whether a training can go on from a state: of the same dataset, settings and model."""

import torch
from torch import nn

from isthmus.errors import RunError
from isthmus.train.events import TrainState
from isthmus.train.train_config import TrainConfig


def check_state(
    state: TrainState, *, dataset_key: str, config: TrainConfig, model: nn.Module, exact: bool
) -> None:
    """Raise RunError when ``state`` was not made by the training of this config and this model.

    ``exact``: refuse a state of another thread count or torch version too.
    """
    if state.dataset_key != dataset_key:
        raise RunError(
            "a training must be resumed on the dataset that it began with,"
            f" {state.dataset_key}, got {dataset_key}"
        )
    # A state of an earlier release knows of neither.
    before = {"objectives": [], "method": {"name": "joint"}} | state.config
    for name, value in config.model_dump(mode="json").items():
        if name != "checkpoint_minutes" and before.get(name) != value:
            raise RunError(
                f"a training must be resumed with train.{name} as it began,"
                f" {before.get(name)!r}, got {value!r}"
            )
    here = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    there = {name: tuple(tensor.shape) for name, tensor in state.model.items()}
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise RunError(
                f"a training must be resumed with the model that it began with, whose {name!r} has"
                f" shape {there.get(name)}, got {here.get(name)}"
            )
    if exact and state.threads != torch.get_num_threads():
        raise RunError(
            "a training is resumed bit for bit only with the thread count that it began with,"
            f" {state.threads}, got {torch.get_num_threads()}"
        )
    if exact and state.torch_version != torch.__version__:
        raise RunError(
            "a training is resumed bit for bit only with the torch that it began with,"
            f" {state.torch_version}, got {torch.__version__}"
        )
