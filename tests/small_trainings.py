"""Trainings of a moment on a small table, and what must be equal of two: shared by their tests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from isthmus.config import Config, validate
from isthmus.data import Dataset
from isthmus.experiments import Outcome, Training
from small_runs import settings


def settled(**train: Any) -> Config:
    return validate(Config, settings(**train))


def make_dataset(table: Path, cache: Path) -> Dataset:
    return Dataset.from_table(settled().data, table, cache=cache)


def training(**changes: Any) -> Training:
    made = settled()
    return replace(Training(model=made.model, train=made.train), **changes)


def broken(**changes: Any) -> Training:
    return training(
        train=settled(lr=1e30, embedding_l2=0.0).train, domains=("mail", "home"), **changes
    )


def results(outcome: Outcome) -> dict[str, bytes]:
    """All that an equal training must have equal, bit for bit."""
    names = ("logits.safetensors", "weights.safetensors")
    told = replace(outcome.told, seconds=0.0)
    return {name: (outcome.folder / name).read_bytes() for name in names} | {
        "told": repr(told).encode()
    }


def clean(folder: Path) -> None:
    """Outcomes and the lock, and nothing else."""
    assert {path.name for path in folder.rglob("*") if "part-" in path.name} == set()
    for path in folder.iterdir():
        assert path.name == ".lock" or (path / "outcome.json").exists(), path
