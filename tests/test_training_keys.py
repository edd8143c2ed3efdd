"""The key of a training: every field that changes its numbers moves it, and nothing else does."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from isthmus.data import Dataset
from isthmus.experiments import Training
from isthmus.train import Budget, TrainConfig
from small_runs import clicks, write_table
from small_trainings import make_dataset, settled, training

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("table")
    return make_dataset(write_table(folder), folder / "cache")


def other_values() -> dict[str, Any]:
    made = settled()
    return {
        "model": made.model.model_copy(update={"towers": "per_domain"}),
        "train": made.train.model_copy(update={"lr": 0.02}),
        "replicate": None,  # the dataset's key tells replicates apart
        "domains": ("home",),
        "watch": ("home",),
        "scored": ("home",),
        "rows_per_domain": 50,
        "hide_domain": True,
        "half": True,
        "start": training(),
        "budget": Budget(steps=5, looks=2),
        "blind": True,
        "extends": None,  # goes with a start and domains: below
        "watch_per_domain": 20,
    }


def test_every_field_that_matters_moves_the_key(dataset: Dataset):
    changes = other_values()
    assert set(changes) == {field.name for field in fields(Training)}
    keys = {training().key(dataset)}
    for name, value in changes.items():
        if value is not None:
            keys.add(training(**{name: value}).key(dataset))
    keys.add(training(start=training(hide_domain=True)).key(dataset))
    keys.add(training(budget=Budget(steps=6, looks=2)).key(dataset))
    keys.add(training(budget=Budget(steps=5, looks=3)).key(dataset))
    keys.add(training(domains=("home", "mail")).key(dataset))
    onward = training(start=training(domains=("mail",)), domains=("home",))
    keys |= {onward.key(dataset), replace(onward, extends=True).key(dataset)}
    assert len(keys) == len(changes) + 5


def test_every_key_of_the_train_section_but_two_moves_the_key(dataset: Dataset):
    changes: dict[str, Any] = {
        "batch_rows": 64,
        "epochs": 3,
        "lr": 0.02,
        "embedding_l2": 0.0,
        "embedding_update": "lazy",
        "patience": 3,
        "looks_per_epoch": 3,
        "monitor": "logloss_pooled",
        "seed": 1,
        "domain_sampling": 0.5,
        "domain_dropout": 0.5,
        "weighting": "uniform",
        "objectives": [{"name": "domain_classifier"}],
        "method": {"name": "mamdr"},
        "clip_norm": 1.0,
        "compile": True,
        "precision": "bfloat16",
        "device": "cpu",
    }
    assert set(changes) | {"checkpoint_minutes", "tables"} == set(TrainConfig.model_fields)
    keys = {training().with_recipe(**{name: value}).key(dataset) for name, value in changes.items()}
    assert len(keys) == len(changes)
    assert training().key(dataset) not in keys
    for free in ({"checkpoint_minutes": 0}, {"tables": "sharded"}):
        assert training().with_recipe(**free).key(dataset) == training().key(dataset)


def test_what_does_not_matter_leaves_the_key(dataset: Dataset):
    calibrated = settled().model.model_copy(update={"calibration": "per_domain"})
    assert training(model=calibrated).key(dataset) == training().key(dataset)
    one = training(domains=("home", "mail"), watch=("mail", "search"), scored=("home", "mail"))
    other = training(
        domains=("mail", "home", "mail"), watch=("search", "mail"), scored=("mail", "home")
    )
    assert one.key(dataset) == other.key(dataset)
    alone = training(domains=("home",))
    assert replace(alone, watch=("home",)).key(dataset) == alone.key(dataset)
    assert training(replicate=3).key(dataset) == training().key(dataset)


def test_another_dataset_or_torch_moves_the_key(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    data = settled().data
    turned = data.model_copy(update={"split": data.split.model_copy(update={"seed": 1})})
    assert training().key(Dataset.from_table(turned, clicks())) != training().key(dataset)
    before = training().key(dataset)
    monkeypatch.setattr(torch, "__version__", torch.__version__.partition("+")[0] + "+other")
    assert training().key(dataset) == before, "a build of one version computes the same"
    monkeypatch.setattr(torch, "__version__", "1.0.0")
    assert training().key(dataset) != before
