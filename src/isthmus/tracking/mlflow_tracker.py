"""MLflow: a run of an experiment, at the place that ``MLFLOW_TRACKING_URI`` names.

The place is a server, a database or a folder. User and password come from the environment, too, as
MLflow reads them: no config holds them.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field

from isthmus.tracking.tracker import (
    AbstractTracker,
    AbstractTrackerConfig,
    Ending,
    Plain,
    SafeNames,
    TrackedRun,
)
from isthmus.version import VERSION

KEY, VALUE = 250, 6_000  # characters that MLflow takes
PARAMS, METRICS = 100, 1_000  # that it takes at once
STATUS: Mapping[Ending, str] = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}

One = TypeVar("One")


class MlflowConfig(AbstractTrackerConfig):
    """A run of an MLflow experiment; MLFLOW_TRACKING_URI says where."""

    library: ClassVar[str] = "mlflow"
    extra: ClassVar[str] = "mlflow"

    name: Literal["mlflow"] = "mlflow"
    experiment: str = Field(
        default="isthmus",
        min_length=1,
        description="the experiment that the run belongs to, made where there is none",
    )

    def open(self, run: TrackedRun) -> "MlflowTracker":
        """Begin a run of the experiment, or go on with the run of the mark."""
        return MlflowTracker(run, experiment=self.experiment)


class MlflowTracker(AbstractTracker):
    """One run at MLflow. Uses MLflow's client, so the active run of the user's own code stays as it is."""

    def __init__(self, run: TrackedRun, *, experiment: str) -> None:
        from mlflow import MlflowClient

        self.client: Any = MlflowClient()
        self.names = SafeNames(limit=KEY)
        if run.mark:
            self.mark = run.mark
            self.client.update_run(self.mark, status="RUNNING")
            return
        tags = {"isthmus.version": VERSION, "isthmus.folder": str(run.folder.absolute())}
        found = self.client.get_experiment_by_name(experiment)
        place = self.client.create_experiment(experiment) if found is None else found.experiment_id
        made = self.client.create_run(place, run_name=run.name, tags=tags)
        self.mark = made.info.run_id
        self._write_config(run.config)

    def _write_config(self, config: Mapping[str, Plain]) -> None:
        from mlflow.entities import Param

        names = SafeNames(limit=KEY)
        params = [Param(names.of(key), _text(value)[:VALUE]) for key, value in config.items()]
        for part in _parts(params, PARAMS):
            self.client.log_batch(self.mark, params=part)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log a metric for each value, all of the same moment."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(self.names.of(name), value, now, step) for name, value in values.items()]
        for part in _parts(metrics, METRICS):
            self.client.log_batch(self.mark, metrics=part)

    def keep(self, path: Path) -> None:
        """Log a file, or a folder under its name, as artefacts."""
        if path.is_dir():
            self.client.log_artifacts(self.mark, str(path), artifact_path=path.name)
        else:
            self.client.log_artifact(self.mark, str(path))

    def end(self, how: Ending) -> None:
        """Close the run with MLflow's word for its end."""
        self.client.set_terminated(self.mark, status=STATUS[how])


def _text(value: Plain) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _parts(whole: Sequence[One], size: int) -> Iterator[list[One]]:
    rest = iter(whole)
    while part := list(islice(rest, size)):
        yield part
