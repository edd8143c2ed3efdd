"""The folder of one study: what stands in it, who may write, and what the study is of.

    study.json         the config, the dataset, the space: what makes the study this one
    journal.log        every trial, as Optuna writes it
    reference.npy      logits of the reference on the validation rows
    best.yaml          the best feasible trial's config, ready for ``fit``
    trials.json, trials.md, report.html    the same content three times

``study.json`` is the first file in a new folder. The last four are written anew after each trial.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from isthmus.config import Config, differences, validate
from isthmus.disk import (
    check_place,
    only_writer,
    remove_leftovers,
    whole_file,
    write_whole,
    writing,
)
from isthmus.errors import BundleError, ConfigError, RunError
from isthmus.run.fit_plan import FREE, without_table
from isthmus.version import VERSION

FORMAT = 1


@dataclass(frozen=True, slots=True)
class StudyIdentity:
    """What two studies must share to be one.

    ``space``: bounds and options by key. ``portfolio``: the names of the recipes, in their order.
    """

    config: Config
    dataset_key: str
    space: dict[str, str]
    portfolio: tuple[str, ...]


class StudyFolder:
    """A study's folder on disk. The class knows the names in the folder, and nothing of trials."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity_file = path / "study.json"
        self.journal = path / "journal.log"
        self.reference = path / "reference.npy"
        self.best = path / "best.yaml"
        self.json = path / "trials.json"
        self.markdown = path / "trials.md"
        self.page = path / "report.html"

    def check(self, config: Config) -> None:
        """Raise RunError where the folder does not let a study of this config begin or go on."""
        with writing("study folder", self.path):
            if not self.path.exists():
                check_place(self.path)  # now, not after the table is encoded
                return
            if not self.path.is_dir():
                raise RunError(f"a study folder must be a folder, got the file {self.path}")
            others = [one.name for one in self.path.iterdir() if not one.name.startswith(".")]
        if self.identity_file.exists():
            found = differences(without_table(self._identity().config), without_table(config))
            changed = [text for text in found if text.split(" ")[0] not in FREE]
            if changed:
                raise RunError(
                    f"study {self.path} must go on with the config it began with, got:"
                    f" {'; '.join(changed)}"
                )
        elif others:
            raise RunError(
                f"a study folder must be new or hold study.json, got {self.path} with"
                f" {', '.join(sorted(others)[:3])}"
            )

    def check_table(self, key: str) -> None:
        """Raise RunError where the table is another one than the study began with.

        ``key``: see `isthmus.data.store.dataset.dataset_key`.
        """
        if self.identity_file.exists() and (was := self._identity().dataset_key) != key:
            raise RunError(
                f"study {self.path} must go on with the table it began with, but its files changed"
                f" since: their key was {was}, is {key}"
            )

    @contextmanager
    def opened(self, identity: StudyIdentity) -> Iterator[None]:
        """Be the only process that writes in the folder, which is made where it is missing.

        Raises RunError while another process holds the folder, and where the space or the
        portfolio is another one than the study began with.
        """
        with writing("study folder", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with only_writer(self.path), writing("study folder", self.path):
            remove_leftovers(self.path)
            if not self.identity_file.exists():
                self._begin(identity)
            old = self._identity()
            for what, was, now in (
                ("search space", old.space, identity.space),
                ("portfolio", list(old.portfolio), list(identity.portfolio)),
            ):
                if was != now:
                    raise RunError(
                        f"study {self.path} must go on with the {what} it began with, {was},"
                        f" got {now}: another version of isthmus began it"
                    )
            yield

    def write_reference(self, logits: Float64[np.ndarray, " rows"]) -> None:
        """Keep the logits that all trials are compared with."""
        with whole_file(self.reference) as temporary, temporary.open("wb") as file:
            np.save(file, logits, allow_pickle=False)

    def read_reference(self, rows: int) -> Float64[np.ndarray, " rows"]:
        """Read what `write_reference` kept. Raises BundleError where it is missing or damaged."""
        try:
            logits = np.load(self.reference)
        except (OSError, ValueError, EOFError) as fault:
            raise BundleError(f"{self.reference} must be readable, got: {fault}") from fault
        if logits.shape != (rows,):
            raise BundleError(f"{self.reference} must hold {rows} logits, got shape {logits.shape}")
        return logits

    def write_report(self, report: dict[str, Any], markdown: str, page: str, best: str) -> None:
        """Replace the files that people read. ``best``: empty where no trial is feasible yet."""
        if best:
            write_whole(self.best, best)
        write_whole(self.markdown, markdown + "\n")
        write_whole(self.page, page)
        text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False)
        write_whole(self.json, text + "\n")

    def _begin(self, identity: StudyIdentity) -> None:
        content = {
            "format": FORMAT,
            "isthmus": VERSION,
            "dataset_key": identity.dataset_key,
            "space": identity.space,
            "portfolio": list(identity.portfolio),
            "config": identity.config.model_dump(mode="json"),
        }
        write_whole(self.identity_file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def _identity(self) -> StudyIdentity:
        try:
            content = json.loads(self.identity_file.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise RunError(
                    f"a study folder must have format {FORMAT}, got {content['format']} in"
                    f" {self.path}, written by isthmus {content.get('isthmus')}"
                )
            return StudyIdentity(
                config=validate(Config, content["config"]),
                dataset_key=content["dataset_key"],
                space=content["space"],
                portfolio=tuple(content["portfolio"]),
            )
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as fault:
            raise BundleError(f"{self.identity_file} is damaged: {fault}") from fault
