"""What a fit is asked to do, against what is on the disk: it begins, goes on, or is refused."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from isthmus.config import Config, differences
from isthmus.disk import check_place, writing
from isthmus.errors import RunError
from isthmus.run.folder import RunFolder
from isthmus.tracking import check_trackers

RUNS = Path("runs")
# Keys that may differ between a run and its resumption: they do not move the result.
FREE = ("train.checkpoint_minutes", "train.tables")


@dataclass(frozen=True, slots=True)
class FitPlan:
    """What is asked for, compared with what is on the disk.

    ``target``: the run folder. ``resume``: go on with the run in ``target``.
    ``allow_other_threads``: go on with another number of threads, too. ``guard``: ``strict``,
    ``balanced``, or empty for none. ``recipe``: which recipe was put over the config, in words.
    """

    config: Config
    target: Path
    resume: bool
    allow_other_threads: bool
    guard: str = ""
    recipe: str = ""

    @property
    def told_recipe(self) -> str:
        """Which recipe the run began with: a run goes on by its own config, too."""
        return self.folder.read_state().recipe if self.begun else self.recipe

    @property
    def trunk(self) -> int:
        """Give the budget in ``model.sizes``, 0 for none."""
        return 0 if self.config.model.sizes is None else self.config.model.sizes.trunk

    @property
    def folder(self) -> RunFolder:
        """Give the run folder, whether it is there or not."""
        return RunFolder(self.target)

    @property
    def begun(self) -> bool:
        """Whether there is a run to go on with."""
        return self.resume and self.folder.is_begun

    @property
    def finished(self) -> bool:
        """Whether the run to go on with is finished already."""
        return self.begun and self.folder.read_state().state == "finished"

    def check(self) -> None:
        """Raise RunError where what is in the folder does not let the run begin or go on.

        Raises ConfigError where a tracker is missing.
        """
        check_trackers(self.config.trackers)
        with writing("run folder", self.target):
            if not self.target.exists():
                check_place(self.target)  # now, not after the table is encoded
                return
        if not self.resume:
            raise RunError(f"run folder must not exist yet, got {self.target}")
        if not self.folder.is_begun:
            if not self.target.is_dir() or not self.folder.is_barely_made:
                raise RunError(f"{self.target} is not a run folder: it has no run.json")
            return
        state, old = self.folder.read_state(), self.folder.read_config()
        if state.guard != self.guard:
            raise RunError(
                f"run {self.target} must be resumed with the guard it began with,"
                f" {state.guard or 'none'}, got {self.guard or 'none'}"
            )
        new = self.config
        if new.train.embedding_update == "auto":
            resolved = {"embedding_update": old.train.embedding_update}
            new = new.model_copy(update={"train": new.train.model_copy(update=resolved)})
        if self.trunk:
            if state.trunk != self.trunk:
                was = state.trunk or None
                self._refuse([f"model.sizes.trunk was {was}, is {self.trunk}"])
            # The widths follow from the table, see `check_sizes`; all else can be compared now.
            old, new = without_widths(old), without_widths(new)
        self._check_same(old, new)
        if state.state == "finished" or self.allow_other_threads:
            return
        if state.threads != torch.get_num_threads():
            raise RunError(
                f"run {self.target} must be resumed with {state.threads} threads as it began, got"
                f" {torch.get_num_threads()}: another count changes the last bits of the result"
                " (--allow-other-threads accepts that)"
            )

    def check_sizes(self, config: Config) -> None:
        """Raise RunError where the widths that meet the budget are others than the run began with.

        ``config``: the config with its widths. The widths differ where their proportions changed.
        """
        if self.begun and self.trunk:
            old = self.folder.read_config()
            self._check_same(old, config.model_copy(update={"train": old.train}))

    def _check_same(self, old: Config, new: Config) -> None:
        old, new = without_table(old), without_table(new)
        self._refuse([text for text in differences(old, new) if text.split(" ")[0] not in FREE])

    def _refuse(self, changed: Sequence[str]) -> None:
        if changed:
            raise RunError(
                f"run {self.target} must be resumed with the config it began with, got:"
                f" {'; '.join(changed)}"
            )

    def make_folder(self) -> None:
        """Make the run folder, unless a fit that was stopped left one to go on with."""
        if not (self.resume and self.target.exists()):
            self.folder.create()

    def check_table(self, key: str) -> None:
        """Raise RunError where the table is another one than the run began with.

        ``key``: see `isthmus.data.store.dataset.dataset_key`.
        """
        if self.begun and (was := self.folder.read_state().dataset_key) != key:
            raise RunError(
                f"run {self.target} must be resumed with the table it began with, but its files"
                f" changed since: their key was {was}, is {key}"
            )


def target_folder(config: Any, out: str | Path | None, resume: bool) -> Path:
    """Choose the run folder.

    ``out`` is the run folder where it is given. A new run goes to ``runs/NAME-TIME``, where NAME is
    the name of the config's file. To resume, the last run of that name is taken. Raises RunError
    where there is none.
    """
    if out is not None:
        return Path(out)
    name = Path(config).absolute().stem if isinstance(config, str | Path) else "run"
    if name == "config":
        name = Path(config).absolute().parent.name or name
    if resume:
        found = sorted(RUNS.glob(f"{name}-[0-9]*"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise RunError(f"a run to resume must exist, got none named {name} in {RUNS}/")
        return found[-1]
    base = RUNS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    target, number = base, 2
    while target.exists():
        target, number = base.with_name(f"{base.name}-{number}"), number + 1
    return target


def without_table(config: Config) -> Config:
    """Leave out the path of the table, whose files are compared themselves, and the trackers."""
    data = config.data.model_copy(update={"table": None})
    return config.model_copy(update={"data": data, "trackers": ()})


def without_widths(config: Config) -> Config:
    """Leave out how wide the network is. All else is compared: each width becomes the smallest."""
    model = config.model.scaled(0.0).model_copy(update={"sizes": None})
    return config.model_copy(update={"model": model})
