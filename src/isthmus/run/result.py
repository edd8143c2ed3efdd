"""A finished run: evaluate it, predict with it, compare it with another."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.bundle import Bundle
from isthmus.config import Config
from isthmus.errors import RunError
from isthmus.metrics import Comparison, Evaluation, ScoredRows, TextTable, evaluate_rows
from isthmus.metrics import compare as compare_rows
from isthmus.run.external import predict, predict_to, score_external
from isthmus.run.folder import RunFolder, RunState
from isthmus.run.guard.gains import guard_table, read_guard
from isthmus.run.notice import Listener, silent
from isthmus.run.scores import read_scores

SPLITS = ("test", "validation")


class Run:
    """A training that is finished, in its folder. Made by `isthmus.fit` and `Run.open`.

    ``path``: the folder. ``config``: with every default filled in. ``state``: what ``run.json`` says.
    """

    def __init__(self, path: Path, config: Config, state: RunState) -> None:
        self.path = path
        self.config = config
        self.state = state

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open a run folder; raises RunError where it is none, or is not finished."""
        folder = RunFolder(Path(path))
        state = folder.read_state()
        if state.state != "finished":
            raise RunError(
                f"run {path} must be finished, got one that was stopped or still trains;"
                f" go on with: isthmus fit {folder.config_file} --resume --out {path}"
            )
        return cls(Path(path), folder.read_config(), state)

    @property
    def name(self) -> str:
        """What tables call it: the folder's name."""
        return self.path.absolute().name

    @cached_property
    def bundle(self) -> Bundle:
        """The model with its encoder; raises BundleError where it must not be served."""
        return Bundle.load(RunFolder(self.path).bundle)

    def scored(self, split: str = "test") -> ScoredRows:
        """The logits of the ``test`` or ``validation`` rows, as they were after training."""
        if split not in SPLITS:
            raise RunError(f"split must be test or validation, got {split!r}")
        return read_scores(RunFolder(self.path).scores / f"{split}.parquet", source=self.name)

    def guard(self) -> TextTable | None:
        """What serves each domain, and what that gained and cost; None for a run without a guard.

        Raises RunError where ``guard.json`` is missing or damaged.
        """
        if not self.state.guard:
            return None
        return guard_table(read_guard(self.path))

    def evaluate(
        self, split: str = "test", *, data: Any = None, progress: Listener | None = None
    ) -> Evaluation:
        """Metrics of every domain with 95 % intervals.

        ``split``: ``test`` or ``validation``. ``data``: score this whole labelled table instead (a
        path or a frame); its split is named ``external``. Raises RunError, or SchemaError for what
        the table lacks.
        """
        if data is None:
            return evaluate_rows(self.scored(split))
        bundle = Bundle.load(RunFolder(self.path).bundle, reproduction=True)
        tell = progress or silent
        return evaluate_rows(score_external(bundle, data, source=self.name, progress=tell))

    def predict(self, table: Any) -> np.ndarray:
        """Probabilities (rows,) float64 of a positive label, in the table's order.

        Warns of domains that were never trained; their rows get the unknown domain's answer.
        """
        return predict(self.bundle, table)

    def predict_to(
        self, table: Any, output: str | Path, *, progress: Listener | None = None
    ) -> int:
        """Write ``table`` with a column ``score`` added as one file; gives its rows.

        CSV where the name ends in ``.csv`` or ``.tsv``, else Parquet. Rows keep their order, columns
        stay as they are, in one type over all files, and memory is bounded. Raises SchemaError where
        the table has a column ``score`` or types that do not go together, RunError where ``output``
        exists or cannot be written.
        """
        return predict_to(self.bundle, table, Path(output), progress=progress or silent)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def compare(a: Run | str | Path, b: Run | str | Path, *, split: str = "test") -> Comparison:
    """The paired difference b - a per domain, on the same rows, with intervals.

    Raises RunError, saying what differs, unless both runs scored the same rows of one table.
    """
    runs = [run if isinstance(run, Run) else Run.open(run) for run in (a, b)]
    left, right = (run.scored(split) for run in runs)
    if left.source == right.source:
        left, right = (
            replace(rows, source=str(run.path))
            for rows, run in zip((left, right), runs, strict=True)
        )
    return compare_rows(left, right)
