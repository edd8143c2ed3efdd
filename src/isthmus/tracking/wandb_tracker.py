"""Weights & Biases: a run of a project, sent to the server or kept for later by ``WANDB_MODE=offline``.

Key, entity and server come from the environment or from ``wandb login``, as W&B reads them: no config
holds them. What W&B writes on this machine lies in ``RUN/wandb``.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from isthmus.tracking.tracker import AbstractTracker, AbstractTrackerConfig, Ending, TrackedRun

EXIT_CODE: Mapping[Ending, int] = {"finished": 0, "failed": 1, "stopped": 130}


class WandbConfig(AbstractTrackerConfig):
    """A run of a Weights & Biases project; WANDB_MODE=offline keeps the run for `wandb sync`."""

    library: ClassVar[str] = "wandb"
    extra: ClassVar[str] = "wandb"

    name: Literal["wandb"] = "wandb"
    project: str = Field(
        default="isthmus",
        min_length=1,
        max_length=128,
        pattern=r"^[^/\\#?%:]+$",
        description="the project that the run belongs to",
    )

    def open(self, run: TrackedRun) -> "WandbTracker":
        """Begin a run of the project, or go on with the run of the mark."""
        return WandbTracker(run, project=self.project)


class WandbTracker(AbstractTracker):
    """One run at W&B. Reads nothing of the terminal and writes nothing to it."""

    def __init__(self, run: TrackedRun, *, project: str) -> None:
        import wandb

        # Without a key W&B would ask for one on the terminal, and wait for ever; when silent it refuses.
        wandb.setup(settings=wandb.Settings(silent=True))
        self.wandb: Any = wandb
        self.mark = run.mark or secrets.token_hex(4)
        self.run: Any = wandb.init(
            project=project,
            name=run.name,
            id=self.mark,
            dir=run.folder,
            config=dict(run.config),
            resume="allow" if run.mark else None,
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True
            ),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log the values as those of a step; a second time at one step, they join the first."""
        self.run.log(dict(values), step=step)

    def keep(self, path: Path) -> None:
        """Log a file or a folder as an artefact of the run."""
        kind = "model" if path.is_dir() else "page" if path.suffix == ".html" else "file"
        artefact = self.wandb.Artifact(f"{self.mark}-{path.stem}", type=kind)
        # One by one: W&B announces a whole folder on the terminal.
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                artefact.add_file(str(file), name=str(file.relative_to(path.parent)))
        self.run.log_artifact(artefact)

    def end(self, how: Ending) -> None:
        """Close the run, with an exit code that is not 0 unless it finished."""
        self.run.finish(exit_code=EXIT_CODE[how])
