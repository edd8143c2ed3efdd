"""TensorBoard: events in the run folder itself, which ``tensorboard --logdir runs`` shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from isthmus.tracking.tracker import AbstractTracker, AbstractTrackerConfig, Ending, TrackedRun


class TensorboardConfig(AbstractTrackerConfig):
    """Events for TensorBoard, in the run folder; none where TensorBoard is not installed."""

    library: ClassVar[str] = "tensorboard"
    extra: ClassVar[str] = "tensorboard"
    required: ClassVar[bool] = False

    name: Literal["tensorboard"] = "tensorboard"

    def open(self, run: TrackedRun) -> "TensorboardTracker":
        """Begin a file of events; those of looks that come again are marked as void."""
        return TensorboardTracker(run)


class TensorboardTracker(AbstractTracker):
    """Scalars by step. The folder of the events is the run itself, so no file is kept a second time."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.board: Any = SummaryWriter(str(run.folder), purge_step=run.step + 1)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add a scalar for each value."""
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def keep(self, path: Path) -> None:
        """Do nothing: the file lies beside the events."""

    def end(self, how: Ending) -> None:
        """Close the file of events."""
        del how
        self.board.close()
