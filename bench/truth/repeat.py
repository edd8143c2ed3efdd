"""Many repetitions side by side, each finished one kept, so that a stopped run goes on."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from isthmus.diagnosis.command import prepared
from isthmus.diagnosis.level import LEVELS
from isthmus.diagnosis.study import Study
from isthmus.disk import write_whole
from isthmus.sources.planted import Planted

TRAIN = {"batch_rows": 256, "lr": 3e-3, "patience": 2}
Result = dict[str, Any]


def repeat(
    name: str,
    one: Callable[..., Result],
    settings: Mapping[str, Mapping[str, Any]],
    folder: Path,
    jobs: int,
    tell: Callable[[str], None],
) -> dict[str, Result]:
    """``one(**setting)`` for each named setting, several at a time; finished ones are read back.

    ``jobs``: processes; 0 runs nothing more.
    """
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    done = {
        key: json.loads(path.read_text())
        for key in settings
        if (path := folder / f"{key}.json").exists()
    }
    waiting = {key: value for key, value in settings.items() if key not in done}
    if jobs == 0:
        return done
    began = time.perf_counter()
    if not waiting:
        return {key: done[key] for key in settings}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(quietly, one, dict(value)): key for key, value in waiting.items()}
        for number, future in enumerate(as_completed(running), start=1):
            key = running[future]
            done[key] = future.result()
            write_whole(folder / f"{key}.json", json.dumps(done[key]))
            spent = time.perf_counter() - began
            left = spent / number * (len(waiting) - number)
            tell(f"{name}: {len(done)}/{len(settings)} {key}, {left / 60:.0f} min left")
    return {key: done[key] for key in settings}


def quietly(one: Callable[..., Result], setting: dict[str, Any]) -> Result:
    """Run one repetition on one thread."""
    import torch

    torch.set_num_threads(1)
    return one(**setting)


@contextmanager
def study_of(
    made: Planted,
    *,
    widths: list[int],
    domain_input: bool = True,
    seeds: int = 5,
    few: int = 0,
    stages: bool = False,
    seed: int = 0,
) -> Iterator[Study]:
    """The diagnosis of a planted table, as the tool itself prepares it; nothing is trained yet.

    ``seed``: of the dataset; the trainings' seeds follow from it.
    """
    data = made.config()
    if not domain_input:
        del data["features"]["domain"]
    backbone = {"name": "mlp", "widths": widths, "dropout": 0.0, "norm": "none"}
    config = {"data": data, "model": {"backbone": backbone}, "train": TRAIN | {"seed": 100 * seed}}
    level = replace(LEVELS["standard"], seeds=seeds, few=few, stages=stages, adapted=False)
    with (
        tempfile.TemporaryDirectory() as folder,
        prepared(
            config, made.table, Path(folder) / "out", level=level, cache=Path(folder) / "cache"
        ) as (study, _),
    ):
        yield study
