"""Trackers: TensorBoard, MLflow, Weights & Biases. What a fit tells them, chosen in a config by name."""

from typing import Annotated

from isthmus.family import Family
from isthmus.tracking.mlflow_tracker import MlflowConfig
from isthmus.tracking.tensorboard_tracker import TensorboardConfig
from isthmus.tracking.tracker import (
    AbstractTracker,
    AbstractTrackerConfig,
    Ending,
    TrackedRun,
    flattened,
)
from isthmus.tracking.trackers import Trackers, check_trackers
from isthmus.tracking.wandb_tracker import WandbConfig

TrackerConfig = Annotated[
    TensorboardConfig | MlflowConfig | WandbConfig, Family("isthmus.trackers")
]
"""The config of any tracker, told apart by its ``name``."""

__all__ = [
    "AbstractTracker",
    "AbstractTrackerConfig",
    "Ending",
    "MlflowConfig",
    "TensorboardConfig",
    "TrackedRun",
    "TrackerConfig",
    "Trackers",
    "WandbConfig",
    "check_trackers",
    "flattened",
]
