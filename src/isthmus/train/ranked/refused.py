"""What several processes cannot train: whatever is not a sum over the rows of a batch."""

from torch import nn

from isthmus.errors import ConfigError
from isthmus.ranks import Ranks
from isthmus.train.train_config import TrainConfig

# The others take the gradient of each domain by itself.
WEIGHTINGS = ("proportional", "uniform", "uncertainty", "dwa", "random")


def check_ranks(model: nn.Module, config: TrainConfig, ranks: Ranks) -> None:
    """Raise ConfigError, naming the key, for what one process alone can train.

    A part of a network whose training reads the whole batch otherwise than by a norm says why in an
    attribute ``reads_batch``.
    """
    if not ranks.many:
        return
    if not config.method.sums_rows:
        raise _refusal("train.method", config.method.name, ranks, "joint or phases")
    if config.weighting not in WEIGHTINGS:
        raise _refusal(
            "train.weighting", config.weighting, ranks, f"one of {', '.join(WEIGHTINGS)}"
        )
    if config.objectives:
        names = ", ".join(str(one.name) for one in config.objectives)
        raise _refusal("train.objectives", names, ranks, "empty")
    if config.compile:
        raise _refusal("train.compile", "true", ranks, "false")
    for part in model.modules():
        if why := getattr(part, "reads_batch", None):
            raise ConfigError(
                f"a model that {ranks.size} processes train must not hold {type(part).__name__}: {why}"
            )


def _refusal(key: str, value: object, ranks: Ranks, allowed: str) -> ConfigError:
    return ConfigError(
        f"{key} must be {allowed} for a training by {ranks.size} processes, got {value}"
    )
