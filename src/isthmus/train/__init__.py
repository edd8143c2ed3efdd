"""Training: the only loop of the package, what it tells, and the scoring that it shares with others."""

from isthmus.train.device import resolve_device
from isthmus.train.events import Budget, CheckpointDue, End, Look, Progress, TrainEvent, TrainState
from isthmus.train.loop import train
from isthmus.train.scoring import (
    Monitor,
    check_monitor,
    score_batch,
    score_rows,
    watch_metrics,
)
from isthmus.train.train_config import TrainConfig

__all__ = [
    "Budget",
    "CheckpointDue",
    "End",
    "Look",
    "Monitor",
    "Progress",
    "TrainConfig",
    "TrainEvent",
    "TrainState",
    "check_monitor",
    "resolve_device",
    "score_batch",
    "score_rows",
    "train",
    "watch_metrics",
]
