"""Whether a training can go on from a state: of the same dataset, settings and model."""

import torch
from torch import nn

from isthmus.errors import RunError
from isthmus.sharding import boxes_of
from isthmus.train.events import TrainState
from isthmus.train.train_config import TrainConfig

FREE = ("checkpoint_minutes", "tables")  # keys that may differ: they move no number


def check_state(
    state: TrainState, *, dataset_key: str, config: TrainConfig, model: nn.Module, exact: bool
) -> None:
    """Raise RunError when ``state`` was not made by the training of this config and this model.

    Tables may have lain on another number of processes: whole tensors, or this process's part, are taken.
    ``exact``: refuse a state of another thread count or torch version too.
    """
    if state.dataset_key != dataset_key:
        raise RunError(
            "a training must be resumed on the dataset that it began with,"
            f" {state.dataset_key}, got {dataset_key}"
        )
    # A state of an earlier release knows of none of these.
    earlier = {"objectives": [], "method": {"name": "joint"}, "precision": "float32"}
    before = earlier | state.config
    for name, value in config.model_dump(mode="json").items():
        if name not in FREE and before.get(name) != value:
            raise RunError(
                f"a training must be resumed with train.{name} as it began,"
                f" {before.get(name)!r}, got {value!r}"
            )
    here = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    there = {name: tuple(tensor.shape) for name, tensor in state.model.items()}
    for name, box in boxes_of(model).items():
        if there.get(name) == box.shape:  # a whole tensor: this process takes its part
            there[name] = here[name]
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
