"""The page of a run that has none yet: what can still be measured is measured, what cannot is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from isthmus.bundle import Bundle
from isthmus.config import Config
from isthmus.data import Dataset, open_table
from isthmus.data.store.dataset import dataset_key
from isthmus.disk import write_whole, writing
from isthmus.errors import IsthmusError, RunError
from isthmus.metrics import evaluate_rows
from isthmus.report.fitted import fitted_page, write_run_figures
from isthmus.run.folder import RunFolder, RunState
from isthmus.run.gate_shares import read_gates
from isthmus.run.guard.gains import guard_table, read_guard
from isthmus.run.notice import Listener, encoding
from isthmus.run.reporting.ended import CONTENT, PAGE, Ended
from isthmus.run.reporting.gathering import read_looks
from isthmus.run.scores import read_scores

Made = TypeVar("Made")


def page_of(folder: RunFolder, config: Config, state: RunState, *, tell: Listener) -> Path:
    """Give the path of a finished run's page, which is written where there is none.

    A page is drawn again from ``report.json`` where that is there. Raises RunError where it is damaged.
    """
    page = folder.path / PAGE
    if page.exists():
        return page
    with folder.locked():
        if (folder.path / CONTENT).exists():
            _draw(folder.path)
        else:
            _measure(folder, config, state, tell)
    return page


def write_figures(content: Path, folder: str | Path) -> list[Path]:
    """Write the charts of a ``report.json`` as files into a folder; give their paths.

    Raises RunError where it is damaged, where the folder cannot be written, and where matplotlib is missing.
    """
    with writing("folder", Path(folder)):
        try:
            return _drawn(content, lambda report: write_run_figures(report, folder))
        except ModuleNotFoundError as fault:
            raise RunError(str(fault)) from fault


def _draw(folder: Path) -> None:
    write_whole(folder / PAGE, _drawn(folder / CONTENT, fitted_page))


def _drawn(path: Path, draw: Callable[[dict[str, Any]], Made]) -> Made:
    """What is drawn from a ``report.json``."""
    try:
        return draw(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as fault:
        raise RunError(f"{path} is damaged: {fault!r}") from fault


def _measure(folder: RunFolder, config: Config, state: RunState, tell: Listener) -> None:
    bundle = Bundle.load(folder.bundle, reproduction=True)
    name = folder.path.absolute().name
    dataset, why = _dataset(config, state, bundle, tell)
    test = None
    if folder.has_scores("test"):
        test = read_scores(folder.scores / "test.parquet", source=name)
    looks = read_looks(folder.metrics)
    ended = Ended(folder, config, state, dataset, bundle, tell, no_dataset=why)
    ended.write_page(
        test,
        None if test is None else evaluate_rows(test),
        gates=None if state.guard else read_gates(folder.path, "test", source=name),
        epochs=looks[-1]["epoch"] if looks else 0.0,
        guard=guard_table(read_guard(folder.path)) if state.guard else None,
        at_fit=False,
    )


def _dataset(
    config: Config, state: RunState, bundle: Bundle, tell: Listener
) -> tuple[Dataset | None, str]:
    """The encoded table of a run, or why it is not at hand."""
    if bundle.history:
        return None, "the bundle was changed after its fit"
    if config.data.table is None:
        return None, "the run was given its table from Python, and the config names none"
    try:
        table = open_table(config.data.table)
        if dataset_key(config.data, table.fingerprint()) != state.dataset_key:
            return None, f"{config.data.table} is not the table that the run was trained on"
        return Dataset.from_table(config.data, table, progress=encoding(tell)), ""
    except (IsthmusError, OSError) as fault:
        return None, f"the table cannot be read: {fault}"
